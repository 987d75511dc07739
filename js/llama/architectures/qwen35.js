/* Qwen 3.5: gated delta nets, and in every fourth layer attention, whose result has a gate. The file
 * may have a last block that guesses further tokens, which is not computed. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';
import { decoderPlan, rename, tensor } from './decoder-plan.js';
import { replaceAttention } from './hybrid.js';

/** @typedef {import('./metadata.js').MetadataReader} MetadataReader */
/** @typedef {import('../plan.js').DeltaSettings} DeltaSettings */
/** @typedef {import('../plan.js').Plan} Plan */

/** @type {import('../plan.js').ArchitectureFile} */
export const qwen35 = {
  plan(read) {
    const plan = decoderPlan(read, { pairing: 'halves', qkNorm: { span: 'head' } });
    for (const [i, { attention }] of plan.layers.entries()) {
      attention.outputGate = true;
      gateAttention(plan, i);
    }
    // The second norm of a layer is that of its feed-forward block.
    rename(plan, '.ffn_norm.', '.post_attention_norm.');
    leaveOut(read, plan);
    const every = read.count('full_attention_interval', 4);
    const recurrent = readDelta(read);
    replaceAttention(
      plan,
      plan.layers.map((_, i) => (i + 1) % every !== 0),
      (i) => ({ recurrent, tensors: deltaTensors(i, plan.nEmbd, recurrent), shared: {} }),
    );
    return plan;
  },
};

/**
 * Makes the matrix of the queries that of the queries and their gates, head by head.
 * @param {Plan} plan  changed
 * @param {number} i  index of the layer
 */
function gateAttention({ layers, tensors, shared }, i) {
  const role = `layers.${i}.attention`;
  const headSize = layers[i].attention?.headSize;
  for (const one of tensors) {
    if (one.role !== `${role}.q`) continue;
    const { nRows } = one;
    Object.assign(one, { role: `${role}.qGate`, nRows: 2 * nRows, alternating: headSize });
    shared[`${role}.q`] = { of: one.role, start: 0, nRows };
    shared[`${role}.gate`] = { of: one.role, start: nRows, nRows };
  }
}

/**
 * Leaves the last blocks out of the layers. The file may have their tensors.
 * @param {MetadataReader} read
 * @param {Plan} plan  changed
 */
function leaveOut(read, plan) {
  const nBlocks = Number(read.value('nextn_predict_layers') ?? 0);
  const { layers, tensors, nEmbd, nVocab } = plan;
  const nLayers = layers.length - nBlocks;
  if (!Number.isInteger(nLayers) || nLayers < 1 || nBlocks < 0)
    throw new ModelError(
      `${show(read.key('nextn_predict_layers'))} is ${nBlocks}, the file has ${layers.length} blocks`,
    );
  const isLeft = (/** @type {string} */ role) => Number(/^layers\.(\d+)\./.exec(role)?.[1] ?? 0) >= nLayers;
  for (const one of tensors) if (isLeft(one.role)) Object.assign(one, { use: 'none', optional: true });
  for (const role of Object.keys(plan.shared)) if (isLeft(role)) delete plan.shared[role];
  for (let i = nLayers; i < layers.length; i++) {
    const unused = (/** @type {string} */ part, /** @type {number} */ nRows, nCols = nEmbd) =>
      tensor(`layers.${i}.next.${part}`, `blk.${i}.nextn.${part}.weight?`, nRows, nCols, 'none');
    tensors.push(
      unused('eh_proj', nEmbd, 2 * nEmbd),
      ...['enorm', 'hnorm', 'shared_head_norm'].map((part) => unused(part, 1)),
      ...['embed_tokens', 'shared_head_head'].map((part) => unused(part, nVocab)),
    );
  }
  layers.length = nLayers;
}

/**
 * @param {MetadataReader} read
 * @returns {DeltaSettings}
 */
function readDelta({ count, key, positive }) {
  const nKeyHeads = count('ssm.group_count');
  const nValueHeads = count('ssm.time_step_rank');
  const inner = count('ssm.inner_size');
  if (nValueHeads % nKeyHeads !== 0) {
    throw new ModelError(
      `${nValueHeads} value heads (${show(key('ssm.time_step_rank'))}) are no multiple of the ${nKeyHeads} key heads (${show(key('ssm.group_count'))})`,
    );
  }
  if (inner % nValueHeads !== 0)
    throw new ModelError(`${show(key('ssm.inner_size'))} is ${inner}, not divisible by ${nValueHeads} heads`);
  const norm = /** @type {const} */ ({ kind: 'rms', eps: positive('attention.layer_norm_rms_epsilon') });
  return {
    kind: 'delta',
    norm,
    postNorm: undefined,
    residualScale: 1,
    ...{ nKeyHeads, nValueHeads, keySize: count('ssm.state_size'), valueSize: inner / nValueHeads },
    length: count('ssm.conv_kernel'),
    headNorm: norm,
  };
}

/**
 * @param {number} i  index of the layer
 * @param {number} nEmbd
 * @param {DeltaSettings} settings
 */
function deltaTensors(i, nEmbd, { nKeyHeads, nValueHeads, keySize, valueSize, length }) {
  const nValues = nValueHeads * valueSize;
  const nChannels = 2 * nKeyHeads * keySize + nValues;
  const role = (/** @type {string} */ part) => `layers.${i}.recurrent.${part}`;
  const named = (/** @type {string} */ part) => `blk.${i}.${part}`;
  return [
    tensor(role('norm'), named('attn_norm.weight'), 1, nEmbd, 'vector'),
    tensor(role('qkv'), named('attn_qkv.weight'), nChannels, nEmbd, 'matrix'),
    tensor(role('gate'), named('attn_gate.weight'), nValues, nEmbd, 'matrix'),
    tensor(role('alpha'), named('ssm_alpha.weight'), nValueHeads, nEmbd, 'matrix'),
    tensor(role('beta'), named('ssm_beta.weight'), nValueHeads, nEmbd, 'matrix'),
    tensor(role('conv'), named('ssm_conv1d.weight'), nChannels, length, 'values'),
    tensor(role('dtBias'), named('ssm_dt.bias'), 1, nValueHeads, 'vector'),
    tensor(role('a'), named('ssm_a'), 1, nValueHeads, 'vector'),
    tensor(role('headNorm'), named('ssm_norm.weight'), 1, valueSize, 'vector'),
    tensor(role('output'), named('ssm_out.weight'), nEmbd, nValues, 'matrix'),
  ];
}
