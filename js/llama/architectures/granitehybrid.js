/* Granite 4 H: Mamba-2 blocks in most layers and attention in the others, with the scales of Granite
 * 3. The feed-forward blocks are dense or mixtures of experts with a shared one. */

import { hasExperts } from './decoder-plan.js';
import { granitePlan } from './granite.js';
import { mixGranite } from './granitemoe.js';
import { readKinds, replaceAttention } from './hybrid.js';
import { readScan, scanTensors } from './scan.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const granitehybrid = {
  plan(given) {
    const { isRecurrent, read } = readKinds(given);
    const plan = granitePlan(read, { experts: true });
    if (hasExperts(read)) mixGranite(read, plan);
    const { nEmbd, layers, head } = plan;
    const norm = /** @type {import('../plan.js').Norm} */ (head.norm);
    const { residualScale } = layers[0].feed;
    replaceAttention(plan, isRecurrent, (i) => {
      const recurrent = { ...readScan(read, norm), residualScale };
      const { tensors, shared } = scanTensors(i, nEmbd, recurrent);
      return { recurrent, tensors, shared };
    });
    return plan;
  },
};
