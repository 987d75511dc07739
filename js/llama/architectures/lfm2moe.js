/* LFM 2 with experts. Their scores are sigmoids, chosen by a bias of their own; the weights of a token's
 * experts sum to 1. */

import { mixExperts, readDenseLayers } from './experts.js';
import { lfm2Plan } from './lfm2.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const lfm2moe = {
  plan(read) {
    const plan = lfm2Plan(read, { experts: true });
    const first = readDenseLayers(read, plan.layers.length);
    mixExperts(read, plan, { router: { scores: 'sigmoid', normalize: true }, selectBias: true, first });
    return plan;
  },
};
