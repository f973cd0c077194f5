// A conversation to take part in; of each token of an answer: how likely it was, what else was, and where each head looked.
import { choose, chips, create, fold, follow, initialize, stage } from "./base.js";

const STEPS = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -Infinity, End: Infinity };

function render({ model, el }) {
  const root = stage(el, model, "Choose a token of an answer to see how it came about.");
  root.append(create("style", {}, LOOK), transcript(model), form(model), settings(model), details(model));
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

function tokens(model, answer, turn) {
  const found = chips(answer.tokens.map(bare), `answer ${turn + 1}, token by token`, true);
  found.shade(answer.chances.map((percent) => percent / 100), answer.chances.map(inWords));

  function pick(token) {
    choose(model, "turn", turn);
    choose(model, "token", token);
  }

  found.element.addEventListener("click", (event) => {
    const token = found.find(event);
    if (token !== null) pick(token);
  });
  found.element.addEventListener("keydown", (event) => {
    if (!(event.key in STEPS)) return;
    event.preventDefault();
    pick(within(found.find(event) + STEPS[event.key], answer.tokens.length));
    found.element.querySelector("[tabindex='0']").focus();
  });
  return found;
}

const within = (number, count) => Math.max(0, Math.min(count - 1, number));
const inWords = (percent) => (percent < 0.1 ? "<0.1%" : `${percent < 10 ? percent : Math.round(percent)}%`);

// A token without the space that most begin with, and with it made visible where it tells two apart.
const bare = (name) => name.trim() || "␣";
const exact = (name) => name.replace(/^ | $/g, "␣");

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

// How the chosen token came about.
function details(model) {
  const status = create("output", { class: "status", "aria-live": "polite" });
  const likely = create("tbody"), heads = create("div", { class: "heads", role: "radiogroup", "aria-label": "which head" });
  const where = create("p"), context = create("p", { class: "context" });
  const all = fold("Where every head looked", ["layer", "head", "looked at"], () => everyHead(model));
  const figures = create("div", { class: "figures" },
    create("table", { class: "likely" }, create("caption", {}, "The likeliest tokens here"), likely),
    create("div", { class: "scroll" }, create("small", {}, "Where each head looked most: layers down, heads across. Choose one."), heads));
  const body = create("div", {}, figures, where, context, all.element);

  function draw() {
    const answer = chosen(model);
    body.hidden = !answer;
    status.value = answer ? chance(answer, model.get("token")) : "";
    if (!answer) return;
    const token = model.get("token");
    likely.replaceChildren(...answer.likely[token].map(([name, percent], rank) => bar(name, percent, rank === answer.ranks[token])));
    drawHeads(model, heads);
    all.fill();
    drawContext();
  }

  function drawContext() {
    const answer = chosen(model);
    if (!answer) return;
    const names = read(answer, model.get("token")), weights = looked(model);
    context.replaceChildren(...names.map((name, i) => word(name, weights[i] ?? 0, i === names.length - 1)));
    where.textContent = `${headName(model)}: “${bare(names.at(-1))}”, the last token before it, looked at ${strongest(weights, names)}.`;
  }

  for (const name of ["turns", "turn", "token"]) model.on(`change:${name}`, draw);
  for (const name of ["layer", "head"]) model.on(`change:${name}`, () => (drawHeads(model, heads), drawContext()));
  draw();
  return create("div", { class: "details" }, status, body);
}

const chosen = (model) => {
  const answer = model.get("turns")[model.get("turn")]?.answer;
  return answer?.tokens?.[model.get("token")] === undefined ? null : answer;
};
const read = (answer, token) => [...answer.read, ...answer.tokens.slice(0, token)];
const headName = (model) => (model.get("head") < 0 ? "All heads together" : `Layer ${model.get("layer")}, head ${model.get("head")}`);

function chance(answer, token) {
  const [best, percent] = answer.likely[token][0], rank = answer.ranks[token];
  const place = rank === 0 ? "the likeliest" : `number ${rank + 1}; the likeliest was “${exact(best)}”, ${inWords(percent)}`;
  return `“${exact(answer.tokens[token])}” had a probability of ${inWords(answer.chances[token])}: ${place}.`;
}

const bar = (name, percent, taken) => create("tr", taken ? { class: "taken" } : {},
  create("th", { scope: "row" }, `${taken ? "✓ " : ""}${exact(name)}`),
  create("td", {}, create("div", { style: `width: ${percent}%` })), create("td", {}, inWords(percent)));

// A token in its text; whoever speaks begins a line.
const word = (name, weight, last) => create("span", {}, /^<\|(user|assistant|system)\|>$/.test(name) ? "\n" : "",
  create("span", { class: last ? "last" : "", style: `--strength: ${weight / 100}` }, name,
    ...(weight >= 5 ? [create("small", {}, `${Math.round(weight)}%`)] : [])), name.endsWith("↵") ? "\n" : "");

// A head keeps the places where it looked most: two bytes for the place, one for the percentage.
function head(answer, token, number) {
  if (!unpacked.has(answer)) unpacked.set(answer, Uint8Array.from(atob(answer.seen), (character) => character.charCodeAt(0)));
  const bytes = unpacked.get(answer), size = 3 * answer.places, [layers, heads] = answer.shape;
  const start = (token * layers * heads + number) * size, weights = [];
  for (let i = start; i < start + size; i += 3)
    if (bytes[i + 2]) weights[bytes[i] + 256 * bytes[i + 1]] = bytes[i + 2];
  return weights;
}

const unpacked = new WeakMap();

function looked(model) {
  const answer = chosen(model), [layers, heads] = answer.shape, token = model.get("token");
  if (model.get("head") >= 0) return head(answer, token, model.get("layer") * heads + model.get("head"));
  const mean = [];
  for (let number = 0; number < layers * heads; number++)
    head(answer, token, number).forEach((weight, i) => (mean[i] = (mean[i] ?? 0) + weight / (layers * heads)));
  return mean;
}

const ordered = (weights) => Object.keys(weights).sort((a, b) => weights[b] - weights[a] || a - b);
const strongest = (weights, names) =>
  ordered(weights).slice(0, 3).map((i) => `“${bare(names[i])}” ${Math.round(weights[i])}%`).join(", ") || "nothing";

function everyHead(model) {
  const answer = chosen(model), token = model.get("token");
  return answer ? Array.from({ length: answer.shape[0] * answer.shape[1] }, (_, number) => [
    Math.floor(number / answer.shape[1]), number % answer.shape[1],
    strongest(head(answer, token, number), read(answer, token))].map(String)) : [];
}

// A button for each head, with what it looked at most, and one for all of them.
function drawHeads(model, element) {
  const answer = chosen(model);
  if (!answer) return;
  const [layers, heads] = answer.shape, token = model.get("token"), names = read(answer, token);
  const now = model.get("head") < 0 ? -1 : model.get("layer") * heads + model.get("head");
  const hadFocus = element.contains(element.getRootNode().activeElement);

  function pick(number) {
    choose(model, "layer", number < 0 ? -1 : Math.floor(number / heads));
    choose(model, "head", number < 0 ? -1 : number % heads);
  }

  function button(number) {
    const weights = number < 0 ? [] : head(answer, token, number), [best] = ordered(weights);
    const content = number < 0 ? ["all heads"] : best === undefined ? ["–"] : [bare(names[best]), create("small", {}, `${weights[best]}%`)];
    const made = create("button", { type: "button", role: "radio", "aria-checked": number === now, tabindex: number === now ? 0 : -1,
      style: `--strength: ${(weights[best] ?? 0) / 100}`, class: number < 0 ? "all" : "" }, ...content);
    if (number >= 0) made.setAttribute("aria-label", `layer ${Math.floor(number / heads)}, head ${number % heads}: ${strongest(weights, names)}`);
    made.addEventListener("click", () => pick(number));
    return made;
  }

  element.style.setProperty("--heads", heads);
  element.replaceChildren(...Array.from({ length: layers * heads + 1 }, (_, i) => button(i - 1)));
  element.onkeydown = (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -heads, ArrowDown: heads, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    pick(Math.max(-1, Math.min(layers * heads - 1, (now < 0 && event.key === "ArrowDown" ? 0 : now + steps[event.key]))));
  };
  if (hadFocus) element.querySelector("[tabindex='0']").focus();
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
  .details .figures { align-items: start; margin-top: 8px }
  .likely { margin: 0; width: 280px; max-width: 100% }
  caption { text-align: start; opacity: .75; font-size: 12px }
  .likely th { font-weight: normal; white-space: pre; max-width: 110px; overflow: hidden; text-overflow: ellipsis }
  .likely td:nth-child(2) { width: 100% }
  .likely td div { height: 10px; min-width: 1px; background: rgb(var(--accent)) }
  .likely td:last-child { font-variant-numeric: tabular-nums; text-align: end; padding: 2px 0 }
  .taken th { font-weight: bold }
  .scroll { overflow-x: auto; padding: 3px }
  .heads { display: grid; grid-template-columns: repeat(var(--heads), 62px); gap: 3px; margin-top: 4px }
  .heads .all { grid-column: 1 / -1; justify-self: start; padding: 2px 8px }
  .heads button { font: inherit; font-size: 12px; color: inherit; white-space: pre; overflow: hidden; text-overflow: ellipsis; padding: 2px;
    border: 2px solid transparent; border-radius: 5px; background: rgb(var(--accent) / calc(.06 + .6 * var(--strength, 0))) }
  .heads small { display: block; font-size: 11px }
  .heads [aria-checked=true] { border-color: currentColor }
  .details p { margin: 8px 0 }
  .context { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.7; padding: 6px 8px; border: 1px solid rgb(128 128 128 / .3);
    border-radius: 6px }
  .context span { border-radius: 3px; background: rgb(var(--accent) / calc(.75 * var(--strength, 0))) }
  .context small { font-size: 10px; vertical-align: super; opacity: 1 }
  .context .last { display: inline-block; white-space: pre; line-height: 1.3; outline: 2px solid }
`;

export default { initialize, render };
