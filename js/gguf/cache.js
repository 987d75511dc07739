/* GGUF files behind URLs, read through the browser's Cache Storage block by block. */

import { ArgumentError, show } from '../errors.js';
import { blobSource, memorySource } from './bytes.js';
import { BLOCK, Store } from './cache-store.js';
import { absolute, headerList, probeUrl, TIMEOUT } from './http.js';
import { encodingOf } from './http-body.js';
import { Client } from './http-client.js';
import { isOtherFile, validators } from './validators.js';

/** @typedef {import('./http-client.js').UrlFacts} UrlFacts */
/** @typedef {import('./bytes.js').ByteSource} ByteSource */
/** @typedef {import('./cache-store.js').CacheState} CacheState */
/** @typedef {import('./cache-store.js').CachedGguf} CachedGguf */

/** Milliseconds that a server may take to say whether the file is unchanged. */
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
    const facts = { ...known, headers: headerList(options.headers), retries, retryDelay, timeout };
    if (await isUnchanged(facts, options)) {
      await store.describe(known);
      return cachedSource(facts, { fetch, store });
    }
    await store.forget(url);
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
 * Tells whether the server still has the file that is in the cache. The cached file is dropped only
 * if the server answers with another one, not if the server cannot be reached or refuses.
 * @param {UrlFacts} facts
 * @param {import('./index.js').OpenOptions} options
 */
async function isUnchanged(facts, { fetch, signal }) {
  const { size, etag, modified, host, ...rest } = facts;
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), PATIENCE);
  const stop = () => patience.abort();
  signal?.addEventListener('abort', stop);
  try {
    const response = await new Client(rest, fetch).range(0, 1, patience.signal);
    // Cancelling aborts the request and ends its connection, so the one byte is read instead.
    await (response.headers.get('content-length') === '1' ? response.arrayBuffer() : response.body?.cancel());
    if (!response.ok) return true;
    const { status, headers } = response;
    // An HTML page in place of the file comes from a login, of a network or of the server.
    if (/^\s*text\/html/i.test(headers.get('content-type') ?? '')) return true;
    const range = /\/(\d+)$/.exec(headers.get('content-range') ?? '')?.[1];
    const total = status === 200 ? headers.get('content-length') : range;
    if (total && !encodingOf(response) && Number(total) !== size) return false;
    return !isOtherFile(facts, validators(response));
  } catch {
    signal?.throwIfAborted();
    return true;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', stop);
  }
}

/**
 * Reads blocks from the cache where it has them. Other blocks are fetched by Range requests and put
 * into the cache.
 * @param {UrlFacts} facts
 * @param {{ fetch?: typeof globalThis.fetch, beginning?: Uint8Array<ArrayBuffer>, store?: Store }}
 *   have
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
   * Fetches whole blocks; each is put into the cache before it is yielded.
   * @param {number} first
   * @param {number} end  the block after the last one
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
          try {
            for await (const chunk of blobSource(stored, url).stream(from, length, signal, spare)) {
              at += chunk.length;
              yield chunk;
            }
            continue;
          } catch (error) {
            signal?.throwIfAborted();
            store.fail(error);
          }
        }
        if (store.isBroken) present.clear();
        else present.delete(block);
        let behind = block + 1;
        while (behind * BLOCK < end && !present.has(behind)) behind += 1;
        if (store.state.error) {
          const length = Math.min(behind * BLOCK, end) - at;
          yield* client.stream(at, length, { signal, spare });
          at += length;
          continue;
        }
        for await (const whole of fetchBlocks(block, behind, signal)) {
          const piece = whole.subarray(at % BLOCK, (at % BLOCK) + end - at);
          at += piece.length;
          yield piece;
        }
      }
    },
  };
}

/**
 * @param {unknown} name  name of the cache; default 'fused-matmul'
 * @throws {ArgumentError} the name is no string
 */
export async function openStore(name) {
  if (name === undefined || typeof name === 'string') return Store.open(cacheName(name));
  throw new ArgumentError(`cache must be the name of a cache, got ${show(name)}`);
}
