// What a model costs, by its sizes: parameters, arithmetic for a token, memory (lesson 10).
import { choose, create, follow, initialize, stage } from "./base.js";

const SIZES = [["vocab_size", "vocabulary V"], ["d_model", "width D"], ["n_layers", "layers L"], ["d_ff", "hidden width F"],
  ["n_heads", "query heads H"], ["n_kv_heads", "key/value heads K"], ["max_seq_len", "text length T"]];
const SWITCHES = [["tie_embeddings", "one table for reading and predicting"], ["qk_norm", "norms on queries and keys"]];
const PARTS = ["embedding table", "attention", "attention scores", "feed-forward", "norms", "head", "weights", "keys and values"];
const OWN = "your own";

function render({ model, el }) {
  const status = create("output", { class: "status", "aria-live": "polite" });
  const figures = [share("parameters", "parameters", rounded), share("flops", "FLOPs to read one token", rounded), share("bytes", "memory", inBytes)];

  function draw() {
    const sizes = model.get("sizes"), cost = budget(sizes);
    for (const { update } of figures) update(cost);
    const [part, most] = Object.entries(cost.parameters).reduce((a, b) => (a[1] < b[1] ? b : a));
    status.value = `${rounded(sum(cost.parameters))} parameters, ${inPercent(most, cost.parameters)} of them in ${PLACES[part]}. ` +
      `To read the last of ${spelled(sizes.max_seq_len)} tokens takes ${rounded(sum(cost.flops))} FLOPs; ` +
      `the weights take ${inBytes(cost.bytes.weights)}, the text's keys and values ${inBytes(cost.bytes["keys and values"])}.`;
  }

  stage(el, model, "Choose a model, then move one size at a time.").append(create("style", {}, LOOK),
    create("div", { class: "bar" }, shapes(model)),
    create("div", { class: "sizes" }, ...SIZES.map(([name, label]) => size(model, name, label))),
    create("div", { class: "bar" }, ...SWITCHES.map(([name, label]) => flip(model, name, label))), status,
    create("div", { class: "costs" }, ...figures.map(({ element }) => element)), create("p", {}, create("small", {}, NOTE)));
  follow(model, "sizes", draw);
}

const PLACES = { "embedding table": "the embedding table", attention: "attention", "feed-forward": "the feed-forward layers", norms: "the norms",
  head: "the head" };
const NOTE = "The token is the last of a text of T, and looks at all of them. A multiply-add counts as 2 FLOPs; look-ups, norms, rotations and " +
  "softmax are no products of matrices, and are not counted. Memory with 2 bytes a number.";

// The same as `budget` in Python.
function budget({ vocab_size: V, d_model: D, n_layers: L, n_heads: H, n_kv_heads: K, d_ff: F, max_seq_len: T, tie_embeddings, qk_norm }) {
  const E = D / H, attention = L * 2 * D * E * (H + K), feedForward = L * 3 * D * F;
  const parameters = { "embedding table": V * D, attention, "feed-forward": feedForward,
    norms: L * (2 * D + (qk_norm ? 2 * E : 0)) + D, head: tie_embeddings ? 0 : V * D };
  const flops = { attention: 2 * attention, "attention scores": L * 4 * H * E * T, "feed-forward": 2 * feedForward, head: 2 * V * D };
  return { parameters, flops, bytes: { weights: 2 * sum(parameters), "keys and values": L * 4 * K * E * T } };
}

const sum = (parts) => Object.values(parts).reduce((a, b) => a + b, 0);
const spelled = (number) => number.toLocaleString("en");
const inPercent = (number, parts) => `${(100 * number / sum(parts)).toFixed(1)}%`;
const rounded = (number) => scaled(number, ["", " thousand", " million", " billion", " trillion", " quadrillion"]);
const inBytes = (number) => scaled(number, [" bytes", " kB", " MB", " GB", " TB", " PB"]);

// Three digits and a unit.
function scaled(number, units) {
  const size = Math.min(units.length - 1, Math.floor(Math.log10(number || 1) / 3));
  return `${Number((number / 1000 ** size).toPrecision(3)).toLocaleString("en")}${units[size]}`;
}

// What a size may be: a head has an even width, and query heads share key/value heads evenly.
function options(model, name, { d_model, n_heads }) {
  const stops = model.get("stops")[name];
  if (name === "n_heads") return divisors(d_model / 2);
  if (name === "n_kv_heads") return divisors(n_heads);
  return name === "d_ff" ? [...new Set([...stops, usual(d_model)])].sort((a, b) => a - b) : stops;
}

const divisors = (number) => Array.from({ length: number }, (_, i) => i + 1).filter((i) => number % i === 0);
const usual = (width) => Math.ceil((8 * width) / (3 * 32)) * 32;   // F, where a configuration does not say
const upTo = (all, number) => Math.max(0, all.findLastIndex((one) => one <= number));

// A change of one size; those that no longer fit follow.
function change(model, name, value) {
  const before = model.get("sizes"), sizes = { ...before, [name]: value };
  if (name === "d_model") sizes.d_ff = usual(value);
  if (name === "n_heads" && before.n_kv_heads === before.n_heads) sizes.n_kv_heads = value;
  for (const heads of ["n_heads", "n_kv_heads"]) {
    const all = options(model, heads, sizes);
    sizes[heads] = all[upTo(all, sizes[heads])];
  }
  choose(model, "sizes", sizes);
}

function size(model, name, label) {
  const input = create("input", { type: "range", min: 0 }), number = create("output");
  const all = () => options(model, name, model.get("sizes"));
  input.addEventListener("input", () => change(model, name, all()[input.valueAsNumber]));
  follow(model, "sizes", () => {
    const value = model.get("sizes")[name];
    input.max = all().length - 1;
    input.value = upTo(all(), value);
    number.value = spelled(value);
    input.setAttribute("aria-valuetext", spelled(value));
  });
  return create("label", {}, label, input, number);
}

function flip(model, name, label) {
  const input = create("input", { type: "checkbox" });
  input.addEventListener("change", () => change(model, name, input.checked));
  follow(model, "sizes", () => (input.checked = model.get("sizes")[name]));
  return create("label", {}, input, label);
}

function shapes(model) {
  const known = model.get("shapes"), own = create("option", {}, OWN);
  const select = create("select", {}, ...known.map(([name]) => create("option", {}, name)), own);
  const same = (shape, sizes) => Object.keys(shape).every((key) => shape[key] === sizes[key]);
  select.addEventListener("change", () => choose(model, "sizes", known[select.selectedIndex][1]));
  follow(model, "sizes", () => {
    const at = known.findIndex(([, shape]) => same(shape, model.get("sizes")));
    select.selectedIndex = at < 0 ? known.length : at;
    own.hidden = own.disabled = at >= 0;
  });
  return create("label", {}, "model", select);
}

// One bar for all parts, and a row for each.
function share(kind, title, inUnits) {
  const caption = create("caption"), bar = create("div", { class: "stack", "aria-hidden": "true" }), body = create("tbody");
  const element = create("div", {}, bar, create("table", {}, caption, body));

  function update(cost) {
    const parts = cost[kind], all = Object.entries(parts);
    caption.textContent = `${title}: ${kind === "bytes" ? inBytes(sum(parts)) : spelled(sum(parts))}`;
    bar.replaceChildren(...all.filter(([, number]) => number).map(([name, number]) => create("div", { class: look(name), style: `flex-grow: ${number / sum(parts)}` })));
    body.replaceChildren(...all.map(([name, number]) => create("tr", {},
      create("th", { scope: "row" }, create("i", { class: look(name) }), name === "head" && !number ? "head (the same table)" : name),
      create("td", {}, kind === "bytes" ? inUnits(number) : spelled(number)), create("td", {}, inPercent(number, parts)))));
  }

  return { element, update };
}

const look = (name) => `part-${PARTS.indexOf(name)}`;

const LOOK = `
  .sizes { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: 6px 24px; max-width: 760px; margin-bottom: 10px }
  .sizes label { display: grid; grid-template-columns: 17ch 1fr 8ch }
  .sizes input { width: auto; min-width: 0 }
  .sizes output { text-align: end }
  [type=checkbox] { width: auto }
  .costs { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); gap: 18px 24px; max-width: 760px; margin: 12px 0 }
  .stack { display: flex; height: 26px; gap: 2px }
  .stack > * { min-width: 1px }
  table { width: 100% }
  caption { text-align: start; font-weight: bold; white-space: nowrap }
  th { font-weight: normal }
  td { text-align: end; font-variant-numeric: tabular-nums; padding-inline-end: 0 }
  td:last-child { width: 6ch }
  th i { display: inline-block; width: 14px; height: 14px; margin-inline-end: 8px; vertical-align: -2px }
  small { font-size: 12px }
  .part-0 { background: #2563eb }
  .part-1 { background: repeating-linear-gradient(45deg, #d97706 0 5px, #f7c873 5px 7px) }
  .part-2 { background: repeating-linear-gradient(0deg, #c2410c 0 4px, #fdba74 4px 6px) }
  .part-3 { background: #0d9488 }
  .part-4 { background: #6b7280 }
  .part-5 { background: repeating-linear-gradient(90deg, #2563eb 0 4px, #93c5fd 4px 6px) }
  .part-6 { background: #2563eb }
  .part-7 { background: repeating-linear-gradient(45deg, #d97706 0 5px, #f7c873 5px 7px) }
`;

export default { initialize, render };
