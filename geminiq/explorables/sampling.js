// What may come next: how likely each token is, what temperature and cuts make of it, and a hundred draws.
import { choose, create, follow, initialize, stage } from "./base.js";
import { TYPED_LOOK, field, keepUp, note, range, visible } from "./typed.js";

const DRAWING = ["temperature", "topK", "topP", "minP", "seed"];

function render({ model, el }) {
  const chat = model.get("chat");
  const root = stage(el, model, `Type ${chat ? "what the user says and how the answer begins" : "a text"}. Then cut, and draw.`);
  root.append(create("style", {}, TYPED_LOOK + LOOK), field(model, "text", chat ? "The user says" : "Text", 3),
    chat ? field(model, "answer", "The answer begins (it may be empty)", 1) : "", note(model), knobs(model), chances(model));
  keepUp(model, root, "next", ["text", "answer", ...DRAWING]);
}

function knobs(model) {
  const again = create("button", { type: "button" });
  again.addEventListener("click", () => choose(model, "seed", model.get("seed") + 1));
  follow(model, "seed", () => (again.textContent = model.get("seed") ? "Draw 100 others" : "Draw 100 times"));
  return create("div", { class: "bar knobs" },
    range(model, "temperature", "temperature", { min: 0, max: 2, step: 0.1 }, (value) => (value ? value.toFixed(1) : "0: the likeliest")),
    mostOf(model),
    range(model, "topP", "top-p", { min: 0.05, max: 1, step: 0.05 }, (value) => (value === 1 ? "all" : value.toFixed(2))),
    range(model, "minP", "min-p", { min: 0, max: 0.5, step: 0.01 }, (value) => (value ? value.toFixed(2) : "none")), again);
}

// How many may be kept; at its end, all.
function mostOf(model) {
  const input = create("input", { type: "range", min: 1, max: 41 }), number = create("output");
  input.addEventListener("input", () => choose(model, "topK", input.value === input.max ? 0 : input.valueAsNumber));
  follow(model, "topK", () => {
    input.value = model.get("topK") || input.max;
    number.value = model.get("topK") || "all";
  });
  return create("label", {}, "top-k", input, number);
}

function chances(model) {
  const status = create("output", { class: "status", "aria-live": "polite" }), body = create("tbody");
  const head = ["token", "", "of the model", "to draw from", "in 100 draws"].map((name, i) => create("th", { scope: "col", class: KINDS[i] }, name));
  const table = create("table", { class: "chances" }, create("thead", {}, create("tr", {}, ...head)), body);
  follow(model, "next", () => {
    const { rows, kept, had, read, last } = model.get("next"), drawn = model.get("seed") > 0;
    status.value = `${kept} of ${model.get("vocabulary")} tokens may come next; the model gave them ${tenths(had)}. ` +
      `It read ${read} tokens, the last is “${visible(last)}”.`;
    table.classList.toggle("drawn", drawn);
    body.replaceChildren(...rows.map((row, i) => tableRow(row, drawn, i === rows.length - 1)));
  });
  return create("div", {}, status, table);
}

const KINDS = ["token", "bars", "before", "after", "draws"];

function tableRow([name, before, after, draws, kept], drawn, others) {
  const bars = [["before", before], ["after", after], ...(drawn ? [["draws", draws]] : [])];
  return create("tr", { class: kept ? "" : "cut" }, create("th", { scope: "row", class: "token" }, others ? name : visible(name)),
    create("td", { class: "bars" }, ...bars.map(([kind, percent]) => create("div", { class: kind, style: `width: ${percent}%` }))),
    create("td", { class: "before" }, tenths(before)), create("td", { class: "after" }, kept ? tenths(after) : "cut"),
    create("td", { class: "draws" }, drawn ? draws : "–"));
}

const tenths = (percent) => (percent < 0.1 ? "<0.1%" : `${percent.toFixed(1)}%`);

const LOOK = `
  .knobs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 330px), 1fr)); max-width: 720px; gap: 6px 16px }
  .knobs label { display: grid; grid-template-columns: 11ch 120px 1fr }
  .knobs button { justify-self: start }
  .chances { table-layout: fixed; width: 100%; max-width: 720px; font-variant-numeric: tabular-nums }
  .chances th { font-weight: normal }
  .chances thead { font-size: 12px; vertical-align: bottom }
  .chances .token { width: 110px; white-space: pre; overflow: hidden; text-overflow: ellipsis }
  .chances td:not(.bars), .chances .before, .chances .after, .chances .draws { width: 62px; text-align: end; padding-inline: 4px }
  .chances .bars div { width: 0; height: 6px; margin: 1px 0; padding: 0; border-radius: 0 3px 3px 0 }
  .bars .before { background: rgb(128 128 128 / .7) }
  .bars .after { background: rgb(var(--accent)) }
  .bars .draws { background: repeating-linear-gradient(90deg, rgb(217 119 6) 0 4px, transparent 4px 6px) }
  thead .before, thead .after, thead .draws { border-top: 5px solid rgb(128 128 128 / .7) }
  thead .after { border-top-color: rgb(var(--accent)) }
  thead .draws { border-top: 5px dashed rgb(217 119 6) }
  .cut .token, .cut .before { text-decoration: line-through }
  @media (width < 480px) { .chances .token { width: 92px } .chances td:not(.bars), .chances .before, .chances .after, .chances .draws { width: 48px } }
`;

export default { initialize, render };
