// What softmax makes of some scores, while a slider multiplies them.
import { chips, choose, create, fold, follow, initialize, inWords, stage } from "./base.js";

const BARS = `
  .columns-of-weights { display: flex; align-items: end; gap: 4px; height: 140px; margin-bottom: 4px }
  .columns-of-weights > * { flex: 1; max-width: 90px; min-height: 1px; background: rgb(var(--accent) / .8) }
  .line .chips { flex-wrap: nowrap }
  .line .chips > * { flex: 1; max-width: 90px; box-sizing: border-box; padding: 2px 0; overflow: hidden; text-overflow: ellipsis }
  .bar input { width: min(300px, 55vw) }
`;

function render({ model, el }) {
  const tokens = model.get("tokens"), scores = model.get("scores");
  const weights = () => softmax(scores.map((score) => model.get("factor") * score));
  const percent = (weight) => inWords(100 * weight);

  const bars = tokens.map(() => create("div"));
  const names = chips(tokens, "weights", false);
  const input = create("input", { type: "range", min: 0, max: model.get("most"), step: 0.1 });
  const number = create("output");
  const status = create("output", { class: "status", "aria-live": "polite" });
  const table = fold("The numbers", ["", "score", "exponential", "weight"], () => {
    const now = scores.map((score) => model.get("factor") * score);
    return tokens.map((token, i) => [token, now[i].toFixed(1), Math.exp(now[i]).toFixed(1), percent(weights()[i])]);
  });

  function draw() {
    const shares = weights(), most = shares.indexOf(Math.max(...shares));
    input.value = model.get("factor");
    number.value = model.get("factor").toFixed(1);
    bars.forEach((bar, i) => (bar.style.height = `${100 * shares[i]}%`));
    names.shade(shares, shares.map(percent));
    const equal = shares.every((share) => share > shares[most] - 1e-9);
    status.value = equal ? `all get ${percent(shares[0])}` : `“${tokens[most]}” gets ${percent(shares[most])}`;
    table.fill();
  }

  input.addEventListener("input", () => choose(model, "factor", input.valueAsNumber));
  const line = create("div", { class: "line" },
    create("div", { class: "columns-of-weights", "aria-hidden": "true" }, ...bars), names.element);
  stage(el, model, "Move the slider: it multiplies all scores.").append(create("style", {}, BARS),
    create("div", { class: "bar" }, create("label", {}, model.get("label"), input, number)), line, status, table.element);
  follow(model, "factor", draw);
}

function softmax(scores) {
  const powers = scores.map((score) => Math.exp(score - Math.max(...scores)));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

export default { initialize, render };
