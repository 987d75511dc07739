/* The plan that llama and related architectures share, and the parts it is made of. An architecture
 * that differs in more than these options changes the result of decoderPlan, or combines the parts
 * itself. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';
import { originalContext, readRope } from './rope.js';

/** @typedef {import('./metadata.js').MetadataReader} MetadataReader */
/** @typedef {import('../plan.js').FeedSettings} FeedSettings */
/** @typedef {import('../plan.js').Norm} Norm */
/** @typedef {import('../plan.js').Plan} Plan */
/** @typedef {import('../plan.js').PlannedTensor} PlannedTensor */

/** Where a file has the epsilon of its norms. */
const EPSILONS = { rms: 'attention.layer_norm_rms_epsilon', layer: 'attention.layer_norm_epsilon' };

/**
 * The numbers of a decoder whose layers are all alike.
 * @typedef {ReturnType<typeof readShape>} Shape
 */

/** Whether a file has experts. @param {MetadataReader} read */
export const hasExperts = (read) => Number(read.value('expert_count') ?? 0) > 1;

/**
 * Refuses a file with experts, for architectures that have none.
 * @param {MetadataReader} read
 */
export function refuseExperts(read) {
  if (hasExperts(read)) {
    throw new ModelError(
      `mixtures of experts are not supported for the architecture ${show(read.architecture)}: the file has ${read.value('expert_count')} experts`,
    );
  }
}

/**
 * @param {MetadataReader} read
 * @param {Norm['kind']} [norms]  kind of the norms
 * @param {boolean} [areValuesInKeys]  whether values are a part of the keys, and so may be smaller
 */
export function readShape(read, norms = 'rms', areValuesInKeys = false) {
  const { count, positive } = read;
  const nEmbd = count('embedding_length');
  const nHeads = count('attention.head_count');
  const nKvHeads = count('attention.head_count_kv', nHeads);
  if (nHeads % nKvHeads !== 0)
    throw new ModelError(`${nHeads} heads are no multiple of the ${nKvHeads} KV heads`);
  const headSize = count('attention.key_length', nEmbd / nHeads);
  if (!Number.isInteger(headSize))
    throw new ModelError(`an embedding of ${nEmbd} values is not divisible by ${nHeads} heads`);
  const valueSize = count('attention.value_length', headSize);
  if (valueSize !== headSize && !areValuesInKeys)
    throw new ModelError(`keys of ${headSize} and values of ${valueSize} values a head are not supported`);
  return {
    nVocab: read.nVocab,
    nLayers: count('block_count'),
    nFf: count('feed_forward_length'),
    trainedContext: count('context_length'),
    eps: positive(EPSILONS[norms]),
    ...{ nEmbd, nHeads, nKvHeads, headSize },
  };
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
 * Changes names that tensors have in the file.
 * @param {Pick<Plan, 'tensors'>} plan  changed
 * @param {string | RegExp} from
 * @param {string} to
 */
export function rename({ tensors }, from, to) {
  for (const one of tensors) one.name = one.name.replace(from, to);
}

/**
 * @typedef {object} DecoderOptions
 * @property {'adjacent' | 'halves'} pairing  Pairing of rotary positions, as converters lay out the
 *   rows of attn_q and attn_k.
 * @property {import('./rope.js').RopeOptions} [rope]  Options of the rotary positions.
 * @property {'required' | 'optional'} [biases]  Biases of queries, keys and values; default
 *   'optional'.
 * @property {{ span: 'head' | 'row', afterRope?: boolean }} [qkNorm]  Norm of queries and keys;
 *   default: none.
 * @property {'before' | 'after' | 'both'} [norms]  Place of the norms of a block: before it (the
 *   default), after it, or both.
 * @property {{ attention: boolean, feed: boolean }} [fused]  Whether queries, keys and values share a
 *   matrix, and whether gate and up do; default: neither.
 * @property {FeedSettings['kind']} [kind]  Kind of the feed-forward blocks; default 'gated'.
 * @property {FeedSettings['activation']} [activation]  Their activation function; default 'silu'.
 * @property {boolean} [areValuesInKeys]  Whether values are a part of the keys; default false.
 * @property {boolean} [experts]  Whether the file may have experts, which mixExperts adds to the
 *   plan.
 * @property {(layer: number) => MetadataReader} [ofLayer]  Readers of the layers, where their shapes
 *   differ.
 */

/**
 * @param {MetadataReader} read
 * @param {DecoderOptions} options
 * @returns {import('../plan.js').AttentionPlan}
 */
export function decoderPlan(read, options) {
  const { pairing, qkNorm, norms = 'before', kind = 'gated', activation = 'silu' } = options;
  if (!options.experts) refuseExperts(read);
  const { ofLayer = () => read, areValuesInKeys } = options;
  const shapeOf = (/** @type {number} */ i) => readShape(ofLayer(i), 'rms', areValuesInKeys);
  const { nVocab, nEmbd, nLayers, eps, trainedContext } = shapeOf(0);
  const shapes = Array.from({ length: nLayers }, (_, i) => shapeOf(i));
  const norm = /** @type {const} */ ({ kind: 'rms', eps });
  const ofBlock = {
    norm: norms === 'after' ? undefined : norm,
    postNorm: norms === 'before' ? undefined : norm,
    sumNorm: undefined,
  };
  /** @type {import('../plan.js').AttentionLayer[]} */
  const layers = shapes.map(({ nHeads, nKvHeads, headSize, nFf }, i) => ({
    attention: {
      kind: 'attention',
      ...structuredClone(ofBlock),
      ...{ nHeads, nKvHeads, headSize },
      qkNorm: qkNorm && { kind: 'rms', eps, afterRope: false, ...qkNorm },
      rope: { pairing, ...readRope(ofLayer(i), headSize, options.rope) },
      temperature: undefined,
      causal: read.flag('attention.causal', true),
      window: 0,
      scale: 1 / Math.sqrt(headSize),
      softcap: 0,
      residualScale: 1,
    },
    feed: { kind, activation, nFf, ...structuredClone(ofBlock), residualScale: 1 },
  }));
  const nPairs = Math.max(...layers.map(({ attention: { rope } }) => rope?.nDims ?? 0)) / 2;
  const { attention = false, feed = false } = options.fused ?? {};
  const ofLayers = shapes.map((shape, i) => [
    attentionTensors(i, shape, { ...options, fused: attention }),
    feedTensors(i, shape, { ...options, fused: feed }),
  ]);
  const isLong = read.contextLength > originalContext(read);
  /** @type {Plan['shared']} */
  const shared = {
    'head.output': { of: 'embedding.table' },
    'rope.factors': { of: isLong ? 'rope.longFactors' : 'rope.shortFactors' },
  };
  for (const i of layers.keys()) shared[`layers.${i}.attention.ropeFactors`] = { of: 'rope.factors' };
  for (const part of ofLayers.flat()) Object.assign(shared, part.shared);
  return {
    architecture: read.architecture,
    ...{ nVocab, nEmbd, trainedContext },
    embedding: { scale: 1, norm: undefined },
    layers,
    head: { norm, scale: 1, softcap: 0 },
    dense: [],
    ranker: undefined,
    tensors: [
      tensor('embedding.table', 'token_embd.weight', nVocab, nEmbd, 'table'),
      tensor('head.norm', 'output_norm.weight', 1, nEmbd, 'vector'),
      tensor('head.output', 'output.weight?', nVocab, nEmbd, 'matrix'),
      tensor('rope.factors', 'rope_freqs.weight?', 1, nPairs, 'vector'),
      tensor('rope.longFactors', 'rope_factors_long.weight?', 1, nPairs, 'vector'),
      tensor('rope.shortFactors', 'rope_factors_short.weight?', 1, nPairs, 'vector'),
      ...ofLayers.flat().flatMap(({ tensors }) => tensors),
    ],
    shared,
  };
}

/** @typedef {Pick<Plan, 'tensors' | 'shared'>} Part  Tensors of a block. */
/** @typedef {Omit<DecoderOptions, 'pairing' | 'fused'> & { fused?: boolean }} TensorOptions */

/**
 * @param {number} i  index of the layer
 * @param {Shape} shape
 * @param {TensorOptions} options
 * @returns {Part}
 */
export function attentionTensors(i, { nEmbd, nHeads, nKvHeads, headSize }, options) {
  const { biases = 'optional', qkNorm, norms = 'before', fused = false } = options;
  const [nQ, nKv] = [nHeads * headSize, nKvHeads * headSize];
  const role = (/** @type {string} */ part) => `layers.${i}.attention.${part}`;
  const named = (/** @type {string} */ part) => `blk.${i}.${part}`;
  const bias = biases === 'required' ? 'bias' : 'bias?';
  const tensors = [
    tensor(role('output'), named('attn_output.weight'), nEmbd, nQ, 'matrix'),
    tensor(role('outputBias'), named('attn_output.bias?'), 1, nEmbd, 'bias'),
  ];
  /** @type {Plan['shared']} */
  const shared = {};
  if (fused) {
    tensors.push(tensor(role('qkv'), named('attn_qkv.weight'), nQ + 2 * nKv, nEmbd, 'matrix'));
    tensors.push(tensor(role('qkvBias'), named('attn_qkv.bias?'), 1, nQ + 2 * nKv, 'bias'));
    for (const end of ['', 'Bias']) {
      const of = role(`qkv${end}`);
      shared[role(`q${end}`)] = { of, start: 0, nRows: nQ };
      shared[role(`k${end}`)] = { of, start: nQ, nRows: nKv };
      shared[role(`v${end}`)] = { of, start: nQ + nKv, nRows: nKv };
    }
  } else {
    tensors.push(
      tensor(role('q'), named('attn_q.weight'), nQ, nEmbd, 'matrix'),
      tensor(role('k'), named('attn_k.weight'), nKv, nEmbd, 'matrix'),
      tensor(role('v'), named('attn_v.weight'), nKv, nEmbd, 'matrix'),
      tensor(role('qBias'), named(`attn_q.${bias}`), 1, nQ, 'bias'),
      tensor(role('kBias'), named(`attn_k.${bias}`), 1, nKv, 'bias'),
      tensor(role('vBias'), named(`attn_v.${bias}`), 1, nKv, 'bias'),
    );
  }
  const vector = (/** @type {string} */ of, /** @type {string} */ name, /** @type {number} */ n) =>
    tensors.push(tensor(role(of), named(`${name}.weight`), 1, n, 'vector'));
  if (norms !== 'after') vector('norm', 'attn_norm', nEmbd);
  if (norms !== 'before') vector('postNorm', 'post_attention_norm', nEmbd);
  if (qkNorm) {
    vector('qNorm', 'attn_q_norm', qkNorm.span === 'head' ? headSize : nQ);
    vector('kNorm', 'attn_k_norm', qkNorm.span === 'head' ? headSize : nKv);
  }
  return { tensors, shared };
}

/**
 * @param {number} i  index of the layer
 * @param {Shape} shape
 * @param {TensorOptions} options
 * @returns {Part}
 */
export function feedTensors(i, { nEmbd, nFf }, { norms = 'before', kind = 'gated', fused = false }) {
  const role = (/** @type {string} */ part) => `layers.${i}.feed.${part}`;
  const named = (/** @type {string} */ part) => `blk.${i}.${part}.weight`;
  const tensors = [];
  /** @type {Plan['shared']} */
  const shared = {};
  if (fused) {
    const of = role('gateUp');
    tensors.push(tensor(of, named('ffn_up'), 2 * nFf, nEmbd, 'matrix'));
    shared[role('gate')] = { of, start: 0, nRows: nFf };
    shared[role('up')] = { of, start: nFf, nRows: nFf };
  } else {
    if (kind === 'gated') tensors.push(tensor(role('gate'), named('ffn_gate'), nFf, nEmbd, 'matrix'));
    tensors.push(tensor(role('up'), named('ffn_up'), nFf, nEmbd, 'matrix'));
  }
  tensors.push(tensor(role('down'), named('ffn_down'), nEmbd, nFf, 'matrix'));
  if (norms !== 'after') tensors.push(tensor(role('norm'), named('ffn_norm'), 1, nEmbd, 'vector'));
  if (norms !== 'before') tensors.push(tensor(role('postNorm'), named('post_ffw_norm'), 1, nEmbd, 'vector'));
  return { tensors, shared };
}
