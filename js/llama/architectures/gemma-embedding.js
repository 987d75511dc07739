/* EmbeddingGemma: Gemma 3 without a causal mask. Its windows reach to both sides, and products may
 * follow the pooling. */

import { tensor } from './decoder-plan.js';
import { gemma3 } from './gemma3.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const gemmaEmbedding = {
  models: 'EmbeddingGemma',
  plan(read) {
    const plan = gemma3.plan(read);
    for (const { attention } of plan.layers) {
      attention.causal = false;
      attention.scale = 1 / Math.sqrt(attention.headSize);
    }
    for (const [i, name] of ['dense_2', 'dense_3'].entries()) {
      if (read.value(`${name}_feat_out`) === undefined) continue;
      const nOut = read.count(`${name}_feat_out`);
      const nIn = read.count(`${name}_feat_in`);
      plan.dense.push(nOut);
      plan.tensors.push(tensor(`dense.${i}.matrix`, `${name}.weight`, nOut, nIn, 'matrix'));
    }
    return plan;
  },
};
