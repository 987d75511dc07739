/* How many threads operations should run on, and why. The threads themselves: pool.js. */

import { ArgumentError, show } from '../errors.js';
import { isNode, nodeModule } from '../node.js';

/** As FM_MAX_THREADS in src/threads/threads.h. */
export const MAX_THREADS = 64;
/** By default no more: memory bandwidth, not cores, then bounds most products. */
const DEFAULT_MOST = 8;
/** From that many processors on half of them: they are probably two to a core, or partly slow ones. */
const ALL_UP_TO = 4;

/** @typedef {{ count: number, reason: string }} ThreadPlan  reason: one line */

/**
 * @param {number | undefined} asked
 * @throws {ArgumentError}
 */
export function checkThreads(asked) {
  if (asked === undefined || (Number.isInteger(asked) && asked >= 1 && asked <= MAX_THREADS)) return;
  throw new ArgumentError(`threads must be an integer from 1 to ${MAX_THREADS}, got ${show(asked)}`);
}

/** How many threads are the default on so many processors. @param {number} processors */
export function defaultThreads(processors) {
  if (processors <= ALL_UP_TO) return Math.max(1, processors);
  return Math.min(DEFAULT_MOST, Math.max(ALL_UP_TO, Math.ceil(processors / 2)));
}

/**
 * @param {number | undefined} asked
 * @param {import('./loader.js').Features} features
 * @returns {Promise<ThreadPlan>}
 */
export async function planThreads(asked, features) {
  if (asked === 1) return { count: 1, reason: 'one thread was asked for' };
  const lacking = withoutThreads(features);
  if (lacking) return { count: 1, reason: `one thread: ${lacking}` };
  if (asked) return { count: asked, reason: `${asked} threads were asked for` };
  const processors = await countProcessors();
  const count = defaultThreads(processors);
  const share = count === processors ? 'as many as' : 'a share of the';
  const many = count === 1 ? 'one thread' : `${count} threads`;
  return { count, reason: `${many}: ${share} ${processors} processor(s)` };
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

async function countProcessors() {
  if (isNode) {
    const os = await nodeModule('os');
    return os.availableParallelism?.() ?? os.cpus().length;
  }
  return globalThis.navigator?.hardwareConcurrency || 1;
}
