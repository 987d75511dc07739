/* A model in a worker. Its code is loaded when the first is created. */

/** @typedef {import('../worker/llama-client.js').WorkerLlama} WorkerLlama */
/** @typedef {import('../worker/llama-client.js').WorkerLlamaOptions} WorkerLlamaOptions */

/**
 * Loads a model in a worker of its own, which keeps the page's thread free: the methods of Llama, each with a promise, and generations that
 * are read as usual. Bytes go from the network or the disk straight to the worker.
 * @param {import('../gguf/source.js').GgufSource | import('../gguf/file.js').GgufFile} source  a URL (a relative one belongs to the page), a File
 *   or Blob, bytes, in Node a path; for a split model the first part's URL or path, or a list of all parts; or an open file
 * @param {WorkerLlamaOptions} [options]
 * @returns {Promise<WorkerLlama>}
 * @throws {import('../errors.js').LoadError} the worker cannot be started
 * @throws {import('./errors.js').ModelError} as Llama.load, with its other errors
 */
export async function createWorkerLlama(source, options = {}) {
  const { WorkerLlama } = await import('../worker/llama-client.js');
  return WorkerLlama.create(source, options);
}
