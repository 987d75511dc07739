/* Phi 3: queries, keys and values in one matrix, gate and up in another. Part of each head turns, by
 * frequency factors for short or for long contexts. A window that the file names is not used, as in
 * llama.cpp. */

import { decoderPlan } from './decoder-plan.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const phi3 = {
  plan: (read) => decoderPlan(read, { pairing: 'halves', fused: { attention: true, feed: true } }),
};
