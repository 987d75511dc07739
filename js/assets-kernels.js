/* URL of the script of createWorkerKernels' worker; see assets-worker.js. */

import { scriptUrl } from './assets-worker.js';

/** The worker of createWorkerKernels. @type {import('./assets-worker.js').Script} */
export const KERNELS_SCRIPT = {
  url: () =>
    scriptUrl(
      '../dist/worker-host.js',
      "the worker's script dist/worker-host.js",
      'pass createWorkerKernels({ worker }): a Worker that runs fused-matmul/worker-host, or the address of that file',
    ),
  start: () =>
    new Worker(new URL('../dist/worker-host.js', import.meta.url), {
      type: 'module',
      name: 'fused-matmul',
    }),
};
