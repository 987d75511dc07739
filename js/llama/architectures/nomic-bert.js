/* Nomic BERT: BERT with rotary positions and SiLU gates, and queries, keys and values in one
 * matrix. */

import { encoderPlan } from './encoder-plan.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const nomicBert = {
  plan: (read) =>
    encoderPlan(read, {
      ...{ norms: 'sum', positions: 'rotary', kind: 'gated', activation: 'silu' },
      fused: { attention: true, feed: false },
    }),
};
