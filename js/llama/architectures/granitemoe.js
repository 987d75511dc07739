/* Granite 3 with experts, whose weights sum to 1 for a token, and in some models a shared one. */

import { mixExperts } from './experts.js';
import { granitePlan } from './granite.js';

/**
 * @param {import('./metadata.js').MetadataReader} read
 * @param {import('../plan.js').Plan} plan  changed
 */
export function mixGranite(read, plan) {
  const hasShared = Number(read.value('expert_shared_feed_forward_length') ?? 0) > 0;
  mixExperts(read, plan, {
    router: { normalize: true },
    nFf: read.count('feed_forward_length'),
    ...(hasShared && { shared: 'plain' }),
  });
}

/** @type {import('../plan.js').ArchitectureFile} */
export const granitemoe = {
  plan(read) {
    const plan = granitePlan(read, { experts: true });
    mixGranite(read, plan);
    return plan;
  },
};
