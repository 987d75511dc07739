/* Opens GGUF files and manages their cache. The code behind these functions is loaded on first
 * use. */

export { GgufFile } from './file.js';

/** @typedef {import('./file.js').GgufTensor} GgufTensor */
/** @typedef {import('./file.js').GgufFilePart} GgufFilePart */
/** @typedef {import('./file.js').MetadataValue} MetadataValue */

/**
 * @typedef {object} OpenOptions
 * @property {AbortSignal} [signal]  Aborts the opening.
 * @property {typeof globalThis.fetch} [fetch]  Function that fetches URLs, instead of the global
 *   fetch.
 * @property {HeadersInit} [headers]  Headers of every request.
 * @property {number} [retries]  Attempts in a row that may fail before a read fails, the first
 *   request included. Default 4.
 * @property {number} [retryDelay]  Milliseconds before the first repeated attempt, doubled for each
 *   further one. Default 250.
 * @property {number} [timeout]  Milliseconds without a byte after which a connection counts as
 *   broken. Default 30000; Infinity waits for ever.
 * @property {boolean | string} [cache]  Keep the bytes read from a URL in the browser's Cache
 *   Storage, under this name or 'fused-matmul'. If there is no Cache Storage, or it is full or
 *   fails, the file is read without it, and `gguf.cached` says why.
 */

/**
 * Opens a GGUF file and checks its header. All parts of a model that gguf-split has cut are opened.
 * @param {import('./source.js').GgufSource} source  a URL (read by Range requests), a link to a
 *   file on Hugging Face (its page, or hf:OWNER/REPO/FILE.gguf), a File or Blob, bytes, or in Node
 *   a path. For a split model: the URL or path of the first part, which is named
 *   -00001-of-00005.gguf, or a list of all parts, in any order
 * @param {OpenOptions} [options]
 * @returns {Promise<import('./file.js').GgufFile>}
 * @throws {import('../errors.js').GgufError} the file cannot be read, is truncated, malformed or of
 *   another format, or a part is missing or belongs to another model; the message says what and
 *   where
 */
export async function openGguf(source, options = {}) {
  const { open } = await import('./open.js');
  return open(source, options);
}

/**
 * Lists the files in a cache, last opened first. A split model is listed once, by the URL of its
 * first part.
 * @param {string} [cache]  name of the cache
 * @returns {Promise<import('./cache.js').CachedGguf[]>} empty where there is no Cache Storage
 * @throws {import('../errors.js').GgufError} the Cache Storage fails
 */
export async function listCachedGgufs(cache) {
  return (await storeNamed(cache)).list();
}

/**
 * Deletes a file from a cache, with all its parts if the model is split.
 * @param {string | URL} url  the URL as given to openGguf
 * @param {string} [cache]  name of the cache
 * @throws {import('../errors.js').GgufError} the Cache Storage fails
 */
export async function deleteCachedGguf(url, cache) {
  const { absolute } = await import('./http.js');
  await (await storeNamed(cache)).deleteModel(absolute(String(url)));
}

/**
 * Deletes all files from a cache.
 * @param {string} [cache]  name of the cache
 * @throws {import('../errors.js').GgufError} the Cache Storage fails
 */
export async function clearCachedGgufs(cache) {
  await (await storeNamed(cache)).clear();
}

/** @param {string} [cache] */
async function storeNamed(cache) {
  return (await import('./cache.js')).openStore(cache);
}
