/* EXAONE 4: norms after each block instead of before it. In the large model, three of four layers
 * have a window, and the fourth has no rotary positions. */

import { decoderPlan } from './decoder-plan.js';
import { slide } from './windows.js';

/** Layers of the model with 32 billion weights, the only one with windows. */
const LAYERS_32B = 64;

/** @type {import('../plan.js').ArchitectureFile} */
export const exaone4 = {
  plan(read) {
    const plan = decoderPlan(read, { pairing: 'halves', norms: 'after', qkNorm: { span: 'head' } });
    if (plan.layers.length !== LAYERS_32B) return plan;
    const isLocal = slide(read, plan.layers, { period: 4, window: 4096 });
    for (const [i, { attention }] of plan.layers.entries()) if (!isLocal[i]) attention.rope = undefined;
    return plan;
  },
};
