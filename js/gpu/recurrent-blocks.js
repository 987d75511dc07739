/* Recurrent blocks as work for the GPU: all products of the input in one row of work memory, a search
 * for numbers that cannot be right, which a state would keep, and then what goes from token to token.
 *
 *   convolution  four dispatches for few tokens: products, search, convolution with its gates, output
 *   delta        seven: two of products, search, convolution, heads, their norms and gates, output
 *   scan         six: products, search, convolution, heads, their gates and norms, output
 */

import { normedProduct, residual } from './blocks.js';
import { inputsOf, shapeOf, stateBytes } from './recurrent.js';
import { GpuState } from './recurrent-state.js';
import { up16 } from './shader.js';
import { GpuWeight } from './weight.js';
import { causalConvolution, convolutionGroups } from './wgsl/convolution.js';
import { findFaults, findFaultsGroups } from './wgsl/find-faults.js';
import { gatedNorm, gatedNormGroups } from './wgsl/gated-norm.js';
import { recurrence, recurrenceGroups } from './wgsl/recurrence.js';

/** @typedef {import('../llama/plan.js').RecurrentSettings} RecurrentSettings */
/** @typedef {import('./blocks.js').Means} Means */
/** @typedef {import('./hidden.js').GpuHidden} GpuHidden */
/** @typedef {import('./products.js').Form} Form */
/** @typedef {import('./products.js').Work} Work */

/** @template S @typedef {import('../backend.js').Block<S>} Block */

/** @param {import('./device.js').GpuDevice} gpu @param {RecurrentSettings} settings */
export const makeState = (gpu, settings) => new GpuState(gpu, stateBytes(settings));

/**
 * From the products in `gate` to the result in `attended`.
 * @template {RecurrentSettings} [S=any]
 * @typedef {(block: Block<S>, buffers: import('./hidden.js').HiddenBuffers, state: GpuState) => Work[]}
 *   Recurrence
 */

/** @type {Recurrence<import('../llama/plan.js').ConvolutionSettings>} */
const convolution = ({ settings, weights }, { gate, attended }, { current, saved }) => {
  const { nChannels, length } = settings;
  const { at, stride } = inputsOf(settings);
  const { b, c, x } = at;
  const { conv, convBias: bias } = weights;
  const options = { nChannels, length, stride, gates: { b, c, x }, bias: bias !== undefined };
  return [
    {
      shader: causalConvolution(options),
      buffers: {
        ...{ x: gate, weight: conv.buffer, state: current, saved, y: attended },
        ...(bias && { bias: bias.buffer }),
      },
      groups: () => convolutionGroups(options),
    },
  ];
};

/** @type {Recurrence<import('../llama/plan.js').DeltaSettings>} */
const delta = ({ settings, weights }, { gate, attended: y }, { current: state, saved }) => {
  const { nKeyHeads, nValueHeads, keySize, valueSize, length, headNorm } = settings;
  const { at, stride } = inputsOf(settings);
  const nChannels = at.gate - at.qkv;
  const keys = nKeyHeads * keySize;
  const conv = { nChannels, length, stride, at: at.qkv };
  /** @type {import('./wgsl/recurrence.js').RecurrenceOptions} */
  const heads = {
    ...{ kind: 'delta', nHeads: nValueHeads, nKeyHeads, rows: keySize, cols: valueSize },
    ...{ stride, eps: headNorm.eps, first: nChannels * (length - 1) },
    at: { query: at.qkv, key: at.qkv + keys, value: at.qkv + 2 * keys, step: at.alpha, beta: at.beta },
  };
  const norm = {
    nGroups: nValueHeads,
    size: valueSize,
    stride,
    at: at.gate,
    eps: headNorm.eps,
    shared: true,
  };
  const { dtBias, a, headNorm: weight } = weights;
  /** @type {Work[]} */
  const work = [
    {
      shader: causalConvolution(conv),
      buffers: { x: gate, weight: weights.conv.buffer, state, saved },
      groups: () => convolutionGroups(conv),
    },
    {
      shader: recurrence(heads),
      buffers: { x: gate, a: a.buffer, bias: dtBias.buffer, state, saved, y },
      groups: () => recurrenceGroups(heads),
    },
    {
      shader: gatedNorm(norm),
      buffers: { gates: gate, weight: weight.buffer, y },
      groups: ({ nTokens }) => gatedNormGroups(norm, nTokens),
    },
  ];
  return work;
};

/** @type {Recurrence<import('../llama/plan.js').ScanSettings>} */
const scan = ({ settings, weights }, { gate, attended: y }, { current: state, saved }) => {
  const { nHeads, headSize, nGroups, stateSize, length, gateNorm } = settings;
  const { at, stride } = inputsOf(settings);
  const { stepBias, a, d, conv: weight, convBias, gateNorm: ofNorm } = weights;
  const inner = nHeads * headSize;
  const nChannels = at.dt - at.x;
  const conv = { nChannels, length, stride, at: at.x, bias: convBias !== undefined };
  /** @type {import('./wgsl/recurrence.js').RecurrenceOptions} */
  const heads = {
    ...{ kind: 'scan', nHeads, nKeyHeads: nGroups, rows: stateSize, cols: headSize, stride },
    // `a` and `d` have a row for each head.
    ...{ numbers: up16(1), first: nChannels * (length - 1) },
    at: { value: at.x, key: at.x + inner, query: at.x + inner + nGroups * stateSize, step: at.dt },
  };
  const eps = ofNorm ? gateNorm.eps : undefined;
  const norm = { nGroups, size: inner / nGroups, stride, at: at.z, eps, gateFirst: true };
  /** @type {Work[]} */
  const work = [
    {
      shader: causalConvolution(conv),
      buffers: {
        ...{ x: gate, weight: weight.buffer, state, saved },
        ...(convBias && { bias: convBias.buffer }),
      },
      groups: () => convolutionGroups(conv),
    },
    {
      shader: recurrence(heads),
      buffers: { x: gate, a: a.buffer, bias: stepBias.buffer, d: d.buffer, state, saved, y },
      groups: () => recurrenceGroups(heads),
    },
    {
      shader: gatedNorm(norm),
      buffers: { gates: gate, y, ...(ofNorm && { weight: ofNorm.buffer }) },
      groups: ({ nTokens }) => gatedNormGroups(norm, nTokens),
    },
  ];
  return work;
};

/** @type {Readonly<Record<string, Recurrence>>} */
const RECURRENCES = Object.freeze({ convolution, delta, scan });

/**
 * The work of a block. In its step, `seen` is the number of the layer.
 * @param {Block<RecurrentSettings>} block
 * @param {GpuHidden} hidden
 * @param {GpuState} state
 * @param {Form} form
 * @param {Means} means
 * @returns {Work[]}
 */
export function recurWork(block, { buffers }, state, form, means) {
  const { settings, weights } = block;
  const { nCols, stride, at } = inputsOf(settings);
  const shape = /** @type {import('./recurrent.js').RecurrentShape} */ (shapeOf(settings));
  const products = shape.products(settings).flatMap((roles) => {
    const [first] = Object.keys(roles);
    const product = {
      weights: GpuWeight.joined(Object.keys(roles).map((role) => weights[role])),
      y: buffers.gate,
      output: { first: at[first], stride },
    };
    return normedProduct(product, block, buffers, weights.norm.buffer, form, means);
  });
  return [
    ...products,
    {
      shader: findFaults({ part: 'recurrent', nCols }),
      buffers: { x: buffers.gate, y: buffers.heads },
      groups: ({ nTokens }) => findFaultsGroups({ nCols }, nTokens),
    },
    ...RECURRENCES[settings.kind](block, buffers, state),
    ...residual(
      { weights: [weights.output], x: buffers.attended },
      ...[settings, weights, buffers, form, means],
    ),
  ];
}
