// The course's model once more, whole, in another language: a text becomes tokens, and tokens become the next token.
// Each part names the lesson that derives it. One token is read at a time, and what is computed on the way is kept,
// so that pictures can show it.

// ---- The file: a header in JSON, and numbers (safetensors, lesson 28) ----

export function readModel(buffer) {
  const start = 8 + Number(new DataView(buffer).getBigUint64(0, true));
  const { __metadata__: about, ...tensors } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, start - 8)));
  const numbers = (name) => buffer.slice(...tensors[name].data_offsets.map((at) => start + at));
  const weights = {};
  for (const [name, { dtype, shape: [rows, columns = 1] }] of Object.entries(tensors)) {
    if (name.endsWith(".scale")) continue;
    const data = new NUMBERS[dtype](numbers(name));
    weights[name] = { rows, columns, data: dtype === "F32" ? data : scaled(data, columns, new Float32Array(numbers(`${name}.scale`))) };
  }
  const { config, tokenizer } = JSON.parse(about.geminiq);
  return { model: new Transformer(config, weights), tokenizer: new Tokenizer(tokenizer) };
}

const NUMBERS = { F32: Float32Array, I16: Int16Array, I8: Int8Array };

// Whole numbers of few bits; each row of a matrix has a scale of its own.
function scaled(whole, columns, scales) {
  const data = Float32Array.from(whole);
  scales.forEach((scale, row) => data.subarray(row * columns, (row + 1) * columns).forEach((n, i, own) => { own[i] = n * scale; }));
  return data;
}

// ---- Tokens: byte-pair encoding (lesson 4) ----

export class Tokenizer {
  constructor({ pieces, merges, control, bytes, chat, start, stop }) {
    Object.assign(this, { pieces, control: new Set(control), chat, start, stop: new Set(stop) });
    this.byteIds = bytes;                                             // of each byte, 0 to 255
    this.byteOf = new Map(bytes.map((id, byte) => [id, byte]));
    this.ids = new Map(merges.map((id) => [pieces[id], id]));
    this.rank = new Map(merges.map((id, rank) => [pieces[id], rank]));   // the smaller, the earlier it is merged
  }

  encode(text) {
    return this.words(text).flatMap((word) => (word === "▁" ? this.spell(word)
      : this.merge(word.replaceAll(" ", "▁")).flatMap((piece) => this.idsOf(piece))));
  }

  words(text) {   // each with the spaces before it; the sign ▁ stands for a space, and is no letter of a word
    return text.toWellFormed().match(/▁| *[^ ▁]+| +/g) ?? [];
  }

  idsOf(piece) {
    return this.ids.has(piece) ? [this.ids.get(piece)] : this.spell(piece);
  }

  spell(piece) {   // what no piece can say, byte by byte
    return [...new TextEncoder().encode(piece)].map((byte) => this.byteIds[byte]);
  }

  // The pair whose union was learned first becomes one piece, the leftmost first, until no pair is left.
  merge(word, onMerge) {
    const parts = [...word], next = parts.map((_, i) => i + 1), previous = parts.map((_, i) => i - 1);
    const waiting = new Heap();
    const consider = (i) => {
      const piece = i >= 0 && next[i] < parts.length ? parts[i] + parts[next[i]] : "";
      if (this.rank.has(piece)) waiting.push({ rank: this.rank.get(piece), at: i, piece });
    };
    parts.forEach((_, i) => consider(i));
    for (let best; (best = waiting.pop());) {
      const { at, piece } = best, right = next[at];
      if (parts[at] === null || right >= parts.length || parts[at] + parts[right] !== piece) continue;   // it is no more
      parts[at] = piece;
      parts[right] = null;
      next[at] = next[right];
      if (next[at] < parts.length) previous[next[at]] = at;
      onMerge?.(parts.filter((part) => part !== null), piece);
      consider(previous[at]);
      consider(at);
    }
    return parts.filter((part) => part !== null);
  }

  // Back to text.
  decode(ids) {
    let text = "", bytes = [];                                        // bytes of a character that is not complete yet
    for (const id of ids) {
      if (this.byteOf.has(id)) bytes.push(this.byteOf.get(id));
      else {
        text += characters(bytes) + (this.control.has(id) ? "" : this.pieces[id].replaceAll("▁", " "));
        bytes = [];
      }
    }
    return text + characters(bytes);
  }

  // A conversation as the model was trained to read it (lesson 20).
  conversation(messages) {
    const ids = messages.flatMap(({ role, content }) => [this.chat[role], ...this.encode(content), this.chat.end]);
    return [...this.start, ...ids, this.chat.assistant];
  }
}

// A byte that belongs to no character becomes a sign of its own.
function characters(bytes) {
  const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let text = "";
  for (let at = 0, size; at < bytes.length; at += size) {
    size = bytes[at] < 0xc0 ? 1 : bytes[at] < 0xe0 ? 2 : bytes[at] < 0xf0 ? 3 : 4;
    try {
      text += utf8.decode(new Uint8Array(bytes.slice(at, at + size)));
    } catch {
      text += "\ufffd";
      size = 1;
    }
  }
  return text;
}

class Heap {   // gives the earliest merge first, and of equals the leftmost
  items = [];
  before = (a, b) => a.rank < b.rank || (a.rank === b.rank && a.at < b.at);

  push(item) {
    let i = this.items.push(item) - 1;
    for (let up; i > 0 && this.before(item, this.items[(up = (i - 1) >> 1)]); i = up) this.items[i] = this.items[up];
    this.items[i] = item;
  }

  pop() {
    const [top] = this.items, item = this.items.pop();
    if (!this.items.length) return top;
    let i = 0;
    for (let down; (down = 2 * i + 1) < this.items.length; i = down) {
      if (down + 1 < this.items.length && this.before(this.items[down + 1], this.items[down])) down++;
      if (!this.before(this.items[down], item)) break;
      this.items[i] = this.items[down];
    }
    this.items[i] = item;
    return top;
  }
}

// ---- Small parts ----

// One token's numbers through a matrix (lesson 1). Four rows at a time: one sum alone waits for itself.
function linear({ rows, columns, data }, x) {
  const y = new Float32Array(rows);
  let row = 0;
  for (; row + 4 <= rows; row += 4) {
    let a = row * columns, b = a + columns, c = b + columns, d = c + columns;
    let sumA = 0, sumB = 0, sumC = 0, sumD = 0;
    for (let i = 0; i < columns; i++) {
      const number = x[i];
      sumA += number * data[a++];
      sumB += number * data[b++];
      sumC += number * data[c++];
      sumD += number * data[d++];
    }
    y[row] = sumA; y[row + 1] = sumB; y[row + 2] = sumC; y[row + 3] = sumD;
  }
  for (; row < rows; row++) y[row] = dot(data.subarray(row * columns, (row + 1) * columns), x);
  return y;
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

const add = (x, y) => x.map((number, i) => number + y[i]);

// Divide by the root mean square (lesson 9).
function rmsNorm({ data }, x, eps) {
  const size = Math.sqrt(dot(x, x) / x.length + eps);
  return x.map((number, i) => (number / size) * data[i]);
}

export function softmax(scores, temperature = 1) {   // lesson 7
  const highest = scores.reduce((a, b) => Math.max(a, b));
  const powers = scores.map((score) => Math.exp((score - highest) / temperature));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}

// Turn each pair of numbers by an angle that grows with the position (lesson 6).
function rotate(x, position, { rope_base: base, rope_interleaved: neighbours }) {
  const half = x.length / 2, turned = x.slice();
  for (let pair = 0; pair < half; pair++) {
    const angle = position * base ** (-pair / half), cos = Math.cos(angle), sin = Math.sin(angle);
    const [i, j] = neighbours ? [2 * pair, 2 * pair + 1] : [pair, pair + half];
    turned[i] = x[i] * cos - x[j] * sin;
    turned[j] = x[i] * sin + x[j] * cos;
  }
  return turned;
}

// What each head subtracts for a step of distance (ALiBi, lesson 6).
function alibiSlopes(heads) {
  const below = 2 ** Math.floor(Math.log2(heads));
  return Array.from({ length: heads }, (_, head) =>
    head < below ? 2 ** (-8 * (head + 1) / below) : 2 ** (-8 * (2 * (head - below) + 1) / (2 * below)));
}

// ---- The model (lesson 10) ----

const NOTHING = new Set();

export class Transformer {
  constructor(config, weights) {
    Object.assign(this, { config, weights });
    const { d_model, n_layers, n_heads, n_kv_heads, head_dim, pos_encoding } = config;
    this.width = head_dim ?? d_model / n_heads;                       // of a head
    this.shared = n_heads / (n_kv_heads ?? n_heads);                  // queries to a key and value (lesson 7)
    this.slopes = pos_encoding === "alibi" ? alibiSlopes(n_heads) : Array(n_heads).fill(0);
    this.clear();
    this.layers = Array.from({ length: n_layers }, (_, layer) => layer);
  }

  clear() {
    this.ids = [];
    this.kept = [];                                                   // one entry for each token that was read
  }

  // Read a text. What it shares with the one before, from the front, is not computed again (lesson 16).
  // `without` names what is switched off: "2" a layer, "2.attention", "2.feed_forward", "2.5" a head of it.
  read(ids, without = NOTHING) {
    if (without !== this.without) this.clear();
    this.without = without;
    let same = 0;
    while (same < ids.length && ids[same] === this.ids[same]) same++;
    this.ids.length = this.kept.length = same;
    for (const id of ids.slice(same)) {
      this.readToken(id);
      this.ids.push(id);
    }
    return this.logits(this.kept.at(-1).stream.at(-1));
  }

  readToken(id) {
    const { d_model } = this.config;
    const token = { stream: [], query: [], key: [], value: [], scores: [], attention: [] };
    this.kept.push(token);                                            // here, as it looks at itself too
    let x = this.weights["embedding.weight"].data.slice(id * d_model, (id + 1) * d_model);
    for (const layer of this.layers) {
      token.stream.push(x);
      if (this.without.has(`${layer}`)) continue;
      if (!this.without.has(`${layer}.attention`)) x = this.attend(x, token, layer);
      if (!this.without.has(`${layer}.feed_forward`)) x = add(x, this.feedForward(x, layer));
    }
    token.stream.push(x);
  }

  // Each head looks back, and gathers the values of the tokens by how well their keys answer its query (lesson 7).
  attend(x, token, layer) {
    const { n_heads, norm_eps, attention_scale, qk_norm, pos_encoding } = this.config;
    const part = `blocks.${layer}.attention`, position = this.kept.length - 1;
    const normed = rmsNorm(this.weights[`${part}_norm.weight`], x, norm_eps);
    const look = (name) => this.heads(linear(this.weights[`${part}.${name}.weight`], normed)).map((head) => {
      const even = qk_norm ? rmsNorm(this.weights[`${part}.${name}_norm.weight`], head, norm_eps) : head;
      return pos_encoding === "rope" ? rotate(even, position, this.config) : even;
    });
    token.query[layer] = look("query");
    token.key[layer] = look("key");
    token.value[layer] = this.heads(linear(this.weights[`${part}.value.weight`], normed));

    const scale = attention_scale ?? this.width ** -0.5, found = new Float32Array(n_heads * this.width);
    token.scores[layer] = token.query[layer].map((query, head) => Float32Array.from(this.kept, ({ key }, at) =>
      scale * dot(query, key[layer][Math.floor(head / this.shared)]) - this.slopes[head] * (position - at)));
    token.attention[layer] = token.scores[layer].map((scores) => softmax(scores));
    token.attention[layer].forEach((weights, head) => {
      if (this.without.has(`${layer}.${head}`)) return;
      const place = found.subarray(head * this.width, (head + 1) * this.width);
      this.kept.forEach(({ value }, at) => value[layer][Math.floor(head / this.shared)].forEach((number, i) => {
        place[i] += weights[at] * number;
      }));
    });
    return add(x, linear(this.weights[`${part}.output.weight`], found));
  }

  heads(numbers) {
    return Array.from({ length: numbers.length / this.width }, (_, head) =>
      numbers.subarray(head * this.width, (head + 1) * this.width));
  }

  // Each token computes for itself (SwiGLU, lesson 8).
  feedForward(x, layer) {
    const part = `blocks.${layer}.feed_forward`;
    const normed = rmsNorm(this.weights[`${part}_norm.weight`], x, this.config.norm_eps);
    const up = linear(this.weights[`${part}.up.weight`], normed);
    const gate = linear(this.weights[`${part}.gate.weight`], normed);
    return linear(this.weights[`${part}.down.weight`], gate.map((number, i) => (number / (1 + Math.exp(-number))) * up[i]));
  }

  // A score for every token that could come next, from the stream after any layer.
  logits(x) {
    const head = this.weights["lm_head.weight"] ?? this.weights["embedding.weight"];
    return linear(head, rmsNorm(this.weights["norm.weight"], x, this.config.norm_eps));
  }
}

// ---- Writing (lessons 17 and 19) ----

// The probability of each token that may be drawn; those that may not have 0.
export function candidates(logits, { temperature = 1, topK = Infinity, topP = 1, minP = 0 } = {}) {
  if (temperature === 0) return logits.map(() => 0).fill(1, likeliest(logits), likeliest(logits) + 1);
  const chances = softmax(logits, temperature), sum = (ids) => ids.reduce((all, id) => all + chances[id], 0);
  let kept = ranked(chances).slice(0, topK);
  let before = 0;                                                     // what the likelier ones have together
  const enough = topP * (1 - 1e-6) * sum(kept);
  kept = kept.filter((id) => (before += chances[id]) - chances[id] < enough || topP === 1);
  kept = kept.filter((id) => chances[id] >= minP * chances[kept[0]]);
  const total = sum(kept), left = chances.map(() => 0);
  for (const id of kept) left[id] = chances[id] / total;
  return left;
}

export const ranked = (numbers) => [...numbers.keys()].sort((a, b) => numbers[b] - numbers[a] || a - b);
export const likeliest = (scores) => scores.reduce((best, score, id) => (score > scores[best] ? id : best), 0);

export function draw(chances, random = Math.random) {
  let point = random();
  const id = chances.findIndex((chance) => (point -= chance) < 0);
  return id < 0 ? likeliest(chances) : id;                            // the sum may be a little less than 1
}

// One token after the other, each with the chances it was drawn from.
export function* write(model, tokenizer, ids, { length = 60, random, without, ...how } = {}) {
  const text = [...ids];
  while (text.length < Math.min(ids.length + length, model.config.max_seq_len)) {
    const logits = model.read(text, without), chances = candidates(logits, how), id = draw(chances, random);
    yield { id, chances, logits };
    if (tokenizer.stop.has(id)) return;
    text.push(id);
  }
}
