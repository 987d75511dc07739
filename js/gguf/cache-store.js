/* GGUF files in the browser's Cache Storage. A file is stored as a description (its UrlFacts) and
 * blocks. The address of a block contains the validators of its file (size, and ETag or
 * Last-Modified), so blocks of two versions never mix. After the Cache Storage has failed once, it
 * is no longer used. */

import { GgufError } from '../errors.js';
import { firstPartOf } from './split.js';

/** @typedef {import('./http-client.js').UrlFacts} UrlFacts */

/**
 * @typedef {object} CacheState
 * @property {string} name  Name of the cache.
 * @property {number} hits  Bytes that came from the cache.
 * @property {number} stored  Bytes that were put into the cache.
 * @property {Error} [error]  Why the cache stores nothing more: there is none, it is full, or it
 *   failed.
 */

/**
 * @typedef {object} CachedGguf
 * @property {string} url  URL of the file, or of the first part of a split model.
 * @property {number} size  Size in bytes of the file, or of the known parts together.
 * @property {number} bytes  How many of these bytes are in the cache.
 * @property {Date} used  When the file was last opened.
 */

/** Bytes of a file in one cache entry. */
export const BLOCK = 1 << 20;
/** Prefix of the entries' keys, as Cache Storage wants URLs. Nothing is fetched from it. */
const BASE = 'https://fused-matmul.invalid/';
/** Methods of Cache that are needed; some engines lack one. */
const METHODS = /** @type {const} */ (['match', 'put', 'delete', 'keys']);

export class Store {
  /** @type {Cache | undefined} */
  #cache;
  /** The last write. Only its own caller sees its failure. @type {Promise<unknown>} */
  static #lastPut = Promise.resolve(true);

  /**
   * @param {string} name
   * @param {Cache | undefined} cache
   * @param {Error} [error]
   */
  constructor(name, cache, error) {
    this.name = name;
    this.#cache = cache;
    /** @type {CacheState} */
    this.state = { name, hits: 0, stored: 0, ...(error && { error }) };
  }

  /** @param {string} name */
  static async open(name) {
    try {
      const storage = globalThis.caches;
      if (!storage)
        throw new GgufError(
          'there is no Cache Storage here: it takes a browser, and a page from https or localhost',
        );
      const cache = await storage.open(name);
      const missing = METHODS.filter((method) => typeof cache?.[method] !== 'function');
      if (missing.length > 0)
        throw new GgufError(`the Cache Storage here lacks ${missing.map((one) => `${one}()`).join(', ')}`);
      return new Store(name, cache);
    } catch (error) {
      return new Store(name, undefined, asError(error));
    }
  }

  /** Whether the cache can no longer be read. */
  get isBroken() {
    return this.#cache === undefined;
  }

  /**
   * Stops using the cache, because an operation on it failed.
   * @param {unknown} error
   */
  fail(error) {
    this.state.error ??= asError(error);
    this.#cache = undefined;
  }

  /**
   * Runs an action on the cache. If it fails, the result is undefined and the cache is no longer
   * used.
   * @template T
   * @param {(cache: Cache) => Promise<T>} action
   * @returns {Promise<T | undefined>}
   */
  async #attempt(action) {
    if (!this.#cache) return undefined;
    try {
      return await action(this.#cache);
    } catch (error) {
      this.fail(error);
      return undefined;
    }
  }

  /**
   * @param {string} url
   * @returns {Promise<UrlFacts | undefined>}
   */
  async description(url) {
    const found = await this.#attempt(async (cache) => readDescription(url, await cache.match(address(url))));
    return found?.facts;
  }

  /** Stores the description without the headers, which may be secret. @param {UrlFacts} facts */
  async describe(facts) {
    const body = { facts: { ...facts, headers: [] }, used: Date.now() };
    await this.#tryPut(address(facts.url), JSON.stringify(body), facts.url);
  }

  /**
   * The numbers of the blocks of a file that are in the cache.
   * @param {UrlFacts} facts
   */
  async blocks(facts) {
    /** @type {Set<number>} */
    const found = new Set();
    for (const { url, block, tag } of (await this.#attempt(entriesOf)) ?? [])
      if (block !== undefined && url === facts.url && tag === tagOf(facts)) found.add(block);
    return found;
  }

  /**
   * @param {UrlFacts} facts
   * @param {number} block
   * @param {number} length  bytes that the block must have
   */
  async get(facts, block, length) {
    const blob = await this.#attempt(async (cache) => {
      const response = await cache.match(address(facts.url, block, tagOf(facts)));
      return response?.blob();
    });
    if (blob?.size !== length) return undefined;
    this.state.hits += length;
    return blob;
  }

  /**
   * @param {UrlFacts} facts
   * @param {number} block
   * @param {Uint8Array<ArrayBuffer>} bytes
   * @returns {Promise<boolean>}  whether the block is in the cache now
   */
  async put(facts, block, bytes) {
    const kept = await this.#tryPut(address(facts.url, block, tagOf(facts)), bytes, facts.url);
    if (kept) this.state.stored += bytes.length;
    return kept;
  }

  /**
   * Deletes the entries of a file. If that fails, the cache is no longer used.
   * @param {string} url
   */
  async forget(url) {
    await this.#attempt((cache) => deleteEntries(cache, url));
  }

  /**
   * Deletes everything.
   * @throws {GgufError} the cache fails
   */
  async clear() {
    if (this.#cache) await deleteEntries(this.#cache).catch((cause) => this.#refuse('deleted', cause));
  }

  /**
   * Deletes a file, or all parts of a split model.
   * @param {string} url  URL of any part
   * @throws {GgufError} the cache fails
   */
  async deleteModel(url) {
    if (this.#cache) await deleteModel(this.#cache, url).catch((cause) => this.#refuse('deleted', cause));
  }

  /**
   * The files in the cache, last used first; a split model is listed once. The list is empty where
   * there is no cache.
   * @returns {Promise<CachedGguf[]>}
   * @throws {GgufError} the cache fails
   */
  async list() {
    return this.#cache ? listModels(this.#cache).catch((cause) => this.#refuse('listed', cause)) : [];
  }

  /** @param {string} what @param {unknown} cause @returns {never} */
  #refuse(what, cause) {
    const { message } = asError(cause);
    throw new GgufError(`what the cache "${this.name}" keeps cannot be ${what}: ${message}`, { cause });
  }

  /**
   * Puts an entry after all earlier writes have finished, also those of other files: with two at
   * once, both would make room, or one would not see the room that the other made.
   * @param {string} key
   * @param {BodyInit} body
   * @param {string} url
   * @returns {Promise<boolean>}
   */
  #tryPut(key, body, url) {
    const put = Store.#lastPut.then(() => this.#put(key, body, url));
    Store.#lastPut = put.catch(() => false);
    return put;
  }

  /**
   * Puts an entry. When the cache is full, the least recently used file is deleted, but never the
   * model that is being read.
   * @param {string} key
   * @param {BodyInit} body
   * @param {string} url
   */
  async #put(key, body, url) {
    if (!this.#cache || this.state.error) return false;
    for (let evicted = ''; ; ) {
      try {
        await this.#cache.put(key, new Response(body));
        return true;
      } catch (error) {
        const isFull = /** @type {any} */ (error)?.name === 'QuotaExceededError';
        const others = isFull ? await this.#attempt(listModels) : undefined;
        const oldest = others?.filter((file) => file.url !== firstPartOf(url)).at(-1);
        if (this.#cache && oldest && oldest.url !== evicted) {
          evicted = oldest.url;
          await this.#attempt((cache) => deleteModel(cache, evicted));
          if (this.#cache) continue;
        }
        // The entries that are in the cache can still be read.
        this.state.error ??= asError(error);
        return false;
      }
    }
  }
}

/**
 * Makes an Error of anything that was thrown.
 * @param {unknown} thrown
 * @returns {Error}
 */
function asError(thrown) {
  return thrown instanceof Error
    ? thrown
    : new GgufError(`the Cache Storage failed: ${String(thrown)}`, { cause: thrown });
}

/** @param {Cache} cache */
async function entriesOf(cache) {
  const requests = await cache.keys();
  return requests
    .filter((request) => request.url.startsWith(BASE))
    .map((request) => {
      const { searchParams } = new URL(request.url);
      const block = searchParams.get('block');
      const tag = searchParams.get('tag') ?? '';
      return {
        request,
        url: searchParams.get('url') ?? '',
        block: block === null ? undefined : Number(block),
        tag,
      };
    });
}

/**
 * @param {Cache} cache
 * @param {string} [url]  delete only the entries of this file
 */
async function deleteEntries(cache, url) {
  for (const entry of await entriesOf(cache))
    if (url === undefined || entry.url === url) await cache.delete(entry.request);
}

/**
 * @param {Cache} cache
 * @param {string} url  URL of the file, or of any part of a split model
 */
async function deleteModel(cache, url) {
  const first = firstPartOf(url);
  for (const entry of await entriesOf(cache))
    if (firstPartOf(entry.url) === first) await cache.delete(entry.request);
}

/**
 * The models in the cache, last used first; a split model is listed once.
 * @param {Cache} cache
 * @returns {Promise<CachedGguf[]>}
 */
async function listModels(cache) {
  /** @type {Map<string, CachedGguf>} */
  const models = new Map();
  for (const { url, size, bytes, used } of await listFiles(cache)) {
    const first = firstPartOf(url);
    const model = models.get(first);
    if (!model) models.set(first, { url: first, size, bytes, used });
    else {
      model.size += size;
      model.bytes += bytes;
      if (used > model.used) model.used = used;
    }
  }
  return [...models.values()].sort((a, b) => b.used.getTime() - a.used.getTime());
}

/** @param {Cache} cache */
async function listFiles(cache) {
  /** @type {Map<string, CachedGguf & { tag: string }>} */
  const files = new Map();
  const entries = await entriesOf(cache);
  for (const { url, block, request } of entries) {
    if (block !== undefined) continue;
    const described = await readDescription(url, await cache.match(request));
    if (!described) continue;
    const { facts, used } = described;
    files.set(url, { url, size: facts.size, bytes: 0, used: new Date(used), tag: tagOf(facts) });
  }
  for (const { url, block, tag } of entries) {
    const file = files.get(url);
    if (file && block !== undefined && tag === file.tag)
      file.bytes += Math.min(BLOCK, file.size - block * BLOCK);
  }
  return files.values();
}

/**
 * @param {string} url
 * @param {number} [block]  default: the description
 * @param {string} [tag]
 */
function address(url, block, tag = '') {
  const query = new URLSearchParams({ url });
  if (block !== undefined) {
    query.set('block', String(block));
    query.set('tag', tag);
  }
  return `${BASE}?${query}`;
}

/**
 * Reads a description. Any code of the page's origin can write to its caches, so an entry that does
 * not describe this file is ignored.
 * @param {string} url
 * @param {Response | undefined} response
 * @returns {Promise<{ facts: UrlFacts, used: number } | undefined>}
 */
async function readDescription(url, response) {
  const { facts, used } = (await response?.json().catch(() => undefined)) ?? {};
  const isTag = (/** @type {unknown} */ tag) => tag === null || typeof tag === 'string';
  const isNumber = (/** @type {unknown} */ number) => Number.isFinite(number) && Number(number) >= 0;
  const isFile = facts?.url === url && Number.isSafeInteger(facts.size) && facts.size > 0;
  const isWhole = isFile && isTag(facts.etag) && isTag(facts.modified);
  return isWhole && [facts.retries, facts.retryDelay, used].every(isNumber) ? { facts, used } : undefined;
}

/** @param {UrlFacts} facts */
const tagOf = ({ size, etag, modified }) => `${size} ${etag ?? modified ?? ''}`;
