// The model itself: tell it a story, ask, look into its answer; take a part of it away, and ask again.
import { choose, create, follow, initialize, stage } from "./base.js";
import { ANSWER_LOOK, details, finder, tokens } from "./answer.js";
import { engine, fetchWhenTouched, lastOf } from "./live.js";
import { range } from "./typed.js";

const ALL = 50;   // the end of the slider of top-k
const ASKED_BY = ["story", "question", "temperature", "topK", "topP", "without", "seed"];   // a change of these asks again

function render({ model, el }) {
  const ask = lastOf(() => askModel(model));
  const root = stage(el, model, "Write something else. Choose a token of the answer to see how it came about.");
  root.append(create("style", {}, LOOK + ANSWER_LOOK), form(model), reply(model), sliders(model), parts(model), details(model));
  for (const name of ASKED_BY) model.on(`change:${name}`, ask);
  for (const name of ["turns", "token"]) follow(model, name, () => lookFrom(model));
  fetchWhenTouched(model, root);
}

async function askModel(model) {
  model.set("note", "The model is on its way …");
  model.set("busy", true);
  try {
    const ask = await engine(model);
    model.set("note", "");
    const [story, question] = ["story", "question"].map((name) => model.get(name).trim());
    const how = Object.fromEntries(["temperature", "topK", "topP", "without", "seed"].map((name) => [name, model.get(name)]));
    if (how.topK === ALL) delete how.topK;
    const messages = [{ role: "user", content: [story, question].filter(Boolean).join("\n") }];
    const answer = await ask("answer", { messages, ...how }, ({ text }) => model.set("writing", text));
    model.set("token", Math.min(model.get("token"), answer.tokens.length - 1));
    model.set("turns", [{ question, answer }]);
    model.set("note", `${answer.tokens.length} tokens in ${answer.seconds.toFixed(2)} s, computed by this page.`);
  } catch (error) {
    model.set("note", error.message);
  }
  model.set("writing", "");
  model.set("busy", false);
}

// Look from the head that found the word, if one did.
function lookFrom(model) {
  const number = finder(model), heads = model.get("turns")[0].answer.shape[1];
  model.set("layer", number < 0 ? -1 : Math.floor(number / heads));
  model.set("head", number < 0 ? -1 : number % heads);
}

// What the model reads.
function form(model) {
  const answers = model.get("answers");   // or it continues a text
  const story = create("textarea", { rows: 3, "aria-label": answers ? "story" : "text", maxlength: 2000 });
  const question = create("input", { type: "text", "aria-label": "question", maxlength: 500, autocomplete: "off" });
  const element = create("form", {}, story, create("div", {}, answers ? question : "", create("button", { type: "submit" }, answers ? "Ask" : "Go on")));
  story.value = model.get("story");
  question.value = model.get("question");

  function send(event) {
    event?.preventDefault();
    choose(model, "story", story.value);
    choose(model, "question", question.value);
  }

  element.addEventListener("submit", send);
  question.addEventListener("keydown", (event) => {   // JupyterLab takes Enter for itself
    if (event.key === "Enter" && !event.isComposing) send(event);
  });
  for (const [name, field] of [["story", story], ["question", question]])
    model.on(`change:${name}`, () => (field.value = model.get(name)));
  return element;
}

// What it says.
function reply(model) {
  const said = create("div", { class: "reply" }), note = create("output", { class: "note", "aria-live": "polite" });
  const heard = create("output", { class: "heard", "aria-live": "polite" });
  let line = null;

  function draw() {
    const [{ answer }] = model.get("turns");
    line = tokens(model, answer, 0);
    said.replaceChildren(line.element);
    heard.value = answer.text;
    mark();
  }

  const mark = () => line.mark(model.get("token"), model.get("token"));
  model.on("change:turns", draw);
  model.on("change:token", mark);
  model.on("change:writing", () => model.get("writing") && said.replaceChildren(create("p", {}, `${model.get("writing")} …`)));
  follow(model, "note", () => (note.value = model.get("note") ?? ""));
  draw();
  const element = create("div", {}, said, heard, note);
  follow(model, "busy", () => element.setAttribute("aria-busy", Boolean(model.get("busy"))));
  return element;
}

function sliders(model) {
  const again = create("button", { type: "button" }, "Draw again");
  again.addEventListener("click", () => choose(model, "seed", model.get("seed") + 1));
  follow(model, "temperature", () => (again.disabled = model.get("temperature") === 0));
  return create("div", { class: "bar" },
    range(model, "temperature", "temperature", { min: 0, max: 2, step: 0.1 }, (value) => (value ? value.toFixed(1) : "0: the likeliest")),
    range(model, "topK", "top-k", { min: 1, max: ALL, step: 1 }, (value) => (value === ALL ? "all" : value)),
    range(model, "topP", "top-p", { min: 0.05, max: 1, step: 0.05 }, (value) => (value === 1 ? "all" : value.toFixed(2))), again);
}

// Each layer and each of its heads, to switch off.
function parts(model) {
  const [layers, heads] = model.get("turns")[0].answer.shape;
  const buttons = Array.from({ length: layers }, (_, layer) =>
    [part(`${layer}`, `layer ${layer}`), ...Array.from({ length: heads }, (_, head) => part(`${layer}.${head}`, `head ${head}`, layer))]);
  const whole = create("button", { type: "button" }, "Make it whole");
  const element = create("details", { class: "parts" }, create("summary", {}, "Break it: switch off a layer, or a head"),
    ...buttons.map((row) => create("div", {}, ...row)), whole);

  function part(name, words, layer) {
    const button = create("button", { type: "button" }, words);
    if (layer !== undefined) button.setAttribute("aria-label", `layer ${layer}, ${words}`);
    button.addEventListener("click", () => {
      const off = new Set(model.get("without"));
      if (!off.delete(name)) off.add(name);
      choose(model, "without", [...off]);
    });
    follow(model, "without", () => button.setAttribute("aria-pressed", model.get("without").includes(name)));
    return button;
  }

  whole.addEventListener("click", () => choose(model, "without", []));
  follow(model, "without", () => (whole.disabled = !model.get("without").length));
  return element;
}

const LOOK = `
  form { display: grid; gap: 8px; margin-bottom: 10px; max-width: 720px }
  form div { display: flex; gap: 8px }
  textarea, input[type=text], form button, .bar button, .parts button { font: inherit; color: inherit; background: none; padding: 5px 8px;
    border: 1px solid rgb(128 128 128 / .6); border-radius: 6px; box-sizing: border-box }
  textarea { width: 100%; resize: vertical }
  form input { flex: 1; min-width: 0 }
  button:disabled { opacity: .5; cursor: default }
  .reply { min-height: 56px }
  .reply .chips { margin: 0 }
  .heard { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
  .note { display: block; min-height: 1.45em; margin-bottom: 8px; opacity: .75 }
  .parts div { display: flex; flex-wrap: wrap; gap: 4px; margin: 6px 0 }
  .parts button { font-size: 12px; padding: 3px 8px }
  .parts [aria-pressed=true] { text-decoration: line-through; background: rgb(220 38 38 / .25) }
`;

export default { initialize, render };
