// The logit lens: what the model would say next, if it stopped after this layer (nostalgebraist 2020).
import { choose, create, exact, follow, inWords, initialize, stage, within } from "./base.js";
import { INSIDE_LOOK, bars, reader } from "./inside.js";

const MOST = 12;   // columns that are seen at once
const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -Infinity], End: [0, Infinity] };

function render({ model, el }) {
  const root = stage(el, model, "Each cell: the likeliest next token after this layer. Bold: it is what the last layer says. Choose a cell.");
  root.append(create("style", {}, INSIDE_LOOK + STREAM_LOOK), reader(model, root, "lens", (found) => {
    model.set("first", found.tokens.length);   // the last ones
    model.set("position", gradual(found));
    model.set("found", found);
  }), part(model), cells(model), details(model));
  new ResizeObserver(() => model.set("columns", Math.max(3, Math.min(MOST, Math.floor((root.host.clientWidth - 76) / 54))))).observe(root.host);
}

// The place in the answer whose word the layers find most gradually.
function gradual({ cells, read }) {
  const between = (at) => cells.reduce((sum, row) => sum + row[at].chance * (100 - row[at].chance), 0);
  return cells[0].map((_, at) => at).slice(read - 1).reduce((best, at) => (between(at) > between(best) ? at : best));
}

const count = (model) => model.get("found").tokens.length;
const position = (model) => within(model.get("position"), count(model));
const columns = (model) => Math.min(model.get("columns") ?? MOST, count(model));
const first = (model) => {   // so that the chosen position is seen
  const last = Math.min(position(model), count(model) - columns(model));
  return Math.max(0, position(model) - columns(model) + 1, Math.min(last, model.get("first")));
};
const rowName = (layer) => (layer ? `layer ${layer - 1}` : "embedding");

// Which part of the text is seen.
function part(model) {
  const input = create("input", { type: "range", min: 0 }), where = create("output");
  const label = create("label", {}, "part of the text", input, where);
  input.addEventListener("input", () => {
    const start = input.valueAsNumber;
    choose(model, "first", start);
    choose(model, "position", Math.max(start, Math.min(start + columns(model) - 1, position(model))));
  });
  for (const name of ["found", "first", "position", "columns"]) follow(model, name, () => {
    input.max = count(model) - columns(model);
    input.value = first(model);
    where.value = `tokens ${first(model) + 1} to ${first(model) + columns(model)} of ${count(model)}`;
    label.hidden = count(model) === columns(model);
  });
  return create("div", { class: "bar" }, label);
}

// Layers down, tokens across.
function cells(model) {
  const table = create("table", { class: "lens" }), scroll = create("div", { class: "scroll" }, table);

  function draw() {
    const { tokens, cells, read } = model.get("found"), start = first(model), end = start + columns(model);
    const hadFocus = table.contains(table.getRootNode().activeElement), at = tokens.map((_, i) => i).slice(start, end);
    const edge = (i) => (i === read ? { class: "begins" } : {});
    const group = (words, span) => (span > 0 ? [create("th", { colspan: span, scope: "colgroup" }, words)] : []);
    const said = Math.max(0, Math.min(end, read) - start);
    table.replaceChildren(create("thead", {},
      create("tr", {}, create("td"), ...group("what it reads", said), ...group("its answer", end - start - said)),
      create("tr", {}, create("td"), ...at.map((i) => create("th", { scope: "col", title: tokens[i], ...edge(i) }, exact(tokens[i]))))),
    create("tbody", {}, ...cells.map((row, layer) => create("tr", {}, create("th", { scope: "row" }, rowName(layer)),
      ...at.map((i) => create("td", edge(i), button(model, layer, i)))))));
    if (hadFocus) table.querySelector("[tabindex='0']").focus();
  }

  table.addEventListener("keydown", (event) => {
    if (!(event.key in ARROWS)) return;
    event.preventDefault();
    const [down, right] = ARROWS[event.key];
    pick(model, model.get("layer") + down, position(model) + right);
  });
  for (const name of ["found", "first", "layer", "position", "columns"]) model.on(`change:${name}`, draw);
  draw();
  return scroll;
}

function button(model, layer, at) {
  const { tokens, cells } = model.get("found"), [name, percent] = cells[layer][at].likely[0];
  const chosen = layer === model.get("layer") && at === position(model), same = name === cells.at(-1)[at].likely[0][0];
  const made = create("button", { type: "button", "aria-pressed": chosen, tabindex: chosen ? 0 : -1, class: same ? "same" : "", title: name,
    style: `--strength: ${percent / 100}`, "aria-label": `${rowName(layer)}, at “${tokens[at]}”: ${exact(name)} ${inWords(percent)}` },
  `${exact(name)} `, create("small", {}, inWords(percent)));
  made.addEventListener("click", () => pick(model, layer, at));
  return made;
}

function pick(model, layer, at) {
  const start = first(model);
  choose(model, "layer", within(layer, model.get("found").cells.length));
  choose(model, "position", within(at, count(model)));
  choose(model, "first", Math.max(position(model) - columns(model) + 1, Math.min(position(model), start)));
}

function details(model) {
  const status = create("output", { class: "status", "aria-live": "polite" });
  const likely = create("table", { class: "bars" }), growth = create("table", { class: "bars" });

  function draw() {
    const { tokens, cells } = model.get("found"), at = position(model), layer = within(model.get("layer"), cells.length);
    const [last, chance] = cells.at(-1)[at].likely[0], [now, percent] = cells[layer][at].likely[0];
    status.value = `At “${exact(tokens[at])}”, the ${layer ? `stream after ${rowName(layer)}` : "embedding alone"} says “${exact(now)}” ` +
      `(${inWords(percent)}); the last layer says “${exact(last)}” (${inWords(chance)}).`;
    likely.replaceChildren(...bars(`The five likeliest, ${layer ? `after ${rowName(layer)}` : "from the embedding alone"}`,
      cells[layer][at].likely.map(([name, share]) => [exact(name), share / 100, inWords(share), name === last])));
    growth.replaceChildren(...bars(`How “${exact(last)}”, the last layer's choice, becomes likely`,
      cells.map((row, i) => [rowName(i), row[at].chance / 100, inWords(row[at].chance), i === layer])));
  }

  for (const name of ["found", "layer", "position"]) model.on(`change:${name}`, draw);
  draw();
  return create("div", {}, status, create("div", { class: "figures" }, likely, growth));
}

const STREAM_LOOK = `
  .bar label[hidden] { display: none }
  .figures { align-items: start; margin-top: 8px }
  .lens { table-layout: fixed; width: 100%; border-collapse: separate; border-spacing: 3px; margin: 0; font-size: 12px }
  .lens tr > :first-child { width: 68px }
  .lens th, .lens td { border: 0; padding: 0; white-space: pre }
  .lens th { font-weight: normal; opacity: .8 }
  .lens thead th { text-align: center; overflow: hidden; text-overflow: ellipsis }
  .lens [scope=colgroup] { border-bottom: 1px solid rgb(128 128 128 / .6) }
  .lens tbody th { padding-inline-end: 6px }
  .lens .begins { padding-inline-start: 4px; border-inline-start: 2px solid rgb(128 128 128 / .6) }
  .lens button { font: inherit; color: inherit; width: 100%; padding: 2px 1px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
    border: 2px solid transparent; border-radius: 5px; background: rgb(var(--accent) / calc(.06 + .5 * var(--strength, 0))) }
  .lens small { display: block; font-size: 11px; font-weight: normal; font-variant-numeric: tabular-nums }
  .lens .same { font-weight: bold }
  .lens [aria-pressed=true] { border-color: currentColor }
`;

export default { initialize, render };
