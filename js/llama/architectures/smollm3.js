/* SmolLM 3: llama without rotary positions in every fourth layer. */

import { decoderPlan } from './decoder-plan.js';

const PERIOD = 4;

/** @type {import('../plan.js').ArchitectureFile} */
export const smollm3 = {
  plan(read) {
    const plan = decoderPlan(read, { pairing: 'adjacent' });
    for (const [i, { attention }] of plan.layers.entries())
      if (i % PERIOD === PERIOD - 1) attention.rope = undefined;
    return plan;
  },
};
