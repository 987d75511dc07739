/* The body of an HTTP answer in chunks, and which failures are worth another attempt. */

import { GgufError } from '../errors.js';
import { readerOf } from './bytes.js';

/** No wait is longer, whatever the server asks for. */
const MAX_DELAY = 30_000;
/** Timers of more milliseconds go off at once. */
const MAX_TIMER = 2 ** 31 - 1;

/** Errors that another attempt may get over, with the seconds the server asked for. @type {WeakMap<object, number>} */
const transients = new WeakMap();

/**
 * @template {Error} E
 * @param {E} error
 * @param {number} [seconds]
 */
export function transient(error, seconds = 0) {
  transients.set(error, seconds > 0 ? seconds : 0);
  return error;
}

/** @param {unknown} error */
export function isTransient(error) {
  return transients.has(/** @type {object} */ (error));
}

/**
 * Waits: twice as long after each failure, or as long as the server asks.
 * @param {unknown} error
 * @param {number} failures  in a row, from 1 on
 * @param {number} delay  milliseconds
 * @param {AbortSignal} [signal]
 */
export async function afterFailure(error, failures, delay, signal) {
  const asked = 1000 * (transients.get(/** @type {object} */ (error)) ?? 0);
  const wait = Math.min(MAX_DELAY, Math.max(asked, delay * 2 ** (failures - 1)));
  await new Promise((resolve) => {
    const timer = setTimeout(done, wait);
    function done() {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve(undefined);
    }
    signal?.addEventListener('abort', done);
  });
  signal?.throwIfAborted();
}

/**
 * Waits, but not for ever: what comes later is left alone.
 * @template T
 * @param {Promise<T>} promise
 * @param {number} timeout  milliseconds
 * @param {() => Error} expired
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
 * The body: exactly `length` bytes where that is given.
 * @param {Response} response
 * @param {{ url: string, offset: number, length?: number, timeout: number, signal?: AbortSignal, spare?: import('./bytes.js').Spare }} range
 * @returns {AsyncGenerator<Uint8Array, void>}
 */
export async function* bodyOf(response, { url, offset, length, timeout, signal, spare }) {
  let received = 0;
  const at = () => offset + received;
  for await (const chunk of chunksOf(response, { url, at, timeout, signal, spare })) {
    if (length !== undefined && received + chunk.length > length)
      throw new GgufError(`${url}: got more than the ${length} bytes asked for at offset ${offset}`, {
        offset,
      });
    received += chunk.length;
    yield chunk;
  }
  if (length !== undefined && received !== length) {
    throw transient(
      new GgufError(`${url}: got ${received} of ${length} bytes at offset ${offset}`, { offset }),
    );
  }
}

/**
 * @param {Response} response
 * @param {{ url: string, at: () => number, timeout: number, signal?: AbortSignal, spare?: import('./bytes.js').Spare }} where  at: the offset in the file
 * @returns {AsyncGenerator<Uint8Array, void>}
 */
async function* chunksOf(response, { url, at, timeout, signal, spare }) {
  if (!response.body) {
    yield new Uint8Array(await response.arrayBuffer());
    return;
  }
  const reader = readerOf(response.body, spare);
  const stalled = () =>
    new GgufError(`${url}: no byte came for ${timeout} ms at offset ${at()}`, { offset: at() });
  try {
    for (;;) {
      const { done, value } = await within(reader.read(), timeout, stalled).catch((cause) => {
        signal?.throwIfAborted();
        if (cause instanceof GgufError) throw transient(cause);
        const message = `${url}: the connection failed at offset ${at()}: ${messageOf(cause)}`;
        throw transient(new GgufError(message, { offset: at(), cause }));
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
 * "bytes 0-999/1234"; a total of * is unknown.
 * @param {Response} response
 */
export function parseContentRange(response) {
  const match = /^bytes (\d+)-\d+\/(\d+|\*)$/.exec(response.headers.get('content-range') ?? '');
  return match
    ? { start: Number(match[1]), total: match[2] === '*' ? undefined : Number(match[2]) }
    : undefined;
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
