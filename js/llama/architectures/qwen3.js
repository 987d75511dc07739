/* Qwen 3: llama with a norm of each head of queries and keys, and rotary positions that pair the
 * halves of a head. The rerankers have a matrix of two rows, for yes and no. */

import { decoderPlan } from './decoder-plan.js';
import { rankerTensors } from './encoder-plan.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const qwen3 = {
  plan(read) {
    const plan = decoderPlan(read, { pairing: 'halves', qkNorm: { span: 'head' } });
    plan.tensors.push(...rankerTensors(read, plan.nEmbd));
    const norm = /** @type {const} */ ({ kind: 'layer', eps: 0 });
    plan.ranker = { pooling: 'last', activation: 'tanh', norm, softmax: true };
    return plan;
  },
};
