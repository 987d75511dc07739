/* Phi 3: queries, keys and values in one matrix, gate and up in another. Part of each head turns, by
 * frequency factors for short or for long contexts. The window that some files name was not used
 * in llama.cpp's conversions, and no layer has it here. */

import { decoderPlan } from './decoder-plan.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const phi3 = {
  models: 'Phi 3, Phi 3.5, Phi 4',
  plan: (read) => decoderPlan(read, { pairing: 'halves', fused: true }),
};
