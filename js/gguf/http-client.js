/* Requests ranges of one file, checks each answer, and goes on reading where one ended early. */

import { ArgumentError, GgufError, show } from '../errors.js';
import { fetchFailure } from './fetch-failure.js';
import {
  bodyOf,
  discard,
  encodingOf,
  messageOf,
  parseContentRange,
  refusedTotal,
  within,
} from './http-body.js';
import { afterFailure, isTransient, isTransientStatus, retryAfter, transient } from './http-retry.js';
import { ifRangeOf, isOtherFile, validators } from './validators.js';

/** A broken attempt that brought this many bytes counts as the first failure in a row. */
const PROGRESS_BYTES = 1 << 16;

/**
 * Facts about a file behind a URL; with them any thread can read it.
 * @typedef {object} UrlFacts
 * @property {string} url  Absolute URL.
 * @property {[string, string][]} headers  Headers of each request.
 * @property {number} size  Size in bytes.
 * @property {string | null} etag
 * @property {string | null} modified  Last-Modified.
 * @property {string} [host]  Host that answered, after all redirects.
 * @property {number} retries
 * @property {number} retryDelay  Milliseconds.
 * @property {number} timeout  Milliseconds without a byte.
 * @property {string} [cache]  Name of the cache that holds the file.
 */

export class Client {
  #fetch;
  /** Whether requests carry If-Range; false once the server has shown that it cannot handle it. */
  #isGuarded = true;

  /**
   * @param {Pick<UrlFacts, 'url' | 'headers' | 'retries' | 'retryDelay' | 'timeout'> &
   *   Partial<UrlFacts>} facts
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
    const { url, timeout, size } = this.facts;
    this.#checkRequest(init);
    const patience = new AbortController();
    const signals = signal ? [signal, patience.signal] : [patience.signal];
    // Without AbortSignal.any, a request that timed out is ignored instead of aborted.
    const joined = typeof AbortSignal.any === 'function' ? AbortSignal.any(signals) : signals[0];
    let answer;
    try {
      answer = (this.#fetch ?? globalThis.fetch)(url, { ...init, signal: joined });
    } catch (cause) {
      // Failures of the network are rejections; an exception means that the caller's fetch does not
      // work at all.
      throw new GgufError(`cannot fetch ${url}: ${messageOf(cause)}`, { url, cause });
    }
    try {
      return await within(answer, timeout, () => new Error(`no answer came for ${timeout} ms`));
    } catch (cause) {
      patience.abort();
      signal?.throwIfAborted();
      const error = await fetchFailure(url, cause, { isFirst: size === 0, mayAsk: !this.#fetch, signal });
      signal?.throwIfAborted();
      throw error;
    }
  }

  /**
   * Refuses a request that can never be made, because of its URL or its headers.
   * @param {RequestInit} init
   */
  #checkRequest(init) {
    if (this.#fetch || typeof Request !== 'function') return;
    const { url } = this.facts;
    try {
      new Request(url, init);
    } catch (cause) {
      throw new GgufError(`cannot fetch ${url}: ${/** @type {Error} */ (cause).message}`, { url, cause });
    }
  }

  /**
   * @param {number} start
   * @param {number} end  exclusive
   * @param {AbortSignal} [signal]
   * @param {string} [guard]  value of If-Range
   */
  range(start, end, signal, guard) {
    const headers = new Headers(this.facts.headers);
    headers.set('range', `bytes=${start}-${end - 1}`);
    if (guard) headers.set('if-range', guard);
    return this.request({ headers }, signal);
  }

  /**
   * The file's size as HEAD tells it; undefined if it does not.
   * @param {AbortSignal} [signal]
   */
  async sizeByHead(signal) {
    try {
      const head = await this.request({ method: 'HEAD', headers: this.facts.headers }, signal);
      await discard(head);
      const text = head.headers.get('content-length');
      const isSize = head.ok && text !== null && /^\d+$/.test(text) && !encodingOf(head);
      return isSize ? Number(text) : undefined;
    } catch {
      signal?.throwIfAborted();
      return undefined;
    }
  }

  /**
   * Makes the error for an HTTP status that brings no data. It is transient where another attempt
   * may help.
   * @param {Response} response
   * @param {string} what  the beginning of the message
   * @param {number} [offset]
   */
  refusal(response, what, offset) {
    const { url } = this.facts;
    const { status } = response;
    const seconds = retryAfter(response);
    const reason = response.headers.get('x-error-message');
    const message =
      `${what}: HTTP ${status}${reason ? ` (${reason.slice(0, 200)})` : ''}` +
      `${seconds > 0 ? `, to be tried again in ${Math.ceil(seconds)} s` : ''}${landedElsewhere(url, response)}`;
    const error = new GgufError(message, { url, status, ...(offset !== undefined && { offset }) });
    return isTransientStatus(status) ? transient(error, { seconds }) : error;
  }

  /**
   * Yields exactly these bytes. A broken connection is resumed after the last byte received. If the
   * server sends less than was asked for, the rest is requested at once.
   * @param {number} offset
   * @param {number} length
   * @param {{ signal?: AbortSignal, first?: Response, spare?: import('./bytes.js').Spare }}
   *   [options]  first: the answer to this range, if it is there already
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
        const response = first ?? (await this.#part(at, end, signal));
        first = undefined;
        const { status } = response;
        await this.#check(response, at, end);
        const goesOn = (parseContentRange(response)?.end ?? 0) > end;
        const range = { url, offset: at, most: end - at, goesOn, timeout, signal, spare };
        for await (const chunk of bodyOf(response, range)) {
          at += chunk.length;
          yield chunk;
        }
        failures = 0;
        if (at < end) {
          const message = `${url}: got ${at - began} of ${end - began} bytes at offset ${began}`;
          before = new GgufError(message, {
            offset: began,
            url,
            status,
            got: at - began,
            expected: end - began,
          });
        }
      } catch (error) {
        signal?.throwIfAborted();
        // The file ends where the last answer did: the early end says more than status 416.
        if (before && /** @type {any} */ (error).status === 416) throw before;
        failures = at - began >= PROGRESS_BYTES ? 1 : failures + 1;
        if (!isTransient(error) || failures > retries) throw error;
        before = error;
        await afterFailure(error, failures, retryDelay, signal);
      }
    }
  }

  /**
   * Requests a range with If-Range. Some servers then send the whole file even though its tag is
   * the same; the range is requested again without If-Range.
   * @param {number} start
   * @param {number} end
   * @param {AbortSignal} [signal]
   */
  async #part(start, end, signal) {
    const guard = this.#isGuarded ? this.#ifRange() : undefined;
    const response = await this.range(start, end, signal, guard);
    if (!guard || response.status !== 200 || this.#isOther(response)) return response;
    await discard(response);
    this.#isGuarded = false;
    return this.range(start, end, signal);
  }

  /**
   * Tells whether the answer belongs to another file than the one that was opened.
   * @param {Response} response
   */
  #isOther(response) {
    if (isOtherFile(this.facts, validators(response))) return true;
    const { status, headers } = response;
    const length = status === 200 && !encodingOf(response) ? headers.get('content-length') : null;
    return length !== null && Number(length) !== this.facts.size;
  }

  /**
   * @param {Response} response
   * @param {number} offset
   * @param {number} end
   * @throws {GgufError} the answer is not the range that was asked for
   */
  async #check(response, offset, end) {
    const { url, size } = this.facts;
    const { status } = response;
    const answered = parseContentRange(response);
    const total = status === 416 ? refusedTotal(response) : answered?.total;
    const what = `${url}: bytes ${offset} to ${end}`;
    const fail = (/** @type {string} */ wrong, where = {}) =>
      new GgufError(`${what}: ${wrong}`, { offset, url, status, ...where });
    let error;
    if (status === 416 && total !== undefined && total !== size)
      error = fail(`HTTP 416: the file changed from ${size} to ${total} bytes`, {
        changed: true,
        got: total,
        expected: size,
      });
    else if (status !== 200 && status !== 206) error = this.refusal(response, what, offset);
    else if (this.#isOther(response)) error = fail('the file changed since it was opened', { changed: true });
    else if (status === 200)
      error = transient(fail('the server stopped answering Range requests (HTTP 200)'));
    else if (isMultipart(response)) error = fail(MULTIPART);
    else if (answered && answered.start !== offset)
      error = fail(`the server answered from offset ${answered.start}`, {
        got: answered.start,
        expected: offset,
      });
    else if (total !== undefined && total !== size)
      error = fail(`the file changed from ${size} to ${total} bytes`, {
        changed: true,
        got: total,
        expected: size,
      });
    else if (answered && answered.end <= answered.start)
      error = fail(`the server answered with a range that ends at ${answered.end}`, {
        got: answered.end,
        expected: end,
      });
    if (!error) return;
    await discard(response);
    throw error;
  }

  /**
   * The value of If-Range, which makes the server send all of a changed file instead of a part.
   * Other origins would have to permit the header; there the comparison in #check has to do.
   */
  #ifRange() {
    const { url } = this.facts;
    const origin = globalThis.location?.origin;
    if (origin && new URL(url).origin !== origin) return undefined;
    return ifRangeOf(this.facts);
  }
}

/** Message about an answer of several parts. */
export const MULTIPART =
  'the server answered a request for one range with several parts (multipart/byteranges)';

/** @param {Response} response */
export function isMultipart({ headers }) {
  return /^\s*multipart\/byteranges/i.test(headers.get('content-type') ?? '');
}

/**
 * The address that redirects led to, for messages; often it is a login page.
 * @param {string} url
 * @param {Response} response
 */
export function landedElsewhere(url, response) {
  const isElsewhere = response.redirected && response.url && response.url !== url;
  // The query of the address may contain a signature, which is secret.
  return isElsewhere ? ` from ${response.url.replace(/[?#].*$/s, '')}` : '';
}
