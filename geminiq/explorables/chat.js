// A conversation to take part in; of each token of an answer: how likely it was, what else was, and where each head looked.
import { choose, create, follow, initialize, stage } from "./base.js";
import { ANSWER_LOOK, details, tokens } from "./answer.js";

function render({ model, el }) {
  const root = stage(el, model, "Choose a token of an answer to see how it came about.");
  root.append(create("style", {}, LOOK + ANSWER_LOOK), transcript(model), form(model), settings(model), details(model));
}

// What was said; the tokens of an answer can be chosen.
function transcript(model) {
  const said = create("div", { class: "said", role: "group", "aria-label": "conversation" });
  const heard = create("output", { class: "heard", "aria-live": "polite" });   // the answer, for a screen reader
  const pending = create("div");
  const note = create("output", { class: "note", "aria-live": "polite" });
  let lines = [];   // of each turn, its tokens

  function drawTurns() {
    lines = model.get("turns").map(({ answer }, turn) => (answer.tokens ? tokens(model, answer, turn) : null));
    said.replaceChildren(...model.get("turns").flatMap(({ question, answer }, turn) =>
      [spoken("you", question), spoken("model", lines[turn]?.element ?? answer.text)]), pending);
    drawChoice();
  }

  function drawChoice() {
    lines.forEach((found, turn) => {
      const token = turn === model.get("turn") ? model.get("token") : -1;
      found?.mark(token, Math.max(token, 0));
    });
  }

  function drawPending() {
    const asked = model.get("asked");
    pending.replaceChildren(...(asked ? [spoken("you", asked), spoken("model", `${model.get("writing") ?? ""}…`)] : []));
  }

  for (const name of ["turn", "token"]) model.on(`change:${name}`, drawChoice);
  for (const name of ["asked", "writing"]) model.on(`change:${name}`, drawPending);
  model.on("change:turns", () => {
    drawTurns();
    heard.value = model.get("turns").at(-1)?.answer.text ?? "";
  });
  drawTurns();
  drawPending();
  follow(model, "note", () => (note.value = model.get("note")));
  return create("div", {}, said, heard, note);
}

const spoken = (who, content) => create("div", { class: `line ${who}` }, create("small", {}, who), create("div", {}, content));

// Where there is a kernel, a line to write in.
function form(model) {
  const input = create("input", { type: "text", "aria-label": "your message", placeholder: "Say something", autocomplete: "off" });
  const button = create("button", { type: "submit" }, "Ask");
  const element = create("form", {}, input, button);
  const absent = create("small", {}, "To take part, run the cell in JupyterLab.");

  element.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!input.value.trim() || model.get("asked")) return;
    choose(model, "asked", input.value);
    input.value = "";
  });
  input.addEventListener("keydown", (event) => {   // JupyterLab takes Enter for itself
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    element.requestSubmit();
  });
  follow(model, "asked", () => (button.disabled = Boolean(model.get("asked"))));
  follow(model, "live", () => {
    element.hidden = !model.get("live");
    absent.hidden = !element.hidden;
  });
  return create("div", { class: "form" }, element, absent);
}

function settings(model) {
  const temperature = create("input", { type: "number", min: 0, max: 2, step: 0.1 });
  const system = create("input", { type: "text", placeholder: "none" });
  const reset = create("button", { type: "button" }, "Forget all");
  temperature.addEventListener("change", () => choose(model, "temperature", temperature.valueAsNumber || 0));
  system.addEventListener("change", () => choose(model, "system", system.value));
  reset.addEventListener("click", () => choose(model, "resets", (model.get("resets") ?? 0) + 1));
  follow(model, "temperature", () => (temperature.value = model.get("temperature")));
  follow(model, "system", () => (system.value = model.get("system")));
  const bar = create("div", { class: "bar" }, create("label", {}, "temperature", temperature),
    model.get("answers") ? create("label", {}, "system message", system) : "", reset);
  follow(model, "live", () => (bar.hidden = !model.get("live")));
  return bar;
}

const LOOK = `
  [hidden] { display: none !important }
  .said { display: grid; gap: 6px; margin-bottom: 10px }
  .said > div:not(.line) { display: contents }
  .line { display: grid; grid-template-columns: 48px minmax(0, 1fr); align-items: baseline; overflow-wrap: anywhere }
  .line.you > div { white-space: pre-wrap }
  .line.model > div { padding: 4px 0 }
  .line .chips { margin: 0; gap: 2px }
  .line .chips > * { padding: 2px 4px }
  .heard { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
  .note { display: block; font-style: italic }
  .note:not(:empty) { margin-bottom: 8px }
  .form { margin-bottom: 10px }
  form { display: flex; gap: 8px }
  form input { flex: 1; min-width: 0 }
  input[type=text], input[type=number], form button, .bar button { font: inherit; color: inherit; background: none; padding: 5px 8px;
    border: 1px solid rgb(128 128 128 / .6); border-radius: 6px }
  .bar input[type=number] { width: 64px }
  .bar input[type=text] { width: 220px; max-width: 40vw }
  form button:disabled { opacity: .5 }
`;

export default { initialize, render };
