/* EmbeddingGemma: Gemma 3 without a causal mask. Its windows reach to both sides, and products may
 * follow the pooling. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';
import { attentionsOf } from '../layers.js';
import { tensor } from './decoder-plan.js';
import { gemma3 } from './gemma3.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const gemmaEmbedding = {
  plan(read) {
    const plan = gemma3.plan(read);
    for (const attention of attentionsOf(plan.layers)) {
      attention.causal = false;
      attention.scale = 1 / Math.sqrt(attention.headSize);
    }
    for (const name of ['dense_2', 'dense_3']) {
      if (read.value(`${name}_feat_out`) === undefined) continue;
      const nOut = read.count(`${name}_feat_out`);
      const nIn = read.count(`${name}_feat_in`);
      const expected = plan.dense.at(-1) ?? plan.nEmbd;
      if (nIn !== expected)
        throw new ModelError(`metadata ${show(read.key(`${name}_feat_in`))} is ${nIn}, expected ${expected}`);
      const role = `dense.${plan.dense.length}.matrix`;
      plan.dense.push(nOut);
      plan.tensors.push(tensor(role, `${name}.weight`, nOut, nIn, 'matrix'));
    }
    return plan;
  },
};
