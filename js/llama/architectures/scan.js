/* Mamba-2 blocks as the metadata and tensors of a file describe them. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';
import { tensor } from './decoder-plan.js';

/** @typedef {import('../plan.js').ScanSettings} ScanSettings */

/**
 * @param {import('./metadata.js').MetadataReader} read
 * @param {import('../plan.js').Norm} norm  of the input, and of the gated values
 * @returns {ScanSettings}
 */
export function readScan({ count, key }, norm) {
  const [inner, nHeads] = [count('ssm.inner_size'), count('ssm.time_step_rank')];
  const nGroups = count('ssm.group_count');
  for (const [name, divisor, whole] of /** @type {const} */ ([
    ['ssm.time_step_rank', nHeads, inner],
    ['ssm.group_count', nGroups, nHeads],
  ])) {
    if (whole % divisor !== 0)
      throw new ModelError(`${show(key(name))} is ${divisor}, which does not divide ${whole}`);
  }
  return {
    kind: 'scan',
    ...{ norm, postNorm: undefined, residualScale: 1, gateNorm: norm },
    ...{ nHeads, nGroups, headSize: inner / nHeads },
    stateSize: count('ssm.state_size'),
    length: count('ssm.conv_kernel'),
  };
}

/**
 * The tensors of a block; a layer with attention shares the norm of its input.
 * @param {number} i  index of the layer
 * @param {number} nEmbd
 * @param {ScanSettings} settings
 * @returns {import('./decoder-plan.js').Part}
 */
export function scanTensors(i, nEmbd, { nHeads, nGroups, headSize, stateSize, length }) {
  const role = (/** @type {string} */ part) => `layers.${i}.recurrent.${part}`;
  const named = (/** @type {string} */ part) => `blk.${i}.${part}`;
  const inner = nHeads * headSize;
  const nChannels = inner + 2 * nGroups * stateSize;
  const whole = role('in');
  return {
    tensors: [
      tensor(whole, named('ssm_in.weight'), inner + nChannels + nHeads, nEmbd, 'matrix'),
      tensor(role('conv'), named('ssm_conv1d.weight'), nChannels, length, 'values'),
      tensor(role('convBias'), named('ssm_conv1d.bias?'), 1, nChannels, 'bias'),
      // Its name is not dtBias, which would be the bias of the product dt.
      tensor(role('stepBias'), named('ssm_dt.bias'), 1, nHeads, 'vector'),
      tensor(role('a'), named('ssm_a'), nHeads, 1, 'values'),
      tensor(role('d'), named('ssm_d'), nHeads, 1, 'values'),
      tensor(role('gateNorm'), named('ssm_norm.weight?'), nGroups, inner / nGroups, 'values'),
      tensor(role('output'), named('ssm_out.weight'), nEmbd, inner, 'matrix'),
    ],
    shared: {
      [role('z')]: { of: whole, start: 0, nRows: inner },
      [role('x')]: { of: whole, start: inner, nRows: nChannels },
      [role('dt')]: { of: whole, start: inner + nChannels, nRows: nHeads },
    },
  };
}
