/* BERT and models with the same layers: learned positions, token types, biases everywhere, and a
 * norm of each sum. GELU is the tanh form, as in llama.cpp. */

import { encoderPlan } from './encoder-plan.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const bert = {
  plan: (read) =>
    encoderPlan(read, {
      ...{ norms: 'sum', positions: 'learned', kind: 'plain', activation: 'gelu' },
      fused: { attention: false, feed: false },
    }),
};
