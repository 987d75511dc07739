/* Qwen 2: llama with biases of queries, keys and values, and rotary positions that pair the halves
 * of a head. */

import { decoderPlan } from './decoder-plan.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const qwen2 = {
  plan: (read) => decoderPlan(read, { pairing: 'halves', biases: 'required' }),
};
