/* Qwen 2 with experts, and a shared expert whose result has a factor. */

import { decoderPlan } from './decoder-plan.js';
import { mixExperts } from './experts.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const qwen2moe = {
  plan(read) {
    const plan = decoderPlan(read, { pairing: 'halves', biases: 'required', experts: true });
    mixExperts(read, plan, { router: {}, shared: 'gated' });
    return plan;
  },
};
