/* How many threads operations get where they can have several. */

import { isNode, nodeModule } from '../node.js';

/** By default no more: memory bandwidth, not cores, then bounds most products. */
const DEFAULT_MOST = 8;
/** From that many processors on half of them: they are probably two to a core, or partly slow ones. */
const ALL_UP_TO = 4;

/** How many threads are the default on so many processors. @param {number} processors */
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
