/* The byte range of an HTTP answer, and its body in chunks. */

import { GgufError } from '../errors.js';
import { readerOf } from './bytes.js';
import { transient } from './http-retry.js';

/** setTimeout fires at once for more milliseconds than this. */
const MAX_TIMER = 2 ** 31 - 1;

/**
 * Waits for a promise, but not longer than the timeout. A later result is ignored.
 * @template T
 * @param {Promise<T>} promise
 * @param {number} timeout  milliseconds
 * @param {() => Error} expired  makes the error of the timeout
 * @returns {Promise<T>}
 */
export async function within(promise, timeout, expired) {
  if (timeout > MAX_TIMER) return promise;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(expired()), timeout);
  });
  try {
    return await Promise.race([promise, /** @type {Promise<never>} */ (late)]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Yields the body of an answer. It may be shorter than `most` bytes, but not empty. A longer body
 * is an error, unless `goesOn` says that the answer's range is longer; then the surplus is not
 * read.
 * @param {Response} response
 * @param {{ url: string, offset: number, most?: number, goesOn?: boolean, timeout: number,
 *   signal?: AbortSignal, spare?: import('./bytes.js').Spare }} range
 * @returns {AsyncGenerator<Uint8Array, void>}
 */
export async function* bodyOf(response, range) {
  const { url, offset, most = Infinity, goesOn = false } = range;
  const { status } = response;
  let received = 0;
  const at = () => offset + received;
  for await (const chunk of chunksOf(response, { ...range, at })) {
    const got = received + chunk.length;
    if (got > most && !goesOn)
      throw new GgufError(
        `${url}: got more than the ${most} bytes asked for at offset ${offset}${encodingHint(response)}`,
        { offset, url, status, got, expected: most },
      );
    const piece = chunk.subarray(0, most - received);
    received += piece.length;
    yield piece;
    if (goesOn && received === most) return;
  }
  if (received === 0 && most !== Infinity)
    throw transient(
      new GgufError(`${url}: got 0 of ${most} bytes at offset ${offset}`, {
        offset,
        url,
        status,
        got: 0,
        expected: most,
      }),
    );
}

/**
 * @param {Response} response
 * @param {{ url: string, at: () => number, timeout: number, signal?: AbortSignal,
 *   spare?: import('./bytes.js').Spare }} where  at: the offset in the file
 * @returns {AsyncGenerator<Uint8Array, void>}
 */
async function* chunksOf(response, { url, at, timeout, signal, spare }) {
  if (!response.body) {
    yield new Uint8Array(await response.arrayBuffer());
    return;
  }
  const reader = readerOf(response.body, spare);
  const stalled = () =>
    new GgufError(`${url}: no byte came for ${timeout} ms at offset ${at()}`, { offset: at(), url });
  try {
    for (;;) {
      const { done, value } = await within(reader.read(), timeout, stalled).catch((cause) => {
        signal?.throwIfAborted();
        if (cause instanceof GgufError) throw transient(cause);
        const hint = encodingHint(response);
        const message = `${url}: the connection failed at offset ${at()}: ${messageOf(cause)}${hint}`;
        throw transient(new GgufError(message, { offset: at(), url, cause }));
      });
      signal?.throwIfAborted();
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/**
 * Parses Content-Range, "bytes 0-999/1234"; a total of * is unknown. Misspellings that leave the
 * numbers clear are accepted.
 * @param {Response} response
 */
export function parseContentRange(response) {
  const text = response.headers.get('content-range') ?? '';
  const match = /^\s*bytes\s*[ =:]\s*(\d+)\s*-\s*(\d+)\s*\/\s*(\d+|\*)\s*$/i.exec(text);
  if (!match) return undefined;
  const total = match[3] === '*' ? undefined : Number(match[3]);
  return { start: Number(match[1]), end: Number(match[2]) + 1, total };
}

/**
 * The file's size in an answer with status 416, whose Content-Range is "bytes * /1234", without the
 * space.
 * @param {Response} response
 */
export function refusedTotal(response) {
  const match = /\*\s*\/\s*(\d+)\s*$/.exec(response.headers.get('content-range') ?? '');
  return match ? Number(match[1]) : undefined;
}

/**
 * The Content-Encoding of an answer. Fetch has decoded it, so lengths in the headers count encoded
 * bytes.
 * @param {Response} response
 */
export function encodingOf({ headers }) {
  const encoding = headers.get('content-encoding')?.trim().toLowerCase() ?? '';
  return /\b(gzip|deflate|br|zstd|compress)\b/.test(encoding) ? encoding : undefined;
}

/** @param {Response} response */
function encodingHint(response) {
  const encoding = encodingOf(response);
  return encoding ? `; the server compresses ranges (Content-Encoding ${encoding})` : '';
}

/** @param {Response} response */
export async function discard(response) {
  await response.body?.cancel().catch(() => {});
}

/** @param {unknown} error */
export function messageOf(error) {
  if (!(error instanceof Error)) return String(error);
  const { cause } = error;
  return cause instanceof Error && cause.message ? `${error.message} (${cause.message})` : error.message;
}
