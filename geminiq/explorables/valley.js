// Four optimizers race down a landscape, from wherever the ball is dragged (lesson 13).
import { choose, create, fold, follow, initialize, stage } from "./base.js";

const CHOICES = ["landscape", "start", "rate", "best", "falling", "step", "ways"];
const LAST = 100;                     // steps of a race
const FAR = 100;                      // whoever is farther out does not come back
const [WIDTH, HEIGHT] = [4, 3];       // the map shows x from −4 to 4, y from −3 to 3
const HALF = Math.sqrt(0.5);          // turns by 45°

// The landscapes, as in Python: height and slope; and the line of one height, by an angle.
const above = (x, y) => y + 2 - x * x / 4;   // the bottom of the canyon
const LANDSCAPES = {
  "long valley": { formula: "½ (x² + 49 y²)", lowest: [0, 0], start: [-3, 1],
    height: (x, y) => 0.5 * (x * x + 49 * y * y), slope: (x, y) => [x, 49 * y],
    line: (radius, c, s) => [radius * c, radius * s / 7] },
  "turned valley": { formula: "½ (25 x² − 48 x y + 25 y²), which is the long valley turned by 45°", lowest: [0, 0], start: turned([-3, 1], HALF),
    height: (x, y) => 0.5 * (25 * x * x - 48 * x * y + 25 * y * y), slope: (x, y) => [25 * x - 24 * y, 25 * y - 24 * x],
    line: (radius, c, s) => turned([radius * c, radius * s / 7], HALF) },
  "bent canyon": { formula: "½ (x − 2)² + 5 (y + 2 − x²/4)²", lowest: [2, -1], start: [-3.5, 2.5],
    height: (x, y) => 0.5 * (x - 2) * (x - 2) + 5 * above(x, y) * above(x, y), slope: (x, y) => [x - 2 - 5 * above(x, y) * x, 10 * above(x, y)],
    line(radius, c, s) {
      const x = 2 + radius * c;
      return [x, x * x / 4 - 2 + radius * s / Math.sqrt(10)];
    } },
};

function turned([x, y], sine) {
  return [x * HALF - y * sine, x * sine + y * HALF];
}

// The ways, as in Python: from the slope of one number, and what is remembered of it, its step at rate 1.
const WAYS = {
  SGD: (slope) => slope,
  momentum(slope, memory) {
    memory.m = 0.9 * memory.m + slope;
    return memory.m;
  },
  Adam(slope, memory) {
    memory.m = 0.9 * memory.m + 0.1 * slope;
    memory.v = 0.95 * memory.v + 0.05 * slope * slope;
    memory.ones_m = 0.9 * memory.ones_m + 0.1;
    memory.ones_v = 0.95 * memory.ones_v + 0.05;
    return memory.m / memory.ones_m / (Math.sqrt(memory.v / memory.ones_v) + 1e-8);
  },
  sign(slope, memory) {
    memory.m = 0.9 * memory.m + 0.1 * slope;
    return Math.sign(memory.m);
  },
};

export function walk(landscape, start, way, rate, steps, falling) {
  const { slope } = LANDSCAPES[landscape], memories = start.map(() => ({ m: 0, v: 0, ones_m: 0, ones_v: 0 })), points = [[...start]];
  for (let step = 0; step < steps; step++) {
    const now = falling ? rate * (1 - step / steps) : rate, slopes = slope(...points[step]);
    points.push(points[step].map((number, i) => number - now * WAYS[way](slopes[i], memories[i])));
    if (Math.max(...points[step + 1].map(Math.abs)) > FAR) break;
  }
  return points;
}

export const heights = (landscape, points) => points.map((point) => LANDSCAPES[landscape].height(...point));

// The rate whose highest point among the last ten is the lowest.
export function bestRate(landscape, start, way, steps, falling, rates) {
  let [best, lowest] = [rates[0], Infinity];
  for (const rate of rates) {
    const points = walk(landscape, start, way, rate, steps, falling);
    const highest = points.length > steps ? Math.max(...heights(landscape, points.slice(-10))) : Infinity;
    if (highest < lowest) [best, lowest] = [rate, highest];
  }
  return best;
}

function render({ model, el }) {
  const race = raceOf(model), play = player(model), table = fold("The heights in numbers", ["way", "rate", "start", "step 10", "step 30", "step 100"], () =>
    race().map(({ way, rate, height }) => [way, rate, ...[0, 10, 30, LAST].map((step) => (step in height ? inFigures(height[step]) : "out of sight"))]));
  const map = mapOf(model, race), chart = chartOf(model, race), legend = legendOf(model, race);
  const formula = create("small", { class: "formula" }), status = create("output", { class: "status", "aria-live": "polite" });

  function draw() {
    formula.textContent = `height = ${LANDSCAPES[model.get("landscape")].formula}`;
    for (const part of [map, chart, legend, table]) (part.update ?? part.fill)();
    status.setAttribute("aria-live", play.playing() ? "off" : "polite");
    status.value = inSentences(model, race());
  }

  stage(el, model, "Drag the ball to where it shall start, or move it by the arrow keys. Four ways go down from there.").append(create("style", {}, LOOK),
    create("div", { class: "bar" }, menuOf(model), formula),
    create("div", { class: "bar" }, rateOf(model), tick(model, "best", "each at its own best rate"), tick(model, "falling", "the rate falls to zero")),
    create("div", { class: "bar" }, play.element, stepOf(model)),
    create("div", { class: "ground" }, map.element, create("div", { class: "side" }, legend.element, chart.element)), status, table.element);
  for (const name of CHOICES) model.on(`change:${name}`, draw);
  play.then(draw);
  draw();
}

// The ways on show: each with its rate, its points and their heights.
function raceOf(model) {
  let known = "", rates = {};

  function own(way) {
    const [landscape, start, falling] = ["landscape", "start", "falling"].map((name) => model.get(name));
    const now = JSON.stringify([landscape, start, falling]);
    if (now !== known) [known, rates] = [now, {}];
    return (rates[way] ??= bestRate(landscape, start, way, LAST, falling, model.get("rates")));
  }

  return () => shown(model).map((way) => {
    const rate = model.get("best") ? own(way) : model.get("rate");
    const points = walk(model.get("landscape"), model.get("start"), way, rate, LAST, model.get("falling"));
    return { way, rate, points, height: heights(model.get("landscape"), points) };
  });
}

const shown = (model) => Object.keys(WAYS).filter((way) => model.get("ways").includes(way));
const kept = (number, most) => Math.max(-most, Math.min(most, number));
const signed = (number) => number.toFixed(2).replace("-", "−").replace("−0.00", "0.00");
const inPlace = ([x, y]) => `x ${signed(x)}, y ${signed(y)}`;

function inFigures(height) {
  if (height && height < 0.0001) return "under 0.0001";
  return height >= 99.95 ? Math.round(height).toLocaleString("en") : String(Number(height.toPrecision(2)));
}

function inSentences(model, race) {
  const step = model.get("step"), best = model.get("best"), lost = race.filter(({ height }) => !(step in height));
  const start = LANDSCAPES[model.get("landscape")].height(...model.get("start"));
  if (!race.length) return "No way is on show: tick one.";
  const at = best ? ", each at its own best rate for 100 steps" : ` at rate ${model.get("rate")}`;
  const told = race.filter((one) => !lost.includes(one)).map(({ way, rate, height }) => `${way} ${inFigures(height[step])}${best ? ` (rate ${rate})` : ""}`);
  const gone = lost.map(({ way, height }) => ` ${way}: out of sight at step ${height.length - 1}.`).join("");
  if (!step) return `The start is ${inFigures(start)} above the ground, at ${inPlace(model.get("start"))}.`;
  return `After ${step} ${step === 1 ? "step" : "steps"}${at}${model.get("falling") ? ", which falls to zero" : ""}: ` +
    (told.length ? `${told.join(", ")} above the ground.` : "none is left.") + gone;
}

function move(model, [x, y]) {
  const round = (number) => Number(number.toFixed(2)) || 0;
  choose(model, "start", [round(kept(x, WIDTH)), round(kept(y, HEIGHT))]);
}

// Turning the valley turns the start with it; other landscapes have a start of their own.
function menuOf(model) {
  const select = create("select", {}, ...Object.keys(LANDSCAPES).map((name) => create("option", {}, name)));
  select.addEventListener("change", () => {
    const way = { "turned valley": HALF, "long valley": -HALF }[select.value], was = model.get("landscape");
    const exact = (number, i) => kept(Number(number.toFixed(9)), [WIDTH, HEIGHT][i]);
    const start = way && was.endsWith("valley") ? turned(model.get("start"), way).map(exact) : LANDSCAPES[select.value].start;
    choose(model, "landscape", select.value);
    choose(model, "start", start);
  });
  follow(model, "landscape", () => (select.value = model.get("landscape")));
  return create("label", {}, "landscape", select);
}

function rateOf(model) {
  const rates = model.get("rates"), input = create("input", { type: "range", min: 0, max: rates.length - 1 }), number = create("output");
  const nearest = () => rates.reduce((best, rate, i) => (Math.abs(Math.log(rate / model.get("rate"))) < Math.abs(Math.log(rates[best] / model.get("rate"))) ? i : best), 0);
  input.addEventListener("input", () => {
    choose(model, "rate", rates[input.valueAsNumber]);     // before what moves the slider back
    choose(model, "best", false);
  });

  function update() {
    input.value = nearest();
    number.value = model.get("best") ? "its own" : model.get("rate");
    input.setAttribute("aria-valuetext", model.get("best") ? "each its own" : model.get("rate"));
  }

  model.on("change:best", update);
  follow(model, "rate", update);
  return create("label", { class: "rate" }, "learning rate", input, number);
}

function tick(model, name, label) {
  const input = create("input", { type: "checkbox" });
  input.addEventListener("change", () => choose(model, name, input.checked));
  follow(model, name, () => (input.checked = model.get(name)));
  return create("label", {}, input, label);
}

function stepOf(model) {
  const input = create("input", { type: "range", min: 0, max: LAST }), number = create("output");
  input.addEventListener("input", () => choose(model, "step", input.valueAsNumber));
  follow(model, "step", () => (number.value = input.value = model.get("step")));
  return create("label", { class: "step" }, "step", input, number);
}

// All steps in six seconds; for whoever wants nothing to move by itself, ten steps at a time.
function player(model) {
  const calm = matchMedia("(prefers-reduced-motion: reduce)"), element = create("button", { type: "button" }), ends = [];
  let last = null;     // the moment and the step of the last frame

  function label() {
    element.textContent = last ? "Pause" : calm.matches ? "Ten steps on" : "Play";
  }

  function stop() {
    last = null;
    label();
    ends.forEach((end) => end());
  }

  function frame(now) {
    if (!last || !element.isConnected) return;
    if (model.get("step") !== Math.floor(last.step)) last.step = model.get("step");    // moved by hand meanwhile
    last = { now, step: Math.min(LAST, last.step + (now - (last.now ?? now)) * LAST / 6000) };
    choose(model, "step", Math.floor(last.step));
    if (last.step < LAST) requestAnimationFrame(frame);
    else stop();
  }

  element.addEventListener("click", () => {
    const step = model.get("step") === LAST ? 0 : model.get("step");
    if (last) return stop();
    if (calm.matches) return choose(model, "step", step === model.get("step") ? Math.min(LAST, step + 10) : 0);
    choose(model, "step", step);
    last = { now: null, step };
    label();
    requestAnimationFrame(frame);
  });
  calm.addEventListener("change", label);
  label();
  return { element, playing: () => last !== null, then: (end) => ends.push(end) };
}

// Shapes that tell the ways apart without color, around (0, 0), of size 1.
const SHAPES = { SGD: "M-.9,0 a.9,.9 0 1 0 1.8,0 a.9,.9 0 1 0 -1.8,0 Z", momentum: "M-.8,-.8 H.8 V.8 H-.8 Z", Adam: "M0,-1.15 L1.1,.75 H-1.1 Z",
  sign: "M0,-1.2 L1.2,0 L0,1.2 L-1.2,0 Z" };
const RADII = [0.4, 0.8, 1.4, 2.2, 3.2, 4.5, 6.5, 9, 12, 16, 21, 28];    // of the lines, along the valley

function mapOf(model, race) {
  const lines = svg("g", { class: "lines" }), paths = svg("g"), star = svg("path", { class: "star", d: STAR });
  const ball = svg("g", { class: "start", role: "slider", tabindex: 0, "aria-label": "where all start", "aria-valuemin": -WIDTH, "aria-valuemax": WIDTH },
    svg("circle", { class: "reach", r: 0.42 }), svg("circle", { class: "ring", r: 0.2 }));
  const element = svg("svg", { class: "map", viewBox: `${-WIDTH} ${-HEIGHT} ${2 * WIDTH} ${2 * HEIGHT}`, role: "group", "aria-label": "the landscape from above" },
    lines, star, paths, ball);

  function place(event) {
    const { left, top, width } = element.getBoundingClientRect(), scale = 2 * WIDTH / width;
    return [(event.clientX - left) * scale - WIDTH, HEIGHT - (event.clientY - top) * scale];
  }

  element.addEventListener("click", (event) => ball.contains(event.target) || move(model, place(event)));
  ball.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    ball.focus({ focusVisible: false });
    ball.setPointerCapture(event.pointerId);
  });
  ball.addEventListener("pointermove", (event) => ball.hasPointerCapture(event.pointerId) && move(model, place(event)));
  ball.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key], small = event.shiftKey ? 0.01 : 0.1;
    if (!way && event.key !== "Home") return;
    event.preventDefault();
    if (way) move(model, model.get("start").map((number, i) => number + small * way[i]));
    else choose(model, "start", LANDSCAPES[model.get("landscape")].start);
  });

  function ground() {
    const { line, lowest } = LANDSCAPES[model.get("landscape")], turn = Array.from({ length: 120 }, (_, i) => (i * Math.PI) / 60);
    lines.replaceChildren(...[...RADII].reverse().map((radius) =>
      svg("path", { d: `M${turn.map((t) => at(line(radius, Math.cos(t), Math.sin(t)))).join(" ")} Z` })));
    star.setAttribute("transform", `translate(${at(lowest)})`);
  }

  function update() {
    const step = model.get("step"), start = model.get("start");
    paths.replaceChildren(...race().flatMap(({ way, points }) => {
      const [done, rest] = [points.slice(0, step + 1), points.slice(step)].map((part) => `M${part.map(at).join(" ")}`);
      const here = points[step] ? [svg("path", { class: `${way} ball`, d: SHAPES[way], transform: `translate(${at(points[step])}) scale(.12)` })] : [];
      return [...(points[step] ? [svg("path", { class: `${way} rest`, d: rest })] : []), svg("path", { class: `${way} done`, d: done }), ...here];
    }));
    ball.setAttribute("transform", `translate(${at(start)})`);
    ball.setAttribute("aria-valuenow", start[0].toFixed(2));
    ball.setAttribute("aria-valuetext", `${inPlace(start)}, ${inFigures(LANDSCAPES[model.get("landscape")].height(...start))} above the ground`);
  }

  follow(model, "landscape", ground);
  return { element, update };
}

const at = ([x, y]) => `${x.toFixed(3)},${(-y).toFixed(3)}`;
const STAR = `M${Array.from({ length: 10 }, (_, i) => at([Math.sin(i * Math.PI / 5), Math.cos(i * Math.PI / 5)].map((n) => n * (i % 2 ? 0.09 : 0.22)))).join(" ")} Z`;

// Height over the steps, on a scale of powers of ten.
const [TOP, BOTTOM] = [3, -5];
const CHART = { left: 52, right: 296, top: 8, bottom: 214 };
const across = (step) => CHART.left + (step / LAST) * (CHART.right - CHART.left);
const down = (power) => CHART.top + ((TOP - Math.max(BOTTOM, Math.min(TOP, power))) / (TOP - BOTTOM)) * (CHART.bottom - CHART.top);

function chartOf(model, race) {
  const curves = svg("g"), cursor = svg("path", { class: "cursor" }), text = (x, y, words, anchor) => svg("text", { x, y, "text-anchor": anchor }, words);
  const marks = [3, 1, -1, -3, -5].flatMap((power) => [svg("path", { class: "mark", d: `M${CHART.left},${down(power)} H${CHART.right}` }),
    text(CHART.left - 5, down(power) + 4, power > 0 ? String(10 ** power) : (10 ** power).toFixed(-power), "end")]);
  const element = svg("svg", { class: "chart", viewBox: "0 0 300 236", "aria-hidden": "true" }, ...marks,
    text(across(0), 229, "0", "start"), text(across(25), 229, "step", "middle"), text(across(50), 229, "50", "middle"), text(across(LAST), 229, String(LAST), "end"), cursor, curves);

  function look(event) {
    const { left, width } = element.getBoundingClientRect(), x = ((event.clientX - left) / width) * 300;
    choose(model, "step", Math.round(Math.max(0, Math.min(1, (x - CHART.left) / (CHART.right - CHART.left))) * LAST));
  }

  element.addEventListener("pointerdown", look);
  element.addEventListener("pointermove", (event) => event.buttons && look(event));

  function update() {
    const step = model.get("step"), power = (height) => Math.log10(Math.max(height, 1e-9));
    curves.replaceChildren(...race().flatMap(({ way, height }) => {
      const line = svg("path", { class: `${way} done`, d: `M${height.map((one, i) => `${across(i).toFixed(1)},${down(power(one)).toFixed(1)}`).join(" ")}` });
      const here = step in height ? [svg("path", { class: `${way} ball`, d: SHAPES[way], transform: `translate(${across(step)},${down(power(height[step]))}) scale(4.5)` })] : [];
      return [line, ...here];
    }));
    cursor.setAttribute("d", `M${across(step)},${CHART.top} V${CHART.bottom}`);
  }

  return { element: create("figure", {}, create("figcaption", { "aria-hidden": "true" }, "height above the ground"), element), update };
}

// The ways: what each looks like, its rate, and whether it is on show.
function legendOf(model, race) {
  const rows = Object.keys(WAYS).map((way) => {
    const input = create("input", { type: "checkbox" }), rate = create("small");
    const swatch = svg("svg", { viewBox: "0 0 44 14", "aria-hidden": "true" }, svg("path", { class: `${way} done`, d: "M1,7 H43" }),
      svg("path", { class: `${way} ball`, d: SHAPES[way], transform: "translate(22,7) scale(5)" }));
    input.addEventListener("change", () => choose(model, "ways", Object.keys(WAYS).filter((one) => (one === way ? input.checked : shown(model).includes(one)))));
    return { way, input, rate, element: create("label", {}, input, swatch, create("span", {}, way), rate) };
  });

  function update() {
    const found = Object.fromEntries(race().map(({ way, rate }) => [way, rate]));
    for (const { way, input, rate } of rows) {
      input.checked = way in found;
      rate.textContent = way in found ? `rate ${found[way]}` : "";
    }
  }

  return { element: create("div", { class: "legend", role: "group", "aria-label": "ways on show" }, ...rows.map(({ element }) => element)), update };
}

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const LOOK = `
  :host { --SGD: 59 130 246; --momentum: 217 119 6; --Adam: 13 148 136; --sign: 192 60 210; max-width: 760px }
  .formula { font-size: 13px; opacity: .85 }
  [type=checkbox] { width: auto }
  .rate output { min-width: 6ch }
  .step { flex: 1 }
  .step input { flex: 1; min-width: 100px }
  .step output { min-width: 3ch; text-align: end }
  .bar button { font: inherit; color: inherit; background: none; border: 1px solid rgb(128 128 128 / .6); border-radius: 6px; padding: 4px 12px; min-width: 8ch }
  .ground { display: grid; grid-template-columns: 5fr 3fr; gap: 10px 20px; align-items: stretch; margin: 4px 0 8px }
  .side { display: flex; flex-direction: column; justify-content: space-between; gap: 8px }
  svg { display: block; width: 100% }
  .map { overflow: hidden; border-radius: 8px; box-shadow: 0 0 0 1px rgb(128 128 128 / .4); cursor: crosshair; touch-action: manipulation }
  path { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round }
  .lines path { stroke: rgb(128 128 128 / .6); fill: rgb(var(--accent) / .05) }
  .SGD { --color: var(--SGD) }
  .momentum { --color: var(--momentum); stroke-dasharray: 9 4 }
  .Adam { --color: var(--Adam); stroke-dasharray: 2.5 3.5 }
  .sign { --color: var(--sign); stroke-dasharray: 10 3 2 3 }
  .done, .rest { stroke: rgb(var(--color)); stroke-width: 2 }
  .rest { opacity: .22 }
  .ball { fill: rgb(var(--color)); stroke: currentColor; stroke-width: 1.2; stroke-dasharray: none }
  .star { fill: currentColor }
  .start { cursor: grab; touch-action: none }
  .start:active { cursor: grabbing }
  .start:focus { outline: none }
  .start:focus-visible .ring { stroke: rgb(var(--accent)); stroke-width: 4 }
  .reach { fill: transparent }
  .ring { fill: rgb(128 128 128 / .25); stroke: currentColor; stroke-width: 2.5; vector-effect: non-scaling-stroke }
  .legend { display: grid; gap: 5px }
  .legend label { display: grid; grid-template-columns: auto 44px 1fr auto; gap: 8px }
  .legend small { opacity: .8; font-variant-numeric: tabular-nums }
  figure { margin: 0 }
  figcaption { font-size: 12px; opacity: .85 }
  .chart { cursor: col-resize; touch-action: pan-y }
  .chart text { font-size: 11px; fill: currentColor; opacity: .8 }
  .mark { stroke: rgb(128 128 128 / .3) }
  .cursor { stroke: currentColor; opacity: .6 }
  .status { min-height: 2.9em }
  @media (width < 600px) {
    .ground { grid-template-columns: 1fr }
    .legend { grid-template-columns: 1fr 1fr; gap: 6px 16px }
    .legend label { grid-template-columns: auto 34px 1fr; gap: 2px 6px }
    .legend small { grid-column: 3 }
    .status { min-height: 7.25em }
  }
`;

export default { initialize, render };
