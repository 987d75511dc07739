/* URLs of the scripts of createWorkerLlama's worker; see assets-worker.js. */

import { scriptUrl } from './assets-worker.js';

/**
 * The worker of createWorkerLlama, for models on the CPU.
 * @type {import('./assets-worker.js').Script}
 */
export const LLAMA_SCRIPT = {
  url: () =>
    scriptUrl(
      '../dist/llama-host.js',
      "the worker's script dist/llama-host.js",
      'pass createWorkerLlama(source, { worker }): a Worker that runs fused-matmul/llama-host, or the address of that file',
    ),
  start: () =>
    new Worker(new URL('../dist/llama-host.js', import.meta.url), {
      type: 'module',
      name: 'fused-matmul',
    }),
};

/** The same with the code of GPUs. @type {import('./assets-worker.js').Script} */
export const LLAMA_GPU_SCRIPT = {
  url: () =>
    scriptUrl(
      '../dist/llama-host-gpu.js',
      "the worker's script dist/llama-host-gpu.js",
      'pass createWorkerLlama(source, { worker }): a Worker that runs fused-matmul/llama-host-gpu, or the address of that file',
    ),
  start: () =>
    new Worker(new URL('../dist/llama-host-gpu.js', import.meta.url), {
      type: 'module',
      name: 'fused-matmul',
    }),
};
