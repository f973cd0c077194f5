// Shannon's guessing game: the reader and the model guess a text letter by letter (lesson 11).
import { choose, create, fold, initialize, stage } from "./base.js";

function render({ model, el }) {
  const game = state(model);
  const root = stage(el, model, `Guess how the text goes on, one letter at a time. A space is a letter too, shown as ␣; capitals do not matter. ` +
    `Below each letter stand your guesses and the model's, above it the model's surprise in bits.`);
  const given = create("p", { class: "given" }), board = boardOf(game), score = scoreOf(game), keys = keysOf(game);
  const status = create("output", { class: "status", "aria-live": "polite" }), verdict = create("p", { class: "verdict" });
  const table = fold("The letters in numbers", ["letter", "your guesses", "the model's", "it gave", "bits"], () =>
    game.done().map((count, place) => {
      const letter = game.letter(place);
      return [shown(letter.shown), inFigures(count), letter.rank, percent(letter.bits), letter.bits.toFixed(2)];
    }));
  const field = fieldOf(game), [tell, rest, another] = buttons(game, field);

  function draw() {
    given.textContent = `“${game.told().given.trimEnd()} …”`;
    board.update();
    keys.update();
    score.update();
    status.value = game.status();
    verdict.textContent = game.verdict();
    field.readOnly = game.over();
    for (const button of [tell, rest]) button.setAttribute("aria-disabled", game.over());
    table.fill();
  }

  root.append(create("style", {}, LOOK), given, board.element,
    create("div", { class: "bar" }, create("label", {}, "your guess", field), tell, rest, another), keys.element, status, verdict,
    score.element, table.element);
  board.element.addEventListener("click", (event) => board.find(event) === null && hovers() && field.focus());
  for (const name of ["text", "guesses", "tried"]) model.on(`change:${name}`, draw);
  root.addEventListener("keydown", (event) => {   // whoever types on after a click on a button goes on guessing
    const typed = event.target.closest("button") && event.key.length === 1 && event.key !== " ";
    if (!typed || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    field.focus();
    game.guess(event.key);
  });
  game.redraw = draw;
  draw();
}

const shown = (letter) => (letter === " " ? "␣" : letter === "\n" ? "↵" : letter);
const named = (letter) => (letter === " " ? "the space" : letter === "\n" ? "the end of a line" : `“${letter}”`);
const inFigures = (count) => (count ? String(count) : "given away");
const counted = (number, what) => `${number} ${what}${number === 1 ? "" : what === "guess" ? "es" : "s"}`;
const percent = (bits) => (bits > 9.96 ? "<0.1%" : `${Number((100 * 2 ** -bits).toFixed(bits > 3.3 ? 1 : 0))}%`);
const upTo = (number, last) => Math.max(0, Math.min(last, number));
const hovers = () => matchMedia("(hover: hover)").matches;   // a finger's keyboard would cover the game

// What is known, what may be done, and what happened last.
function state(model) {
  const alphabet = [...model.get("alphabet")], texts = model.get("texts").map(lettersOf);
  const text = () => model.get("text"), done = () => model.get("guesses")[text()], tried = () => model.get("tried");
  const told = () => texts[text()], over = () => done().length === told().letters.length;
  let at = null;     // the letter that the reader looks at, if it is not the last one
  let wrong = "";    // why a guess did not uncover a letter
  let found = {};    // how the last letter was found, and the guesses then: Python may change them
  const looked = () => (at === null ? done().length - 1 : upTo(at, done().length - 1));
  const game = { alphabet, texts, told, done, over, tried, looked, guesses: () => model.get("guesses"), letter: (place) => told().letters[place],
    marked: () => (wrong ? -1 : looked()) };

  const withNow = (counts) => model.get("guesses").map((before, i) => (i === text() ? counts : before));

  function uncover(counts, how) {
    [at, wrong, found] = [null, "", { how, guesses: withNow([...done(), ...counts]) }];
    choose(model, "tried", "");
    choose(model, "guesses", found.guesses);
  }

  // One guess; whether it was right.
  game.guess = (typed) => {
    const guess = plain(typed, alphabet), number = tried().length + 1;
    if (over()) return false;
    if (guess === game.letter(done().length).letter) {
      uncover([number], `Right, at the ${ordinal(number)} guess.`);
      return true;
    }
    const known = alphabet.includes(guess), again = tried().includes(guess);
    [at, wrong] = [null, !known ? `Only the ${alphabet.length} letters below can come; ${named(guess)} is none of them.` :
      again ? `You have tried ${named(guess)} already.` : `Not ${named(guess)}.`];
    if (known && !again) choose(model, "tried", tried() + guess);
    game.redraw();
    return false;
  };
  game.tell = () => over() || uncover([alphabet.length], `Told, which counts as the ${ordinal(alphabet.length)} guess.`);
  game.giveAway = () => over() || uncover(told().letters.slice(done().length).map(() => 0), "Given away.");
  game.another = () => {
    const next = (text() + 1) % texts.length, full = game.guesses()[next].length === texts[next].letters.length;
    [at, wrong] = [null, ""];
    choose(model, "tried", "");
    choose(model, "text", next);
    if (full) choose(model, "guesses", withNow([]));
    game.redraw();
  };
  game.look = (place) => {
    [at, wrong] = [upTo(place, done().length - 1), ""];
    game.redraw();
  };

  game.status = () => {
    if (wrong) return wrong;
    if (!done().length) return `${counted(told().letters.length, "letter")} to guess. Which one comes first?`;
    const { shown: letter, rank, bits, order } = game.letter(looked()), count = done()[looked()];
    const how = at === null && found.guesses === game.guesses() ? found.how : count ? `You: ${counted(count, "guess")}.` : "Given away.";
    return `Letter ${looked() + 1}, ${named(letter)}. ${how} The model: ${counted(rank, "guess")}, in the order ` +
      `${order.map(shown).join(" ")}${order.length > rank ? " …" : ""}; it gave ${percent(bits)}, ${bits.toFixed(1)} bits.`;
  };
  game.verdict = () => {
    if (!over()) return "";
    const { reader, ranks, letters } = scores(game);
    if (reader === undefined) return `All was given away. By its guesses the model needed ${ranks.toFixed(2)} bits a letter.`;
    const fewer = Math.abs(reader - ranks) < 0.005 ? "as many as you" : reader < ranks ? "so you needed fewer" : "so the model needed fewer";
    return `Over ${counted(letters, "letter")} you needed ${reader.toFixed(2)} bits each by your guesses, the model ${ranks.toFixed(2)} by its own: ${fewer}.`;
  };
  return game;
}

// The letters of a text with what the model thought of each.
function lettersOf({ given, hidden, orders, ranks, bits }) {
  return { given, letters: [...hidden].map((shown, i) =>
    ({ shown, order: [...orders[i]], letter: [...orders[i]][ranks[i] - 1], rank: ranks[i], bits: bits[i] })) };
}

// A letter as this alphabet has it: small, and without what keyboards make of quotation marks.
function plain(typed, alphabet) {
  const small = typed.toLowerCase();
  return alphabet.includes(small) ? small : { "’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " " }[small] ?? small;
}

const ordinal = (n) => `${n}${["th", "st", "nd", "rd"][n % 100 > 10 && n % 100 < 14 ? 0 : n % 10] ?? "th"}`;

// Bits a letter, as `scores` in Python: of those that the reader guessed, or else of all on show.
function scores(game) {
  const all = game.guesses().flatMap((counts, text) => counts.map((count, place) => ({ count, ...game.texts[text].letters[place] })));
  const played = all.filter(({ count }) => count), on = played.length ? played : all;
  if (!on.length) return { letters: 0 };
  return { letters: on.length, reader: played.length ? bound(played.map(({ count }) => count)) : undefined,
    ranks: bound(on.map(({ rank }) => rank)), bits: on.reduce((sum, { bits }) => sum + bits, 0) / on.length };
}

function bound(guesses) {
  const often = new Map();
  for (const guess of guesses) often.set(guess, (often.get(guess) ?? 0) + 1);
  return [...often.values()].reduce((sum, n) => sum + (n / guesses.length) * Math.log2(guesses.length / n), 0);
}

// The text: bars above, letters, and guesses below.
function boardOf(game) {
  const most = Math.max(...game.texts.flatMap(({ letters }) => letters.map(({ bits }) => bits)));
  const element = create("div", { class: "board", role: "img" });
  const key = create("span", { class: "key" }, create("i", {}, "bits"), create("b"), create("small", {}, "you"), create("small", { class: "model" }, "model"));

  function update() {
    const counts = game.done(), { letters } = game.told();
    element.setAttribute("aria-label", `so far: ${letters.slice(0, counts.length).map((letter) => letter.shown).join("") || "nothing"}; ` +
      `${counted(letters.length - counts.length, "letter")} to guess`);
    element.replaceChildren(key, ...letters.map((letter, place) => {
      if (place > counts.length || (place === counts.length && game.over())) return create("span", { class: "blank" }, create("i"), create("b"));
      if (place === counts.length) return create("span", { class: "blank here" }, create("i"), create("b"));
      const bar = create("i", { style: `--height: ${letter.bits / most}` }, letter.bits >= 0.95 ? letter.bits.toFixed(1) : "");
      const own = create("small", {}, counts[place] || "·");
      const cell = create("span", { class: place === game.marked() ? "open at" : "open" }, bar, create("b", {}, shown(letter.shown)), own,
        create("small", { class: "model" }, letter.rank));
      cell.classList.toggle("space", letter.shown === " ");
      return cell;
    }));
  }

  function find(event) {
    const place = [...element.children].indexOf(event.target.closest("span")) - 1;
    return place >= 0 && place < game.done().length ? place : null;
  }

  element.addEventListener("click", (event) => find(event) !== null && game.look(find(event)));
  return { element, update, find };
}

// What is typed: each letter is a guess, until one is wrong.
function fieldOf(game) {
  const field = create("input", { type: "text", autocomplete: "off", autocapitalize: "none", autocorrect: "off", spellcheck: "false", size: 2 });
  const steps = { ArrowLeft: () => game.looked() - 1, ArrowRight: () => game.looked() + 1, Home: () => 0, End: () => Infinity };
  field.addEventListener("input", () => {
    const typed = [...field.value];
    field.value = "";
    for (const letter of typed) if (!game.guess(letter)) break;
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && game.alphabet.includes("\n")) game.guess("\n");
    if (!(event.key in steps) || !game.done().length) return;
    event.preventDefault();
    game.look(steps[event.key]());
  });
  return field;
}

function buttons(game, field) {
  const button = (name, act) => {
    const element = create("button", { type: "button" }, name);
    element.addEventListener("click", act);
    return element;
  };
  return [button("Tell me", game.tell), button("Give the rest away", game.giveAway),
    button(game.texts.length > 1 ? "Another text" : "Once more", () => {
      game.another();
      if (hovers()) field.focus();
    })];
}

// All letters, to tap; what was tried is struck out.
function keysOf(game) {
  const keys = game.alphabet.map((letter) => create("button", { type: "button", tabindex: -1, "aria-label": named(letter) }, shown(letter)));
  const element = create("div", { class: "keys", role: "group", "aria-label": "letters to tap" }, ...keys);
  element.addEventListener("click", (event) => {
    const at = keys.indexOf(event.target.closest("button"));
    if (at >= 0) game.guess(game.alphabet[at]);
  });

  function update() {
    keys.forEach((key, i) => {
      const tried = game.tried().includes(game.alphabet[i]);
      key.classList.toggle("tried", tried);
      key.setAttribute("aria-disabled", tried || game.over());
    });
  }

  return { element, update };
}

const ROWS = [["reader", "you, by your guesses"], ["ranks", "the model, by its guesses"], ["bits", "the model, by its probabilities"]];

function scoreOf(game) {
  const size = game.alphabet.length, most = Math.log2(size);
  const rows = ROWS.map(([name, label]) => ({ name, bar: create("div"), number: create("output"), label }));
  const heading = create("h4"), element = create("section", { class: "score" }, heading,
    ...rows.flatMap(({ name, bar, number, label }) => [create("span", {}, label), create("div", { class: `track ${name}`, "aria-hidden": true }, bar), number]),
    create("small", {}, `By guesses: q₁ is the share of the letters found at the first guess, q₂ at the second, and so on; then ` +
      `q₁·log₂(1/q₁) + q₂·log₂(1/q₂) + … bits a letter are enough to write the text down (Shannon 1951). From few letters that is rough. To be told counts as the ${ordinal(size)} guess.`),
    create("small", {}, `By probabilities: the mean of −log₂ p, where p is what the model gave to the letter that came. ` +
      `A full bar, ${most.toFixed(2)} bits, is blind guessing among ${size} letters.`));

  function update() {
    const found = scores(game);
    heading.textContent = found.letters ? `Bits a letter, over ${counted(found.letters, "letter")}` : "Bits a letter";
    for (const { name, bar, number } of rows) {
      bar.style.width = `${(100 * (found[name] ?? 0)) / most}%`;
      number.value = found[name] === undefined ? "–" : found[name].toFixed(2);
    }
  }

  return { element, update };
}

const LOOK = `
  .given { font-size: 16px; margin: 4px 0 8px }
  .board { display: flex; flex-wrap: wrap; gap: 10px 2px; max-width: 760px; margin-bottom: 12px; cursor: text }
  .board span { display: flex; flex-direction: column; align-items: stretch; width: 20px; text-align: center; border-radius: 4px }
  .board .blank { padding-bottom: 32px }
  .board .key { width: 42px; text-align: start; opacity: .8 }
  .board i { display: flex; flex-direction: column; justify-content: flex-end; height: 52px; font: 10px/12px system-ui, sans-serif; font-variant-numeric: tabular-nums }
  .board .key i { font-size: 11px }
  .board .open i::after { content: ""; height: calc(38px * var(--height)); min-height: 1px; margin: 0 3px; border-radius: 2px 2px 0 0; background: rgb(var(--accent)) }
  .board b { height: 25px; font: 600 17px/24px ui-monospace, monospace; border-bottom: 2px solid rgb(128 128 128 / .75); margin: 0 1px }
  .board .key b { border-color: transparent }
  .board .space b { font-weight: 400; opacity: .6 }
  .board .open { cursor: pointer }
  .board .open b { border-color: rgb(128 128 128 / .3) }
  .board .here b { border-color: rgb(var(--accent)); border-width: 3px; background: rgb(var(--accent) / .16) }
  .board .at { background: rgb(128 128 128 / .2) }
  .board small { font-size: 11px; line-height: 16px; font-variant-numeric: tabular-nums }
  .board .model { font-style: italic; opacity: .8 }
  .bar { gap: 8px }
  .bar input { width: 44px; padding: 4px; font: 600 18px/24px ui-monospace, monospace; text-align: center; color: inherit; background: none;
    border: 2px solid rgb(var(--accent)); border-radius: 6px }
  .bar button, .keys button { font: inherit; color: inherit; background: none; border: 1px solid rgb(128 128 128 / .6); border-radius: 6px }
  .bar button { padding: 5px 10px }
  .keys { display: flex; flex-wrap: wrap; gap: 4px; max-width: 760px; margin-bottom: 10px }
  .keys button { min-width: 30px; min-height: 30px; padding: 2px 4px; font: 15px ui-monospace, monospace; touch-action: manipulation }
  button[aria-disabled=true] { opacity: .45; cursor: default }
  .keys .tried { text-decoration: line-through 2px; opacity: .6 }
  .status { min-height: 2.9em }
  .verdict { font-weight: bold; margin: 4px 0 0 }
  .verdict:empty { display: none }
  .score { display: grid; grid-template-columns: max-content minmax(80px, 1fr) 5ch; align-items: center; gap: 4px 10px; max-width: 760px; margin: 14px 0 8px }
  .score h4, .score small { grid-column: 1 / -1; margin: 0; font-size: 14px }
  .score small { font-size: 12px }
  .score output { text-align: end; font-weight: bold; font-variant-numeric: tabular-nums }
  .track { height: 14px; background: rgb(128 128 128 / .2) }
  .track div { height: 100%; background: rgb(var(--accent)) }
  .reader div { background: repeating-linear-gradient(45deg, #d97706 0 5px, #f7c873 5px 7px) }
  .bits div { background: repeating-linear-gradient(90deg, rgb(var(--accent)) 0 4px, rgb(var(--accent) / .5) 4px 6px) }
  @media (width < 480px) {
    .board { gap: 6px 1px }
    .board span { width: 17px }
    .board i { height: 40px }
    .board .open i::after { height: calc(27px * var(--height)); margin: 0 2px }
    .keys { display: grid; grid-template-columns: repeat(10, 1fr) }
    .keys button { min-width: 0; min-height: 34px; padding: 0 }
    .score { grid-template-columns: 1fr 5ch }
    .score > span { grid-column: 1 / -1 }
    .status { min-height: 4.35em }
  }
`;

export default { initialize, render };
