/* Falcon H1: every layer has attention and a Mamba-2 block side by side, which read the same norm.
 * The factors of the original configuration are in the weights. */

import { decoderPlan, rename } from './decoder-plan.js';
import { readScan, scanTensors } from './scan.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const falconH1 = {
  plan(read) {
    const { layers, shared, ...plan } = decoderPlan(read, { pairing: 'halves' });
    // Converters give this norm no suffix.
    rename(plan, /(?<=ffn_norm)\.weight$/, '');
    const [{ feed }] = layers;
    const recurrent = readScan(read, /** @type {import('../plan.js').Norm} */ (feed.norm));
    const parts = layers.map((_, i) => scanTensors(i, plan.nEmbd, recurrent));
    const norms = layers.map((_, i) => [`layers.${i}.recurrent.norm`, { of: `layers.${i}.attention.norm` }]);
    return {
      ...plan,
      layers: layers.map((layer) => ({ ...layer, recurrent })),
      tensors: [...plan.tensors, ...parts.flatMap((part) => part.tensors)],
      shared: Object.assign({}, shared, ...parts.map((part) => part.shared), Object.fromEntries(norms)),
    };
  },
};
