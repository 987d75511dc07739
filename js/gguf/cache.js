/* GGUF files behind URLs, kept in the browser's Cache Storage block by block, as they are read. A file is a description (its
 * UrlFacts) and blocks; the blocks' addresses hold what tells the file from a later one, so the two are never mixed. */

import { ArgumentError, GgufError, show } from '../errors.js';
import { blobSource, memorySource } from './bytes.js';
import { absolute, Client, probeUrl, TIMEOUT, validators } from './http.js';
import { firstPartOf } from './split.js';

/** @typedef {import('./http.js').UrlFacts} UrlFacts */
/** @typedef {import('./bytes.js').ByteSource} ByteSource */

/**
 * @typedef {object} CacheState
 * @property {string} name  of the cache
 * @property {number} hits  bytes that came from the cache
 * @property {number} stored  bytes that were put into it
 * @property {Error} [error]  why it keeps nothing more: there is none, or no room in it
 */

/**
 * @typedef {object} CachedGguf
 * @property {string} url  as it was given to openGguf; the first part's, if the file is split
 * @property {number} size  of the file, or of its parts that are known
 * @property {number} bytes  of it that are kept
 * @property {Date} used  when it was opened last
 */

const BLOCK = 1 << 20;
/** Cache Storage wants addresses; nothing is ever fetched from this one. */
const BASE = 'https://fused-matmul.invalid/';
/** How long a server may take to say whether the file is still the same, in milliseconds. */
const PATIENCE = 5000;

/** @param {boolean | string | undefined} cache */
export const cacheName = (cache) => (typeof cache === 'string' ? cache : 'fused-matmul');

/**
 * @param {string} given
 * @param {import('./index.js').OpenOptions} options
 * @returns {Promise<ByteSource>}
 */
export async function openCached(given, options) {
  const url = absolute(given);
  const store = await Store.open(cacheName(options.cache));
  const known = await store.description(url);
  if (known) {
    const { retries = known.retries, retryDelay = known.retryDelay, timeout = TIMEOUT, fetch } = options;
    const facts = { ...known, headers: [...new Headers(options.headers)], retries, retryDelay, timeout };
    if (await isUnchanged(facts, options)) {
      await store.describe(known);
      return cachedSource(facts, { fetch, store });
    }
    await store.delete(url);
  }
  const probe = await probeUrl(url, options);
  const facts = { ...probe.facts, cache: store.name };
  await store.describe(facts);
  if (!probe.whole) return cachedSource(facts, { fetch: options.fetch, beginning: probe.beginning, store });
  for (let at = 0; at < probe.whole.length && !store.state.error; at += BLOCK)
    await store.put(facts, at / BLOCK, probe.whole.subarray(at, at + BLOCK));
  const { length: held } = probe.whole;
  return { ...memorySource(probe.whole, url), held, cached: () => ({ ...store.state }) };
}

/**
 * Whether a server still has what is kept. Only the answer of another file says no: a server that is away, or refuses, is no
 * reason to lose it.
 * @param {UrlFacts} facts
 * @param {import('./index.js').OpenOptions} options
 */
async function isUnchanged(facts, { fetch, signal }) {
  const { size, etag, modified, ...rest } = facts;
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), PATIENCE);
  const stop = () => patience.abort();
  signal?.addEventListener('abort', stop);
  try {
    const response = await new Client(rest, fetch).range(0, 1, patience.signal);
    await response.body?.cancel();
    if (!response.ok) return true;
    const now = validators(response);
    const range = /\/(\d+)$/.exec(response.headers.get('content-range') ?? '')?.[1];
    const total = response.status === 200 ? response.headers.get('content-length') : range;
    return !(
      (etag && now.etag && etag !== now.etag) ||
      (modified && now.modified && modified !== now.modified) ||
      (total && !response.headers.get('content-encoding') && Number(total) !== size)
    );
  } catch {
    signal?.throwIfAborted();
    return true;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', stop);
  }
}

/**
 * Reads from the cache what is in it, and the rest by Range requests, which fill it.
 * @param {UrlFacts} facts
 * @param {{ fetch?: typeof globalThis.fetch, beginning?: Uint8Array<ArrayBuffer>, store?: Store }} have
 * @returns {Promise<ByteSource>}
 */
export async function cachedSource(facts, { fetch, beginning = new Uint8Array(0), store: given }) {
  const store = given ?? (await Store.open(cacheName(facts.cache)));
  const { url, size } = facts;
  const client = new Client(facts, fetch);
  const present = await store.blocks(facts);
  const lengthOf = (/** @type {number} */ block) => Math.min(BLOCK, size - block * BLOCK);
  for (let block = 0; beginning.length > 0; block++) {
    const piece = beginning.subarray(block * BLOCK, block * BLOCK + lengthOf(block));
    if (piece.length === 0 || piece.length !== lengthOf(block)) break;
    if (!present.has(block) && (await store.put(facts, block, piece))) present.add(block);
  }

  /**
   * Whole blocks from the network, each kept before it is handed on.
   * @param {number} first
   * @param {number} end  block behind the last
   * @param {AbortSignal} [signal]
   * @returns {AsyncGenerator<Uint8Array, void>}
   */
  async function* fetchBlocks(first, end, signal) {
    const buffer = new Uint8Array(BLOCK);
    let block = first;
    let filled = 0;
    for await (const chunk of client.stream(first * BLOCK, Math.min(end * BLOCK, size) - first * BLOCK, {
      signal,
      spare: {},
    })) {
      for (let used = 0; used < chunk.length; ) {
        const n = Math.min(lengthOf(block) - filled, chunk.length - used);
        buffer.set(chunk.subarray(used, used + n), filled);
        used += n;
        filled += n;
        if (filled < lengthOf(block)) continue;
        const whole = buffer.subarray(0, filled);
        if (await store.put(facts, block, whole)) present.add(block);
        yield whole;
        block += 1;
        filled = 0;
      }
    }
  }

  return {
    name: url,
    size,
    cached: () => ({ ...store.state }),
    count: ({ hits, stored, error = store.state.error }) => {
      store.state.hits += hits;
      store.state.stored += stored;
      if (error) store.state.error = error;
    },
    recipe: fetch ? undefined : () => ({ kind: 'url', facts }),
    async *stream(offset, length, signal, spare) {
      const end = offset + length;
      for (let at = offset; at < end; ) {
        signal?.throwIfAborted();
        const block = Math.floor(at / BLOCK);
        const stored = present.has(block) ? await store.get(facts, block, lengthOf(block)) : undefined;
        if (stored) {
          const from = at % BLOCK;
          const length = Math.min(stored.size - from, end - at);
          yield* blobSource(stored, url).stream(from, length, signal, spare);
          at += length;
          continue;
        }
        present.delete(block);
        if (store.state.error) {
          yield* client.stream(at, end - at, { signal, spare });
          return;
        }
        let behind = block + 1;
        while (behind * BLOCK < end && !present.has(behind)) behind += 1;
        for await (const whole of fetchBlocks(block, behind, signal)) {
          const piece = whole.subarray(at % BLOCK, (at % BLOCK) + end - at);
          at += piece.length;
          yield piece;
        }
      }
    },
  };
}

class Store {
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
      if (typeof caches === 'undefined')
        throw new GgufError(
          'there is no Cache Storage here: it takes a browser, and a page from https or localhost',
        );
      return new Store(name, await caches.open(name));
    } catch (error) {
      return new Store(name, undefined, /** @type {Error} */ (error));
    }
  }

  /**
   * @param {string} url
   * @returns {Promise<UrlFacts | undefined>}
   */
  async description(url) {
    return (await readDescription(url, await this.#cache?.match(address(url))))?.facts;
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
    for (const { url, block, tag } of await this.#entries())
      if (block !== undefined && url === facts.url && tag === tagOf(facts)) found.add(block);
    return found;
  }

  /**
   * @param {UrlFacts} facts
   * @param {number} block
   * @param {number} length  that it must have
   */
  async get(facts, block, length) {
    const response = await this.#cache?.match(address(facts.url, block, tagOf(facts)));
    const blob = await response?.blob();
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

  /** @param {string} [url]  default: every file's */
  async delete(url) {
    for (const entry of await this.#entries())
      if (url === undefined || entry.url === url) await this.#cache?.delete(entry.request);
  }

  /** All parts of a split file. @param {string} url  of any of them */
  async deleteModel(url) {
    const first = firstPartOf(url);
    const urls = new Set((await this.#entries()).map((entry) => entry.url));
    for (const one of urls) if (firstPartOf(one) === first) await this.delete(one);
  }

  /** The parts of a split file count as one. @returns {Promise<CachedGguf[]>}  the one used last first */
  async list() {
    /** @type {Map<string, CachedGguf>} */
    const models = new Map();
    for (const { url, size, bytes, used } of await this.#files()) {
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

  async #files() {
    /** @type {Map<string, CachedGguf & { tag: string }>} */
    const files = new Map();
    const entries = await this.#entries();
    for (const { url, block, request } of entries) {
      if (block !== undefined) continue;
      const described = await readDescription(url, await this.#cache?.match(request));
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
        const oldest = (await this.list()).filter((file) => file.url !== firstPartOf(url)).at(-1);
        if (/** @type {Error} */ (error).name === 'QuotaExceededError' && oldest && oldest.url !== evicted) {
          evicted = oldest.url;
          await this.deleteModel(evicted);
          continue;
        }
        this.state.error = /** @type {Error} */ (error);
        return false;
      }
    }
  }

  async #entries() {
    const requests = (await this.#cache?.keys()) ?? [];
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
}

/**
 * @param {unknown} name  of the cache; default: ours
 * @throws {ArgumentError} it is no text
 */
export async function openStore(name) {
  if (name === undefined || typeof name === 'string') return Store.open(cacheName(name));
  throw new ArgumentError(`cache must be the name of a cache, got ${show(name)}`);
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
