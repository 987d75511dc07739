/* Decides whether operations can use several threads. How many: thread-plan.js, loaded only
 * then. */

import { ArgumentError, show } from '../errors.js';
import { isNode } from '../node.js';

/** Same value as FM_MAX_THREADS in src/threads/threads.h. */
const MAX_THREADS = 64;

/** @typedef {{ count: number, reason: string }} ThreadPlan  reason: one line */

/**
 * @param {number | undefined} asked
 * @throws {ArgumentError}
 */
export function checkThreads(asked) {
  if (asked === undefined || (Number.isInteger(asked) && asked >= 1 && asked <= MAX_THREADS)) return;
  throw new ArgumentError(`threads must be an integer from 1 to ${MAX_THREADS}, got ${show(asked)}`);
}

/**
 * The number of threads of operations, and the reason for it.
 * @param {number | undefined} asked
 * @param {import('./loader.js').Features} features
 * @returns {Promise<ThreadPlan>}
 */
export async function planThreads(asked, features) {
  if (asked === 1) return { count: 1, reason: 'one thread was asked for' };
  let reason = withoutThreads(features);
  try {
    if (!reason) return await (await import('./pool.js')).planShares(asked);
  } catch (error) {
    reason = String(error);
  }
  return { count: 1, reason: `one thread: ${reason}` };
}

/**
 * @param {import('./loader.js').Features} features
 * @returns {string | undefined}
 */
function withoutThreads({ threads }) {
  const scope = /** @type {any} */ (globalThis);
  if (!isNode && scope.crossOriginIsolated === false) {
    return (
      'this page is not cross-origin isolated; serve it with the headers ' +
      '"Cross-Origin-Opener-Policy: same-origin" and "Cross-Origin-Embedder-Policy: require-corp"'
    );
  }
  if (!threads) return 'this engine has no WebAssembly threads';
  if (!isNode && typeof Worker !== 'function') return 'workers cannot be started here';
  return undefined;
}
