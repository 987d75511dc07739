/**
 * The benchmark's page: the same GGUF file in wllama and in fused-matmul/llama, each in a worker of
 * its own. Node (llama.js) calls the functions in `engines`, in turns.
 */

import { countInBlobWorkers, gpuCalls } from './gpu-calls.js';

/** @import { Engine } from './engine.js' */

const PEERS = '/build/peers/node_modules';
const ALL_LAYERS = 999;

/** @param {string} url */
const fetchBlob = async (url) => (await fetch(url)).blob();

/** @type {any} */
let wllama;

/** @type {Engine} */
const wllamaEngine = {
  async load(url, { threads, nContext, gpu }) {
    const { Wllama } = await import(`${PEERS}/@wllama/wllama/esm/index.js`);
    const file = await fetchBlob(url);
    if (gpu) countInBlobWorkers();
    const start = performance.now();
    wllama = new Wllama(
      { default: `${PEERS}/@wllama/wllama/esm/wasm/wllama.wasm` },
      { suppressNativeLog: true },
    );
    wllama.setCompat(null);
    await wllama.loadModel([file], {
      n_ctx: nContext,
      n_batch: 512,
      n_threads: threads,
      n_gpu_layers: gpu ? ALL_LAYERS : 0,
      warmup: false,
      n_parallel: 1,
    });
    return {
      loadMs: performance.now() - start,
      threads: wllama.getNumThreads(),
      note: Wllama.getLibllamaVersion(),
    };
  },
  async run(prompt, maxTokens) {
    const start = performance.now();
    const stream = await wllama.createCompletion({
      prompt,
      max_tokens: maxTokens,
      temperature: 0,
      ignore_eos: true,
      cache_prompt: false,
      stream: true,
    });
    let firstMs = 0;
    /** @type {any} */
    let timings;
    for await (const chunk of stream) {
      if (firstMs === 0 && chunk.choices?.[0]?.text) firstMs = performance.now() - start;
      timings = chunk.timings ?? timings;
    }
    return {
      promptTokens: timings.prompt_n,
      promptMs: timings.prompt_ms,
      decodedTokens: timings.predicted_n,
      decodeMs: timings.predicted_ms,
      firstMs,
      totalMs: performance.now() - start,
    };
  },
  async likely(prompt, nLikely) {
    const { choices } = await wllama.createCompletion({
      prompt,
      max_tokens: 1,
      temperature: 0,
      n_probs: nLikely,
      logprobs: nLikely,
      cache_prompt: false,
    });
    const [{ top_logprobs }] = choices[0].logprobs.content;
    return top_logprobs.map((/** @type {any} */ { id, logprob }) => ({ id, logProbability: logprob }));
  },
  async unload() {
    await wllama.exit();
    wllama = undefined;
  },
};

/** @type {Worker} */
let worker;

/**
 * Calls a method of ours-worker.js and gives its answer.
 * @param {string} method @param {unknown[]} args @returns {Promise<any>}
 */
function call(method, ...args) {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => ('error' in data ? reject(new Error(data.error)) : resolve(data.value));
    worker.onerror = ({ message }) => reject(new Error(`the worker failed: ${message}`));
    worker.postMessage({ method, args });
  });
}

/** @type {Engine} */
const ours = {
  async load(url, settings) {
    const file = await fetchBlob(url);
    worker = new Worker(new URL('ours-worker.js', import.meta.url), { type: 'module' });
    return call('load', file, settings);
  },
  run: (prompt, maxTokens) => call('run', prompt, maxTokens),
  likely: (prompt, nLikely) => call('likely', prompt, nLikely),
  async unload() {
    await call('unload');
    worker.terminate();
  },
};

/** @type {Record<string, Engine>} */
const engines = { ours, wllama: wllamaEngine };
Object.assign(globalThis, { engines, gpuCalls });
