// What the pictures ask of the model; runs in a worker, behind engine.js.
import { candidates, draw, likeliest, ranked, readModel, softmax, write } from "./engine.js";

const LIKELY = 8, PLACES = 8;   // of a token of an answer: tokens that were likely, places where a head looked
const LONGEST_LOOK = 128;       // tokens of a text of which all heads are shown
const LENS = 5;                 // likely tokens after each layer
const LETTERS = 400;            // of a text that is cut
const SHOWN = 12, DRAWS = 100;  // of the tokens that may come next
let ready;                      // the model and its tokenizer

const ASKED = {
  // An answer, and for each of its tokens how it came about, as chat.js shows it.
  answer({ model, tokenizer }, { messages, without, seed = 0, ...how }, tell) {
    const ids = promptOf(tokenizer, messages), start = performance.now();
    checkRoom(model, ids, "story");
    const answer = { tokens: [], read: names(tokenizer, ids), chances: [], ranks: [], likely: [], places: PLACES,
      shape: [model.config.n_layers, model.config.n_heads] };
    const seen = [], written = [];
    for (const { id, chances, logits } of write(model, tokenizer, ids, { ...how, without: new Set(without), random: dice(seed) })) {
      const shown = how.temperature === 0 ? softmax(logits) : chances;
      const best = ranked(shown).filter((id) => shown[id] > 0);
      written.push(id);
      answer.tokens.push(...names(tokenizer, [id]));
      answer.chances.push(percent(shown[id]));
      answer.ranks.push(best.indexOf(id));
      answer.likely.push(best.slice(0, LIKELY).map((other) => [...names(tokenizer, [other]), percent(shown[other])]));
      seen.push(...mostLookedAt(model));
      tell({ text: tokenizer.decode(written), tokens: answer.tokens.length });
    }
    answer.seen = btoa(String.fromCharCode(...seen));
    return { ...answer, text: tokenizer.decode(written), seconds: (performance.now() - start) / 1000 };
  },

  // Where every head looks, from every token: one byte a weight, in percent, of the lower triangle.
  look({ model, tokenizer }, { messages }) {
    const ids = promptOf(tokenizer, messages), { n_layers: L, n_heads: H } = model.config;
    if (ids.length > LONGEST_LOOK) throw new Error(`That is ${ids.length} tokens, and the picture has room for ${LONGEST_LOOK}.`);
    model.read(ids);
    let packed = "";
    for (let i = 0; i < L * H; i++)
      for (const { attention } of model.kept)
        for (const weight of attention[Math.floor(i / H)][i % H]) packed += String.fromCharCode(Math.round(100 * weight));
    return { tokens: names(tokenizer, ids).map((name) => name.trim() || "␣"), shape: [L, H, ids.length, ids.length], packed: btoa(packed) };
  },

  // The logit lens: what the stream after each layer would say next, all along a text and its answer.
  lens({ model, tokenizer }, { text }) {
    const { ids, written } = greedy(model, tokenizer, text);
    const lines = model.kept.map(({ stream }) => stream.map((x) => softmax(model.logits(x))));
    const cell = (chances, last) => ({ chance: percent(chances[likeliest(last)]),
      likely: ranked(chances).slice(0, LENS).map((id) => [...names(tokenizer, [id]), percent(chances[id])]) });
    return { tokens: names(tokenizer, model.ids), read: ids.length, text: tokenizer.decode(written),
      cells: lines[0].map((_, row) => lines.map((line) => cell(line[row], line.at(-1)))) };
  },

  // What is said when parts are silenced, and how likely each token of it was; and of another answer, if one is given.
  silenced({ model, tokenizer }, { text, without = [], answer }) {
    const off = new Set(without), chances = [];
    const { ids, written } = greedy(model, tokenizer, text, ({ id, logits }) => chances.push(percent(softmax(logits)[id])), off);
    return { text: tokenizer.decode(written), tokens: names(tokenizer, [...ids, ...written]), read: ids.length, ids: written, chances,
      without, ...(answer && { left: chancesOf(model, ids, answer, off) }) };
  },

  // How likely each token of an answer is when parts are silenced.
  left({ model, tokenizer }, { text, without, answer }) {
    return chancesOf(model, promptOf(tokenizer, [{ role: "user", content: text }]), answer, new Set(without));
  },

  // What each step of writing computes, and what it finds kept: counted, as the engine does it.
  steps({ model, tokenizer }, { text }) {
    const steps = [], sizes = (heads) => heads.flat().reduce((sum, numbers) => sum + numbers.length, 0);
    const { ids, written } = greedy(model, tokenizer, text, () => {
      const kept = steps.reduce((sum, step) => sum + step.read, 0), fresh = model.kept.slice(kept);
      const sum = (what) => fresh.reduce((all, token) => all + what(token), 0);
      steps.push({ read: fresh.length, kept, scores: sum(({ scores }) => sizes(scores)),
        bytes: (steps.at(-1)?.bytes ?? 0) + 4 * sum(({ key, value }) => sizes(key) + sizes(value)) });
    });
    return { tokens: names(tokenizer, [...ids, ...written]), text: tokenizer.decode(written), steps };
  },

  // A text's words, letter by letter, and the merges that make them pieces, in the order in which they were learned.
  cut({ tokenizer }, { text }) {
    if (text.length > LETTERS) throw new Error(`That is ${text.length} letters, and this picture shows at most ${LETTERS}: shorten the text.`);
    const words = tokenizer.words(text), merges = [];
    const found = words.flatMap((word, number) => mergesOf(tokenizer, word, number)).sort((a, b) => a.when - b.when);
    for (const { piece, at } of found) {
      const plain = piece.replaceAll("▁", " ");
      if (merges.at(-1)?.piece === plain) merges.at(-1).at.push(at);
      else merges.push({ piece: plain, id: tokenizer.ids.get(piece), rank: tokenizer.rank.get(piece), at: [at] });
    }
    return { words: words.map((word) => [...word].map((letter) => [letter, tokenizer.encode(letter)])), merges };
  },

  // What may come next, before and after the cuts; and what came when it was drawn a hundred times.
  next({ model, tokenizer }, { text, answer, seed, temperature, topK, topP, minP }) {
    const ids = [...promptOf(tokenizer, [{ role: "user", content: text }]), ...tokenizer.encode(answer)];
    checkRoom(model, ids, "text");
    const logits = model.read(ids), before = softmax(logits), random = dice(seed);
    const after = candidates(logits, { temperature, topK: topK || Infinity, topP, minP }), drawn = after.map(() => 0);
    for (let i = 0; seed && i < DRAWS; i++) drawn[draw(after, random)]++;
    const order = ranked(before), others = order.slice(SHOWN);
    const sum = (numbers, ids) => ids.reduce((all, id) => all + numbers[id], 0);
    const row = (name, ids) => [name, percent(sum(before, ids)), percent(sum(after, ids)), sum(drawn, ids), ids.some((id) => after[id] > 0)];
    const kept = order.filter((id) => after[id] > 0);
    return { rows: [...order.slice(0, SHOWN).map((id) => row(...names(tokenizer, [id]), [id])), row(`${others.length} others`, others)],
      kept: kept.length, had: percent(sum(before, kept)), read: ids.length, last: names(tokenizer, ids.slice(-1))[0] };
  },
};

function checkRoom(model, ids, what) {
  const room = model.config.max_seq_len - 1;
  if (ids.length > room) throw new Error(`That is ${ids.length} tokens, and this model reads at most ${room}: shorten the ${what}.`);
}

// The merges of a word: the piece, where it is made, and when: a merge comes after those that make its parts.
function mergesOf(tokenizer, word, number) {
  const merges = [];
  let before = [...word.replaceAll(" ", "▁")], when = 0;
  if (word !== "▁") tokenizer.merge(before.join(""), (parts, piece) => {
    when = Math.max(when, tokenizer.rank.get(piece));
    merges.push({ when, piece, at: [number, parts.findIndex((part, i) => part !== before[i])] });
    before = parts;
  });
  return merges;
}

// The likeliest answer to a text.
function greedy(model, tokenizer, text, onToken, without) {
  const ids = promptOf(tokenizer, [{ role: "user", content: text }]), written = [];
  checkRoom(model, ids, "text");
  for (const step of write(model, tokenizer, ids, { temperature: 0, without })) {
    written.push(step.id);
    onToken?.(step);
  }
  return { ids, written };
}

// Of each token of an answer, how likely it is after those before it.
const chancesOf = (model, ids, answer, without) =>
  answer.map((id, i) => percent(softmax(model.read([...ids, ...answer.slice(0, i)], without))[id]));

const promptOf = (tokenizer, messages) => (tokenizer.chat ? tokenizer.conversation(messages)
  : [...tokenizer.start, ...tokenizer.encode(messages.map(({ content }) => content).join("\n"))]);

// Tokens as they are read.
const names = (tokenizer, ids) => ids.map((id) => {
  const byte = tokenizer.byteOf.get(id);
  return (byte > 31 && byte < 127) || byte === 10 ? String.fromCharCode(byte).replace("\n", "↵") : tokenizer.pieces[id].replaceAll("▁", " ").replaceAll("\n", "↵");
});

const percent = (share) => Math.round(1000 * share) / 10;

// Of each head, the places where the last token looked most: low byte, high byte, percentage.
function mostLookedAt(model) {
  const { n_layers: L, n_heads: H } = model.config, { attention } = model.kept.at(-1);
  return Array.from({ length: L * H }, (_, i) => attention[Math.floor(i / H)]?.[i % H] ?? []).flatMap((weights) => {
    const kept = ranked(weights).slice(0, PLACES).map((place) => [place, Math.round(100 * weights[place])]).filter(([, share]) => share > 0);
    return Array.from({ length: PLACES }, (_, k) => kept[k] ?? [0, 0]).flatMap(([place, share]) => [place % 256, place >> 8, share]);
  });
}

// Random numbers that are the same for the same seed (mulberry32).
function dice(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

onmessage = async ({ data: { file, call, name, argument } }) => {
  if (file) {
    ready = new Response(new Blob([file]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer().then(readModel);
    return;
  }
  try {
    postMessage({ call, result: ASKED[name](await ready, argument, (part) => postMessage({ call, part })) });
  } catch (error) {
    postMessage({ call, error: error.message });
  }
};
