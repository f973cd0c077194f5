// What the pictures of a model's inside share: a text to type, the model that reads it, and numbers as bars.
import { choose, create, follow } from "./base.js";
import { engine, fetchWhenTouched, lastOf } from "./live.js";

// The text; a new one asks the worker for `what`, and what it finds is handed on.
export function reader(model, root, what, onFound) {
  const field = create("input", { type: "text", "aria-label": "text", maxlength: 2000, autocomplete: "off" });
  const note = create("output", { class: "note", "aria-live": "polite" });
  const form = create("form", {}, field, create("button", { type: "submit" }, "Read"));

  function send(event) {
    event.preventDefault();
    choose(model, "text", field.value.trim());
  }

  form.addEventListener("submit", send);
  field.addEventListener("keydown", (event) => {   // JupyterLab takes Enter for itself
    if (event.key === "Enter" && !event.isComposing) send(event);
  });
  follow(model, "text", () => (field.value = model.get("text")));

  const tell = ({ text, tokens }, by) => (note.value = `It answers: “${text.trim()}” (${tokens.length} tokens in all, computed by ${by})`);

  tell(model.get("found"), "PyTorch");
  model.on("change:text", lastOf(async () => {
    note.value = "The model is on its way …";
    try {
      const ask = await engine(model);
      note.value = "It reads …";
      const found = await ask(what, { text: model.get("text") });
      onFound(found);
      tell(found, "this page");
    } catch (error) {
      note.value = error.message;
    }
  }));
  fetchWhenTouched(model, root);
  return create("div", {}, form, note);
}

// Rows of a name, a length between 0 and 1, and a number; the marked one has a tick.
export const bars = (caption, rows) => [create("caption", {}, caption), create("tbody", {}, ...rows.map(([name, share, number, marked]) =>
  create("tr", marked ? { class: "marked" } : {}, create("th", { scope: "row" }, `${marked ? "✓ " : ""}${name}`),
    create("td", {}, create("div", { style: `width: ${100 * share}%` })), create("td", {}, number))))];

export const INSIDE_LOOK = `
  form { display: flex; gap: 8px; margin-bottom: 8px; max-width: 720px }
  form input, form button { font: inherit; color: inherit; background: none; padding: 5px 8px; border: 1px solid rgb(128 128 128 / .6);
    border-radius: 6px; box-sizing: border-box }
  form input { flex: 1; min-width: 0 }
  .note { display: block; min-height: 1.45em; margin-bottom: 8px; opacity: .75; overflow-wrap: anywhere }
  .scroll { overflow-x: auto; padding: 3px; margin-bottom: 6px }
  caption { text-align: start; opacity: .75; font-size: 12px; padding-bottom: 2px }
  .bars { width: 340px; max-width: 100%; margin: 0 }
  .bars th { font-weight: normal; white-space: pre; max-width: 160px; overflow: hidden; text-overflow: ellipsis }
  .bars td:nth-child(2) { width: 100% }
  .bars td div { height: 10px; min-width: 1px; background: rgb(var(--accent)) }
  .bars td:last-child { font-variant-numeric: tabular-nums; text-align: end; padding: 2px 0; white-space: nowrap }
  .bars .marked th { font-weight: bold }
`;
