/* Kernels in a worker. Their code is loaded when the first are created. */

/** @typedef {import('./types.js').WorkerKernelsOptions} WorkerKernelsOptions */
/** @typedef {import('./types.js').WorkerKernels} WorkerKernels */

/**
 * Loads the kernels in a worker of their own, which owns the memory and does the work: the same operations, those of a layer
 * among them, each with a promise. What a page's main thread should use.
 *
 * Calls need not be awaited before the next: they are done in the order they were made. Each takes in its options a `signal`
 * and a list of buffers to `transfer`. What is waiting in the queue is limited by nothing but memory.
 * @param {WorkerKernelsOptions} [options]
 * @returns {Promise<WorkerKernels>}
 * @throws {import('../errors.js').LoadError} the worker cannot be started, or the wasm not be loaded in it
 * @throws {import('../errors.js').IsaError} as createKernels
 */
export async function createWorkerKernels(options = {}) {
  const { WorkerKernels } = await import('./client.js');
  return /** @type {any} */ (WorkerKernels.create(options));
}
