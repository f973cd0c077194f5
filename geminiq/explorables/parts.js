// Parts to switch off: what the model says without them, and which word of its answer is lost.
import { choose, chips, create, exact, fold, follow, initialize, inWords, stage } from "./base.js";
import { INSIDE_LOOK, reader } from "./inside.js";
import { engine, lastOf } from "./live.js";

const MOST = 24;   // tokens that are seen of what a broken model says

function render({ model, el }) {
  const root = stage(el, model, "Switch a part off, and it adds nothing any more. Under each switch: the answer, token by token, " +
    "and how much of each is left without this part alone.");
  const silence = lastOf(() => silenceParts(model)), measure = lastOf(() => measureParts(model));
  root.append(create("style", {}, INSIDE_LOOK + PARTS_LOOK), reader(model, root, "silenced", (found) => {
    model.set("said", null);
    model.set("found", { ...found, parts: [] });
    silence();
    measure();
  }), stack(model), answers(model));
  model.on("change:without", silence);
}

const nameOf = (part) => `${Math.floor(part / 2)}.${part % 2 ? "feed_forward" : "attention"}`;
const kindOf = (part) => (part % 2 ? "feed-forward" : "attention");
const count = (model) => 2 * model.get("layers");

async function silenceParts(model) {
  const found = model.get("found"), without = model.get("without");
  model.set("busy", true);
  try {
    const said = without.length ? await (await engine(model))("silenced", { text: model.get("text"), without, answer: found.ids })
      : { ...found, without, left: found.chances };
    if (found.ids === model.get("found").ids) model.set("said", said);
    model.set("problem", "");
  } catch (error) {
    model.set("problem", error.message);
  }
  model.set("busy", false);
}

// One part after the other, so that a switch is heard in between.
async function measureParts(model) {
  const ask = await engine(model);
  for (let found; (found = model.get("found")).parts.length < count(model);) {
    const left = await ask("left", { text: model.get("text"), without: [nameOf(found.parts.length)], answer: found.ids });
    if (found === model.get("found")) model.set("found", { ...found, parts: [...found.parts, left] });
  }
}

const answer = ({ tokens, read }) => tokens.slice(read);

// Where in the answer most is lost.
function lost({ chances }, left) {
  const fall = (at) => chances[at] - left[at];
  return left.reduce((worst, _, at) => (fall(at) > fall(worst) ? at : worst), 0);
}

const falls = ({ chances }, left, at) => chances[at] - left[at] >= 0.5;

// A token of the answer, and the word that it is a part of: “4 in 42”.
function tokenOf(found, at, quote = (name) => name) {
  const tokens = answer(found), letter = "[\\p{L}\\p{N}]";
  const joined = (i) => RegExp(`${letter}$`, "u").test(tokens[i - 1] ?? "") && RegExp(`^${letter}`, "u").test(tokens[i] ?? "");
  let start = at, end = at + 1;
  while (joined(start)) start--;
  while (joined(end)) end++;
  return [tokens[at], ...(end - start > 1 ? [tokens.slice(start, end).join("")] : [])].map((name) => quote(name.trim() || "␣")).join(" in ");
}

// The layers, with their switches.
function stack(model) {
  const rows = Array.from({ length: model.get("layers") }, (_, layer) => create("div", { class: "layer", role: "group", "aria-label": `layer ${layer}` },
    toggle(model, `layer ${layer}`, `layer ${layer}`, [2 * layer, 2 * layer + 1]), card(model, 2 * layer), card(model, 2 * layer + 1)));
  const all = create("button", { type: "button" }, "Switch all on");
  all.addEventListener("click", () => choose(model, "without", []));
  follow(model, "without", () => (all.disabled = !model.get("without").length));
  return create("div", { class: "stack" }, create("span", { class: "end" }, "the text ↓"), ...rows, create("span", { class: "end" }, "↓ the answer"), all);
}

// A switch for one part, or for both of a layer: it is off when they all are.
function toggle(model, label, words, parts) {
  const state = create("small"), names = parts.map(nameOf);
  const on = () => names.some((name) => !model.get("without").includes(name));
  const button = create("button", { type: "button", role: "switch", "aria-label": label }, create("span", { class: "knob" }), create("span", {}, words), state);
  button.addEventListener("click", () => {
    const others = model.get("without").filter((name) => !names.includes(name));
    choose(model, "without", on() ? [...others, ...names] : others);
  });
  follow(model, "without", () => {
    button.setAttribute("aria-checked", on());
    state.textContent = on() ? "on" : "off";
  });
  return button;
}

function card(model, part) {
  const words = create("small"), strip = create("div", { class: "strip", "aria-hidden": "true" });
  follow(model, "found", () => {
    const found = model.get("found"), left = found.parts[part], at = left && lost(found, left);
    words.textContent = !left ? "…" : falls(found, left, at) ? `${tokenOf(found, at)}: ${inWords(left[at])}` : "nothing is lost";
    strip.replaceChildren(...found.chances.map((_, i) => create("i", { style: `--left: ${left?.[i] ?? 0}%` })));
  });
  return create("div", { class: "part" }, toggle(model, `${kindOf(part)} ${Math.floor(part / 2)}`, kindOf(part), [part]), strip, words);
}

// What the whole model says, and what is said without the parts that are off.
function answers(model) {
  const status = create("output", { class: "status", "aria-live": "polite" }), both = create("div");
  const table = fold("What each part's silence costs", ["without", "the token that loses most", "with all parts", "without it"], () =>
    model.get("found").parts.map((left, part) => {
      const found = model.get("found"), at = lost(found, left);
      return [partName(part), tokenOf(found, at), inWords(found.chances[at]), inWords(left[at])];
    }));

  function draw() {
    const found = model.get("found"), said = model.get("said"), broken = said?.without.length > 0;
    status.value = model.get("problem") || inASentence(model);
    const left = broken ? said.left : found.chances;
    both.replaceChildren(saidBy(broken ? "The whole model says; how likely each token is, whole → broken" : "The whole model says; how likely it found each token",
      answer(found), left, found.chances.map((chance, at) => (broken ? `${inWords(chance)} ${fell(chance, left[at]) ? "↘" : "→"} ${inWords(left[at])}` : inWords(chance)))),
    broken ? saidBy("The broken model says; how likely it found each token", answer(said), said.chances, said.chances.map(inWords), answer(found)) : "");
  }

  model.on("change:found", table.fill);
  for (const name of ["found", "said", "problem"]) model.on(`change:${name}`, draw);
  follow(model, "busy", () => both.setAttribute("aria-busy", Boolean(model.get("busy"))));
  draw();
  return create("div", {}, status, both, table.element);
}

const fell = (before, after) => after < before / 2;

function saidBy(words, tokens, shares, notes, other = null) {
  const first = other ? tokens.findIndex((token, at) => token !== other[at]) : -1;
  const shown = tokens.slice(0, other ? MOST : tokens.length), more = tokens.length - shown.length;
  const found = chips([...shown.map(exact), ...(more ? [`… ${more} more`] : [])], words, false);
  found.shade(shares.slice(0, shown.length).map((share) => share / 100), notes.slice(0, shown.length));
  found.element.children[first]?.classList.add("differs");
  return create("div", {}, create("small", {}, words), found.element);
}

const partName = (part) => `${kindOf(part)} ${Math.floor(part / 2)}`;

function inASentence(model) {
  const found = model.get("found"), said = model.get("said");
  if (!said) return "…";
  if (!said.without.length) return `Nothing is switched off. It says: “${found.text.trim()}”`;
  const at = lost(found, said.left), same = said.text === found.text;
  const fall = !falls(found, said.left, at) ? "Nothing is lost." :
    `${tokenOf(found, at, (name) => `“${name}”`)} falls from ${inWords(found.chances[at])} to ${inWords(said.left[at])}.`;
  return `Without ${listed(model, said.without)} it ${same ? "still " : ""}says: “${short(said.text.trim())}” ${fall}`;
}

const short = (text) => (text.length > 90 ? `${text.slice(0, 90)} …` : text);

function listed(model, without) {
  const layers = Array.from({ length: model.get("layers") }, (_, layer) => [2 * layer, 2 * layer + 1].filter((part) => without.includes(nameOf(part))));
  if (without.length === count(model)) return "all its parts";
  const words = layers.flatMap((parts, layer) => (parts.length === 2 ? [`layer ${layer}`] : parts.map(partName)));
  return [words.slice(0, -1).join(", "), words.at(-1)].filter(Boolean).join(" and ");
}

const PARTS_LOOK = `
  .stack { display: grid; gap: 8px; max-width: 620px; margin-bottom: 10px; justify-items: start; container-type: inline-size }
  .stack button { font: inherit; color: inherit; background: none; padding: 4px 7px; border: 1px solid rgb(128 128 128 / .6); border-radius: 6px }
  .stack button:disabled { opacity: .5; cursor: default }
  .end { width: 112px; text-align: center; font-size: 12px; opacity: .75 }
  .layer { display: grid; grid-template-columns: 112px 1fr 1fr; gap: 24px; width: 100%; align-items: center; position: relative }
  .layer::before, .layer::after { content: ""; position: absolute; left: 56px; border-left: 2px solid rgb(128 128 128 / .6) }
  .layer::before { inset-block: -8px calc(50% + 15px) }
  .layer::after { inset-block: calc(50% + 15px) 0 }
  .stack [role=switch] { display: flex; align-items: center; gap: 6px; white-space: nowrap; width: 100% }
  .stack [role=switch] > small { margin-inline-start: auto; opacity: .8 }
  .knob { flex: none; width: 24px; height: 14px; border: 1px solid; border-radius: 8px; box-sizing: border-box; position: relative }
  .knob::after { content: ""; position: absolute; inset: 2px auto 2px 2px; width: 8px; border-radius: 50%; background: currentColor; opacity: .7 }
  [aria-checked=true] > .knob { background: rgb(var(--accent) / .45) }
  [aria-checked=true] > .knob::after { inset: 2px 2px 2px auto; opacity: 1 }
  [aria-checked=false] > span:not(.knob) { text-decoration: line-through }
  .stack [aria-checked=false] { border-style: dashed; background: rgb(220 38 38 / .18) }
  .part { min-width: 0; position: relative }
  .part:has([aria-checked=true])::before { content: "+"; position: absolute; left: -16px; top: 4px }
  .part > small { display: block; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-variant-numeric: tabular-nums }
  .strip { display: flex; gap: 1px; height: 16px; margin: 4px 0 1px }
  .strip i { flex: 1; background: linear-gradient(to top, rgb(var(--accent)) var(--left), rgb(128 128 128 / .25) var(--left)) }
  .differs { font-weight: bold; text-decoration: underline }
  @container (width < 520px) {
    .layer { grid-template-columns: 1fr 1fr; gap: 6px 18px }
    .layer > [role=switch] { grid-column: 1 / -1; width: auto; justify-self: start }
    .layer::before, .layer::after { content: none }
    .part::before { left: -14px }
  }
`;

export default { initialize, render };
