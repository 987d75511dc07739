/* Chooses the number of threads, if there can be several. */

import { isNode, nodeModule } from '../node.js';

/** Most threads by default: with more, memory bandwidth limits most products. */
const DEFAULT_MOST = 8;
/**
 * With more processors than this, half of them are used: two of them are probably one core, or some
 * are slow.
 */
const ALL_UP_TO = 4;

/** Default number of threads for a number of processors. @param {number} processors */
export function defaultThreads(processors) {
  if (processors <= ALL_UP_TO) return Math.max(1, processors);
  return Math.min(DEFAULT_MOST, Math.max(ALL_UP_TO, Math.ceil(processors / 2)));
}

/**
 * @param {number | undefined} asked
 * @returns {Promise<import('./threads.js').ThreadPlan>}
 */
export async function planShares(asked) {
  if (asked) return { count: asked, reason: `${asked} threads were asked for` };
  const processors = await countProcessors();
  const count = defaultThreads(processors);
  const share = count === processors ? 'as many as' : 'a share of the';
  const many = count === 1 ? 'one thread' : `${count} threads`;
  return { count, reason: `${many}: ${share} ${processors} processor(s)` };
}

async function countProcessors() {
  if (isNode) {
    const os = await nodeModule('os');
    return os.availableParallelism?.() ?? os.cpus().length;
  }
  return globalThis.navigator?.hardwareConcurrency || 1;
}
