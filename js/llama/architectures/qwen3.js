/* Qwen 3: llama with a norm of every head of queries and keys, and rotary positions of halves. */

import { decoderPlan } from './decoder-plan.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const qwen3 = {
  models: 'Qwen 3',
  plan: (read) => decoderPlan(read, { pairing: 'halves', headNorm: true }),
};
