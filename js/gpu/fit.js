/* Whether a model can run on a GPU, and what it takes there beside its weights. */

import { show } from '../errors.js';
import { cachedPositions } from '../llama/cached-positions.js';
import { attentionsOf, cachingOf, isCausal, recurrentsOf } from '../llama/layers.js';
import { withoutKernels } from '../llama/unserved.js';
import { bufferCols } from './hidden.js';
import { FEW, LARGEST_BATCH } from './products.js';
import { shapeOf, stateBytes } from './recurrent.js';
import { PROMISED, up16 } from './shader.js';
import { cacheLayout } from './wgsl/cache.js';
import { MOST_EXPERTS } from './wgsl/expert-layout.js';

/** @typedef {import('../backend.js').RunSettings} RunSettings */
/** @typedef {import('../llama/plan.js').Plan} Plan */

const LARGEST_HEAD = 256;

/**
 * The cache of a layer.
 * @param {import('../llama/plan.js').AttentionSettings} attention
 * @param {number} nPositions
 * @param {import('../wasm/kv-cache.js').KvType} type
 * @returns {import('./wgsl/cache.js').CacheShape}
 */
export function cacheShape(attention, nPositions, type) {
  const { nKvHeads, headSize } = attention;
  const nRows = cachedPositions(attention, nPositions, LARGEST_BATCH);
  return { type, nPositions, nRows, nKvHeads, headSize };
}

/** The type whose kernels know a factor of the tensor: WGSL_TYPES may not have its row yet. */
const WITH_FACTOR = 'NVFP4';

/**
 * The factors of products in a plan, and the matrices that they belong to.
 * @template {{ role: string, use: string }} T
 * @param {readonly T[]} tensors
 */
export function factorsOf(tensors) {
  const byRole = new Map(tensors.map((tensor) => [tensor.role, tensor]));
  return tensors.flatMap((factor) => {
    const matrix = factor.use === 'factor' && byRole.get(factor.role.replace(/Factor$/, ''));
    return matrix ? [{ matrix, factor }] : [];
  });
}

/** Tensors by their roles, and what they are for. @type {[RegExp, string][]} */
const UNSERVED = [
  [/\.attention\.sinks$/, 'attention sinks'],
  [/\.recurrent\.(?!(conv|step|dt)Bias)\w+Bias$/, 'biases of products in recurrent blocks'],
  [/\.feed\.sumFactor$/, 'factors of hidden states'],
];

/**
 * Names everything of a model that the GPU cannot do.
 * @param {Plan} plan
 * @param {readonly import('../gguf/file.js').GgufTensor[]} tensors
 * @param {RunSettings} settings
 * @param {{ bindingBytes: number }} limits  of the device
 * @returns {string[]}
 */
export function lacks(plan, tensors, settings, { bindingBytes }) {
  const { layers } = plan;
  const { contextLength, kvType } = settings;
  /** @type {Set<string>} */
  const reasons = new Set();
  const check = (/** @type {boolean} */ can, /** @type {string} */ reason) => {
    if (!can) reasons.add(reason);
  };
  for (const recurrent of recurrentsOf(layers)) {
    const shape = shapeOf(recurrent);
    check(
      shape !== undefined,
      `recurrent blocks of kind ${show(recurrent.kind)} are not supported on the GPU`,
    );
    for (const reason of shape?.lacks(recurrent) ?? []) reasons.add(reason);
    const bytes = stateBytes(recurrent);
    check(
      bytes <= bindingBytes,
      `the state of a recurrent layer has ${bytes} bytes; this GPU takes ${bindingBytes} in one piece`,
    );
  }
  for (const attention of attentionsOf(layers)) {
    const { kind, headSize, rope } = attention;
    check(kind === 'attention', `layers of kind ${show(kind)} are not supported on the GPU`);
    check(!attention.valueNorm, 'norms of values are not supported on the GPU');
    check(!attention.kvBack, 'keys and values of earlier layers are not supported on the GPU');
    check(!attention.latent, 'latent attention is not supported on the GPU');
    check(
      headSize <= LARGEST_HEAD && headSize % 4 === 0,
      `heads of ${headSize} values are not supported on the GPU: they must be a multiple of 4, ${LARGEST_HEAD} at most`,
    );
    check(
      kvType !== 'Q8_0' || headSize % 32 === 0,
      `heads of ${headSize} values cannot be cached as Q8_0 on the GPU: they must be a multiple of 32`,
    );
    check(
      !rope || ['adjacent', 'halves'].includes(rope.pairing),
      `RoPE of pairs ${show(rope?.pairing)} is not supported on the GPU`,
    );
    check(
      rope?.pairing !== 'halves' || rope.nDims % 4 === 0,
      `RoPE of ${rope?.nDims} values by halves is not supported on the GPU: they must be a multiple of 4`,
    );
    const { temperature } = attention;
    check(
      !temperature || Number.isInteger(temperature.length),
      `a temperature by ${temperature?.length} positions is not supported on the GPU: it must be an integer`,
    );
    const shape = cacheShape(attention, contextLength, kvType);
    const { bytes } = cacheLayout(shape);
    check(
      bytes <= bindingBytes,
      `a layer caches ${shape.nRows} positions in ${bytes} bytes of keys and values; this GPU takes ${bindingBytes} in one piece: try a shorter context or another kvType`,
    );
    // A batch is computed in parts there, and the gates of later parts lie in work memory of this one.
    check(
      attention.causal || !attention.outputGate,
      'output gates of attention without a causal mask are not supported on the GPU',
    );
  }
  for (const { attention, recurrent, feed } of layers) {
    check(
      ['gated', 'plain', 'experts'].includes(feed.kind),
      `feed-forward blocks of kind ${show(feed.kind)} are not supported on the GPU`,
    );
    const nExperts = feed.experts?.nExperts ?? 0;
    check(
      nExperts <= MOST_EXPERTS,
      `blocks of ${nExperts} experts are not supported on the GPU: ${MOST_EXPERTS} at most`,
    );
    check(
      ['silu', 'gelu', 'relu', 'relu2', ...(feed.experts ? ['clamped'] : [])].includes(feed.activation),
      `activations of the kind ${show(feed.activation)} are not supported on the GPU`,
    );
    check(!feed.layerInput, 'inputs of layers beside the hidden states are not supported on the GPU');
    const isRms = (/** @type {import('../llama/plan.js').Norm | undefined} */ norm) =>
      !norm || norm.kind === 'rms';
    check(
      [attention, recurrent, feed].every((block) => isRms(block?.postNorm)),
      'layer norms of results are not supported on the GPU',
    );
    check(isRms(recurrent?.norm), 'layer norms before recurrent blocks are not supported on the GPU');
    check(!feed.experts || isRms(feed.norm), 'layer norms before experts are not supported on the GPU');
    check(!feed.experts || !feed.sumNorm, 'norms of the sums of experts are not supported on the GPU');
    // The self-test has no bounds for both.
    check(
      [attention, feed].every((block) => !block?.postNorm || !block.sumNorm),
      'blocks with norms of both the result and the sum are not supported on the GPU',
    );
  }
  check(!plan.lowRank?.length, 'LoRA adapters are not supported on the GPU');
  const present = new Set(tensors.map(({ name }) => name));
  const roles = plan.tensors.filter(({ name }) => present.has(name)).map(({ role }) => role);
  for (const [pattern, what] of UNSERVED)
    check(!roles.some((role) => pattern.test(role)), `${what} are not supported on the GPU`);
  const { batch } = sizes(plan, settings);
  check(
    batch <= PROMISED.groups,
    `batches of ${batch} tokens are not supported on the GPU: ${PROMISED.groups} at most; try a shorter context`,
  );
  const widest = 4 * batch * Math.max(...Object.values(bufferCols(plan)));
  check(
    widest <= bindingBytes,
    `${contextLength} positions need ${widest} bytes of work memory in one piece; this GPU takes ${bindingBytes}: try a shorter context`,
  );
  const typeOf = new Map(tensors.map(({ name, type }) => [name, type]));
  for (const { matrix, factor } of factorsOf(plan.tensors)) {
    const [ofMatrix, ofFactor] = [typeOf.get(matrix.name), typeOf.get(factor.name)];
    check(
      ofFactor === undefined || (ofMatrix === WITH_FACTOR && ofFactor === 'F32'),
      `factors of products (${show(factor.name)}) are supported on the GPU for ${WITH_FACTOR} in F32, not for ${ofMatrix} in ${ofFactor}`,
    );
  }
  const unserved = withoutKernels(tensors, ({ supported }) => supported);
  if (unserved) reasons.add(unserved);
  return [...reasons];
}

/**
 * The memory that a model takes beside its weights.
 * @param {Plan} plan
 * @param {RunSettings} settings
 * @returns {import('../backend.js').Sizes}
 */
export function sizes(plan, { contextLength, kvType }) {
  const { layers, nVocab } = plan;
  const part = Math.min(contextLength, LARGEST_BATCH);
  const batch = isCausal(layers) ? part : contextLength;
  const logitRows = Math.min(FEW, part);
  const rowBytes = 4 * Object.values(bufferCols(plan)).reduce((sum, n) => sum + n, 0);
  const attentions = attentionsOf(layers);
  const caches = cachingOf(layers).map(
    (attention) => cacheLayout(cacheShape(attention, contextLength, kvType)).bytes,
  );
  const states = recurrentsOf(layers).map((recurrent) => 2 * stateBytes(recurrent));
  const kvBytes = [...caches, ...states].reduce((sum, bytes) => sum + bytes, 0);
  // The table of rotations: cosine and sine of every pair.
  const ropes = new Set(attentions.map(({ rope }) => rope && JSON.stringify(rope)));
  const turns = ropes.size * contextLength * Math.max(0, ...attentions.map(({ rope }) => rope?.nDims ?? 0));
  const workspaceBytes = batch * rowBytes + 4 * logitRows * up16(nVocab) + 4 * turns;
  return { batch, part, logitRows, kvBytes, workspaceBytes };
}
