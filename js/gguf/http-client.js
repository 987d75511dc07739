/* Asks a server for ranges of one file, checks each answer, and reads on where one ended early. */

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
 * @property {string} [host]  that answered, behind all redirects
 * @property {number} retries
 * @property {number} retryDelay  milliseconds
 * @property {number} timeout  milliseconds without a byte
 * @property {string} [cache]  the name of the cache it is kept in
 */

export class Client {
  #fetch;
  /** Whether requests carry If-Range: until a server shows that it cannot deal with it. */
  #isGuarded = true;

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
    const { url, timeout, size } = this.facts;
    this.#checkRequest(init);
    const patience = new AbortController();
    const signals = signal ? [signal, patience.signal] : [patience.signal];
    // Where signals cannot be joined, a request that was given up is not ended: it is only left alone.
    const joined = typeof AbortSignal.any === 'function' ? AbortSignal.any(signals) : signals[0];
    let answer;
    try {
      answer = (this.#fetch ?? globalThis.fetch)(url, { ...init, signal: joined });
    } catch (cause) {
      // What the network does comes as a rejection: this fetch refuses to be called.
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
   * A request that cannot be made, by its address or its headers, fails in the same way each time.
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
   * @param {string} [guard]  for If-Range
   */
  range(start, end, signal, guard) {
    const headers = new Headers(this.facts.headers);
    headers.set('range', `bytes=${start}-${end - 1}`);
    if (guard) headers.set('if-range', guard);
    return this.request({ headers }, signal);
  }

  /**
   * The file's size by HEAD; undefined where the server does not tell.
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
   * The error for an answer that is none, worth another attempt where the status says so.
   * @param {Response} response
   * @param {string} what  was done
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
   * Exactly these bytes. A broken connection is taken up again behind the last byte that came; where the server answers with
   * less than it was asked for, it is asked for the rest at once.
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
   * The answer to a range, asked for with If-Range. A server may answer it with the whole file though its tag is the same: then it
   * is asked without.
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
   * Whether an answer is about another file than the one that was opened.
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
   * @throws {GgufError} it is not what was asked for
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
   * What tells the server to answer with all of a file that changed instead of a part. To another origin the header would need its
   * permission, and what #check compares must do.
   */
  #ifRange() {
    const { url } = this.facts;
    const origin = globalThis.location?.origin;
    if (origin && new URL(url).origin !== origin) return undefined;
    return ifRangeOf(this.facts);
  }
}

/** What is wrong with an answer of several parts. */
export const MULTIPART =
  'the server answered a request for one range with several parts (multipart/byteranges)';

/** @param {Response} response */
export function isMultipart({ headers }) {
  return /^\s*multipart\/byteranges/i.test(headers.get('content-type') ?? '');
}

/**
 * Where redirects led, for messages: a login page, often.
 * @param {string} url
 * @param {Response} response
 */
export function landedElsewhere(url, response) {
  const isElsewhere = response.redirected && response.url && response.url !== url;
  // The query of such an address may hold a signature, which is a secret.
  return isElsewhere ? ` from ${response.url.replace(/[?#].*$/s, '')}` : '';
}
