/* Hunyuan (dense): norms of the heads of queries and keys after the rotation. alpha raises the base
 * of the rotation, for a longer context. */

import { decoderPlan } from './decoder-plan.js';
import { freqBase } from './rope.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const hunyuanDense = {
  plan(read) {
    const { count } = read;
    const headSize = count('attention.key_length', count('embedding_length') / count('attention.head_count'));
    const base = freqBase(read) * read.optional('rope.scaling.alpha', 1) ** (headSize / (headSize - 2));
    const qkNorm = /** @type {const} */ ({ span: 'head', afterRope: true });
    return decoderPlan(read, { pairing: 'halves', rope: { base }, qkNorm });
  },
};
