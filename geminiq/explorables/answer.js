// An answer to look into: of each token, how likely it was, what else was, and where each head looked.
import { choose, chips, create, exact, fold, inWords, within } from "./base.js";

const STEPS = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, Home: -Infinity, End: Infinity };

// The tokens of an answer, to choose from.
export function tokens(model, answer, turn) {
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

const bare = (name) => name.trim() || "␣";   // a token without the space that most begin with

// How the chosen token came about.
export function details(model) {
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
    drawArrows(context);
    where.textContent = `${headName(model)}: “${bare(names.at(-1))}”, the last token before it, looked at ${strongest(weights, names)}.`;
  }

  new ResizeObserver(() => drawArrows(context)).observe(context);
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
  create("span", { class: last ? "last" : "", style: `--strength: ${weight / 100}`, ...(weight >= 10 && { "data-weight": weight }) }, name,
    ...(weight >= 5 ? [create("small", {}, `${Math.round(weight)}%`)] : [])), name.endsWith("↵") ? "\n" : "");

// From the token that looked to those it looked at most.
function drawArrows(context) {
  context.querySelector("svg")?.remove();
  const from = context.querySelector(".last"), to = [...context.querySelectorAll("[data-weight]")].filter((found) => found !== from);
  const frame = context.getBoundingClientRect();
  if (!from || !frame.width) return;
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("aria-hidden", "true");

  function middle(element) {
    const box = element.getBoundingClientRect();
    return [box.x + box.width / 2 - frame.x, box.y - frame.y];
  }

  const [x, y] = middle(from);
  for (const element of to) {
    const [left, top] = middle(element), path = document.createElementNS(svg.namespaceURI, "path");
    path.setAttribute("d", `M ${x} ${y} Q ${(x + left) / 2} ${Math.min(y, top) - 22} ${left} ${top}`);
    path.style.strokeWidth = 1 + element.dataset.weight / 25;
    svg.append(path);
  }
  context.append(svg);
}

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

// The head that looked most at the word that was said then, if one did: its number, or −1.
export function finder(model) {
  const answer = chosen(model), token = model.get("token"), names = answer ? read(answer, token) : [];
  let best = -1, most = 9;
  for (let number = 0; answer && number < answer.shape[0] * answer.shape[1]; number++)
    head(answer, token, number).forEach((weight, i) => {
      if (weight > most && bare(names[i]) === bare(answer.tokens[token])) [best, most] = [number, weight];
    });
  return best;
}

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

export const ANSWER_LOOK = `
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
    border: 2px solid transparent; border-radius: 5px; background: rgb(var(--accent) / calc(.06 + .5 * var(--strength, 0))) }
  .heads small { display: block; font-size: 11px }
  .heads [aria-checked=true] { border-color: currentColor }
  .details p { margin: 8px 0 }
  .context { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.7; padding: 6px 8px; border: 1px solid rgb(128 128 128 / .3);
    border-radius: 6px }
  .context { position: relative }
  .context svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; pointer-events: none }
  .context path { fill: none; stroke: rgb(var(--accent) / .55) }
  .context span { border-radius: 3px; background: rgb(var(--accent) / calc(.56 * var(--strength, 0))) }
  .context small { font-size: 10px; vertical-align: super }
  .context .last { display: inline-block; white-space: pre; line-height: 1.3; outline: 2px solid }
`;
