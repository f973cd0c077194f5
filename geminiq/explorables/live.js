// The model behind the pictures of a page: one worker for each model, begun when a picture first wants it.
import { page } from "./base.js";

const engines = (page.engines ??= new Map());

// Something to ask: `(await engine(model))("answer", {…})` runs the function of that name of server.js, in the worker.
export function engine(model) {
  const source = model.get("source");
  if (!engines.has(source))
    engines.set(source, find(source).then(start).catch((error) => (engines.delete(source), Promise.reject(error))));
  return engines.get(source);
}

// The program and the weights: from the kernel, if it has this model; from the page itself; or from the site.
async function find(source) {
  const kernel = [...page.models].find((model) => model.get("source") === source);
  if (kernel) return fromKernel(kernel);
  if (page.files?.[source]) return page.files[source]();
  const folder = new URL("_static/engine/", new URL(document.documentElement.dataset.content_root ?? "./", location.href));
  const [code, file] = await Promise.all(["engine.js", `${source}.gz`].map((name) => fetch(new URL(name, folder)).catch(() => ({}))));
  if (!code.ok || !file.ok) throw new Error("The model is not here. To ask it yourself, run the cell in JupyterLab.");
  return { code: await code.text(), file: await file.arrayBuffer() };
}

function fromKernel(model) {
  return new Promise((resolve) => {
    model.on("msg:custom", ({ code }, [{ buffer, byteOffset, byteLength }]) =>
      code && resolve({ code, file: buffer.slice(byteOffset, byteOffset + byteLength) }));
    model.send({ want: "engine" });
  });
}

function start({ code, file }) {
  const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  const waiting = new Map();
  worker.onmessage = ({ data: { call, part, result, error } }) => {
    const { resolve, reject, onPart } = waiting.get(call);
    if (part) return onPart?.(part);
    waiting.delete(call);
    if (error) reject(new Error(error));
    else resolve(result);
  };
  worker.onerror = ({ message }) => waiting.forEach(({ reject }) => reject(new Error(message)));
  worker.postMessage({ file }, [file]);
  let calls = 0;
  return (name, argument, onPart) => new Promise((resolve, reject) => {
    waiting.set(++calls, { resolve, reject, onPart });
    worker.postMessage({ call: calls, name, argument });
  });
}

// Asks again and again, as fast as answers come: of what was wished in the meantime, only the last.
export function lastOf(ask) {
  let busy = false, next = null;
  return async function wish(...what) {
    next = what;
    if (busy) return;
    busy = true;
    while (next) {
      const now = next;
      next = null;
      await ask(...now);
    }
    busy = false;
  };
}

// Fetches the model when the reader has nothing else to wait for, and does not pay for each byte.
export function whenIdle(model) {
  if (navigator.connection?.saveData) return;
  const wait = globalThis.requestIdleCallback ?? ((soon) => setTimeout(soon, 2000));
  wait(() => engine(model).catch(() => {}));
}
