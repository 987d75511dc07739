/* gpt-oss: experts with biases and a clamped gate, sinks in the attention, windows in every second
 * layer, and rotary positions stretched by YaRN. */

import { decoderPlan, rename, tensor } from './decoder-plan.js';
import { mixExperts } from './experts.js';
import { slide } from './windows.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const gptOss = {
  plan(read) {
    const plan = decoderPlan(read, { pairing: 'halves', biases: 'required', experts: true });
    slide(read, plan.layers, { period: 2 });
    mixExperts(read, plan, { router: { over: 'chosen' }, biases: true });
    for (const { feed } of plan.layers) feed.activation = 'clamped';
    rename(plan, '.ffn_norm.', '.post_attention_norm.');
    for (const [i, { attention }] of plan.layers.entries()) {
      const role = `layers.${i}.attention.sinks`;
      plan.tensors.push(tensor(role, `blk.${i}.attn_sinks.weight`, 1, attention.nHeads, 'vector'));
    }
    return plan;
  },
};
