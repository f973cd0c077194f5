// Who looks at whom in a text that the reader writes.
import { choose, create, follow, initialize, pageModel, stage } from "./base.js";
import { headMaps } from "./heads.js";
import { engine, fetchWhenTouched, lastOf } from "./live.js";

const CHOSEN = ["layer", "head"];

function render({ model, el }) {
  const root = stage(el, model, "Write something else. Rows look, columns are looked at; point at a row to see it, click to keep it.");
  const maps = create("div"), read = lastOf(() => readText(model));
  root.append(create("style", {}, LOOK), field(model), maps);
  fetchWhenTouched(model, root);

  // A text of its own has a model of its own; what was chosen goes from one to the next.
  function draw() {
    const names = ["tokens", "queries", "rows", "shape", "causal", "packed", ...CHOSEN];
    const own = pageModel(Object.fromEntries(names.map((name) => [name, model.get(name)])));
    own.set("query", model.get("shape")[2] - 1);
    for (const name of CHOSEN) own.on(`change:${name}`, () => choose(model, name, own.get(name)));
    maps.replaceChildren(...headMaps(own));
  }

  model.on("change:text", read);
  model.on("change:packed", draw);
  draw();
}

async function readText(model) {
  try {
    const look = await (await engine(model))("look", { messages: [{ role: "user", content: model.get("text") }] });
    model.set("tokens", look.tokens);
    model.set("shape", look.shape);
    model.set("note", "");
    model.set("packed", look.packed);
  } catch (error) {
    model.set("note", error.message);
  }
}

function field(model) {
  const text = create("textarea", { rows: 2, "aria-label": "text", maxlength: 600 });
  const note = create("output", { class: "note", "aria-live": "polite" });
  text.value = model.get("text");
  text.addEventListener("input", () => choose(model, "text", text.value));
  follow(model, "note", () => (note.value = model.get("note") ?? ""));
  return create("div", {}, text, note);
}

const LOOK = `
  textarea { font: inherit; color: inherit; background: none; padding: 5px 8px; width: 100%; max-width: 720px; box-sizing: border-box;
    border: 1px solid rgb(128 128 128 / .6); border-radius: 6px; resize: vertical }
  .note { display: block; min-height: 1.45em; opacity: .75 }
`;

export default { initialize, render };
