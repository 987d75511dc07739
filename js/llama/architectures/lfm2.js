/* LFM 2: short convolutions in most layers; in the others attention with a norm of each head of
 * queries and keys. */

import { decoderPlan, rename, tensor } from './decoder-plan.js';
import { readKinds, replaceAttention } from './hybrid.js';
import { slide } from './windows.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const lfm2 = {
  plan: (read) => lfm2Plan(read),
};

/**
 * @param {import('./metadata.js').MetadataReader} given
 * @param {{ experts?: boolean }} [options]  experts: whether the file may have experts
 */
export function lfm2Plan(given, options) {
  const { isRecurrent, read } = readKinds(given);
  const plan = decoderPlan(read, { pairing: 'halves', qkNorm: { span: 'head' }, ...options });
  const { nEmbd, layers, head } = plan;
  slide(read, layers, { period: 0 });
  rename(plan, /^output_norm\./, 'token_embd_norm.');
  const norm = /** @type {import('../plan.js').Norm} */ (head.norm);
  const length = isRecurrent.includes(true) ? read.count('shortconv.l_cache') : 0;
  replaceAttention(plan, isRecurrent, (i) => convolution(i, { norm, nEmbd, length }));
  return plan;
}

/**
 * The block of a layer. Its input is multiplied by three matrices in one tensor.
 * @param {number} i
 * @param {{ norm: import('../plan.js').Norm, nEmbd: number, length: number }} shape
 */
function convolution(i, { norm, nEmbd, length }) {
  const role = (/** @type {string} */ part) => `layers.${i}.recurrent.${part}`;
  const named = (/** @type {string} */ part) => `blk.${i}.${part}`;
  const input = role('in');
  return {
    recurrent: /** @type {const} */ ({
      kind: 'convolution',
      ...{ norm, postNorm: undefined, nChannels: nEmbd, length, residualScale: 1 },
    }),
    tensors: [
      tensor(input, named('shortconv.in_proj.weight'), 3 * nEmbd, nEmbd, 'matrix'),
      tensor(role('conv'), named('shortconv.conv.weight'), nEmbd, length, 'values'),
      tensor(role('output'), named('shortconv.out_proj.weight'), nEmbd, nEmbd, 'matrix'),
    ],
    shared: Object.fromEntries(
      ['b', 'c', 'x'].map((part, at) => [role(part), { of: input, start: at * nEmbd, nRows: nEmbd }]),
    ),
  };
}
