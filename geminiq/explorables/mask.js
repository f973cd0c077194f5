// Who may look at whom: attention masks, one or several to compare.
import { ACCENT, chooser, chips, create, fold, grid, initialize, menu, stage } from "./base.js";

const CELL = 32;   // pixels of the canvas; the style makes them fit

function render({ model, el }) {
  const keys = model.get("tokens"), names = model.get("names");
  const rows = () => model.get("masks")[names.indexOf(model.get("mask"))];
  const queries = keys.slice(-rows().length);   // with a cache, only the last tokens look
  const may = (query) => [...rows()[query]].map(Number);
  const seen = (query) => keys.filter((_, key) => may(query)[key]).join(", ") || "nothing";

  const map = grid(queries, keys, "the row to look at", CELL);
  const lookers = chips(queries, "looks", true);
  const looked = queries.length < keys.length ? chips(keys, "may see", false) : lookers;
  const status = create("output", { class: "status", "aria-live": "polite" });
  const table = fold("What every row may look at", ["looks", "may look at"], () =>
    queries.map((name, query) => [name, seen(query)]));

  const chosen = chooser(model, queries.length, drawQuery);
  chosen.listen(map.cells, map.find);
  chosen.listen(lookers.element, lookers.find);

  function drawMask() {
    paint(map.canvas, queries.map((_, query) => may(query)));
    table.fill();
    drawQuery();
  }

  function drawQuery() {
    const query = chosen.query(), row = may(query);
    map.mark(query);
    lookers.mark(query, model.get("query"));
    looked.shade(row, row.map((yes) => (yes ? "✓" : "×")));
    const count = row.filter(Boolean).length;
    status.value = `“${queries[query]}” may look at ${count} of ${keys.length}: ${seen(query)}`;
  }

  stage(el, model, "Filled: may look. Crossed: may not. Point at a row to see it; click to keep it.").append(
    create("div", { class: "bar" }, menu(model, "mask", names)),
    create("div", { class: "figures" }, map.element),
    create("div", { class: looked === lookers ? "" : "named" }, ...new Set([lookers.element, looked.element])),
    status, table.element);
  model.on("change:mask", drawMask);
  drawMask();
}

function paint(canvas, matrix) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = `rgb(${ACCENT.join(" ")} / .8)`;
  context.strokeStyle = "rgb(128 128 128 / .7)";
  context.lineWidth = 2;
  matrix.forEach((row, y) => row.forEach((yes, x) => {
    if (yes) context.fillRect(CELL * x + 1, CELL * y + 1, CELL - 2, CELL - 2);
    else context.stroke(cross(CELL * (x + 0.5), CELL * (y + 0.5), CELL / 5));
  }));
}

const cross = (x, y, r) => new Path2D(`M${x - r},${y - r} l${2 * r},${2 * r} M${x + r},${y - r} l${-2 * r},${2 * r}`);

export default { initialize, render };
