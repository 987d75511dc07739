/* OLMo 2 and 3: norms after each block instead of before it, and norms over all heads of queries and
 * keys. In OLMo 3, three of four layers have a window and rotary positions that are not stretched. */

import { decoderPlan } from './decoder-plan.js';
import { unscaled } from './rope.js';
import { slide } from './windows.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const olmo2 = {
  plan(read) {
    const plan = decoderPlan(read, { pairing: 'halves', norms: 'after', qkNorm: { span: 'row' } });
    const isLocal = slide(read, plan.layers, { period: 4 });
    for (const [i, { attention }] of plan.layers.entries())
      if (attention.rope && isLocal[i]) attention.rope = { ...unscaled(attention.rope), magnitude: 1 };
    return plan;
  },
};
