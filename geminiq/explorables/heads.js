// Attention weights to look into: a map for each head of each layer.
import { ACCENT, choose, chooser, chips, create, fold, follow, grid, slider } from "./base.js";

// The maps of all heads, the chosen one large, and its rows in words.
export function headMaps(model) {
  const [layers, heads] = model.get("shape");
  const keys = model.get("tokens");
  const across = model.get("queries").length > 0;   // cross-attention: the queries are another text
  const queries = across ? model.get("queries") : keys;
  const rows = model.get("rows");                   // one query at several moments: what a moment is called
  const weights = unpack(model);

  const map = grid(queries, keys, "the row to look at", 1);
  const lookers = chips(queries, "looks", true);
  const looked = across ? chips(keys, "looked at", false) : lookers;
  const status = create("output", { class: "status", "aria-live": "polite" });
  const table = fold("The strongest three of every row", [rows || "looks", "at"], () =>
    queries.map((name, query) => [name, strongest(matrix[query], keys)]));

  let matrix;   // of the chosen head
  const chosen = chooser(model, queries.length, drawQuery);
  chosen.listen(map.cells, map.find);
  chosen.listen(lookers.element, lookers.find);

  function drawHead() {
    matrix = weights(model.get("layer"), model.get("head"));
    paint(map.canvas, 0, 0, matrix);
    table.fill();
    drawQuery();
  }

  function drawQuery() {
    const query = chosen.query(), row = matrix[query];
    map.mark(query, row.indexOf(Math.max(...row)));
    lookers.mark(query, model.get("query"));
    looked.shade(row.map((weight) => weight / 100), row.map((weight) => weight && `${weight}%`));
    const where = layers * heads > 1 ? `layer ${model.get("layer")}, head ${model.get("head")}: ` : "";
    const who = rows ? `at ${rows} ${queries[query]}, it` : `“${queries[query]}”`;
    status.value = `${where}${who} looks at ${strongest(row, keys.map((key) => `“${key}”`))}`;
  }

  for (const name of ["layer", "head"]) model.on(`change:${name}`, drawHead);
  drawHead();
  return [create("div", { class: "bar" }, slider(model, "layer", layers), slider(model, "head", heads),
    rows && moments(model, rows, queries)),
  create("div", { class: "figures" }, map.element, overview(model, weights)),
  create("div", { class: across ? "named" : "" }, ...new Set(rows ? [looked.element] : [lookers.element, looked.element])),
  status, table.element];
}

// A slider over the rows, by their names.
function moments(model, rows, names) {
  const label = slider(model, "query", names.length);
  if (!label) return "";
  label.firstChild.textContent = rows;
  follow(model, "query", () => (label.lastChild.value = names[model.get("query")]));
  return label;
}

// One byte a weight, in percent; of causal attention only the lower triangle, as no query sees a later key.
function unpack(model) {
  const [, heads, T, S] = model.get("shape");
  const causal = model.get("causal"), size = causal ? (T * (T + 1)) / 2 : T * S;
  const bytes = Uint8Array.from(atob(model.get("packed")), (character) => character.charCodeAt(0));

  return (layer, head) => Array.from({ length: T }, (_, query) => {
    const start = (layer * heads + head) * size + (causal ? (query * (query + 1)) / 2 : query * S);
    return Array.from({ length: S }, (_, key) => (causal && key > query ? 0 : bytes[start + key]));
  });
}

// All heads at a glance: a row for each layer, a column for each head.
function overview(model, weights) {
  const [layers, heads, T, S] = model.get("shape");
  if (layers * heads === 1) return "";
  const gap = 2 * Math.ceil(S / 16), width = S + gap, height = T + gap;
  const canvas = create("canvas", { width: heads * width, height: layers * height });
  const thumb = Math.max(26, Math.min(72, Math.floor(312 / Math.max(layers, heads))));
  const element = create("div", { class: "overview", "aria-hidden": "true",
    style: `--layers: ${layers}; --heads: ${heads}; --thumb: ${thumb}px` }, canvas, create("div", { class: "box" }));

  for (let layer = 0; layer < layers; layer++)
    for (let head = 0; head < heads; head++)
      paint(canvas, head * width + gap / 2, layer * height + gap / 2, weights(layer, head));

  canvas.addEventListener("click", (event) => {
    choose(model, "layer", Math.floor((event.offsetY / canvas.clientHeight) * layers));
    choose(model, "head", Math.floor((event.offsetX / canvas.clientWidth) * heads));
  });
  for (const name of ["layer", "head"])
    follow(model, name, () => element.style.setProperty(`--${name}`, model.get(name)));
  return create("div", {}, element, create("small", {}, "All heads: layers down, heads across. Click one."));
}

// One pixel a weight, on a faint ground; the style makes the pixels large.
function paint(canvas, x, y, matrix) {
  const image = new ImageData(matrix[0].length, matrix.length);
  matrix.flat().forEach((weight, i) => image.data.set([...ACCENT, 16 + 2.39 * weight], 4 * i));
  canvas.getContext("2d").putImageData(image, x, y);
}

// The three largest weights in words.
function strongest(row, keys) {
  const order = [...row.keys()].sort((a, b) => row[b] - row[a]).filter((key) => row[key] > 0);
  return order.slice(0, 3).map((key) => `${keys[key]} ${row[key]}%`).join(", ") || "nothing";
}
