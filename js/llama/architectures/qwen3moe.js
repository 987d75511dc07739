/* Qwen 3 with experts: the weights of a token's experts sum to 1. */

import { decoderPlan } from './decoder-plan.js';
import { mixExperts } from './experts.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const qwen3moe = {
  plan(read) {
    const plan = decoderPlan(read, { pairing: 'halves', qkNorm: { span: 'head' }, experts: true });
    mixExperts(read, plan, { router: { normalize: true } });
    return plan;
  },
};
