/* Hunyuan (dense): norms of the heads of queries and keys after the rotation. alpha raises the base
 * of the rotation, for a longer context. */

import { decoderPlan } from './decoder-plan.js';
import { freqBase } from './rope.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const hunyuanDense = {
  models: 'Hunyuan (dense)',
  plan(read) {
    const plan = decoderPlan(read, { pairing: 'halves', qkNorm: { span: 'head', afterRope: true } });
    const alpha = read.optional('rope.scaling.alpha', 1);
    for (const { attention } of plan.layers) {
      const { headSize, rope } = attention;
      if (rope) rope.base = freqBase(read) * alpha ** (headSize / (headSize - 2));
    }
    return plan;
  },
};
