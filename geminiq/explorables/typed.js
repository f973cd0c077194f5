// What pictures share that answer to what the reader types.
import { choose, create, follow } from "./base.js";
import { engine, fetchWhenTouched, lastOf } from "./live.js";

// A change of one of these choices asks the model again: its answer is the picture's `name`, and what went wrong the `note`.
export function keepUp(model, root, name, choices) {
  const ask = lastOf(async () => {
    root.host.setAttribute("aria-busy", true);
    const slow = setTimeout(() => model.set("note", "The model is on its way …"), 300);
    try {
      const answer = await (await engine(model))(name, Object.fromEntries(choices.map((choice) => [choice, model.get(choice)])));
      model.set(name, answer);
      model.set("note", "");
    } catch (error) {
      model.set("note", error.message);
    }
    clearTimeout(slow);
    root.host.setAttribute("aria-busy", false);
  });
  for (const choice of choices) model.on(`change:${choice}`, ask);
  fetchWhenTouched(model, root);
}

// A text to type.
export function field(model, name, label, rows) {
  const area = create("textarea", { rows, spellcheck: "false" });
  area.addEventListener("input", () => choose(model, name, area.value));
  follow(model, name, () => area.value !== model.get(name) && (area.value = model.get(name)));
  return create("label", { class: "field" }, label, area);
}

export function note(model) {
  const element = create("output", { class: "note", "aria-live": "polite" });
  follow(model, "note", () => (element.value = model.get("note") ?? ""));
  return element;
}

export function range(model, name, label, scale, inWords) {
  const input = create("input", { type: "range", ...scale }), number = create("output");
  input.addEventListener("input", () => choose(model, name, input.valueAsNumber));
  follow(model, name, () => {
    input.value = model.get(name);
    number.value = inWords(model.get(name));
  });
  return create("label", {}, label, input, number);
}

// A token, with its spaces and ends of lines made visible.
export const visible = (text) => text.replaceAll(" ", "␣").replaceAll("\n", "↵");

export const TYPED_LOOK = `
  .field { display: grid; gap: 2px; max-width: 720px; margin-bottom: 8px }
  .field textarea, .bar button { font: inherit; color: inherit; background: none; padding: 5px 8px; box-sizing: border-box;
    border: 1px solid rgb(128 128 128 / .6); border-radius: 6px }
  .field textarea { width: 100%; resize: vertical }
  .note { display: block; font-weight: bold }
  .note:empty { display: none }
`;
