/* What opens GGUF files is loaded when the first is opened. */

export { GgufFile } from './file.js';

/** @typedef {import('./file.js').GgufTensor} GgufTensor */
/** @typedef {import('./file.js').GgufFilePart} GgufFilePart */
/** @typedef {import('./file.js').MetadataValue} MetadataValue */

/**
 * @typedef {object} OpenOptions
 * @property {AbortSignal} [signal]  ends the opening
 * @property {typeof globalThis.fetch} [fetch]  for URLs, instead of the global one
 * @property {HeadersInit} [headers]  for URLs
 * @property {number} [retries]  for URLs: attempts in a row that may fail before a read does, default 4; the first request's too
 * @property {number} [retryDelay]  milliseconds before the first of them, then twice as long each time; default 250
 * @property {number} [timeout]  for URLs: milliseconds without a byte after which a connection counts as broken, default 30000;
 *   Infinity: none
 * @property {boolean | string} [cache]  for URLs: keeps what is read in the browser's Cache Storage, under this name or
 *   'fused-matmul'. Where there is none, no room in it, or it fails, the file is read as without; `gguf.cached` tells
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
