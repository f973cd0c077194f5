// What all explorables share: how a picture finds its model, and the parts it is put together from.
// Every picture is an anywidget module. Python puts this text in the place of its import line.

// Pictures and the kernel's models meet on the page, whichever comes first.
export const page = (globalThis.geminiqExplorables ??= Object.assign(new EventTarget(), { models: new Set() }));

// anywidget calls this for every model that a kernel opens, even when no widget is on show.
export function initialize({ model }) {
  page.models.add(model);
  page.dispatchEvent(new CustomEvent("arrival", { detail: model }));
  return () => page.models.delete(model);
}

// Draws the picture wherever its place is, and ties it to all models with the same key.
export function show(key, render, state, selection) {
  for (const el of document.querySelectorAll(`[data-explorable="${key}"]:not([data-drawn])`)) {
    const own = pageModel({ ...state });
    const meet = (model) => model.get("key") === key && join(own, model, selection);
    page.models.forEach(meet);
    page.addEventListener("arrival", (event) => meet(event.detail));
    el.dataset.drawn = "";
    el.replaceChildren();
    hideStill(el);
    render({ model: own, el });
  }
}

// As much of an anywidget model as a picture needs, for pages that may have no kernel.
export function pageModel(state) {
  const listeners = {};
  return {
    get: (name) => state[name],
    set(name, value) {
      if (state[name] === value) return;
      state[name] = value;
      listeners[`change:${name}`]?.forEach((listener) => listener());
    },
    on: (event, listener) => (listeners[event] ??= []).push(listener),
    save_changes() {},
  };
}

// The picture takes over the kernel's selection; from then on each follows the other.
function join(own, model, selection) {
  for (const name of selection) {
    own.set(name, model.get(name));
    model.on(`change:${name}`, () => own.set(name, model.get(name)));
    own.on(`change:${name}`, () => model.get(name) !== own.get(name) && choose(model, name, own.get(name)));
  }
}

// The still is the output just before: in JupyterLab, and on the pages of Sphinx and Quarto.
function hideStill(el) {
  const outputs = [...(el.closest(".jp-OutputArea, .cell_output, .cell")?.children ?? [])];
  const still = outputs.find((output) => output.contains(el))?.previousElementSibling;
  if (!still?.matches("img, :has(img)")) return;
  still.dataset.still = "";
  el.append(create("style", {}, "@media screen { [data-still] { display: none !important } }"));
}

export function create(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function choose(model, name, value) {
  model.set(name, value);
  model.save_changes();
}

export const within = (number, count) => Math.max(0, Math.min(count - 1, number));
export const inWords = (percent) => (percent < 0.1 ? "<0.1%" : `${Number(percent.toFixed(percent < 9.95 ? 1 : 0))}%`);

// A token with the space at its ends made visible, where it tells two apart.
export const exact = (name) => name.replace(/^ | $/g, "␣");

// A ground of its own: the page's styles and JupyterLab's shortcuts stay outside.
export function stage(el, model, hint) {
  const host = create("div", { "data-lm-suppress-shortcuts": "true" });
  const root = host.attachShadow({ mode: "open" });
  const heading = create("p", {}, create("strong", {}, model.get("title")), create("small", {}, hint));
  root.append(create("style", {}, STYLE), heading);
  el.append(host);
  el.setAttribute("role", "group");
  el.setAttribute("aria-label", model.get("alt"));
  return root;
}

// The query on show is the one under the pointer, or else the chosen one. A click or a key chooses.
export function chooser(model, count, draw) {
  const steps = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, Home: -count, End: count };
  let pointed = null;

  function point(query) {
    if (query === pointed) return;
    pointed = query;
    draw();
  }

  function listen(element, find) {
    element.addEventListener("pointermove", (event) => point(find(event)));
    element.addEventListener("pointerleave", () => point(null));
    element.addEventListener("click", (event) => choose(model, "query", find(event) ?? model.get("query")));
    element.addEventListener("keydown", (event) => {
      if (!(event.key in steps)) return;
      event.preventDefault();
      point(null);
      choose(model, "query", Math.max(0, Math.min(count - 1, model.get("query") + steps[event.key])));
      element.querySelector("[tabindex='0']")?.focus();
    });
  }

  model.on("change:query", draw);
  return { listen, query: () => pointed ?? model.get("query") };
}

// Form elements that set a choice and follow it. Nothing where there is nothing to choose.
export function slider(model, name, count) {
  const input = create("input", { type: "range", min: 0, max: count - 1 });
  const number = create("output");
  input.addEventListener("input", () => choose(model, name, input.valueAsNumber));
  follow(model, name, () => (number.value = input.value = model.get(name)));
  return count > 1 ? create("label", {}, name, input, number) : "";
}

export function menu(model, name, options) {
  const select = create("select", {}, ...options.map((option) => create("option", {}, option)));
  select.addEventListener("change", () => choose(model, name, select.value));
  follow(model, name, () => (select.value = model.get(name)));
  return options.length > 1 ? create("label", {}, name, select) : "";
}

export function follow(model, name, update) {
  model.on(`change:${name}`, update);
  update();
}

// The tokens as a line of text. Each is shaded and carries a note, so that colour is not alone.
export function chips(tokens, label, choosable) {
  const [group, tag, role] = choosable ? ["radiogroup", "button", "radio"] : ["list", "span", "listitem"];
  const line = tokens.map((token) => create(tag, { role }, token, create("small")));
  const element = create("div", { class: "chips", role: group, "aria-label": label }, ...line);

  function find(event) {
    const at = line.indexOf(event.target.closest("button"));
    return at < 0 ? null : at;
  }

  function mark(query, chosen) {
    line.forEach((chip, i) => {
      chip.setAttribute("aria-checked", i === query);
      chip.tabIndex = i === chosen ? 0 : -1;
    });
  }

  function shade(strengths, notes) {
    line.forEach((chip, i) => {
      chip.style.setProperty("--strength", strengths[i]);
      chip.lastChild.textContent = notes[i] || "\u00a0";   // keeps its height
    });
  }

  return { element, find, mark, shade };
}

// A table of cells between the names of its rows and columns; what is in the cells, the picture paints.
export function grid(rows, columns, label, resolution) {
  const canvas = create("canvas", { width: columns.length * resolution, height: rows.length * resolution });
  canvas.style.imageRendering = resolution > 1 ? "auto" : "pixelated";   // single pixels stay sharp
  const frame = create("div", { class: "row" });
  const cells = create("div", { class: "cells", role: "slider", tabindex: 0, "aria-label": label,
    "aria-orientation": "vertical", "aria-valuemin": 0, "aria-valuemax": rows.length - 1 }, canvas, frame);
  const rowNames = names("rows", rows), columnNames = names("columns", columns);
  const most = Math.max(rows.length, columns.length);
  const size = Math.max(2, Math.min(26, Math.floor(340 / most)));   // of a cell, in pixels
  const element = create("div", { class: most > 32 ? "grid dense" : "grid",
    style: `--rows: ${rows.length}; --columns: ${columns.length}; --size: ${size}px` }, columnNames, rowNames, cells);

  function find(event) {
    const row = Math.floor((event.offsetY / cells.clientHeight) * rows.length);
    return Math.max(0, Math.min(rows.length - 1, row));
  }

  function mark(row, column) {
    rowNames.childNodes.forEach((name, i) => name.classList.toggle("on", i === row));
    columnNames.childNodes.forEach((name, i) => name.classList.toggle("on", i === column));
    frame.style.setProperty("--row", row);
    cells.setAttribute("aria-valuenow", row);
    cells.setAttribute("aria-valuetext", rows[row]);
  }

  return { element, cells, canvas, find, mark };
}

const names = (kind, tokens) =>
  create("div", { class: kind, "aria-hidden": "true" }, ...tokens.map((token) => create("span", {}, token)));

// The numbers for those who cannot see the picture; filled when opened.
export function fold(summary, head, rows) {
  const body = create("tbody");
  const element = create("details", {}, create("summary", {}, summary),
    create("table", {}, create("thead", {}, line("th", head)), body));

  function fill() {
    if (element.open) body.replaceChildren(...rows().map((row) => line("td", row)));
  }

  element.addEventListener("toggle", fill);
  return { element, fill };
}

const line = (cell, texts) => create("tr", {}, ...texts.map((text) => create(cell, {}, text)));

export const ACCENT = [59, 130, 246];   // legible on light and dark: transparent is little, opaque much

const STYLE = `
  :host { display: block; padding: 3px; color: inherit; font-size: 14px; line-height: 1.45;
    --accent: ${ACCENT.join(" ")} }
  @media print { :host { display: none } }
  p { margin: 0 0 10px }
  strong:not(:empty) { display: block }
  :focus-visible { outline: 2px solid rgb(var(--accent)); outline-offset: 2px }
  .bar, .figures { display: flex; flex-wrap: wrap; align-items: center; gap: 6px 24px; margin-bottom: 10px }
  .figures { align-items: end; gap: 16px 32px }
  .figures > * { max-width: 100% }
  label { display: inline-flex; align-items: center; gap: 8px }
  label output { min-width: 2ch; font-variant-numeric: tabular-nums }
  .bar:empty { display: none }
  select { font: inherit; color: inherit; background: none; padding: 2px 4px;
    border: 1px solid rgb(128 128 128 / .6); border-radius: 4px }
  option { color: CanvasText; background: Canvas }
  input { width: 120px; margin: 0; accent-color: rgb(var(--accent)) }

  .grid { --cell: min(var(--size), (100vw - 150px) / var(--columns)); display: grid; gap: 7px; width: max-content;
    grid-template: "corner columns" auto "rows cells" auto / auto auto; font-size: 12px; line-height: var(--cell) }
  .rows { grid-area: rows; text-align: end }
  .columns { grid-area: columns; display: flex }
  .rows span, .columns span { display: block; max-width: 80px; overflow: hidden; text-overflow: ellipsis;
    white-space: pre; opacity: .65 }
  .rows .on, .columns .on { opacity: 1 }
  .rows span { height: var(--cell) }
  .columns span { width: var(--cell); max-height: 80px; writing-mode: vertical-rl; rotate: 180deg }
  .dense span { overflow: visible }
  .dense span:not(.on) { visibility: hidden }
  .cells { grid-area: cells; position: relative; cursor: pointer; box-shadow: 0 0 0 1px rgb(128 128 128 / .4) }
  canvas { display: block }
  .cells canvas { width: calc(var(--cell) * var(--columns)); height: calc(var(--cell) * var(--rows)) }
  .row { position: absolute; inset: calc(var(--cell) * var(--row)) 0 auto; height: var(--cell);
    outline: 2px solid; pointer-events: none }

  .overview { position: relative; width: max-content; max-width: 100%; cursor: pointer }
  .overview canvas { image-rendering: pixelated; width: calc(var(--thumb) * var(--heads)); max-width: 100% }
  .box { position: absolute; width: calc(100% / var(--heads)); height: calc(100% / var(--layers)); outline: 2px solid;
    outline-offset: -1px; pointer-events: none; border-radius: 2px;
    left: calc(100% * var(--head) / var(--heads)); top: calc(100% * var(--layer) / var(--layers)) }

  .chips { display: flex; flex-wrap: wrap; gap: 4px; margin-bottom: 8px }
  .chips > * { font: inherit; color: inherit; white-space: pre; text-align: center; padding: 2px 6px;
    border: 2px solid transparent; border-radius: 6px; background: rgb(var(--accent) / calc(.06 + .5 * var(--strength, 0))) }
  .chips [aria-checked=true] { border-color: currentColor }
  button { cursor: pointer }
  .chips small { display: block; font-size: 11px; font-variant-numeric: tabular-nums }

  .named .chips::before { content: attr(aria-label); align-self: center; width: 64px; font-size: 12px; opacity: .75 }
  .status { display: block; min-height: 1.45em }
  @media (width < 480px) { .status { min-height: 2.9em } }
  details { margin-top: 4px }
  summary { cursor: pointer; width: max-content }
  table { border-collapse: collapse; font-size: 13px; margin-top: 6px }
  th, td { padding: 2px 12px 2px 0; text-align: start; border-bottom: 1px solid rgb(128 128 128 / .3) }
`;
