/* Limits of the CPU backend: the parts of a model that it cannot run, and the memory that a model
 * takes in addition to its weights. */

import { show } from '../errors.js';
import { cachedPositions } from '../llama/cached-positions.js';
import { attentionsOf, cachingOf, isCausal, recurrentsOf } from '../llama/layers.js';
import { withoutKernels } from '../llama/unserved.js';
import { findType, weightBytes } from '../types.js';
import { LARGEST_MIXTURE } from './experts.js';
import { bufferCols, sumOf, widths } from './hidden.js';
import { LARGEST_HEAD } from './kv-cache.js';
import { GATES, PAIRINGS } from './layer.js';
import { KINDS, stateValues } from './recurrent/kinds.js';

/** @typedef {import('../backend.js').RunSettings} RunSettings */
/** @typedef {import('../llama/plan.js').Norm} Norm */
/** @typedef {import('../llama/plan.js').Plan} Plan */

/** Activation functions by kind of feed-forward block. @type {Record<string, readonly string[]>} */
const ACTIVATIONS = { gated: GATES, plain: [...GATES, 'relu2'], experts: GATES };
const NORMS = ['rms', 'layer'];

/**
 * Products decode a weight once for this many tokens. A larger batch is a multiple of it, so that
 * no weight is decoded again for a few remaining tokens.
 */
const TOKEN_BLOCK = 128;
export const LARGEST_BATCH = 4 * TOKEN_BLOCK;
const SMALLEST_BATCH = 32;
/**
 * Most bytes of the tensors of a batch, with the workspace of the feed-forward block: for a batch
 * of one block of tokens, and for one of several blocks.
 */
const BLOCK_BYTES = 22e6;
const BLOCKS_BYTES = 10e6;
/** Most bytes of logits held at a time, when the logits of all tokens are asked for. */
const LOGIT_BYTES = 2e6;

/**
 * Names everything in a model that the CPU cannot do.
 * @param {Plan} plan
 * @param {readonly import('../gguf/file.js').GgufTensor[]} tensors
 * @returns {string[]}
 */
export function lacks({ embedding, layers, head }, tensors) {
  /** @type {Set<string>} */
  const reasons = new Set();
  const check = (/** @type {boolean} */ can, /** @type {string} */ reason) => {
    if (!can) reasons.add(reason);
  };
  const checkNorm = (/** @type {Norm | undefined} */ norm) =>
    check(!norm || NORMS.includes(norm.kind), `norms of kind ${show(norm?.kind)} are not supported`);
  for (const attention of attentionsOf(layers)) {
    const { kind, headSize, rope, causal, outputGate, latent, valueNorm, kvBack } = attention;
    check(causal || !outputGate, 'output gates of attention that is not causal are not supported');
    check(!latent || !outputGate, 'output gates of latent attention are not supported');
    check(!latent || !valueNorm, 'norms of values in latent attention are not supported');
    check(!latent || !kvBack, 'latent attention with keys of an earlier layer is not supported');
    check(!latent || rope !== undefined, 'latent attention without a rotation is not supported');
    const latentNorm = latent?.norm.kind ?? 'rms';
    check(latentNorm === 'rms', `norms of kind ${show(latentNorm)} in latent attention are not supported`);
    check(kind === 'attention', `layers of kind ${show(kind)} are not supported`);
    check(headSize <= LARGEST_HEAD, `heads of ${headSize} values are not supported; ${LARGEST_HEAD} at most`);
    check(!rope || PAIRINGS.includes(rope.pairing), `RoPE of pairs ${show(rope?.pairing)} is not supported`);
  }
  for (const recurrent of recurrentsOf(layers)) {
    const { kind, norm } = recurrent;
    const known = Object.hasOwn(KINDS, kind) ? KINDS[kind] : undefined;
    check(known !== undefined, `recurrent blocks of kind ${show(kind)} are not supported`);
    check(norm.kind === 'rms', `norms of kind ${show(norm.kind)} before recurrent blocks are not supported`);
    for (const reason of known?.lacks(recurrent) ?? []) reasons.add(reason);
  }
  for (const { attention, recurrent, feed } of layers) {
    const activations = Object.hasOwn(ACTIVATIONS, feed.kind) ? ACTIVATIONS[feed.kind] : undefined;
    check(activations !== undefined, `feed-forward blocks of kind ${show(feed.kind)} are not supported`);
    check(
      !activations || activations.includes(feed.activation),
      `activations ${show(feed.activation)} in ${feed.kind} feed-forward blocks are not supported; supported are ${activations?.join(', ')}`,
    );
    const nExperts = feed.experts?.nExperts ?? 0;
    check(
      nExperts <= LARGEST_MIXTURE,
      `blocks of ${nExperts} experts are not supported; ${LARGEST_MIXTURE} at most`,
    );
    check(
      !feed.experts?.norms || !feed.experts.shared?.gated,
      'shared experts with norms and a factor are not supported',
    );
    for (const block of [attention, feed])
      for (const norm of [block?.norm, block?.postNorm, block?.sumNorm]) checkNorm(norm);
    checkNorm(recurrent?.postNorm);
  }
  for (const { norm } of [embedding, head]) checkNorm(norm);
  const unserved = withoutKernels(tensors, ({ supported }) => supported);
  if (unserved) reasons.add(unserved);
  return [...reasons];
}

/**
 * The memory that a model takes in addition to its weights.
 * @param {Plan} plan
 * @param {RunSettings} settings
 * @returns {import('../backend.js').Sizes}
 */
export function sizes(plan, { contextLength, kvType }) {
  const { layers, nVocab } = plan;
  const cols = bufferCols(plan);
  // Bytes for each token of a batch, and more bytes for each token of a part: its buffers, and the
  // workspace of the feed-forward block.
  const ofBatch = 4 * sumOf(cols.batch);
  const ofPart =
    4 *
    (sumOf(cols.part) + 2 * Math.max(...layers.map(({ feed }) => (feed.kind === 'gated' ? feed.nFf : 0))));
  const fitting = (/** @type {number} */ bytes, /** @type {number} */ step) =>
    step * Math.floor(bytes / (ofBatch + ofPart) / step);
  const blocks = Math.min(LARGEST_BATCH, fitting(BLOCKS_BYTES, TOKEN_BLOCK));
  const some = Math.max(SMALLEST_BATCH, Math.min(TOKEN_BLOCK, fitting(BLOCK_BYTES, SMALLEST_BATCH)));
  const part = Math.min(contextLength, Math.max(blocks, some));
  const batch = isCausal(layers) ? part : contextLength;
  const logitRows = Math.max(1, Math.min(part, Math.floor(LOGIT_BYTES / (4 * nVocab))));
  const type = /** @type {import('../types.js').GgmlType} */ (findType(kvType));
  const cacheBytes = cachingOf(layers).reduce(
    (total, attention) =>
      total +
      // In latent attention, values are a part of the keys.
      (attention.latent ? 1 : 2) *
        weightBytes(
          type,
          cachedPositions(attention, contextLength, LARGEST_BATCH),
          type.blockValues * Math.ceil(widths(attention).kv / type.blockValues),
        ),
    0,
  );
  // States are there twice.
  const stateBytes = recurrentsOf(layers).reduce((total, recurrent) => total + 8 * stateValues(recurrent), 0);
  const kvBytes = cacheBytes + stateBytes;
  // Matrices of latent attention that are transposed.
  const transposed = plan.tensors.reduce(
    (sum, { role, nRows, nCols }) => sum + (role.endsWith('.kvUp') ? (nRows / 2) * nCols : 0),
    0,
  );
  const { inner, outer } = lowRankWork(plan);
  const values = logitRows * nVocab + transposed + inner + outer;
  const workspaceBytes = batch * ofBatch + part * ofPart + 4 * values;
  return { batch, part, logitRows, kvBytes, workspaceBytes };
}

/** Results of additions are computed in steps of this many values. */
const ADDED_VALUES = 1 << 18;

/**
 * Work memory for adapters, in values. inner: results of the products with a, of all matrices of a block;
 * outer: results of the products with b.
 * @param {Plan} plan
 */
export function lowRankWork({ lowRank = [], tensors, layers }) {
  if (lowRank.length === 0) return { inner: 0, outer: 0 };
  /** @type {Map<string, number>} */
  const inner = new Map();
  let outer = ADDED_VALUES;
  for (const { role, use, nRows, nCols } of tensors) {
    const [, block, layer, side] = /^((?:layers\.(\d+)\.)?\w+)\.\w+Lora\.\d+\.([ab])$/.exec(role) ?? [];
    if (!block) continue;
    const { nExperts = 1, nUsed = 1 } = (use === 'experts' && layers[Number(layer)].feed.experts) || {};
    const cols = use === 'table' ? nCols : (nRows / nExperts) * nUsed;
    if (side === 'a') inner.set(block, (inner.get(block) ?? 0) + cols);
    // The rows of all experts of a token are computed at once.
    else outer = Math.max(outer, use === 'experts' ? LARGEST_BATCH * cols : cols);
  }
  return { inner: LARGEST_BATCH * Math.max(1, ...inner.values()), outer };
}

/** Most bytes of a memory with 32-bit addresses, and with 64-bit addresses. */
const [MOST_32, MOST_64] = [2 ** 32, 2 ** 34];

/**
 * How many pieces of memory, in order, a memory can still take.
 * @param {readonly number[]} pieces  bytes
 * @param {number} inUse  bytes
 * @param {boolean} memory64
 */
export function countFitting(pieces, inUse, memory64) {
  let left = (memory64 ? MOST_64 : MOST_32) - inUse;
  const full = pieces.findIndex((bytes) => {
    left -= bytes;
    return left < 0;
  });
  return full < 0 ? pieces.length : full;
}
