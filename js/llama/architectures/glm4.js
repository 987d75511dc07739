/* GLM 4: norms before and after each block, gate and up in one matrix, biases of queries, keys and
 * values. Neighbouring values in the first part of each head turn. */

import { decoderPlan } from './decoder-plan.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const glm4 = {
  plan: (read) =>
    decoderPlan(read, { pairing: 'adjacent', norms: 'both', fused: { attention: false, feed: true } }),
};
