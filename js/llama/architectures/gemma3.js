/* Gemma 3: five layers with a window and rotary positions of their own, then one that sees all
 * positions. Queries and keys are normalised by head. */

import { gemmaPlan } from './gemma.js';
import { unscaled } from './rope.js';
import { slide } from './windows.js';

/** Layers of the model with 27 billion weights. */
const LAYERS_27B = 62;
const LOCAL_BASE = 10000;

/** @type {import('../plan.js').ArchitectureFile} */
export const gemma3 = {
  plan(read) {
    const plan = gemmaPlan(read, { qkNorm: { span: 'head' }, wideScores: LAYERS_27B });
    const isLocal = slide(read, plan.layers, { period: 6 });
    const base = read.positive('rope.freq_base_swa', LOCAL_BASE);
    for (const [i, { attention }] of plan.layers.entries())
      if (attention.rope && isLocal[i]) attention.rope = { ...unscaled(attention.rope), base };
    return plan;
  },
};
