// A text becomes tokens: first its letters, then one merge after the other, in the order in which they were learned.
import { choose, create, fold, follow, initialize, stage } from "./base.js";
import { TYPED_LOOK, field, keepUp, note, visible } from "./typed.js";

function render({ model, el }) {
  const root = stage(el, model, "Type a text. The slider leads from its letters to its tokens. Below each letter stand its bytes, below each piece its id.");
  const status = create("output", { class: "status", "aria-live": "polite" });
  const line = create("div", { class: "text", role: "list" });
  const table = fold("In numbers", ["piece", "id", "bytes"], () => piecesAt(model).flat().map(({ text, ids }) =>
    [visible(text), ids.join(" "), bytesOf(text).join(" ")]));
  root.append(create("style", {}, TYPED_LOOK + LOOK), field(model, "text", "Text", 2), note(model), steps(model), status, line, table.element);

  function draw() {
    const words = piecesAt(model);
    status.value = counted(model, words);
    line.setAttribute("aria-label", model.get("step") < model.get("cut").merges.length ? "pieces" : "tokens");
    line.replaceChildren(...words.map((word) => create("div", { class: "word", role: "presentation" }, ...word.map(chip))));
    table.fill();
  }

  let whole = isWhole(model);   // it stays so while the reader types
  model.on("change:step", () => { whole = isWhole(model); draw(); });
  model.on("change:cut", () => {
    const last = model.get("cut").merges.length;
    choose(model, "step", whole ? last : Math.min(model.get("step"), last));
    draw();
  });
  keepUp(model, root, "cut", ["text"]);
  draw();
}

const isWhole = (model) => model.get("step") >= model.get("cut").merges.length;

// Each word's pieces after so many merges.
function piecesAt(model) {
  const { words, merges } = model.get("cut"), step = model.get("step");
  const pieces = words.map((word) => word.map(([text, ids]) => ({ text, ids })));
  merges.slice(0, step).forEach(({ piece, id, at }, i) => {
    for (const [word, place] of at) {
      const from = pieces[word].slice(place, place + 2).map(({ text }) => visible(text));
      pieces[word].splice(place, 2, { text: piece, ids: [id], from: i === step - 1 && from });
    }
  });
  return pieces;
}

function counted(model, words) {
  const { merges } = model.get("cut"), step = model.get("step"), pieces = words.flat();
  const text = pieces.map((piece) => piece.text).join(""), tokens = pieces.flatMap(({ ids }) => ids).length;
  const counts = `${count([...text].length, "character")}, ${count(bytesOf(text).length, "byte")}, ${count(tokens, "token")}.`;
  if (!step) return `${counts} No merge yet: each letter by itself.`;
  const { piece, rank, at } = merges[step - 1], [left, right] = pieces.find(({ from }) => from).from;
  return `${counts} Merge ${step} of ${merges.length}: “${left}” + “${right}” → “${visible(piece)}”${at.length > 1 ? `, at ${at.length} places` : ""}; ` +
    `of all pairs it was learned as number ${rank + 1}.`;
}

const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
const bytesOf = (text) => [...new TextEncoder().encode(text)].map((byte) => byte.toString(16).padStart(2, "0"));

// A piece: below each letter its bytes, and then the number of the token. A letter that is no token is as many as it has bytes.
function chip({ text, ids, from }) {
  const letters = [...text].map((letter) => create("span", {}, visible(letter), create("small", {}, bytesOf(letter).join(" "))));
  const element = create("div", { class: from ? "piece fresh" : "piece", role: "listitem",
    "aria-label": `${visible(text)}, id ${ids.join(" ")}, bytes ${bytesOf(text).join(" ")}` });
  element.append(create("div", { class: "letters" }, ...letters), create("b", {}, ids.join(" ")));
  return element;
}

function steps(model) {
  const input = create("input", { type: "range", min: 0 }), number = create("output");
  input.addEventListener("input", () => choose(model, "step", input.valueAsNumber));

  function draw() {
    const last = model.get("cut").merges.length;
    Object.assign(input, { max: last, value: model.get("step"), disabled: !last });
    number.value = `${model.get("step")} of ${last}`;
  }

  follow(model, "step", draw);
  follow(model, "cut", draw);
  return create("div", { class: "bar steps" }, create("label", {}, "merges", input, number));
}

const LOOK = `
  .steps label { width: min(100%, 480px) }
  .steps input { flex: 1; min-width: 0 }
  .steps output { min-width: 8ch }
  .text { display: flex; flex-wrap: wrap; gap: 8px 9px; margin: 8px 0 }
  .word { display: flex; flex-wrap: wrap; gap: 8px 2px }
  .piece { border: 2px solid transparent; border-radius: 6px; padding: 2px 3px; text-align: center; background: rgb(var(--accent) / .16) }
  .fresh { border-color: currentColor; background: rgb(var(--accent) / .4) }
  .letters { display: flex; justify-content: center }
  .letters span { min-width: 15px }
  .letters small { display: block; font: 9.5px ui-monospace, monospace; opacity: .8; padding: 0 1px }
  .piece b { font-size: 11px; font-weight: 600; font-variant-numeric: tabular-nums }
  td { overflow-wrap: anywhere }
`;

export default { initialize, render };
