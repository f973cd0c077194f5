// Who looks at whom: the attention weights of every head of every layer.
import { initialize, stage } from "./base.js";
import { headMaps } from "./heads.js";

function render({ model, el }) {
  const rows = model.get("rows");   // one query at several moments: what a moment is called
  const hint = `Rows ${rows ? `are moments (${rows})` : "look"}, columns are looked at.`;
  stage(el, model, `${hint} Point at a row to see it; click to keep it.`).append(...headMaps(model));
}

export default { initialize, render };
