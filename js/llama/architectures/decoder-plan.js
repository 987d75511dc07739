/* The plan that llama and related architectures share, and the parts it is made of. An architecture
 * that differs in more than these options changes the result of decoderPlan, or combines the parts
 * itself. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';

/** @typedef {import('./metadata.js').MetadataReader} MetadataReader */
/** @typedef {import('../plan.js').Plan} Plan */
/** @typedef {import('../plan.js').PlannedTensor} PlannedTensor */

/**
 * The numbers of a decoder whose layers are all alike.
 * @typedef {ReturnType<typeof readShape>} Shape
 */

/** @param {MetadataReader} read */
export function readShape(read) {
  const { key, count, positive } = read;
  const experts = Number(read.value('expert_count') ?? 0);
  if (experts > 0)
    throw new ModelError(`mixtures of experts are not supported: the file has ${experts} experts`);
  const nEmbd = count('embedding_length');
  const nHeads = count('attention.head_count');
  const nKvHeads = count('attention.head_count_kv', nHeads);
  if (nHeads % nKvHeads !== 0)
    throw new ModelError(`${nHeads} heads are no multiple of the ${nKvHeads} KV heads`);
  const headSize = count('attention.key_length', nEmbd / nHeads);
  if (!Number.isInteger(headSize))
    throw new ModelError(`an embedding of ${nEmbd} values is not divisible by ${nHeads} heads`);
  const valueSize = count('attention.value_length', headSize);
  if (valueSize !== headSize)
    throw new ModelError(`keys of ${headSize} and values of ${valueSize} values a head are not supported`);
  const nDims = count('rope.dimension_count', headSize);
  if (nDims % 2 !== 0 || nDims > headSize)
    throw new ModelError(`${show(key('rope.dimension_count'))} is ${nDims}, heads have ${headSize} values`);
  return {
    nVocab: read.nVocab,
    nLayers: count('block_count'),
    nFf: count('feed_forward_length'),
    trainedContext: count('context_length'),
    eps: positive('attention.layer_norm_rms_epsilon'),
    rope: { nDims, base: positive('rope.freq_base', 10000), linearScale: linearScale(read) },
    ...{ nEmbd, nHeads, nKvHeads, headSize },
  };
}

/**
 * RoPE position scale: positions are divided by it. A factor without a type is linear, as in
 * llama.cpp. The factor also has an older key; 0 means that there is none.
 * @param {MetadataReader} read
 */
function linearScale({ value, key, positive }) {
  const type = value('rope.scaling.type') ?? 'linear';
  if (type !== 'none' && type !== 'linear') {
    throw new ModelError(
      `RoPE scaling of type ${show(type)} is not supported; supported are none, linear, and llama3's factors in rope_freqs.weight`,
    );
  }
  const attention = positive('rope.scaling.attn_factor', 1);
  if (attention !== 1) {
    throw new ModelError(
      `RoPE that scales attention is not supported: ${show(key('rope.scaling.attn_factor'))} is ${attention}, supported is 1`,
    );
  }
  const name = ['rope.scaling.factor', 'rope.scale_linear'].find((one) => value(one) !== undefined);
  return type === 'none' || name === undefined || value(name) === 0 ? 1 : positive(name);
}

/**
 * Describes a tensor of a plan. A tensor whose name ends with ? is optional.
 * @param {string} role
 * @param {string} name
 * @param {number} nRows
 * @param {number} nCols
 * @param {PlannedTensor['use']} use
 * @returns {PlannedTensor}
 */
export function tensor(role, name, nRows, nCols, use) {
  return { role, name: name.replace('?', ''), nRows, nCols, use, optional: name.endsWith('?') };
}

/**
 * @typedef {object} DecoderOptions
 * @property {'adjacent' | 'halves'} pairing  Pairing of rotary positions, as converters lay out the
 *   rows of attn_q and attn_k.
 * @property {'required' | 'optional'} [biases]  Biases of queries, keys and values; default
 *   'optional'.
 * @property {boolean} [headNorm]  Whether each head of queries and keys is normalised.
 */

/**
 * @param {MetadataReader} read
 * @param {DecoderOptions} options
 * @returns {Plan}
 */
export function decoderPlan(read, { pairing, biases = 'optional', headNorm = false }) {
  const shape = readShape(read);
  const { nVocab, nEmbd, nFf, nHeads, nKvHeads, headSize, eps, trainedContext } = shape;
  const norm = /** @type {const} */ ({ kind: 'rms', eps });
  /** @type {Plan['layers'][0]} */
  const layer = {
    attention: {
      kind: 'attention',
      norm,
      postNorm: undefined,
      ...{ nHeads, nKvHeads, headSize },
      qkNorm: headNorm ? { kind: 'rms', eps, span: 'head', afterRope: false } : undefined,
      rope: { pairing, ...shape.rope },
      causal: read.flag('attention.causal', true),
      window: 0,
      scale: 1 / Math.sqrt(headSize),
      softcap: 0,
      residualScale: 1,
    },
    feed: { kind: 'gated', activation: 'silu', nFf, norm, postNorm: undefined, residualScale: 1 },
  };
  const layers = Array.from({ length: shape.nLayers }, () => structuredClone(layer));
  /** @type {Plan['shared']} */
  const shared = { 'head.output': { of: 'embedding.table' } };
  for (const i of layers.keys()) shared[`layers.${i}.attention.ropeFactors`] = { of: 'rope.factors' };
  return {
    architecture: read.architecture,
    ...{ nVocab, nEmbd, trainedContext },
    embedding: { scale: 1 },
    layers,
    head: { norm, scale: 1, softcap: 0 },
    tensors: [
      tensor('embedding.table', 'token_embd.weight', nVocab, nEmbd, 'table'),
      tensor('head.norm', 'output_norm.weight', 1, nEmbd, 'vector'),
      tensor('head.output', 'output.weight?', nVocab, nEmbd, 'matrix'),
      tensor('rope.factors', 'rope_freqs.weight?', 1, shape.rope.nDims / 2, 'vector'),
      ...layers.flatMap((_, i) => [
        ...attentionTensors(i, shape, { biases, headNorm }),
        ...feedTensors(i, shape),
      ]),
    ],
    shared,
  };
}

/**
 * @param {number} i  index of the layer
 * @param {Shape} shape
 * @param {{ biases: 'required' | 'optional', headNorm: boolean }} options
 */
export function attentionTensors(i, { nEmbd, nHeads, nKvHeads, headSize }, { biases, headNorm }) {
  const [nQ, nKv] = [nHeads * headSize, nKvHeads * headSize];
  const role = (/** @type {string} */ part) => `layers.${i}.attention.${part}`;
  const bias = biases === 'required' ? 'bias' : 'bias?';
  const tensors = [
    tensor(role('norm'), `blk.${i}.attn_norm.weight`, 1, nEmbd, 'vector'),
    tensor(role('q'), `blk.${i}.attn_q.weight`, nQ, nEmbd, 'matrix'),
    tensor(role('k'), `blk.${i}.attn_k.weight`, nKv, nEmbd, 'matrix'),
    tensor(role('v'), `blk.${i}.attn_v.weight`, nKv, nEmbd, 'matrix'),
    tensor(role('qBias'), `blk.${i}.attn_q.${bias}`, 1, nQ, 'bias'),
    tensor(role('kBias'), `blk.${i}.attn_k.${bias}`, 1, nKv, 'bias'),
    tensor(role('vBias'), `blk.${i}.attn_v.${bias}`, 1, nKv, 'bias'),
    tensor(role('output'), `blk.${i}.attn_output.weight`, nEmbd, nQ, 'matrix'),
  ];
  if (!headNorm) return tensors;
  return [
    ...tensors,
    tensor(role('qNorm'), `blk.${i}.attn_q_norm.weight`, 1, headSize, 'vector'),
    tensor(role('kNorm'), `blk.${i}.attn_k_norm.weight`, 1, headSize, 'vector'),
  ];
}

/** @param {number} i  index of the layer @param {Shape} shape */
export function feedTensors(i, { nEmbd, nFf }) {
  const role = (/** @type {string} */ part) => `layers.${i}.feed.${part}`;
  return [
    tensor(role('norm'), `blk.${i}.ffn_norm.weight`, 1, nEmbd, 'vector'),
    tensor(role('gate'), `blk.${i}.ffn_gate.weight`, nFf, nEmbd, 'matrix'),
    tensor(role('up'), `blk.${i}.ffn_up.weight`, nFf, nEmbd, 'matrix'),
    tensor(role('down'), `blk.${i}.ffn_down.weight`, nEmbd, nFf, 'matrix'),
  ];
}
