/** The model in its worker, as the page uses it: loaded and warmed up, and written with. */
import { createWorkerLlama } from '../js/llama/worker.js';

const warmUpMs = 100;
/** How often text is shown: about once a frame. */
const frameMs = 16;

/** @typedef {import('../js/llama/worker.js').WorkerLlama} WorkerLlama */
/** @typedef {import('../js/llama/worker.js').WorkerLlamaOptions} LoadOptions */
/** A URL, or files: one, or the parts of a model. @typedef {string | File[]} Source */

/**
 * @param {Source} source
 * @param {LoadOptions & { signal: AbortSignal }} options
 */
export async function loadModel(source, options) {
  const model = await createWorkerLlama(source, options);
  try {
    await warmUp(model, options.signal);
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  }
}

/**
 * Loads a model before it is sure that it is wanted.
 * @param {Promise<Source>} source @param {LoadOptions} options
 */
export function loadAhead(source, options) {
  const stop = new AbortController();
  const loading = source.then((given) => loadModel(given, { ...options, signal: stop.signal }));
  // An error is for the one who takes the model; there may be none.
  loading.catch(() => {});
  return { source, stop, loading };
}

/**
 * Runs a model for a moment, so that the engine has its kernels compiled in full when the first text
 * is written.
 * @param {WorkerLlama} model @param {AbortSignal} signal
 */
async function warmUp(model, signal) {
  const start = performance.now();
  const tokens = Array.from({ length: Math.min(8, model.info.contextLength - 1) }, (_, i) => i + 1);
  for await (const _ of model.generate(tokens, { maxTokens: 1000, temperature: 1, seed: 1, signal }))
    if (performance.now() - start > warmUpMs) break;
}

/**
 * Writes. Stopping is no failure: what there is by then is the result.
 * @param {WorkerLlama} model
 * @param {{ prompt?: string, messages?: { role: string, content: string }[] }} request  what the model continues
 * @param {import('../js/llama/options.js').GenerateOptions & { signal: AbortSignal }} options
 * @param {(text: string, stats: import('../js/llama/generation.js').GenerationStats) => void} onText
 */
export async function write(model, { prompt = '', messages }, options, onText) {
  // A conversation that has grown too long goes on without its oldest turns.
  const generation = messages
    ? await model.chat(messages, { ...options, overflow: 'drop-oldest' })
    : model.generate(prompt, options);
  let shown = 0;
  let last = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const show = () => {
    timer = undefined;
    last = performance.now();
    onText(text.slice(shown), generation.stats);
    shown = text.length;
  };
  let text = '';
  let stopped = false;
  try {
    for await (const piece of generation) {
      text += piece;
      timer ??= setTimeout(show, last + frameMs - performance.now());
    }
  } catch (error) {
    if (!options.signal.aborted) throw error;
    stopped = true;
  } finally {
    clearTimeout(timer);
    show();
  }
  return { text, stats: generation.stats, stopped, dropped: generation.droppedMessages };
}
