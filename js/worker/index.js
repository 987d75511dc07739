/* Creates kernels in a worker. The code behind this function is loaded on first use. */

/** @typedef {import('./types.js').WorkerKernelsOptions} WorkerKernelsOptions */
/** @typedef {import('./types.js').WorkerKernels} WorkerKernels */

/**
 * Creates kernels in a worker of their own, which owns the memory and does the work. The operations
 * are the same as those of createKernels, including the operations of a layer, but each returns a
 * promise. The main thread of a page should use this function.
 *
 * Calls run in the order they are made; none has to be awaited before the next. The options of each
 * call take a `signal` and a list of buffers to `transfer`. The queue is limited only by memory.
 * @param {WorkerKernelsOptions} [options]
 * @returns {Promise<WorkerKernels>}
 * @throws {import('../errors.js').LoadError} the worker cannot be started, or it cannot load the
 *   wasm
 * @throws {import('../errors.js').IsaError} as createKernels
 */
export async function createWorkerKernels(options = {}) {
  const { WorkerKernels } = await import('./client.js');
  return /** @type {any} */ (WorkerKernels.create(options));
}
