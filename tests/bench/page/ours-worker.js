/** Runs fused-matmul/llama in a worker, as an application would. page.js sends { method, args }. */

import { createGpuKernels } from '../../../js/gpu/index.js';
import { Llama } from '../../../js/llama/index.js';
import { countGpuCalls } from './gpu-calls.js';

/** @import { Likely, Run, Settings } from './engine.js' */

/** @type {Llama} */
let model;

const methods = {
  /** @param {Blob} file @param {Settings} settings */
  async load(file, { threads, nContext, gpu }) {
    const start = performance.now();
    if (gpu) {
      countGpuCalls();
      const kernels = await createGpuKernels({ allowSoftware: true });
      model = await Llama.load(file, { kernels, contextLength: nContext });
      return { loadMs: performance.now() - start, threads, note: kernels.info.adapter.name };
    }
    model = await Llama.load(file, { contextLength: nContext, threads });
    const { info } = model.kernels;
    return { loadMs: performance.now() - start, threads: info.threads, note: `${info.isa} ${info.dot}` };
  },
  /** @param {string} prompt @param {number} maxTokens @returns {Promise<Run>} */
  async run(prompt, maxTokens) {
    const start = performance.now();
    let firstMs = 0;
    const generation = model.generate(prompt, { maxTokens, temperature: 0, ignoreEnd: true });
    for await (const _ of generation) firstMs ||= performance.now() - start;
    const { promptTokens, reusedTokens, promptMs, tokens, decodeMs } = generation.stats;
    return {
      promptTokens: promptTokens - reusedTokens,
      promptMs,
      decodedTokens: tokens,
      decodeMs,
      firstMs,
    };
  },
  /** @param {string} prompt @param {number} nLikely @returns {Promise<Likely[]>} */
  async likely(prompt, nLikely) {
    const tokens = model.tokenize(prompt);
    const all = await model.logits(tokens);
    /** @type {Float32Array} */
    const last = all.subarray(all.length - all.length / tokens.length);
    const most = last.reduce((a, b) => Math.max(a, b));
    const total = last.reduce((sum, logit) => sum + Math.exp(logit - most), 0);
    return [...last]
      .map((logit, id) => ({ id, logProbability: logit - most - Math.log(total) }))
      .sort((a, b) => b.logProbability - a.logProbability)
      .slice(0, nLikely);
  },
  async unload() {
    model.dispose();
  },
};

addEventListener('message', async ({ data: { method, args } }) => {
  try {
    const value = await methods[/** @type {'run'} */ (method)](.../** @type {[any, any]} */ (args));
    postMessage({ value });
  } catch (error) {
    postMessage({ error: String(/** @type {Error} */ (error).stack ?? error) });
  }
});
