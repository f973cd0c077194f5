// The clock of rotary positions: each pair of numbers is a hand, and turns with the position (lesson 6).
import { choose, create, fold, follow, initialize, stage } from "./base.js";

const HANDS = ["key", "query"];   // the query's lies on top
const CHOICES = HANDS.flatMap((hand) => [`${hand}_position`, `${hand}_angles`]);
const STEPS = { ArrowUp: 5, ArrowRight: 5, ArrowDown: -5, ArrowLeft: -5, PageUp: 45, PageDown: -45 };   // degrees

function render({ model, el }) {
  const faces = model.get("speeds").map((_, pair) => face(model, pair)), total = balance(), line = curve(model);
  const number = create("output", { class: "total" }), status = create("output", { class: "status", "aria-live": "polite" });
  const table = fold("The numbers", ["pair", "query turned to", "key turned to", "between them", "share"], () =>
    shares(model).map((share, pair) => {
      const [key, query] = HANDS.map((hand) => turned(model, hand, pair));
      return [pair, degrees(query), degrees(key), `${Math.abs(Math.round(shorter(query - key)))}°`, decimal(share)];
    }));

  function draw() {
    const all = shares(model), score = sum(all);
    faces.forEach(({ update }, pair) => update(all[pair]));
    total.update(score, most(model));
    number.value = `score ${decimal(score)}`;
    line.update(score);
    status.value = `${whereTheyStand(model)}. Score ${decimal(score)} of at most ${decimal(most(model))}. Move both, and it stays.`;
    table.fill();
  }

  stage(el, model, "Move the sliders. Turn a hand by its tip, or by the arrow keys.").append(create("style", {}, CLOCK),
    create("div", { class: "bar places" }, place(model, "query"), place(model, "key"), both(model)), legend(),
    create("div", { class: "faces" }, ...faces.map(({ element }) => element)),
    create("div", { class: "sum" }, number, total.element), status, line.element, table.element);
  for (const name of CHOICES) model.on(`change:${name}`, draw);
  draw();
}

const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const radians = (angle) => (angle * Math.PI) / 180;
const round = (angle) => ((Math.round(angle) % 360) + 360) % 360;
const shorter = (angle) => (((angle % 360) + 540) % 360) - 180;   // the same turn, by the shorter way
const degrees = (angle) => `${round(angle)}°`;
const decimal = (number) => (Math.abs(number) < 0.005 ? 0 : number).toFixed(2).replace("-", "−");
const position = (model, hand) => model.get(`${hand}_position`);

// The angle of a hand, clockwise from the top: its own, and what its position adds.
const turned = (model, hand, pair, at = position(model, hand)) =>
  model.get(`${hand}_angles`)[pair] + (at * model.get("speeds")[pair] * 180) / Math.PI;

const products = (model) => model.get("query_lengths").map((length, pair) => length * model.get("key_lengths")[pair]);
const most = (model) => sum(products(model));
const shares = (model, queryAt, keyAt) => products(model).map((product, pair) =>
  product * Math.cos(radians(turned(model, "query", pair, queryAt) - turned(model, "key", pair, keyAt))));

function whereTheyStand(model) {
  const query = position(model, "query"), key = position(model, "key"), distance = Math.abs(query - key);
  const apart = `${distance} ${distance === 1 ? "place" : "places"} ${key < query ? "before" : "after"} it`;
  return `The query stands at ${query}, the key ${distance ? `at ${key}, ${apart}` : "at the same place"}`;
}

function turn(model, hand, pair, angle) {
  choose(model, `${hand}_angles`, model.get(`${hand}_angles`).map((own, i) => (i === pair ? round(angle) : own)));
}

// Sliders: where each of them stands, and both at once.
function place(model, hand) {
  const input = create("input", { type: "range", min: 0, max: model.get("positions") - 1 }), number = create("output");
  input.addEventListener("input", () => choose(model, `${hand}_position`, input.valueAsNumber));
  follow(model, `${hand}_position`, () => (number.value = input.value = position(model, hand)));
  return create("label", {}, `the ${hand} stands at`, input, number);
}

function both(model) {
  const input = create("input", { type: "range", min: 0 }), number = create("output");
  const places = () => HANDS.map((hand) => position(model, hand)), first = () => Math.min(...places());

  function update() {
    input.max = model.get("positions") - 1 - (Math.max(...places()) - first());
    input.value = first();
    number.value = `${first()} and ${Math.max(...places())}`;
  }

  input.addEventListener("input", () => {
    const step = input.valueAsNumber - first(), now = places();
    HANDS.forEach((hand, i) => choose(model, `${hand}_position`, now[i] + step));
  });
  for (const hand of HANDS) model.on(`change:${hand}_position`, update);
  update();
  return create("label", {}, "move both", input, number);
}

// One pair of numbers: the two hands, the angle between them, and what it gives to the score.
function face(model, pair) {
  const wedge = draw("path", { class: "wedge" }), bar = balance(), note = create("small");
  const ticks = Array.from({ length: 12 }, (_, hour) => draw("path", { d: "M0,-50 v4", transform: `rotate(${30 * hour})` }));
  const clock = draw("svg", { viewBox: "-56 -56 112 112", role: "group", "aria-label": `pair ${pair}` },
    draw("g", { class: "rim" }, draw("circle", { r: 50 }), ...ticks), wedge);
  const hands = HANDS.map((hand) => handOf(model, hand, pair, clock));
  clock.append(...hands.map(({ element }) => element));
  const once = (2 * Math.PI) / model.get("speeds")[pair], half = model.get("speeds").length;
  const element = create("figure", {}, create("figcaption", {}, create("b", {}, `pair ${pair}`),
    create("small", {}, `numbers ${pair} and ${pair + half}`), create("small", {}, `once round in ${inPlaces(once)} places`)), clock, bar.element, note);

  function update(share) {
    hands.forEach(({ update }) => update());
    const from = turned(model, "key", pair), way = shorter(turned(model, "query", pair) - from);
    const [x, y] = [Math.sin(radians(way)), -Math.cos(radians(way))];
    wedge.setAttribute("transform", `rotate(${from})`);
    wedge.setAttribute("d", `M0,0 V-20 A20,20 0 0 ${way < 0 ? 0 : 1} ${20 * x},${20 * y} Z`);
    bar.update(share, products(model)[pair]);
    note.textContent = `share ${decimal(share)}`;
  }

  return { element, update };
}

const inPlaces = (count) => (count < 10 ? count.toFixed(1) : Math.round(count).toLocaleString("en"));

function handOf(model, hand, pair, clock) {
  const longest = Math.max(...model.get("query_lengths"), ...model.get("key_lengths")), length = 42 * model.get(`${hand}_lengths`)[pair] / longest;
  const [tip, reach] = hand === "query" ? [4, 7] : [6.5, 12];
  const end = hand === "query" ? length : Math.max(0, length - tip);   // the line stops at an open tip
  const element = draw("g", { class: `hand ${hand}`, role: "slider", tabindex: 0, "aria-label": `${hand} of pair ${pair}, own angle`,
    "aria-valuemin": 0, "aria-valuemax": 359 }, draw("circle", { class: "reach", cy: -length, r: reach }),
  draw("path", { d: `M0,0 V${-end}` }), draw("circle", { class: "tip", cy: -length, r: tip }));
  const own = () => model.get(`${hand}_angles`)[pair];

  element.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    element.focus({ focusVisible: false });
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener("pointermove", (event) => {
    if (!element.hasPointerCapture(event.pointerId)) return;
    const { left, top, width, height } = clock.getBoundingClientRect();
    const x = event.clientX - left - width / 2, y = event.clientY - top - height / 2;
    turn(model, hand, pair, (Math.atan2(x, -y) * 180) / Math.PI - turned(model, hand, pair) + own());
  });
  element.addEventListener("keydown", (event) => {
    if (!(event.key in STEPS) && event.key !== "Home") return;
    event.preventDefault();
    turn(model, hand, pair, event.key === "Home" ? 0 : own() + STEPS[event.key]);
  });

  function update() {
    element.setAttribute("transform", `rotate(${turned(model, hand, pair)})`);
    element.setAttribute("aria-valuenow", round(own()));
    element.setAttribute("aria-valuetext", `${degrees(own())}, turned to ${degrees(turned(model, hand, pair))}`);
  }

  return { element, update };
}

// A bar that starts in the middle: to the right what adds to the score, to the left what takes from it.
function balance() {
  const bar = create("div"), element = create("div", { class: "balance", "aria-hidden": "true" }, bar);

  function update(number, most) {
    const part = most ? (50 * number) / most : 0;
    bar.className = part < 0 ? "less" : "";
    bar.style.cssText = `left: ${50 + Math.min(0, part)}%; width: ${Math.abs(part)}%`;
  }

  return { element, update };
}

// The score at every distance; where the two stand is one point of it.
function curve(model) {
  const last = model.get("positions") - 1, path = draw("path"), dot = create("i");
  const lines = draw("svg", { viewBox: `${-last} -1.1 ${2 * last || 1} 2.2`, preserveAspectRatio: "none", "aria-hidden": "true" },
    draw("path", { class: "zero", d: `M${-last},0 H${last} M0,-1.1 V1.1` }), path);
  const words = [`the key ${last} after`, "same place", `the key ${last} before`].map((text) => create("small", {}, text));
  const element = create("div", { class: "curve" }, create("b", {}, "The score at every distance"), create("div", {}, lines, dot), create("p", {}, ...words));
  const height = (score) => (most(model) ? -score / most(model) : 0);

  function update(score) {
    const points = Array.from({ length: 2 * last + 1 }, (_, i) => `${i - last},${height(sum(shares(model, i - last, 0)))}`);
    path.setAttribute("d", `M${points.join(" ")}`);
    const distance = position(model, "query") - position(model, "key");
    dot.style.cssText = `left: ${50 + (last ? (50 * distance) / last : 0)}%; top: ${50 + (50 * height(score)) / 1.1}%`;
  }

  return { element, update };
}

const legend = () => create("p", { class: "legend", "aria-hidden": "true" }, ...[...HANDS].reverse().map((hand) => create("span", {},
  draw("svg", { viewBox: "0 -8 48 16" }, draw("g", { class: `hand ${hand}` }, draw("path", { d: `M0,0 H${hand === "query" ? 38 : 31}` }),
    draw("circle", { class: "tip", cx: 38, r: hand === "query" ? 4 : 6.5 }))), `the ${hand}'s hand`)));

function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const CLOCK = `
  :host { --key: 217 119 6 }
  .places, .curve { max-width: 720px }
  .places { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)) }
  .places label { display: grid; grid-template-columns: 17ch 1fr 9ch }
  .places label:last-child { grid-column: 1 / -1 }
  .places input { width: auto; min-width: 0 }
  .legend { display: flex; gap: 24px; font-size: 12px }
  .legend span { display: flex; align-items: center; gap: 8px }
  .legend svg { width: 48px }
  .faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(160px, 45%), 1fr)); gap: 12px 16px; max-width: 720px }
  figure { margin: 0; text-align: center }
  small { display: block; font-size: 12px; font-variant-numeric: tabular-nums }
  svg { display: block; width: 100%; overflow: visible }
  figure svg { max-width: 190px; margin: 4px auto }
  .rim { fill: none; stroke: currentColor; opacity: .45 }
  .wedge { fill: rgb(128 128 128 / .35) }
  .hand path { fill: none; stroke-width: 3 }
  .hand .reach { fill: transparent }
  .query { stroke: rgb(var(--accent)) }
  .query .tip { fill: rgb(var(--accent)) }
  .key { stroke: rgb(var(--key)) }
  .key path { stroke-dasharray: 5 3 }
  .key .tip { fill: none; stroke-width: 2 }
  .reach { stroke: none }
  figure .hand { cursor: grab; touch-action: none }
  figure .hand:active { cursor: grabbing }
  .hand:focus:not(:focus-visible) { outline: none }
  .balance { position: relative; height: 10px; background: linear-gradient(currentColor) center / 1px 100% no-repeat, rgb(128 128 128 / .2) }
  .balance div { position: absolute; inset-block: 1px; background: rgb(var(--accent)) }
  .balance .less { background: repeating-linear-gradient(45deg, rgb(var(--accent)) 0 3px, transparent 3px 5px) }
  .sum { display: grid; grid-template-columns: 12ch 1fr; align-items: center; gap: 8px; max-width: 720px; margin: 14px 0 6px }
  .sum .balance { height: 16px }
  .total { font-weight: bold; font-variant-numeric: tabular-nums }
  .curve { margin-top: 12px }
  .curve div { position: relative; margin-top: 4px }
  .curve svg { height: 90px; overflow: hidden }
  .curve path { fill: none; stroke: rgb(var(--accent)); stroke-width: 1.5; vector-effect: non-scaling-stroke }
  .curve .zero { stroke: currentColor; stroke-width: 1; opacity: .35 }
  .curve i { position: absolute; width: 11px; height: 11px; border-radius: 50%; translate: -50% -50%; background: rgb(var(--accent));
    outline: 2px solid currentColor }
  .curve p { display: flex; justify-content: space-between; margin: 2px 0 0 }
`;

export default { initialize, render };
