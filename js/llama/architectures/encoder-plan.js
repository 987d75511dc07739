/* The plan that encoders share: every token sees all others, or those of a window to both sides.
 * They make embeddings, or scores of pairs of texts, and have no output matrix. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';
import { attentionTensors, feedTensors, readShape, refuseExperts, tensor } from './decoder-plan.js';
import { readRope } from './rope.js';

/** @typedef {import('./metadata.js').MetadataReader} MetadataReader */
/** @typedef {import('../plan.js').FeedSettings} FeedSettings */
/** @typedef {import('../plan.js').Plan} Plan */
/** @typedef {import('../plan.js').PlannedTensor} PlannedTensor */

/**
 * @typedef {object} EncoderOptions
 * @property {'before' | 'sum'} norms  Place of the norms of a block: before it, or after its result
 *   was added.
 * @property {'learned' | 'rotary'} positions  Learned positions are added to the embeddings.
 * @property {{ attention: boolean, feed: boolean }} fused  Whether queries, keys and values share a
 *   matrix, and gate and up another.
 * @property {FeedSettings['kind']} kind  Kind of the feed-forward blocks.
 * @property {FeedSettings['activation']} activation  Their activation function.
 */

/**
 * @param {MetadataReader} read
 * @param {EncoderOptions} options
 * @returns {import('../plan.js').AttentionPlan}
 */
export function encoderPlan(read, { norms, positions, fused, kind, activation }) {
  refuseExperts(read);
  const shape = readShape(read, 'layer');
  const { nVocab, nEmbd, nLayers, nFf, nHeads, nKvHeads, headSize, eps, trainedContext } = shape;
  const norm = /** @type {const} */ ({ kind: 'layer', eps });
  const isSum = norms === 'sum';
  const ofBlock = {
    norm: isSum ? undefined : norm,
    postNorm: undefined,
    sumNorm: isSum ? norm : undefined,
  };
  const isLearned = positions === 'learned';
  if (isLearned && read.contextLength > trainedContext) {
    throw new ModelError(
      `a context of ${read.contextLength} positions is more than the ${trainedContext} that the model has learned (${show(read.key('context_length'))})`,
    );
  }
  /** @type {import('../plan.js').AttentionLayer} */
  const layer = {
    attention: {
      kind: 'attention',
      ...ofBlock,
      ...{ nHeads, nKvHeads, headSize },
      qkNorm: undefined,
      rope: isLearned ? undefined : { pairing: 'halves', ...readRope(read, headSize) },
      temperature: undefined,
      causal: false,
      window: 0,
      scale: 1 / Math.sqrt(headSize),
      softcap: 0,
      residualScale: 1,
    },
    feed: { kind, activation, nFf, ...ofBlock, residualScale: 1 },
  };
  /** @param {string} role @param {string} name */
  const normed = (role, name) => [
    tensor(role, `${name}.weight`, 1, nEmbd, 'vector'),
    tensor(`${role}Bias`, `${name}.bias?`, 1, nEmbd, 'vector'),
  ];
  const blocks = Array.from({ length: nLayers }, (_, i) => {
    const [attention, feed, blk] = [`layers.${i}.attention`, `layers.${i}.feed`, `blk.${i}`];
    const ofAttention = attentionTensors(i, shape, { fused: fused.attention });
    const ofFeed = feedTensors(i, shape, { kind, fused: fused.feed });
    // The norms of a decoder have no biases; those of this block follow.
    const tensors = [...ofAttention.tensors, ...ofFeed.tensors].filter(({ role }) => !role.endsWith('.norm'));
    tensors.push(
      ...(isSum
        ? [
            ...normed(`${attention}.sumNorm`, `${blk}.attn_output_norm`),
            ...normed(`${feed}.sumNorm`, `${blk}.layer_output_norm`),
          ]
        : [...normed(`${attention}.norm`, `${blk}.attn_norm`), ...normed(`${feed}.norm`, `${blk}.ffn_norm`)]),
      tensor(`${feed}.downBias`, `${blk}.ffn_down.bias?`, 1, nEmbd, 'bias'),
    );
    if (kind === 'plain') tensors.push(tensor(`${feed}.upBias`, `${blk}.ffn_up.bias?`, 1, nFf, 'bias'));
    return { tensors, shared: { ...ofAttention.shared, ...ofFeed.shared } };
  });
  return {
    architecture: read.architecture,
    ...{ nVocab, nEmbd, trainedContext },
    embedding: { scale: 1, norm },
    layers: blocks.map(() => structuredClone(layer)),
    head: { norm: isSum ? undefined : norm, scale: 1, softcap: 0 },
    dense: [],
    ranker: { pooling: 'cls', activation: 'tanh', norm, softmax: false },
    tensors: [
      tensor('embedding.table', 'token_embd.weight', nVocab, nEmbd, 'table'),
      ...(isLearned
        ? [tensor('embedding.positions', 'position_embd.weight', trainedContext, nEmbd, 'table')]
        : []),
      tensor('embedding.types', 'token_types.weight?', read.nTokenTypes, nEmbd, 'bias'),
      ...normed('embedding.norm', 'token_embd_norm'),
      ...(isSum ? [] : normed('head.norm', 'output_norm')),
      ...rankerTensors(read, nEmbd),
      ...blocks.flatMap(({ tensors }) => tensors),
    ],
    shared: Object.assign({}, ...blocks.map(({ shared }) => shared)),
  };
}

/**
 * Tensors of a ranker, all optional.
 * @param {MetadataReader} read
 * @param {number} nEmbd
 */
export function rankerTensors(read, nEmbd) {
  const labels = read.value('classifier.output_labels');
  const nOut = Array.isArray(labels) && labels.length > 0 ? labels.length : 1;
  return [
    tensor('ranker.inner', 'cls.weight?', nEmbd, nEmbd, 'matrix'),
    tensor('ranker.innerBias', 'cls.bias?', 1, nEmbd, 'bias'),
    tensor('ranker.norm', 'cls.norm.weight?', 1, nEmbd, 'vector'),
    tensor('ranker.output', 'cls.output.weight?', nOut, nEmbd, 'matrix'),
    tensor('ranker.outputBias', 'cls.output.bias?', 1, nOut, 'bias'),
  ];
}
