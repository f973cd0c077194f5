// Answers only if at least so sure: a limit, what it leaves unanswered, and the mistakes that remain (lesson 12).
import { choose, create, fold, initialize, stage } from "./base.js";

function render({ model, el }) {
  const view = state(model);
  const root = stage(el, model, `Each dot is a right answer, each cross a wrong one; further right, the model was surer. How far must the limit go ` +
    `until no mistake is left, and how many answers does that cost? Guess, then move it. Pick a cross, or one of the first dots, to read it.`);
  const heap = heapOf(view), limit = limitOf(view), curve = curveOf(view), examples = examplesOf(view);
  const status = create("output", { class: "status", "aria-live": "polite" });
  const table = fold("The limits in numbers", ["at least so sure", "answers", "right", "mistakes", "share right"], () => view.limits.map((at) => {
    const { answered, right, mistakes } = view.counts(at);
    return [exactly(at), answered, right, mistakes, answered ? share(right, answered, 1) : "–"];
  }));

  function draw() {
    heap.update();
    limit.update();
    curve.update();
    examples.update();
    status.replaceChildren(...told(view));
    table.fill();
  }

  root.append(create("style", {}, LOOK), create("div", { class: "picture" }, legend(view), heap.element, limit.element), status,
    create("div", { class: "below" }, curve.element, examples.element), table.element);
  new ResizeObserver(() => fit()).observe(heap.element);
  function fit() {
    const width = heap.element.clientWidth || 700;
    if (width === view.width) return;
    view.width = width;
    heap.lay();
    limit.lay();
    draw();
  }

  view.redraw = draw;
  model.on("change:limit", () => {
    view.picked = null;
    draw();
  });
  fit();
}

const SVG = "http://www.w3.org/2000/svg";
const EDGE = 18;     // pixels left and right of the scale
const DOUBTS = [100, 80, 63, 50, 40, 32, 25, 20, 16, 12.5];   // percent: ten steps to a nine, nearly even, and each a round number

function draw(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const nines = (sure) => -Math.log10(1 - sure);   // 90% has one, 99% two
const between = (number, low, high) => Math.max(low, Math.min(high, number));

// As many digits as the doubt needs: 68%, 97.3%, 99.96%.
function percent(part) {
  const doubt = 100 * (1 - part);
  if (part >= 1) return "100%";
  return `${Number((100 * part).toFixed(between(1 - Math.floor(Math.log10(doubt) + 1e-9), part < 0.1 ? 1 : 0, 6)))}%`;
}

const exactly = (limit) => `${Number((100 * limit).toFixed(8))}%`;

// A share that is called 0% or 100% only where it is.
function share(part, all, digits) {
  for (let more = digits; more < 9; more++) {
    const said = ((100 * part) / all).toFixed(more);
    if ((Number(said) > 0 || !part) && (Number(said) < 100 || part === all)) return `${Number(said)}%`;
  }
}

// What is known of the answers, and what a limit makes of them.
function state(model) {
  const sure = model.get("sure"), wrong = new Set(model.get("wrong")), places = sure.map((_, place) => place);
  const most = between(Math.ceil(nines(Math.min(0.999999, sure.at(-1))) - 1e-6), 2, 6);   // nines on the scale
  const stops = Array.from({ length: 10 * most + 1 }, (_, i) =>
    Number((1 - DOUBTS[i % 10] / 10 ** (2 + Math.floor(i / 10))).toFixed(3 + Math.floor(i / 10))));
  const view = { sure, wrong, most, stops, of: sure.length, limits: model.get("limits"), picked: null, width: 0,
    texts: new Map(model.get("texts").map(([place, question, answer, truth]) => [place, { question, answer, truth }])) };
  view.column = (at) => between(stops.findLastIndex((stop) => stop <= at), 0, 10 * most - 1);
  view.at = (limit) => (stops.includes(limit) ? stops.indexOf(limit) : limit >= 1 ? 10 * most : Math.min(10 * most, 10 * nines(limit)));   // in columns
  view.limit = () => model.get("limit");
  view.given = (place) => sure[place] >= view.limit();
  view.counts = (limit = view.limit()) => {
    const answered = sure.filter((own) => own >= limit).length, mistakes = places.filter((place) => wrong.has(place) && sure[place] >= limit).length;
    return { answered, right: answered - mistakes, mistakes, of: sure.length };
  };
  view.remaining = () => [...wrong].filter(view.given).sort((a, b) => a - b);   // the nearest to the limit first
  view.move = (stop) => {
    const limit = stops[between(Math.round(stop), 0, stops.length - 1)];
    if (limit === view.limit()) view.pick(null);
    else choose(model, "limit", limit);
  };
  view.pick = (place) => {
    view.picked = place;
    view.redraw();
  };
  return view;
}

const counted = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
const strong = (text) => create("strong", {}, text);

// What the limit makes of the answers, in words.
function told(view) {
  const { answered, right, mistakes, of } = view.counts(), silent = of - answered, missed = of - view.wrong.size - right;
  const start = view.limit() ? [`At least ${exactly(view.limit())} sure: it`] : ["Without a limit it"];
  const lost = silent === 1 ? `The one it leaves unanswered would have been ${missed ? "right" : "wrong"}.` :
    `Of the ${silent} it leaves unanswered, ${missed === silent ? "all" : missed || "none"} would have been right.`;
  if (!answered) return [...start, " answers ", strong("none"), ` of ${counted(of, "question")}. `, lost];
  const first = silent ? [strong(`${answered} of ${counted(of, "question")}`), ` (${share(answered, of, 0)})`] : [strong(of === 1 ? "the only question" : `all ${counted(of, "question")}`)];
  const end = mistakes ? [strong(share(right, answered, 1)), " of its answers are right: ", strong(counted(mistakes, "mistake")), silent ? (mistakes === 1 ? " remains. " : " remain. ") : "."] :
    [strong("all"), " of its answers are right. "];
  return [...start, " answers ", ...first, ", and ", ...end, silent ? lost : ""];
}

const sign = (wrong) => draw("svg", { viewBox: "-6 -6 12 12", class: "sign", "aria-hidden": "true" }, wrong ? cross(0, 0, 9) : draw("circle", { class: "dot", r: 4 }));
const cross = (x, y, size) => draw("path", { class: "cross", d: `M${x - size / 2},${y - size / 2} l${size},${size} m0,${-size} l${-size},${size}` });

const legend = ({ of, wrong }) => create("p", { class: "legend" }, create("span", {}, sign(false), counted(of - wrong.size, "right answer")),
  create("span", {}, sign(true), counted(wrong.size, "wrong answer")));

// The answers: right ones heaped upon the line, wrong ones below it. Those with a text can be picked.
function heapOf(view) {
  const svg = draw("svg", { "aria-hidden": "true" }), known = [...view.texts.keys()].sort((a, b) => a - b);
  const element = create("div", { class: "heap", role: "slider", tabindex: 0, "aria-label": "an answer, the least sure first",
    "aria-valuemin": 0, "aria-valuemax": known.length }, svg);
  let marks = [], spots = [], line, ring, flags;

  function lay() {
    const { rights, crosses, size, radius, up, down } = layout(view), top = 22, floor = top + up + 3, height = floor + down + 6;
    const scale = [...Array(view.most + 1).keys()].map((nine) => 10 * nine).concat(view.at(0.5)).map((at) => spotOf(view, at));
    spots = [];
    for (const { place, x, y } of rights) spots[place] = { x, y: floor - 3 - y };
    for (const { place, x, y } of crosses) spots[place] = { x, y: floor + 3 + y };
    marks = spots.map(({ x, y }, place) => (view.wrong.has(place) ? cross(x, y, size) : draw("circle", { class: "dot", cx: x, cy: y, r: radius })));
    [line, ring] = [draw("path", { class: "line" }), draw("circle", { class: "ring", r: Math.max(8, size) })];
    flags = ["end", "start"].map((anchor) => draw("text", { y: 13, "text-anchor": anchor }));
    [flags[0].textContent, flags[1].textContent] = ["← silent", "answers →"];
    svg.setAttribute("height", height);
    svg.setAttribute("width", view.width);
    svg.replaceChildren(...scale.map((x) => draw("path", { class: "scale", d: `M${x},${top} V${height}` })),
      draw("path", { class: "floor", d: `M${EDGE - 6},${floor} H${view.width - EDGE + 6}` }), ...marks, line, ring, ...flags);
  }

  function update() {
    const x = spotOf(view, view.at(view.limit())), spot = spots[view.picked];
    marks.forEach((mark, place) => mark.classList.toggle("silent", !view.given(place)));
    line.setAttribute("d", `M${x},2 V${svg.getAttribute("height")}`);
    flags[0].setAttribute("x", x - 7);
    flags[1].setAttribute("x", x + 7);
    flags[0].style.display = x < 70 ? "none" : "";
    flags[1].style.display = view.width - x < 74 ? "none" : "";
    ring.style.display = spot ? "" : "none";
    for (const [name, value] of Object.entries(spot ?? {})) ring.setAttribute(`c${name}`, value);
    element.setAttribute("aria-valuenow", known.indexOf(view.picked) + 1);
    element.setAttribute("aria-valuetext", view.picked === null ? "none is picked" : spoken(view, view.picked));
  }

  // The answer that a pointer means, if it has a text.
  function find({ clientX, clientY, pointerType }) {
    const { left, top } = svg.getBoundingClientRect(), far = (place) => Math.hypot(spots[place].x - clientX + left, spots[place].y - clientY + top);
    const nearest = known.reduce((best, place) => (best === null || far(place) < far(best) ? place : best), null);
    return nearest !== null && far(nearest) <= (pointerType === "touch" ? 14 : 7) ? nearest : null;
  }

  const place = (event) => event.clientX - svg.getBoundingClientRect().left;
  let pressed = null;     // where the pointer went down, and whether it has moved since
  element.addEventListener("pointerdown", (event) => {
    if (event.button === 0) pressed = { x: place(event), moved: false };
  });
  element.addEventListener("pointermove", (event) => {
    element.classList.toggle("over", !pressed && find(event) !== null);
    if (!pressed || (!pressed.moved && Math.abs(place(event) - pressed.x) < 4)) return;
    if (!pressed.moved) element.setPointerCapture(event.pointerId);
    pressed.moved = true;
    view.move(stopAt(view, place(event)));
  });
  element.addEventListener("pointerup", (event) => {
    if (pressed && !pressed.moved) {
      const found = find(event);
      if (found === null) view.move(stopAt(view, place(event)));
      else view.pick(found === view.picked ? null : found);
    }
    pressed = null;
  });
  element.addEventListener("pointercancel", () => (pressed = null));

  const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };
  element.addEventListener("keydown", (event) => {
    if (event.key === "Escape") view.pick(null);
    if (!(event.key in steps) || !known.length) return;
    event.preventDefault();
    view.pick(known[between(known.indexOf(view.picked) + steps[event.key], 0, known.length - 1)]);
  });
  return { element, lay, update };
}

const step = (view) => (view.width - 2 * EDGE) / (10 * view.most);   // the width of a column
const spotOf = (view, at) => EDGE + step(view) * at;
const stopAt = (view, x) => (x - EDGE) / step(view);

// Where each answer stands, from the line on: right ones side by side in their column, wrong ones larger, and where there is room.
function layout(view) {
  const isWrong = (place) => view.wrong.has(place), places = view.sure.map((_, place) => place);
  const rights = heaped(view, places.filter((place) => !isWrong(place)), 250), crosses = spread(view, places.filter(isWrong), 9);
  const wrongs = crosses.high <= 130 ? crosses : heaped(view, places.filter(isWrong), 200);
  return { rights: rights.spots, radius: Math.max(1, 0.5 * rights.width - 0.4), up: Math.max(70, rights.high),
    crosses: wrongs.spots, size: 0.78 * wrongs.width, down: 6 + wrongs.high };
}

function heaped(view, places, most) {
  const column = step(view), bins = Array.from({ length: 10 * view.most }, () => []), spots = [];
  for (const place of places) bins[view.column(view.sure[place])].push(place);
  const highest = Math.max(1, ...bins.map((bin) => bin.length));
  let across = Math.ceil(column / 12);
  while ((Math.ceil(highest / across) * column) / across > most) across++;
  const width = column / across;
  bins.forEach((bin, i) => bin.forEach((place, k) => {
    const row = Math.floor(k / across), beside = Math.min(across, bin.length - row * across);
    spots.push({ place, x: spotOf(view, i + 0.5) + width * ((k % across) - (beside - 1) / 2), y: width * (row + 0.5) });
  }));
  return { spots, width, high: Math.ceil(highest / across) * width };
}

function spread(view, places, size) {
  const levels = [[]], width = size / 0.78;
  const spots = places.map((place) => {
    const x = spotOf(view, view.column(view.sure[place]) + 0.5), free = levels.findIndex((taken) => taken.every((other) => Math.abs(other - x) > size + 1));
    const level = free < 0 ? levels.push([]) - 1 : free;
    levels[level].push(x);
    return { place, x, y: width * (level + 0.5) };
  });
  return { spots, width, high: levels.length * width };
}

// The slider, its thumb below the line, and the scale.
function limitOf(view) {
  const input = create("input", { type: "range", min: 0, max: 10 * view.most, "aria-label": "answers only if at least so sure" });
  const ticks = create("div", { class: "ticks", "aria-hidden": "true" });
  const element = create("div", { class: "limit" }, input, ticks, create("p", { class: "axis" }, "how sure the model was of its whole answer"));
  input.addEventListener("input", () => view.move(input.valueAsNumber));
  input.addEventListener("keydown", (event) => {
    const nine = view.at(view.limit()) / 10;
    if (event.key === "PageUp") view.move(10 * Math.floor(nine + 1));
    else if (event.key === "PageDown") view.move(10 * Math.ceil(nine - 1));
    else return;
    event.preventDefault();
  });

  function lay() {
    const names = [[0, "0%"], [view.at(0.5), "50%"], ...Array.from({ length: view.most }, (_, i) => [10 * (i + 1), percent(1 - 10 ** -(i + 1))])];
    ticks.replaceChildren(...names.map(([at, name]) => create("span", { style: `left: ${spotOf(view, at)}px` }, name)));
    input.style.width = `${view.width - 2 * EDGE + 20}px`;
  }

  function update() {
    const at = view.at(view.limit());
    input.step = view.stops.includes(view.limit()) ? 1 : "any";
    input.value = at;
    input.style.setProperty("--at", `${(10 * at) / view.most}%`);
    input.setAttribute("aria-valuetext", `at least ${exactly(view.limit())} sure`);
  }

  return { element, lay, update };
}

const FLOORS = [[0.5, 0.25], [1, 0.5], [2, 1], [3, 1], [4, 1], [5, 1], [10, 5], [20, 5], [30, 10], [50, 10], [100, 20]];   // percent below 100, and between ticks

// The share right of those answered, for every share answered: what a limit buys.
function curveOf(view) {
  const points = pointsOf(view), overall = 1 - view.wrong.size / view.of, [left, right, top, bottom] = [46, 330, 10, 142];
  const lowest = Math.min(overall, ...points.filter(({ answered }) => answered >= view.of / 20).map(({ share }) => share));
  const [deep, gap] = FLOORS.find(([floor]) => floor / 100 >= (1 - lowest) * 1.05) ?? FLOORS.at(-1);
  const x = (part) => left + (right - left) * part, y = (part) => top + (bottom - top) * between((100 * (1 - part)) / deep, 0, 1.04);
  const ticks = Array.from({ length: Math.floor(deep / gap) + 1 }, (_, i) => 100 - i * gap);
  const text = (at, up, anchor, said) => draw("text", { x: at, y: up, "text-anchor": anchor }, said);
  const mark = draw("circle", { class: "mark", r: 6 }), drop = draw("path", { class: "drop" });
  const svg = draw("svg", { viewBox: "0 0 352 180", role: "img" },
    ...ticks.map((tick) => draw("path", { class: "scale", d: `M${left},${y(tick / 100)} H${right}` })),
    ...ticks.map((tick) => text(left - 6, y(tick / 100) + 4, "end", `${tick}%`)),
    ...[0, 0.25, 0.5, 0.75, 1].map((part) => text(x(part), bottom + 16, "middle", `${100 * part}%`)),
    text((left + right) / 2, bottom + 34, "middle", "share of the questions that it answers"),
    draw("path", { class: "random", d: `M${x(0)},${y(overall)} H${x(1)}` }),
    text(left + 6, y(overall) + (y(overall) > bottom - 16 ? -6 : 15), "start", "silent at random"),
    draw("path", { class: "curve", d: `M${points.map(({ answered, share }) => `${x(answered / view.of).toFixed(1)},${y(share).toFixed(1)}`).join(" L")}` }), drop, mark);

  function update() {
    const { answered, right: good, of } = view.counts();
    mark.style.display = drop.style.display = answered ? "" : "none";
    const [across, up] = [x(answered / of), y(answered ? good / answered : 1)];
    mark.setAttribute("cx", across);
    mark.setAttribute("cy", up);
    drop.setAttribute("d", `M${across},${up} V${bottom}`);
    svg.setAttribute("aria-label", `share right of those answered, against the share answered: ${answered ? `${share(good, answered, 1)} right of ${share(answered, of, 0)} answered` :
      "nothing is answered"}; silent at random it would stay at ${share(of - view.wrong.size, of, 1)}`);
  }

  return { element: create("section", { class: "curve-of" }, create("h4", {}, "How many of its answers are right"), svg), update };
}

// From the surest answer on, wherever a limit can lie between two.
function pointsOf({ sure, wrong }) {
  const points = [];
  let mistakes = 0;
  for (let place = sure.length - 1; place >= 0; place--) {
    mistakes += wrong.has(place);
    const answered = sure.length - place;
    if (place === 0 || sure[place - 1] < sure[place]) points.push({ answered, share: 1 - mistakes / answered });
  }
  return points;
}

const spoken = (view, place) => `${view.wrong.has(place) ? "wrong" : "right"}, ${percent(view.sure[place])} sure: ${view.texts.get(place).question} ${view.texts.get(place).answer}`;

// The mistakes that remain, or the answer that is picked.
function examplesOf(view) {
  const heading = create("h4"), list = create("ul"), element = create("section", { class: "examples" }, heading, list);

  function item(place) {
    const { question, answer, truth } = view.texts.get(place), wrong = view.wrong.has(place);
    return create("li", {}, sign(wrong), create("span", { class: "question" }, question), create("span", { class: "sure" }, `${percent(view.sure[place])} sure`),
      create("span", { class: "said" }, "It says: ", create("b", {}, answer || "nothing"), wrong ? "" : " That is right."),
      wrong ? create("span", { class: "said" }, "True is: ", create("b", {}, truth)) : "");
  }

  function update() {
    const remaining = view.remaining(), shown = remaining.slice(0, 3), { answered } = view.counts();
    heading.textContent = view.picked !== null ? `You picked an answer that is ${view.given(view.picked) ? "given" : "left out"}` :
      !remaining.length ? (answered ? "No mistake remains" : "It answers nothing") :
      remaining.length === 1 ? "The mistake that remains" : remaining.length <= 3 ? `The ${remaining.length} mistakes that remain` :
      `Mistakes that remain: the next 3 of ${remaining.length}`;
    list.replaceChildren(...(view.picked !== null ? [view.picked] : shown).map(item));
  }

  return { element, update };
}

const LOOK = `
  .picture { position: relative; max-width: 760px }
  .legend { display: flex; gap: 4px 20px; margin: 0 0 2px ${EDGE - 6}px }
  .legend span { display: inline-flex; align-items: center; gap: 6px }
  .sign { width: 14px; height: 14px; flex: none }
  .dot { fill: rgb(var(--accent)) }
  .cross { fill: none; stroke: #e8590c; stroke-width: 2.4; stroke-linecap: round }
  .silent.dot { opacity: .36 }
  .silent.cross { opacity: .45 }
  .heap { cursor: ew-resize; touch-action: pan-y; user-select: none; -webkit-user-select: none; border-radius: 4px }
  .heap.over { cursor: pointer }
  .heap svg { display: block }
  .heap text, .curve-of text { font-size: 12px; fill: currentColor }
  .scale { stroke: rgb(128 128 128 / .22); fill: none }
  .floor { stroke: rgb(128 128 128 / .8); fill: none }
  .line { stroke: currentColor; stroke-width: 2; fill: none }
  .ring { fill: none; stroke: currentColor; stroke-width: 2 }
  .limit input { display: block; color: inherit; appearance: none; -webkit-appearance: none; height: 26px; margin: -3px 0 0 ${EDGE - 10}px; background: none; border-radius: 13px; cursor: ew-resize }
  .limit input::-webkit-slider-runnable-track { height: 4px; border-radius: 2px; background: linear-gradient(90deg, rgb(128 128 128 / .45) var(--at), rgb(var(--accent)) var(--at)) }
  .limit input::-moz-range-track { height: 4px; border-radius: 2px; background: linear-gradient(90deg, rgb(128 128 128 / .45) var(--at), rgb(var(--accent)) var(--at)) }
  .limit input::-webkit-slider-thumb { -webkit-appearance: none; width: 20px; height: 20px; margin-top: -8px; border: 2px solid currentColor; border-radius: 50%; background: rgb(var(--accent)) }
  .limit input::-moz-range-thumb { box-sizing: border-box; width: 20px; height: 20px; border: 2px solid currentColor; border-radius: 50%; background: rgb(var(--accent)) }
  .ticks { position: relative; margin-top: 2px; height: 17px; font-size: 12px; font-variant-numeric: tabular-nums }
  .ticks span { position: absolute; translate: -50% }
  .ticks span:last-child { translate: calc(-100% + ${EDGE}px) }
  .axis { text-align: center; font-size: 12px; margin: 0 0 8px }
  .status { max-width: 760px; min-height: 3em; margin-bottom: 14px; font-size: 15px; line-height: 1.5 }
  .status strong { display: inline }
  .below { display: grid; grid-template-columns: minmax(0, 352px) minmax(0, 1fr); gap: 10px 28px; max-width: 760px }
  h4 { margin: 0 0 6px; font-size: 14px }
  .curve-of svg { display: block; width: 100% }
  .curve { fill: none; stroke: rgb(var(--accent)); stroke-width: 2; stroke-linejoin: round }
  .random { stroke: currentColor; stroke-width: 1.5; stroke-dasharray: 5 4; opacity: .7 }
  .drop { stroke: currentColor; stroke-width: 1.5; opacity: .5 }
  .mark { fill: rgb(var(--accent)); stroke: currentColor; stroke-width: 2 }
  .examples { min-height: 250px }
  ul { list-style: none; margin: 0; padding: 0; font-size: 13px }
  li { display: grid; grid-template-columns: 14px minmax(0, 1fr) max-content; align-items: center; gap: 0 8px; padding: 5px 0; border-top: 1px solid rgb(128 128 128 / .3) }
  .sure { font-variant-numeric: tabular-nums; opacity: .8 }
  .said { grid-column: 2 / -1 }
  @media (width < 560px) {
    .status { min-height: 7.5em }
    .ticks { font-size: 10px }
    .ticks span:is(:nth-child(2), :last-child) { display: none }
    .below { grid-template-columns: minmax(0, 1fr) }
    .examples { min-height: 0 }
  }
`;

export default { initialize, render };
