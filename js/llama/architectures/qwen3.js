/* Qwen 3: llama with a norm of each head of queries and keys, and rotary positions that pair the
 * halves of a head. */

import { decoderPlan } from './decoder-plan.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const qwen3 = {
  models: 'Qwen 3',
  plan: (read) => decoderPlan(read, { pairing: 'halves', qkNorm: { span: 'head' } }),
};
