/* Gemma 2: a window in every second layer, soft caps of scores and logits. */

import { gemmaPlan } from './gemma.js';
import { freqBase, readRope } from './rope.js';
import { slide } from './windows.js';

/** Layers of the model with 27 billion weights. */
const LAYERS_27B = 46;

/** @type {import('../plan.js').ArchitectureFile} */
export const gemma2 = {
  plan(read) {
    const plan = gemmaPlan(read, { wideScores: LAYERS_27B });
    const isLocal = slide(read, plan.layers, { period: 2, window: 4096 });
    const localBase = read.positive('rope.freq_base_swa', freqBase(read));
    for (const [i, { attention }] of plan.layers.entries()) {
      attention.softcap = read.optional('attn_logit_softcapping', 50);
      if (attention.rope && isLocal[i])
        Object.assign(attention.rope, readRope(read, attention.headSize, { base: localBase }));
    }
    plan.head.softcap = read.optional('final_logit_softcapping', 30);
    return plan;
  },
};
