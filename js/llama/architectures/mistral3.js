/* Ministral 3: llama with positions stretched by YaRN, and queries that grow with the position. */

import { decoderPlan } from './decoder-plan.js';
import { originalContext } from './rope.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const mistral3 = {
  plan(read) {
    const plan = decoderPlan(read, { pairing: 'adjacent', rope: { logMultiplier: true } });
    const scale = read.optional('attention.temperature_scale', 0);
    if (scale > 0)
      for (const { attention } of plan.layers)
        attention.temperature = { scale, length: originalContext(read) };
    return plan;
  },
};
