/* ModernBERT: rotary positions, GELU gates, norms before the blocks, and windows in two of three
 * layers, which turn by a base of their own. The first layer has no norm before its attention. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';
import { encoderPlan } from './encoder-plan.js';
import { slide } from './windows.js';

const LOCAL_BASE = 10000;
const ACTIVATIONS = ['gelu', 'silu'];

/** @type {import('../plan.js').ArchitectureFile} */
export const modernBert = {
  plan(read) {
    const activation = /** @type {'gelu' | 'silu'} */ (read.value('hidden_activation') ?? 'gelu');
    if (!ACTIVATIONS.includes(activation)) {
      throw new ModelError(
        `metadata ${show(read.key('hidden_activation'))} is ${show(activation)}; supported are ${ACTIVATIONS.join(', ')}`,
      );
    }
    const plan = encoderPlan(read, {
      ...{ norms: 'before', positions: 'rotary', kind: 'gated', activation },
      fused: { attention: true, feed: true },
    });
    const isLocal = slide(read, plan.layers, { period: 3, fullFirst: true });
    const base = read.positive('rope.freq_base_swa', LOCAL_BASE);
    for (const [i, { attention }] of plan.layers.entries())
      if (attention.rope && isLocal[i]) attention.rope = { ...attention.rope, base };
    plan.layers[0].attention.norm = undefined;
    plan.tensors = plan.tensors.filter(({ role }) => !role.startsWith('layers.0.attention.norm'));
    plan.ranker = plan.ranker && { ...plan.ranker, pooling: 'mean', activation: 'gelu' };
    return plan;
  },
};
