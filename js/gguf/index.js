/* The entry to GGUF files. The code that opens them is loaded with the first one. */

export { GgufFile } from './file.js';

/** @typedef {import('./file.js').GgufTensor} GgufTensor */
/** @typedef {import('./file.js').GgufFilePart} GgufFilePart */
/** @typedef {import('./file.js').MetadataValue} MetadataValue */

/**
 * @typedef {object} OpenOptions
 * @property {AbortSignal} [signal]  Aborts the opening.
 * @property {typeof globalThis.fetch} [fetch]  Function that fetches URLs, instead of the global fetch.
 * @property {HeadersInit} [headers]  Headers of every request.
 * @property {number} [retries]  Attempts in a row that may fail before a read fails, the first request included.
 *   Default 4.
 * @property {number} [retryDelay]  Milliseconds before the first repeated attempt, doubled for each further one.
 *   Default 250.
 * @property {number} [timeout]  Milliseconds without a byte after which a connection counts as broken. Default 30000;
 *   Infinity waits for ever.
 * @property {boolean | string} [cache]  Keep what is read of a URL in the browser's Cache Storage, under this name or
 *   'fused-matmul'. If there is none, it is full or it fails, the file is read without it, and `gguf.cached` says
 *   why.
 */

/**
 * Opens a GGUF file and checks its header. If gguf-split has cut the model into parts, all of them are opened.
 * @param {import('./source.js').GgufSource} source  a URL (read by Range requests), a link to a file on Hugging Face (its page, or
 *   hf:OWNER/REPO/FILE.gguf), a File or Blob, bytes, or in Node a path. For a split model: the URL or path of its first part, which is
 *   named -00001-of-00005.gguf, or a list of all parts, in any order
 * @param {OpenOptions} [options]
 * @returns {Promise<import('./file.js').GgufFile>}
 * @throws {import('../errors.js').GgufError} it cannot be read, is truncated, malformed or another kind of file, or a part is missing or
 *   of another model; says what and where
 */
export async function openGguf(source, options = {}) {
  const { open } = await import('./open.js');
  return open(source, options);
}

/**
 * The files that `openGguf(url, { cache })` keeps, the one opened last first. A split one is listed once, by the URL of its first part.
 * @param {string} [cache]  its name
 * @returns {Promise<import('./cache.js').CachedGguf[]>} none where there is no Cache Storage
 * @throws {import('../errors.js').GgufError} the Cache Storage fails
 */
export async function listCachedGgufs(cache) {
  return (await storeNamed(cache)).list();
}

/**
 * Deletes what is kept of a file; all parts go, if it is split.
 * @param {string | URL} url  as given to openGguf
 * @param {string} [cache]
 * @throws {import('../errors.js').GgufError} the Cache Storage fails
 */
export async function deleteCachedGguf(url, cache) {
  const { absolute } = await import('./http.js');
  await (await storeNamed(cache)).deleteModel(absolute(String(url)));
}

/**
 * Deletes all that is kept in a cache.
 * @param {string} [cache]
 * @throws {import('../errors.js').GgufError} the Cache Storage fails
 */
export async function clearCachedGgufs(cache) {
  await (await storeNamed(cache)).clear();
}

/** @param {string} [cache] */
async function storeNamed(cache) {
  return (await import('./cache.js')).openStore(cache);
}
