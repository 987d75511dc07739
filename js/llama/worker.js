/* Loads a model in a worker. The code behind this function is loaded on first use. */

/** @typedef {import('../worker/llama-client.js').WorkerLlama} WorkerLlama */
/** @typedef {import('../worker/llama-client.js').WorkerLlamaOptions} WorkerLlamaOptions */

/**
 * Loads a model in a worker of its own, which keeps the page's thread free. The result has the
 * methods of Llama, each with a promise; generations are read as usual. Bytes go from the network
 * or the disk straight to the worker.
 * @param {import('../gguf/source.js').GgufSource | import('../gguf/file.js').GgufFile} source  a
 *   URL (relative to the page), a File or Blob, bytes, or in Node a path; for a split model the URL
 *   or path of the first part, or a list of all parts; or an open file
 * @param {WorkerLlamaOptions} [options]
 * @returns {Promise<WorkerLlama>}
 * @throws {import('../errors.js').LoadError} the worker cannot be started
 * @throws {import('./errors.js').ModelError} as Llama.load, which has further errors
 */
export async function createWorkerLlama(source, options = {}) {
  const { WorkerLlama } = await import('../worker/llama-client.js');
  return WorkerLlama.create(source, options);
}
