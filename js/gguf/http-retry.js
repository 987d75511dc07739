/* Retries: which failures of HTTP requests deserve another attempt, and how long to wait before
 * it. */

/** Longest wait in milliseconds, whatever the server asks for. */
const MAX_DELAY = 30_000;
/**
 * HTTP statuses that another attempt may change; 520 to 524 come from proxies that cannot reach
 * their server.
 */
const TRANSIENT_STATUS = new Set([408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524]);

/**
 * Errors that another attempt may overcome.
 * @type {WeakMap<object, { seconds: number, once: boolean }>}
 */
const transients = new WeakMap();

/** @param {number} status */
export const isTransientStatus = (status) => TRANSIENT_STATUS.has(status);

/**
 * Marks an error as transient.
 * @template {Error} E
 * @param {E} error
 * @param {{ seconds?: number, once?: boolean }} [how]  seconds: the wait that the server asks for;
 *   once: one more attempt is enough
 */
export function transient(error, { seconds = 0, once = false } = {}) {
  transients.set(error, { seconds: seconds > 0 ? seconds : 0, once });
  return error;
}

/** @param {unknown} error */
export function isTransient(error) {
  return transients.has(/** @type {object} */ (error));
}

/**
 * The seconds that a Retry-After header asks for, as a number or a date; 0 without the header.
 * @param {Response} response
 */
export function retryAfter({ headers }) {
  const text = headers.get('retry-after')?.trim();
  if (!text) return 0;
  const seconds = /^\d+(\.\d+)?$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return seconds > 0 ? seconds : 0;
}

/**
 * Repeats an attempt until it succeeds, fails for good, or has failed too often.
 * @template T
 * @param {() => Promise<T>} attempt
 * @param {{ retries: number, retryDelay: number, signal?: AbortSignal }} how
 * @returns {Promise<T>}
 */
export async function persist(attempt, { retries, retryDelay, signal }) {
  for (let failures = 1, waits = 1; ; failures++, waits++) {
    try {
      return await attempt();
    } catch (error) {
      signal?.throwIfAborted();
      if (!isTransient(error) || failures > retries) throw error;
      if (transients.get(/** @type {object} */ (error))?.once) failures = retries;
      await afterFailure(error, waits, retryDelay, signal);
    }
  }
}

/**
 * Waits before the next attempt: twice as long after each failure, but at least as long as the
 * server asks.
 * @param {unknown} error
 * @param {number} failures  failures in a row, from 1 on
 * @param {number} delay  milliseconds before the first repetition
 * @param {AbortSignal} [signal]
 */
export async function afterFailure(error, failures, delay, signal) {
  const asked = 1000 * (transients.get(/** @type {object} */ (error))?.seconds ?? 0);
  const wait = Math.min(MAX_DELAY, Math.max(asked, delay * 2 ** (failures - 1)));
  signal?.throwIfAborted();
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
