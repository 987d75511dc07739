/* LFM 2 with experts. Their scores are sigmoids, chosen by a bias of their own; the weights of a token's
 * experts sum to 1. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';
import { mixExperts } from './experts.js';
import { lfm2Plan } from './lfm2.js';

/** How many layers at the start have no experts. */
const DENSE = 'leading_dense_block_count';

/** @type {import('../plan.js').ArchitectureFile} */
export const lfm2moe = {
  plan(read) {
    const plan = lfm2Plan(read, { experts: true });
    const first = read.value(DENSE) ? read.count(DENSE) : 0;
    if (first >= plan.layers.length)
      throw new ModelError(
        `${show(read.key(DENSE))} is ${first}, the model has ${plan.layers.length} layers`,
      );
    mixExperts(read, plan, { router: { scores: 'sigmoid', normalize: true }, selectBias: true, first });
    return plan;
  },
};
