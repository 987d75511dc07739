/* Llama and models with the same layers: RMS norms, rotary positions of adjacent values,
 * grouped-query attention, SwiGLU; or experts instead, whose weights sum to 1 for a token. */

import { decoderPlan, hasExperts } from './decoder-plan.js';
import { mixExperts } from './experts.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const llama = {
  plan(read) {
    const plan = decoderPlan(read, { pairing: 'adjacent', experts: true });
    if (hasExperts(read))
      mixExperts(read, plan, { router: { normalize: true }, nFf: read.count('feed_forward_length') });
    return plan;
  },
};
