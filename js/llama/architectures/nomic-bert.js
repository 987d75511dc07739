/* Nomic BERT: BERT with rotary positions and SiLU gates, and queries, keys and values in one
 * matrix. */

import { encoderPlan } from './encoder-plan.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const nomicBert = {
  models: 'Nomic Embed 1, 1.5',
  plan: (read) =>
    encoderPlan(read, {
      ...{ norms: 'sum', positions: 'rotary', kind: 'gated', activation: 'silu' },
      fused: { attention: true, feed: false },
    }),
};
