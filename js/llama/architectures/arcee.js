/* Arcee (AFM): llama with a feed-forward block of one product, squared ReLU and another product. */

import { decoderPlan } from './decoder-plan.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const arcee = {
  plan: (read) => decoderPlan(read, { pairing: 'adjacent', kind: 'plain', activation: 'relu2' }),
};
