/* Stands in dist/llama-host.js for js/llama/devices.js: a model that may run on a GPU needs the larger
 * script, dist/llama-host-gpu.js. */

import { LoadError } from '../errors.js';

/** @throws {LoadError} always */
export function checkDevices() {
  throw new LoadError(
    "the worker's script has no code for a GPU: pass createWorkerLlama(source, { worker }) a Worker that runs fused-matmul/llama-host-gpu, or the address of that file",
  );
}
