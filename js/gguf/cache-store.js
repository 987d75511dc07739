/* The files kept in a Cache Storage. A file is a description (its UrlFacts) and blocks; the blocks' addresses hold what tells
 * the file from a later one, so the two are never mixed. A Cache Storage that fails, or lacks something, is no longer used. */

import { GgufError } from '../errors.js';
import { firstPartOf } from './split.js';

/** @typedef {import('./http-client.js').UrlFacts} UrlFacts */

/**
 * @typedef {object} CacheState
 * @property {string} name  of the cache
 * @property {number} hits  bytes that came from the cache
 * @property {number} stored  bytes that were put into it
 * @property {Error} [error]  why it keeps nothing more: there is none, no room in it, or it failed
 */

/**
 * @typedef {object} CachedGguf
 * @property {string} url  of the file; the first part's, if it is split
 * @property {number} size  of the file, or of its parts that are known
 * @property {number} bytes  of it that are kept
 * @property {Date} used  when it was opened last
 */

/** Bytes that are kept as one entry. */
export const BLOCK = 1 << 20;
/** Cache Storage wants addresses; nothing is ever fetched from this one. */
const BASE = 'https://fused-matmul.invalid/';
/** Methods of a Cache that are used: some engines lack one or the other. */
const METHODS = /** @type {const} */ (['match', 'put', 'delete', 'keys']);

export class Store {
  /** @type {Cache | undefined} */
  #cache;
  /** That it failed is for its own caller. @type {Promise<unknown>} */
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

  /** Whether nothing can be read from it. */
  get isBroken() {
    return this.#cache === undefined;
  }

  /**
   * Ends its use, since something it did failed.
   * @param {unknown} error
   */
  fail(error) {
    this.state.error ??= asError(error);
    this.#cache = undefined;
  }

  /**
   * What an action on the cache gives; undefined, and the end of its use, where it fails.
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

  /** @param {UrlFacts} facts  its headers, which may be secret, are not kept */
  async describe(facts) {
    const body = { facts: { ...facts, headers: [] }, used: Date.now() };
    await this.#tryPut(address(facts.url), JSON.stringify(body), facts.url);
  }

  /**
   * The blocks of a file that are kept.
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
   * @param {number} length  that it must have
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
   * @returns {Promise<boolean>}  whether it is kept now
   */
  async put(facts, block, bytes) {
    const kept = await this.#tryPut(address(facts.url, block, tagOf(facts)), bytes, facts.url);
    if (kept) this.state.stored += bytes.length;
    return kept;
  }

  /**
   * Deletes what is kept of a file that is read now; that it cannot be deleted ends the use of the cache.
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
   * Deletes all parts of a split file.
   * @param {string} url  of any of them
   * @throws {GgufError} the cache fails
   */
  async deleteModel(url) {
    if (this.#cache) await deleteModel(this.#cache, url).catch((cause) => this.#refuse('deleted', cause));
  }

  /**
   * The parts of a split file count as one.
   * @returns {Promise<CachedGguf[]>}  the one used last first; none where there is no cache
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
   * Puts an entry, after those before it, of other files too: two at once would make room twice, or not see what the other made.
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
   * Where there is no room, the file that was not used for longest goes, but never the one being read, nor another part of it.
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
        // What is there can be read all the same.
        this.state.error ??= asError(error);
        return false;
      }
    }
  }
}

/**
 * What was thrown, as an error.
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
 * @param {string} [url]  default: every file's
 */
async function deleteEntries(cache, url) {
  for (const entry of await entriesOf(cache))
    if (url === undefined || entry.url === url) await cache.delete(entry.request);
}

/**
 * @param {Cache} cache
 * @param {string} url  of any part of a split file
 */
async function deleteModel(cache, url) {
  const first = firstPartOf(url);
  for (const entry of await entriesOf(cache))
    if (firstPartOf(entry.url) === first) await cache.delete(entry.request);
}

/**
 * The parts of a split file count as one.
 * @param {Cache} cache
 * @returns {Promise<CachedGguf[]>}  the one used last first
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
 * @param {number} [block]  without it: the description
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
 * Any code of the page's origin can write to its caches: what is no description of that file is none.
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
