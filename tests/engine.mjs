// Does what a test asks of engine.js: arguments are a folder with the questions, and there go the answers.
import { readFileSync, writeFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { candidates, readModel, write } from "./engine.mjs";

const folder = process.argv[2];
const file = (name) => `${folder}/${name}`;
const { texts, strings, rows, logits, settings, without } = JSON.parse(readFileSync(file("asked.json"), "utf-8"));
const bytes = gunzipSync(readFileSync(file("model.gz")));
const { model, tokenizer } = readModel(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));

// Of each text, the logits after it, then the weights of every head and the stream, token by token.
const numbers = texts.flatMap((ids) => {
  const last = model.read(ids);
  return [last, ...model.kept.flatMap(({ attention, stream }) => [...attention.flat(), ...stream])];
});
const all = new Float32Array(numbers.reduce((sum, part) => sum + part.length, 0));
numbers.reduce((at, part) => (all.set(part, at), at + part.length), 0);
writeFileSync(file("numbers"), all);

writeFileSync(file("answers.json"), JSON.stringify({
  written: texts.map((ids) => [...write(model, tokenizer, ids, { temperature: 0, length: 40 })].map(({ id }) => id)),
  broken: without.map((parts) => texts.map((ids) => [...model.read(ids, new Set(parts))])),
  encoded: strings.map((text) => tokenizer.encode(text)),
  decoded: rows.map((ids) => tokenizer.decode(ids)),
  candidates: settings.map((how) => [...candidates(Float32Array.from(logits), how)]),
}));
