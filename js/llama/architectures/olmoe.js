/* OLMoE: experts, and norms over all heads of queries and keys. */

import { decoderPlan } from './decoder-plan.js';
import { mixExperts } from './experts.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const olmoe = {
  plan(read) {
    const plan = decoderPlan(read, { pairing: 'halves', qkNorm: { span: 'row' }, experts: true });
    mixExperts(read, plan, { router: {}, nFf: read.count('feed_forward_length') });
    return plan;
  },
};
