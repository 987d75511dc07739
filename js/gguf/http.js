/* A GGUF file behind a URL, read by HTTP Range requests that are taken up again where a connection broke. */

import { ArgumentError, GgufError, show } from '../errors.js';
import { memorySource } from './bytes.js';
import {
  afterFailure,
  bodyOf,
  discard,
  isTransient,
  messageOf,
  parseContentRange,
  transient,
  within,
} from './http-body.js';

/** What the first request asks for: it tells the size, and mostly holds the header. */
const FIRST_BYTES = 2_000_000;
/** A file from a server without Range support is held in memory whole, up to this size. */
const WHOLE_FILE_LIMIT = 256 * 2 ** 20;
/** Statuses that another attempt may turn into an answer. */
const TRANSIENT_STATUS = new Set([408, 425, 429, 500, 502, 503, 504]);
/** Milliseconds without a byte after which a connection counts as broken. */
export const TIMEOUT = 30_000;
/** An attempt that brought this many bytes is no failure. */
const PROGRESS_BYTES = 1 << 16;

/**
 * What is known of a file behind a URL: enough to read on from any thread.
 * @typedef {object} UrlFacts
 * @property {string} url  absolute
 * @property {[string, string][]} headers  of each request
 * @property {number} size  bytes
 * @property {string | null} etag
 * @property {string | null} modified  Last-Modified
 * @property {number} retries
 * @property {number} retryDelay  milliseconds
 * @property {number} timeout  milliseconds without a byte
 * @property {string} [cache]  the name of the cache it is kept in
 */

/**
 * @typedef {object} UrlOptions
 * @property {AbortSignal} [signal]
 * @property {typeof globalThis.fetch} [fetch]
 * @property {HeadersInit} [headers]
 * @property {number} [retries]
 * @property {number} [retryDelay]
 * @property {number} [timeout]
 * @property {number} [firstBytes]  that the first request asks for
 */

/**
 * @param {string} given
 * @param {UrlOptions} options
 * @returns {Promise<import('./bytes.js').ByteSource>}
 */
export async function openUrl(given, options) {
  const url = absolute(given);
  const probe = await probeUrl(url, options);
  if (probe.whole) return { ...memorySource(probe.whole, url), held: probe.whole.length };
  return urlSource(probe.facts, { fetch: options.fetch, beginning: probe.beginning });
}

/**
 * Relative to the page, since a worker's own address is another one.
 * @param {string} url
 */
export function absolute(url) {
  const base = globalThis.document?.baseURI ?? globalThis.location?.href;
  try {
    return new URL(url, base).href;
  } catch {
    return url;
  }
}

/**
 * The first request: the facts and the first bytes, or the whole of a file that cannot be read by ranges.
 * @param {string} url
 * @param {UrlOptions} options
 * @returns {Promise<{ facts: UrlFacts } & ({ beginning: Uint8Array<ArrayBuffer>, whole?: undefined } | { whole: Uint8Array<ArrayBuffer> })>}
 */
export async function probeUrl(url, { signal, fetch, headers, ...how }) {
  const { retries = 4, retryDelay = 250, timeout = TIMEOUT, firstBytes = FIRST_BYTES } = how;
  const client = new Client({ url, headers: [...new Headers(headers)], retries, retryDelay, timeout }, fetch);
  const first = await client.range(0, firstBytes, signal);
  if (first.status === 200) {
    const whole = await bufferWhole(first, client.facts, signal);
    return { facts: { ...client.facts, size: whole.length, ...validators(first) }, whole };
  }
  const range = parseContentRange(first);
  if (range && range.start !== 0) {
    await discard(first);
    throw new GgufError(
      `cannot read ${url}: asked for its beginning, the server answered from offset ${range.start}`,
      { offset: 0 },
    );
  }
  if (first.status !== 206) {
    await discard(first);
    throw new GgufError(
      `cannot fetch ${url}: HTTP ${first.status}${first.status === 416 ? ', an empty file' : ''}`,
    );
  }
  let size = range?.total;
  if (size === undefined) {
    // Content-Range is hidden from other origins unless the server exposes it; Content-Length is not.
    const head = await client.request({ method: 'HEAD', headers: client.facts.headers }, signal);
    const length = head.ok ? Number(head.headers.get('content-length') ?? Number.NaN) : Number.NaN;
    if (!Number.isSafeInteger(length)) {
      await discard(first);
      throw new GgufError(
        `cannot learn the size of ${url}: the server must expose Content-Range ` +
          '(Access-Control-Expose-Headers)',
      );
    }
    size = length;
  }
  Object.assign(client.facts, { size, ...validators(first) });
  const beginning = new Uint8Array(Math.min(firstBytes, size));
  let filled = 0;
  for await (const chunk of client.stream(0, beginning.length, { signal, first, spare: {} })) {
    beginning.set(chunk, filled);
    filled += chunk.length;
  }
  return { facts: client.facts, beginning };
}

/**
 * @param {UrlFacts} facts
 * @param {{ fetch?: typeof globalThis.fetch, beginning?: Uint8Array }} [have]  beginning: its first bytes
 * @returns {import('./bytes.js').ByteSource}
 */
export function urlSource(facts, { fetch, beginning = new Uint8Array(0) } = {}) {
  const client = new Client(facts, fetch);
  const start = memorySource(beginning, facts.url);
  return {
    name: facts.url,
    size: facts.size,
    async *stream(offset, length, signal, spare) {
      if (length === 0) return;
      if (offset + length <= beginning.length) yield* start.stream(offset, length, signal);
      else yield* client.stream(offset, length, { signal, spare });
    },
    // A fetch of the caller's is a function, which no other thread can have.
    recipe: fetch ? undefined : () => ({ kind: 'url', facts }),
  };
}

/**
 * By which a file is told from a later one at the same address.
 * @param {Response} response
 */
export function validators({ headers }) {
  return { etag: headers.get('etag'), modified: headers.get('last-modified') };
}

export class Client {
  #fetch;

  /**
   * @param {Pick<UrlFacts, 'url' | 'headers' | 'retries' | 'retryDelay' | 'timeout'> & Partial<UrlFacts>} facts
   * @param {typeof globalThis.fetch} [fetch]
   */
  constructor(facts, fetch) {
    const { timeout } = facts;
    if (!(timeout > 0))
      throw new ArgumentError(`timeout must be a number above 0 (Infinity: none), got ${show(timeout)}`);
    this.facts = /** @type {UrlFacts} */ ({ size: 0, etag: null, modified: null, ...facts });
    this.#fetch = fetch;
  }

  /**
   * @param {RequestInit} init
   * @param {AbortSignal} [signal]
   */
  async request(init, signal) {
    const { url, timeout } = this.facts;
    const patience = new AbortController();
    const signals = signal ? [signal, patience.signal] : [patience.signal];
    // Where signals cannot be joined, a request that was given up is not ended: it is only left alone.
    const joined = typeof AbortSignal.any === 'function' ? AbortSignal.any(signals) : signals[0];
    try {
      const answer = (this.#fetch ?? globalThis.fetch)(url, { ...init, signal: joined });
      return await within(answer, timeout, () => new Error(`no answer came for ${timeout} ms`));
    } catch (cause) {
      patience.abort();
      signal?.throwIfAborted();
      throw transient(new GgufError(`cannot fetch ${url}: ${messageOf(cause)}`, { cause }));
    }
  }

  /**
   * @param {number} start
   * @param {number} end  exclusive
   * @param {AbortSignal} [signal]
   */
  range(start, end, signal) {
    const headers = new Headers(this.facts.headers);
    headers.set('range', `bytes=${start}-${end - 1}`);
    const guard = this.#ifRange();
    if (guard) headers.set('if-range', guard);
    return this.request({ headers }, signal);
  }

  /**
   * Exactly these bytes; a broken connection is taken up again behind the last byte that came.
   * @param {number} offset
   * @param {number} length
   * @param {{ signal?: AbortSignal, first?: Response, spare?: import('./bytes.js').Spare }} [options]  first: the answer to this range,
   *   where it has come already
   * @returns {AsyncGenerator<Uint8Array, void>}
   */
  async *stream(offset, length, { signal, first, spare } = {}) {
    const { url, retries, retryDelay, timeout } = this.facts;
    const end = offset + length;
    let at = offset;
    let failures = 0;
    /** @type {unknown} */
    let before;
    while (at < end) {
      const began = at;
      try {
        const response = first ?? (await this.range(at, end, signal));
        first = undefined;
        await this.#check(response, at, end);
        const range = { url, offset: at, length: end - at, timeout, signal, spare };
        for await (const chunk of bodyOf(response, range)) {
          at += chunk.length;
          yield chunk;
        }
      } catch (error) {
        signal?.throwIfAborted();
        // The file ends where the connection did: that it ended too early says more than 416.
        if (before && /** @type {any} */ (error).status === 416) throw before;
        failures = at - began >= PROGRESS_BYTES ? 1 : failures + 1;
        if (!isTransient(error) || failures > retries) throw error;
        before = error;
        await afterFailure(error, failures, retryDelay, signal);
      }
    }
  }

  /**
   * @param {Response} response
   * @param {number} offset
   * @param {number} end
   */
  async #check(response, offset, end) {
    const { url, size, etag, modified } = this.facts;
    const { status, headers } = response;
    const answered = parseContentRange(response);
    const now = validators(response);
    let wrong;
    let changed = false;
    if (status !== 200 && status !== 206) wrong = `HTTP ${status}`;
    else if (
      (etag && now.etag && etag !== now.etag) ||
      (modified && now.modified && modified !== now.modified)
    ) {
      changed = true;
      wrong = 'the file changed since it was opened';
    } else if (status === 200) wrong = 'the server stopped answering Range requests (HTTP 200)';
    else if (answered && answered.start !== offset)
      wrong = `the server answered from offset ${answered.start}`;
    else if ((answered?.total ?? size) !== size) {
      changed = true;
      wrong = `the file changed from ${size} to ${answered?.total} bytes`;
    }
    if (!wrong) return;
    await discard(response);
    const error = new GgufError(`${url}: bytes ${offset} to ${end}: ${wrong}`, { offset, changed });
    Object.defineProperty(error, 'status', { value: status });
    throw TRANSIENT_STATUS.has(status) ? transient(error, Number(headers.get('retry-after'))) : error;
  }

  /**
   * A file that changed is then answered with all of it instead of a part. Weak tags are not for ranges; to
   * another origin the header would need its permission, and what #check compares must do.
   */
  #ifRange() {
    const { url, etag, modified } = this.facts;
    const origin = globalThis.location?.origin;
    if (origin && new URL(url).origin !== origin) return undefined;
    return etag && !etag.startsWith('W/') ? etag : modified;
  }
}

/**
 * A server that ignores Range and sends the file: held whole when it is small enough.
 * @param {Response} response
 * @param {UrlFacts} facts
 * @param {AbortSignal} [signal]
 */
async function bufferWhole(response, { url, timeout }, signal) {
  const announced = Number(response.headers.get('content-length') ?? 0);
  const tooLarge = (/** @type {number | string} */ bytes) =>
    new GgufError(
      `${url}: the server does not answer Range requests, and the file (${bytes} bytes) is larger than ` +
        `the ${WHOLE_FILE_LIMIT} that are held whole; use a server that does, or pass the file as a Blob`,
    );
  if (announced > WHOLE_FILE_LIMIT) {
    await discard(response);
    throw tooLarge(announced);
  }
  /** @type {Uint8Array[]} */
  const chunks = [];
  let length = 0;
  for await (const chunk of bodyOf(response, { url, offset: 0, timeout, signal })) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > WHOLE_FILE_LIMIT) throw tooLarge(`over ${WHOLE_FILE_LIMIT}`);
  }
  // With a content encoding the length is that of the encoded bytes.
  if (announced && !response.headers.get('content-encoding') && length !== announced) {
    throw new GgufError(`${url}: got ${length} of ${announced} bytes`, { offset: length });
  }
  const bytes = new Uint8Array(length);
  let filled = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, filled);
    filled += chunk.length;
  }
  return bytes;
}
