// Writing with a cache, step by step: what is computed, what was kept, and how many bytes that takes (lesson 16).
import { ACCENT, chips, choose, create, follow, initialize, stage, within } from "./base.js";
import { INSIDE_LOOK, bars, reader } from "./inside.js";

const COLOURS = { new: `rgb(${ACCENT.join(" ")})`, before: `rgb(${ACCENT.join(" ")} / .35)`, again: "rgb(234 88 12 / .85)", later: "rgb(128 128 128 / .15)" };

function render({ model, el }) {
  const root = stage(el, model, "Move the slider: each step reads one token more, and writes the next.");
  root.append(create("style", {}, INSIDE_LOOK + CACHE_LOOK), reader(model, root, "steps", (found) => {
    model.set("found", found);
    model.set("step", within(model.get("step"), found.steps.length));
  }), steps(model), text(model), scores(model), memory(model));
}

const step = (model) => within(model.get("step"), model.get("found").steps.length);
const triangle = (positions) => (positions * (positions + 1)) / 2;
const spelled = (number) => number.toLocaleString("en");
const open = (name) => name.replace(/^ | $/g, "␣");

// Where a step stands: it finds positions kept, reads some, and in all has as many.
function now(model) {
  const { kept, read, scores, bytes } = model.get("found").steps[step(model)];
  return { kept, read, scores, bytes, length: kept + read };
}

function onChange(model, draw) {
  for (const name of ["found", "step"]) model.on(`change:${name}`, draw);
  draw();
}

function steps(model) {
  const input = create("input", { type: "range", min: 0 }), where = create("output");
  input.addEventListener("input", () => choose(model, "step", input.valueAsNumber));
  onChange(model, () => {
    const last = model.get("found").steps.length - 1;
    input.max = last;
    input.value = step(model);
    where.value = `${step(model)} of ${last}`;
  });
  return create("div", { class: "bar" }, create("label", {}, "step", input, where));
}

// Each token of the text, and what becomes of its key and its value in this step.
function text(model) {
  const place = create("div", { class: "scroll text", tabindex: 0, role: "group", "aria-label": "the text" });
  let line = null;

  function drawText() {
    line = chips(model.get("found").tokens.map(open), "tokens, and what becomes of their keys and values", false);
    place.replaceChildren(line.element);
  }

  follow(model, "found", drawText);
  onChange(model, () => {
    const { kept, length } = now(model), state = (i) => (i < kept ? "kept" : i < length ? "new" : i === length ? "next" : "–");
    const states = model.get("found").tokens.map((_, i) => state(i));
    line.shade(states.map((name) => ({ kept: 0.3, new: 1 })[name] ?? 0), states);
    place.scrollTop = line.element.children[kept].offsetTop - 50;   // a long text moves on
  });
  return place;
}

// Queries down, keys across: with the cache and without.
function scores(model) {
  const status = create("output", { class: "status", "aria-live": "polite" }), body = create("tbody");
  const triangles = [figure(model, "With a cache", (row, { kept }) => (row < kept ? "before" : "new")),
    figure(model, "Without a cache", (row, { kept }) => (row < kept ? "again" : "new"))];
  const legend = [["new", "computed in this step, for the first time"], ["before", "computed in an earlier step, never again"],
    ["again", "computed in an earlier step, and now again"], ["later", "not yet"]].map(([name, words]) =>
    create("span", {}, create("i", { style: `background: ${COLOURS[name]}` }), words));

  onChange(model, () => {
    const { layers, heads } = model.get("shape"), { kept, read, scores, length } = now(model), whole = layers * heads * triangle(length);
    const { tokens, steps } = model.get("found"), before = (what) => steps.slice(0, step(model) + 1).reduce((sum, one) => sum + what(one), 0);
    status.value = (kept ? `“${open(tokens[kept])}” is read, and looks at ${length} keys` : `All ${read} tokens are read at once`) +
      `: ${spelled(scores)} scores in ${heads} heads of ${layers} layers. Without a cache ${kept ? `${spelled(whole)}, ${(whole / scores).toFixed(1)} times as many` : "as many"}.`;
    body.replaceChildren(...[
      ["positions that go through the model", read, length],
      ["scores of this step", scores, whole],
      ["of these computed before", 0, whole - scores],
      ["scores since the beginning", before((one) => one.scores), before((one) => layers * heads * triangle(one.kept + one.read))],
    ].map(([name, ...numbers]) => create("tr", {}, create("th", { scope: "row" }, name), ...numbers.map((n) => create("td", {}, spelled(n))))));
  });
  const head = ["", "with a cache", "without"].map((name) => create("th", { scope: "col" }, name));
  return create("div", {}, status, create("div", { class: "figures triangles" }, ...triangles), create("p", { class: "legend" }, ...legend),
    create("table", { class: "counts" }, create("thead", {}, create("tr", {}, ...head)), body));
}

// A square for each score: of a query (row) with a key (column).
function figure(model, title, kindOf) {
  const canvas = create("canvas", { role: "img" }), place = create("figure", {}, create("figcaption", {}, title), canvas);

  function draw() {
    const state = now(model), n = model.get("found").steps.at(-1).kept + model.get("found").steps.at(-1).read, size = Math.max(1, Math.floor(560 / n));
    const gap = size > 5 ? 1 : 0, pen = canvas.getContext("2d");
    canvas.width = canvas.height = n * size;
    for (let row = 0; row < n; row++) {
      pen.fillStyle = COLOURS[row < state.length ? kindOf(row, state) : "later"];
      for (let column = 0; column <= row; column++) pen.fillRect(column * size, row * size, size - gap, size - gap);
    }
    const old = kindOf(0, state) === "again" ? "computed again" : "not computed again";
    canvas.setAttribute("aria-label", `${title}: rows ${state.kept + 1} to ${state.length} of ${n} are new` +
      (state.kept ? `, the ${state.kept} before are ${old}.` : "."));
  }

  canvas.addEventListener("click", ({ offsetY }) => {   // the step that reads the token of this row
    const { steps } = model.get("found"), row = Math.floor((offsetY / canvas.clientHeight) * (steps.at(-1).kept + steps.at(-1).read));
    choose(model, "step", within(row - steps[0].read + 1, steps.length));
  });
  onChange(model, draw);
  return place;
}

// The bytes of keys and values, if more or fewer heads shared them.
function memory(model) {
  const table = create("table", { class: "bars memory" }), formula = create("p");
  const { layers, heads, kv, width } = model.get("shape");
  const shared = Array.from({ length: heads }, (_, i) => heads - i).filter((some) => heads % some === 0);
  const nameOf = (some) => (some === heads ? "MHA" : some === 1 ? "MQA" : "GQA");

  onChange(model, () => {
    const { length, bytes } = now(model), bytesOf = (some) => 2 * layers * some * width * length * 4;
    table.replaceChildren(...bars(`The cache after this step, in bytes; ✓ this model`, shared.map((some) =>
      [`${nameOf(some)}, ${some} key/value head${some > 1 ? "s" : ""}`, some / heads, spelled(bytesOf(some)), some === kv])));
    formula.textContent = `2 (a key and a value) · ${layers} layers · ${kv} key/value heads · ${width} numbers · ${length} positions · ` +
      `4 bytes = ${spelled(bytes)} bytes. With all ${model.get("room")} positions that this model can read: ${spelled(bytes / length * model.get("room"))}.`;
  });
  return create("div", {}, table, formula);
}

const CACHE_LOOK = `
  .text { max-height: 168px; overflow-y: auto; position: relative }
  .text .chips { margin: 0 }
  .text .chips > * { padding: 0 5px; font-size: 13px }
  .triangles { align-items: start; margin-top: 8px }
  figure { margin: 0; width: 280px }
  figcaption { font-weight: bold; margin-bottom: 4px }
  figure canvas { width: 100%; cursor: pointer }
  .legend { display: flex; flex-wrap: wrap; gap: 2px 20px; font-size: 12px }
  .legend i { display: inline-block; width: 11px; height: 11px; margin-inline-end: 6px; border-radius: 2px }
  .counts { margin-bottom: 14px }
  .counts th { font-weight: normal }
  .counts td { text-align: end; font-variant-numeric: tabular-nums }
  .memory { width: 480px }
  .memory th { max-width: 210px }
`;

export default { initialize, render };
