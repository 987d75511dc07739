/* The blocks of a model as work for the GPU, with the settings of their layer. A layer norm of the
 * input is a dispatch of its own, and so is a norm of the sum, x = norm(x + ..).
 *
 *   embed    x = scale * table[token] + types[0]      one dispatch; positions[position] adds one,
 *                                                     a norm another
 *   project  norm, q, k and v, biases, RoPE, cache    one dispatch for one token, unless q and k have
 *                                                     norms, the input has a layer norm, or the cache
 *                                                     is Q8_0; gates of the result add one
 *   attend   attention, x += output                   two dispatches, three where positions are
 *                                                     split; gates add one
 *   feed     x += (act(h gate^T) * (h up^T)) down^T   two dispatches for few tokens; h = norm(x);
 *                                                     experts.js has mixtures of experts
 *   head     logits = norm(x) output^T                one dispatch for one token */

import { widths } from './hidden.js';
import { FEW, isOnePiece, productWork } from './products.js';
import { loadRecurrent } from './recurrent.js';
import { up16 } from './shader.js';
import { joinVectors } from './vectors.js';
import {
  attention,
  attentionGroups,
  mergeGroups,
  mergeSplits,
  partsBytes,
  splitsOf,
} from './wgsl/attention.js';
import { attentionTiles, tileGroups } from './wgsl/attention-tiles.js';
import { embed, embedGroups } from './wgsl/embed.js';
import { FAULT_WORDS } from './wgsl/faults.js';
import { heads, headsAfter, headsAfterGroups, headsGroups, ropeTable } from './wgsl/heads.js';
import { addTo, gate, norm, rowGroups, scaleAndCap, temper } from './wgsl/layer.js';

/** @typedef {import('../backend.js').Step} Step */
/** @typedef {import('../backend.js').Weights} Weights */
/** @typedef {import('../llama/plan.js').AttentionSettings} AttentionSettings */
/** @typedef {import('../llama/plan.js').EmbeddingSettings} EmbeddingSettings */
/** @typedef {import('../llama/plan.js').FeedSettings} FeedSettings */
/** @typedef {import('../llama/plan.js').HeadSettings} HeadSettings */
/** @typedef {import('./handles.js').GpuCache} GpuCache */
/** @typedef {import('./device.js').GpuBuffer} GpuBuffer */
/** @typedef {import('./hidden.js').GpuHidden} GpuHidden */
/** @typedef {import('./products.js').Form} Form */
/** @typedef {import('./vectors.js').GpuVector} GpuVector */
/** @typedef {import('./products.js').Product} Product */
/** @typedef {import('./products.js').Work} Work */

/** @template S @typedef {import('../backend.js').Block<S>} Block */

/**
 * The device and memory that work is made with.
 * @typedef {import('./products.js').Means & {
 *   gpu: import('./device.js').GpuDevice,
 *   commands: import('./commands.js').Commands,
 *   own: (buffer: GpuBuffer) => GpuBuffer,
 *   remembered: <T>(owner: object, name: string, make: () => T) => T,
 * }} Means
 */

/** The work of experts, once a model has needed it. @type {typeof import('./experts.js') | undefined} */
let experts;

/**
 * Imports what the blocks of layers need.
 * @param {readonly { feed: { kind: string }, recurrent?: object | undefined }[]} layers
 */
export async function loadBlocks(layers) {
  if (layers.some(({ recurrent }) => recurrent)) await loadRecurrent();
  if (layers.some(({ feed }) => feed.kind === 'experts')) experts ??= await import('./experts.js');
}

/** Groups of kernels with a workgroup a row. @param {Step} step */
export const everyRow = ({ nTokens }) => rowGroups(nTokens);

/**
 * The vectors of a block in one buffer, made once.
 * @template {string} K
 * @param {Weights} weights  of the block
 * @param {Record<K, GpuVector | { nCols: number } | undefined>} vectors
 * @param {readonly number[]} numbers  that follow them
 * @param {Means} means
 */
const joined = (weights, vectors, numbers, { gpu, commands, own, remembered }) =>
  remembered(weights, 'vectors', () => {
    const made = joinVectors(gpu, commands, vectors, numbers);
    own(made.buffer);
    return made;
  });

/**
 * The vectors of an attention block in one buffer.
 * @param {Block<AttentionSettings>} block
 * @param {Means} means
 */
function attentionVectors({ weights, layer = 0 }, means) {
  const { norm: ofInput, q, k, v, outputBias, qNorm, kNorm } = weights;
  const { qBias, kBias, vBias } = weights;
  // A kernel adds three biases or none.
  const bias = (/** @type {GpuVector | undefined} */ given, /** @type {{ nRows: number }} */ { nRows }) =>
    qBias || kBias || vBias ? (given ?? { nCols: nRows }) : undefined;
  const biases = { qBias: bias(qBias, q), kBias: bias(kBias, k), vBias: bias(vBias, v) };
  return joined(weights, { norm: ofInput, ...biases, outputBias, qNorm, kNorm }, [layer], means);
}

/**
 * The table of rotations of a block; layers with the same settings share it.
 * @param {Block<AttentionSettings>} block
 * @param {GpuCache} cache
 * @param {Means} means
 * @returns {GpuBuffer | undefined}
 */
function turnsOf({ settings: { rope }, weights }, { shape }, { gpu, own, remembered }) {
  if (!rope) return undefined;
  const { nDims, base, linearScale, divisors, magnitude } = rope;
  const ofFile = weights.ropeFactors?.values;
  const factors = divisors?.map((divisor, i) => divisor * (ofFile?.[i] ?? 1)) ?? ofFile;
  const name = ['turns', shape.nPositions, nDims, base, linearScale, magnitude, divisors].join(' ');
  return remembered(weights.ropeFactors ?? gpu, name, () => {
    const table = ropeTable({ nPositions: shape.nPositions, nDims, base, linearScale, factors });
    for (let i = 0; magnitude !== 1 && i < table.length; i++) table[i] *= magnitude;
    return own(gpu.bufferOf(table, { label: 'turns' }));
  });
}

/**
 * @param {Block<EmbeddingSettings>} block
 * @param {GpuBuffer} ids
 * @param {GpuHidden} x
 * @returns {Work[]}
 */
export function embedWork({ settings: { scale, norm: ofSum }, weights }, ids, { buffers: { x } }) {
  const { table, positions, types } = weights;
  /**
   * @param {import('./weight.js').GpuWeight} of
   * @param {Omit<Parameters<typeof embed>[0], 'unit'>} options
   * @param {Record<string, GpuBuffer>} bound
   * @returns {Work[]}
   */
  const rows = (of, options, bound) =>
    of.units().map(({ unit, buffer, firstRow }) => ({
      shader: embed({ unit, firstRow, ...options }),
      buffers: { w: buffer, ...bound, y: x },
      groups: ({ nTokens }) => embedGroups(unit, nTokens),
    }));
  return [
    ...rows(table, { scale, bias: types !== undefined }, { ids, ...(types && { bias: types.buffer }) }),
    ...(positions ? rows(positions, { scale: 1, ofPositions: true }, {}) : []),
    ...(ofSum ? [normWork(ofSum, weights, 'norm', x)] : []),
  ];
}

/**
 * @param {Block<AttentionSettings>} block
 * @param {GpuHidden} hidden
 * @param {GpuCache} cache
 * @param {Form} form
 * @param {Means} means
 * @returns {Work[]}
 */
export function projectWork(block, { buffers }, cache, form, means) {
  const { settings, weights } = block;
  const { norm: ofInput, qkNorm, rope, nHeads } = settings;
  const { buffer: vectors, at, numbersAt: layer } = attentionVectors(block, means);
  const turns = turnsOf(block, cache, means);
  const biases = at.qBias === undefined ? undefined : [at.qBias, at.kBias, at.vBias];
  const products = [weights.q, weights.k, weights.v];
  const stride = up16(widths(settings).qkv);
  const shared = { vectors, cache: cache.buffer, y: buffers.heads, ...(turns && { turns }) };
  const shape = { cache: cache.shape, rope, biases, layer, stride };
  const heat = temperWork(settings, buffers.heads, stride);
  const ofGate = { weights: [weights.gate], y: buffers.up };
  const gates = settings.outputGate ? normedProduct(ofGate, block, buffers, vectors, form, means) : [];
  const isPlain = !qkNorm && ofInput?.kind !== 'layer' && cache.shape.type !== 'Q8_0';
  const isFused = form === 'one' && isPlain && isOnePiece(...products);
  if (isFused) {
    const parts = products.map((weight) => weight.units()[0]);
    const units = parts.map(({ unit }) => unit);
    const options = { ...shape, units, norm: ofInput, subgroups: means.variants.subgroups };
    const ofWeights = Object.fromEntries(parts.map(({ buffer }, i) => [`w${i}`, buffer]));
    return [
      {
        shader: heads(options),
        buffers: { ...shared, ...ofWeights, x: buffers.x },
        groups: () => headsGroups(options),
      },
      ...heat,
      ...gates,
    ];
  }
  const after = { ...shape, nHeads, qkNorm, ...(qkNorm && { gains: [at.qNorm, at.kNorm] }) };
  const product = {
    weights: products,
    y: { buffer: buffers.heads, offset: 0, bytes: buffers.heads.bytes },
    output: { first: FAULT_WORDS, stride },
  };
  return [
    ...normedProduct(product, block, buffers, vectors, form, means),
    { shader: headsAfter(after), buffers: shared, groups: ({ nTokens }) => headsAfterGroups(after, nTokens) },
    ...heat,
    ...gates,
  ];
}

/**
 * The temperature of queries, where there is one.
 * @param {AttentionSettings} settings
 * @param {GpuBuffer} x
 * @param {number} stride
 * @returns {Work[]}
 */
function temperWork({ temperature, nHeads, headSize }, x, stride) {
  if (!temperature) return [];
  const shader = temper({ ...temperature, nCols: nHeads * headSize, stride, offset: FAULT_WORDS });
  return [{ shader, buffers: { x }, groups: everyRow }];
}

/**
 * A product of norm(x): for few tokens and an RMS norm in one, else with the norm before it.
 * @param {Omit<Product, 'x'>} product
 * @param {{ settings: { norm?: import('../llama/plan.js').Norm | undefined },
 *   weights: Weights }} block
 * @param {import('./hidden.js').HiddenBuffers} buffers
 * @param {GpuBuffer | undefined} vectors  the weight of an RMS norm is at its beginning
 * @param {Form} form
 * @param {Means} means
 * @returns {Work[]}
 */
export function normedProduct(product, { settings, weights }, { x, normed }, vectors, form, means) {
  const { norm: ofInput } = settings;
  if (!ofInput) return productWork({ ...product, x }, form, means);
  if (form !== 'many' && ofInput.kind === 'rms')
    return productWork({ ...product, x, vectors, norm: ofInput }, form, means);
  return [
    normWork(ofInput, weights, 'norm', x, normed),
    ...productWork({ ...product, x: normed }, form, means),
  ];
}

/**
 * @param {import('../llama/plan.js').Norm} settings
 * @param {Weights} weights
 * @param {string} role  of the norm's weight
 * @param {GpuBuffer} x
 * @param {GpuBuffer} [y]  default: x
 * @param {boolean} [toZero]
 * @returns {Work}
 */
export function normWork({ kind, eps }, weights, role, x, y, toZero) {
  const { nCols, buffer: weight } = weights[role];
  const bias = kind === 'layer' ? weights[`${role}Bias`]?.buffer : undefined;
  return {
    shader: norm({ kind, eps, nCols, bias: bias !== undefined, toZero, inPlace: !y }),
    buffers: { x, weight, ...(bias && { bias }), ...(y && { y }) },
    groups: everyRow,
  };
}

/**
 * @param {Block<AttentionSettings>} block
 * @param {GpuHidden} hidden
 * @param {GpuCache} cache
 * @param {Form} form
 * @param {Means & { isSplit: boolean, most: number }} means  isSplit: of positions; most: positions
 *   that there may be
 * @returns {Work[]}
 */
export function attendWork(block, hidden, cache, form, means) {
  const { settings, weights } = block;
  const { buffers } = hidden;
  const { nHeads, nKvHeads, headSize, scale, softcap, window, causal } = settings;
  const { q, qkv } = widths(settings);
  const shape = {
    ...{ nHeads, nKvHeads, headSize, scale, softcap, window, causal, cache: cache.shape },
    q: { offset: FAULT_WORDS, stride: up16(qkv), ofBatch: true },
    out: { offset: 0, stride: up16(q), ofBatch: true },
  };
  const given = { q: buffers.heads, cache: cache.buffer };
  /** @type {Work[]} */
  let attended;
  if (form === 'many') {
    attended = [
      {
        shader: attentionTiles(shape),
        buffers: { ...given, out: buffers.attended },
        groups: (step) => tileGroups(shape, step),
      },
    ];
  } else if (means.isSplit) {
    const nTokens = form === 'one' ? 1 : Math.min(FEW, hidden.nRows);
    const parts = hidden.spare('attention', partsBytes(shape, { seen: means.most, nTokens }));
    attended = [
      {
        shader: attention({ ...shape, parts: true }),
        buffers: { ...given, parts },
        groups: (step) => attentionGroups(shape, step),
      },
      {
        shader: mergeSplits(shape),
        buffers: { parts, out: buffers.attended },
        groups: (step) => mergeGroups(shape, step),
      },
    ];
  } else {
    attended = [
      {
        shader: attention({ ...shape, parts: false }),
        buffers: { ...given, out: buffers.attended },
        groups: (step) => attentionGroups(shape, step),
      },
    ];
  }
  const { buffer: vectors, at } = attentionVectors(block, means);
  const bias = at.outputBias === undefined ? {} : { vectors, biases: [at.outputBias] };
  // The gated result takes the place of the gates.
  const x = settings.outputGate ? buffers.up : buffers.attended;
  const product = { weights: [weights.output], x, ...bias };
  if (settings.outputGate) {
    attended.push({
      shader: gate({ nCols: q, activation: 'sigmoid' }),
      buffers: { x, y: buffers.attended },
      groups: everyRow,
    });
  }
  return [...attended, ...residual(product, settings, weights, buffers, form, means)];
}

/**
 * Whether a step's attention is split over positions.
 * @param {AttentionSettings} settings
 * @param {Step} step
 */
export const isSplit = ({ window, causal }, { seen }) => splitsOf({ window, causal }, seen) > 1;

/**
 * x = sumNorm(x + residualScale * postNorm(product)), with one of the norms or none.
 * @param {Omit<Product, 'y'>} product
 * @param {{ postNorm: import('../llama/plan.js').Norm | undefined,
 *   sumNorm?: import('../llama/plan.js').Norm | undefined, residualScale: number }} settings
 * @param {Weights} weights
 * @param {import('./hidden.js').HiddenBuffers} buffers
 * @param {Form} form
 * @param {Means} means
 * @returns {Work[]}
 */
export function residual(product, settings, weights, { x, normed }, form, means) {
  const { postNorm, sumNorm, residualScale } = settings;
  if (!postNorm) {
    return [
      ...productWork({ ...product, y: x, epilogue: 'add', residualScale }, form, means),
      ...(sumNorm ? [normWork(sumNorm, weights, 'sumNorm', x)] : []),
    ];
  }
  const nCols = product.weights[0].nRows;
  return [
    ...productWork({ ...product, y: normed }, form, means),
    {
      shader: addTo({ nCols, scale: residualScale, norm: postNorm }),
      buffers: { x: normed, weight: weights.postNorm.buffer, y: x },
      groups: everyRow,
    },
  ];
}

/**
 * The vectors of a feed-forward block: a norm alone is where it is, biases are beside it in one buffer.
 * @param {Block<FeedSettings>} block
 * @param {Means} means
 * @returns {{ vectors: GpuBuffer | undefined,
 *   biasOf: (role: string) => Pick<Product, 'vectors' | 'biases'> }}
 */
function feedVectors({ weights }, means) {
  const { norm: ofInput, upBias, downBias } = weights;
  if (!upBias && !downBias) return { vectors: ofInput?.buffer, biasOf: () => ({}) };
  const { buffer: vectors, at } = joined(weights, { norm: ofInput, upBias, downBias }, [], means);
  /** @param {string} role */
  const biasOf = (role) => {
    const bias = /** @type {Record<string, number | undefined>} */ (at)[`${role}Bias`];
    return bias === undefined ? {} : { vectors, biases: [bias] };
  };
  return { vectors, biasOf };
}

/**
 * @param {Block<FeedSettings>} block
 * @param {GpuHidden} hidden
 * @param {Form} form
 * @param {Means} means
 * @returns {Work[]}
 */
export function feedWork(block, hidden, form, means) {
  const { settings, weights } = block;
  const { buffers } = hidden;
  const { kind, norm: ofInput } = settings;
  if (kind === 'experts') {
    if (!experts) throw new TypeError('experts are computed before they are loaded');
    return experts.expertsWork(block, hidden, form, means);
  }
  // Blocks with other functions are refused (fit.js).
  const activation = /** @type {Exclude<FeedSettings['activation'], 'clamped'>} */ (settings.activation);
  const { gate: ofGate, up, down } = weights;
  const { vectors, biasOf } = feedVectors(block, means);
  const nCols = up.nRows;
  const result = { weights: [down], x: buffers.gate, ...biasOf('down') };
  const added = residual(result, settings, weights, buffers, form, means);
  if (kind === 'plain') {
    const inner = { weights: [up], y: buffers.gate, ...biasOf('up') };
    return [
      ...normedProduct(inner, block, buffers, vectors, form, means),
      {
        shader: gate({ nCols, activation, plain: true }),
        buffers: { x: buffers.gate },
        groups: everyRow,
      },
      ...added,
    ];
  }
  const isFused = form !== 'many' && (activation === 'silu' || activation === 'gelu');
  if (isFused && isOnePiece(ofGate, up)) {
    const epilogue = /** @type {const} */ ('gated');
    const product = { weights: [ofGate, up], y: buffers.gate, epilogue, activation };
    return [...normedProduct(product, block, buffers, vectors, form, means), ...added];
  }
  const x = ofInput ? buffers.normed : buffers.x;
  return [
    ...(ofInput ? [normWork(ofInput, weights, 'norm', buffers.x, x)] : []),
    ...productWork({ weights: [ofGate], x, y: buffers.gate }, form, means),
    ...productWork({ weights: [up], x, y: buffers.up }, form, means),
    {
      shader: gate({ nCols, activation }),
      buffers: { x: buffers.gate, y: buffers.up },
      groups: everyRow,
    },
    ...added,
  ];
}

/**
 * Logits of some rows of a batch, from row 0 on.
 * @param {Block<HeadSettings>} block
 * @param {GpuHidden} hidden
 * @param {{ buffer: GpuBuffer, nCols: number }} logits
 * @param {Form} form
 * @param {Means} means
 * @returns {Work[]}
 */
export function headWork(block, { buffers }, logits, form, means) {
  const { settings, weights } = block;
  const { scale, softcap } = settings;
  const product = { weights: [weights.output], y: logits.buffer, output: { fromZero: true } };
  const work = normedProduct(product, block, buffers, weights.norm?.buffer, form, means);
  if (scale === 1 && softcap === 0) return work;
  const shader = scaleAndCap({ nCols: logits.nCols, scale, softcap, fromZero: true });
  return [...work, { shader, buffers: { x: logits.buffer }, groups: everyRow }];
}

/**
 * Some rows of a batch after the norm of the head, from row 0 of `normed` on; nothing without a norm.
 * @param {Block<HeadSettings>} block
 * @param {GpuHidden} hidden
 * @returns {Work[]}
 */
export const statesWork = ({ settings: { norm: ofStates }, weights }, { buffers: { x, normed } }) =>
  ofStates ? [normWork(ofStates, weights, 'norm', x, normed, true)] : [];
