/**
 * Everything that computes, away from the page's own thread. Requests { id, op, args } are served one after the other;
 * answers are { id, result }, { id, error } or, before them, { id, event }. { cancel: id } stops a request at its next breath.
 */
import { Engine } from './engine.js';

/** @typedef {import('./engine.js').Context} Context */

const engine = new Engine();

const operations = {
  /** @type {Engine['start']} */
  start: (args, context) => engine.start(args, context),
  /** @type {Engine['open']} */
  open: (args, context) => engine.open(args, context),
  /** @type {Engine['load']} */
  load: (args, context) => engine.load(args, context),
  /** @type {Engine['generate']} */
  generate: (args, context) => engine.generate(args, context),
  /** @type {Engine['multiply']} */
  multiply: (args, context) => engine.multiply(args, context),
  /** @type {Engine['bench']} */
  bench: (args, context) => engine.bench(args, context),
  /** @type {Engine['kept']} */
  kept: () => engine.kept(),
  /** @type {Engine['forget']} */
  forget: (args) => engine.forget(args),
};

/** These touch nothing that the others use, and wait for none of them. */
const atOnce = ['kept', 'forget'];

/** @typedef {typeof operations} Operations */

/** @type {Map<number, AbortController>} */
const running = new Map();
let queue = Promise.resolve();

/** @param {{ id: number, op: keyof Operations, args: any }} request @param {AbortSignal} signal */
async function serve({ id, op, args }, signal) {
  try {
    signal.throwIfAborted();
    const onEvent = (/** @type {any} */ event) => postMessage({ id, event });
    postMessage({ id, result: await operations[op](args, { signal, onEvent }) });
  } catch (cause) {
    const error = /** @type {Error & { code?: string }} */ (
      cause instanceof Error ? cause : new Error(String(cause))
    );
    const name = signal.aborted ? 'AbortError' : error.name;
    postMessage({ id, error: { name, message: error.message, code: error.code } });
  } finally {
    running.delete(id);
  }
}

/** @param {any} data  a message */
export function receive(data) {
  if ('cancel' in data) {
    running.get(data.cancel)?.abort();
    return;
  }
  const controller = new AbortController();
  running.set(data.id, controller);
  if (atOnce.includes(data.op)) serve(data, controller.signal);
  else queue = queue.then(() => serve(data, controller.signal));
}
