/* Products of weights as work for the GPU: which kernels compute them, by the number of tokens. */

import { PLAIN, precisionOf } from './features.js';
import { up16 } from './shader.js';
import { matmul, matmulGroups } from './wgsl/matmul.js';
import { matmulInt8 } from './wgsl/matmul-int8.js';
import { matvec, matvecChoice, matvecGroups } from './wgsl/matvec.js';
import { quantizeActivations, quantizeGroups, scaleActivations, scaleGroups } from './wgsl/quantize.js';
import { partValues, sumSplits, sumSplitsGroups } from './wgsl/split.js';
import { WGSL_TYPES } from './wgsl/types.js';

/** @typedef {import('./device.js').GpuBuffer} GpuBuffer */
/** @typedef {import('./pipelines.js').Bindable} Bindable */
/** @typedef {import('./shader.js').Shader} Shader */
/** @typedef {import('./weight.js').GpuWeight} GpuWeight */

/**
 * A dispatch to be: a kernel, its buffers, and its workgroups for a step.
 * @typedef {object} Work
 * @property {Shader} shader
 * @property {Record<string, Bindable>} buffers
 * @property {(step: import('../backend.js').Step) => [number, number, number]} groups
 */

/**
 * The most tokens that work is made for.
 * @typedef {'one' | 'two' | 'four' | 'eight' | 'many'} Form
 */

/**
 * Tokens of a form, and the most rows of a workgroup without and with a gate: more sums would not fit
 * into registers.
 * @type {Record<Exclude<Form, 'many'>, readonly [tokens: number, rows: number, gated: number]>}
 */
const FEW_FORMS = { one: [1, 8, 8], two: [2, 4, 2], four: [4, 2, 2], eight: [8, 2, 2] };

/** The most tokens of forms other than 'many'. */
export const FEW = 8;

/** The most tokens of a product. */
export const LARGEST_BATCH = 512;

/** @param {number} nTokens @returns {Form} */
export const formOf = (nTokens) =>
  nTokens === 1 ? 'one' : nTokens === 2 ? 'two' : nTokens <= 4 ? 'four' : nTokens <= FEW ? 'eight' : 'many';

/**
 * The forms of kernels; those that are not given are PLAIN.
 * @typedef {Partial<import('./features.js').GpuVariants>} Variants
 */

/**
 * A product. Rows of x and y are those of the batch.
 * @typedef {object} Product
 * @property {readonly GpuWeight[]} weights their rows follow one another in y
 * @property {GpuBuffer} x
 * @property {Bindable} y
 * @property {GpuBuffer} [vectors] norm and biases
 * @property {{ eps: number }} [norm] of x, its weight at the beginning of vectors; not for many
 *   tokens
 * @property {readonly number[]} [biases] by weight: where its bias begins in vectors
 * @property {'store' | 'add' | 'gated'} [epilogue] 'gated' not for many tokens
 * @property {'silu' | 'gelu'} [activation] of a gate
 * @property {number} [residualScale]
 * @property {{ first?: number, stride?: number, fromZero?: boolean }} [output]
 */

/**
 * @typedef {object} Means
 * @property {Variants} variants
 * @property {(label: string, bytes: number) => GpuBuffer} spare  a buffer for results in between
 */

/** Small matrices would give few workgroups with larger tiles. */
const SMALL_ROWS = 1024;
const SMALL_TILE = 32;

/**
 * A part of a weight that lies in one buffer, and where its rows begin in y.
 * @typedef {ReturnType<GpuWeight['units']>[0]} Piece
 */

/**
 * @param {Product} product
 * @param {Form} form
 * @param {Means} means
 * @returns {Work[]}
 */
export function productWork(product, form, means) {
  const { weights, epilogue = 'store', biases, output = {} } = product;
  const pieces = weights.map((weight) => weight.units());
  if (form === 'many') {
    let first = output.first ?? 0;
    const isCoded = weights.every(({ type }) => WGSL_TYPES[type].coded);
    const input = inputOf(product, precisionOf(means.variants, isCoded), means);
    const work = weights.flatMap((weight, i) => {
      const ofPieces = pieces[i].map((piece) => tiles(product, piece, first, biases?.[i], input, means));
      first += weight.nRows;
      return ofPieces;
    });
    return [...input.work, ...work];
  }
  if (epilogue === 'gated' || pieces.every((parts) => parts.length === 1))
    return rows(
      product,
      pieces.map(([part]) => part),
      output.first ?? 0,
      biases,
      form,
      means,
    );
  // Weights in several buffers: each buffer has its own dispatches.
  let first = output.first ?? 0;
  return weights.flatMap((weight, i) => {
    const work = pieces[i].map((part) =>
      rows(product, [part], first + part.firstRow, biases && [biases[i] + part.firstRow], form, means),
    );
    first += weight.nRows;
    return work.flat();
  });
}

/** Whether weights can be in one dispatch with a gate. @param {readonly GpuWeight[]} weights */
export const isOnePiece = (...weights) => weights.every((weight) => weight.units().length === 1);

/**
 * @param {Product} product
 * @param {Piece[]} pieces
 * @param {number} first  row of y
 * @param {readonly number[] | undefined} biases
 * @param {Form} form
 * @param {Means} means
 * @returns {Work[]}
 */
function rows(product, pieces, first, biases, form, { variants, spare }) {
  const { weights, x, y, vectors, norm, epilogue, activation, residualScale, output } = product;
  const units = pieces.map(({ unit }) => unit);
  const nRows = epilogue === 'gated' ? units[0].nRows : units.reduce((sum, unit) => sum + unit.nRows, 0);
  const nAll = weights.reduce((sum, weight) => sum + weight.nRows, 0);
  const stride = output?.stride ?? up16(epilogue === 'gated' ? nRows : nAll);
  const forms = { ...PLAIN, ...variants };
  const [nTokens, most, gated] = FEW_FORMS[/** @type {Exclude<Form, 'many'>} */ (form)];
  const nPerGroup = Math.min(forms.rows, epilogue === 'gated' ? gated : most);
  const options = {
    ...{ units, norm, biases, epilogue, activation, residualScale, nTokens, rows: nPerGroup },
    ...matvecChoice(nRows, units[0].nCols, { ...forms, rows: nPerGroup }),
    ...{ yRowOffset: first, yStride: stride, fromZero: output?.fromZero ?? false },
    subgroups: forms.subgroups,
  };
  /** @type {Record<string, Bindable>} */
  const ofVectors = vectors ? { vectors } : {};
  const bound = Object.fromEntries(pieces.map(({ buffer }, i) => [`w${i}`, buffer]));
  const shader = matvec(options);
  const all = matvecGroups(options);
  if (options.splitK === 1) return [{ shader, buffers: { ...bound, x, y, ...ofVectors }, groups: () => all }];
  const sums = spare('parts', 4 * partValues(options));
  return [
    { shader, buffers: { ...bound, x, parts: sums, ...ofVectors }, groups: () => all },
    {
      shader: sumSplits(options),
      buffers: { parts: sums, y, ...ofVectors },
      groups: ({ nTokens }) => sumSplitsGroups(options, nTokens),
    },
  ];
}

/**
 * The activations of tiles: what they are bound as, and the work that makes them of x.
 * @param {Product} product
 * @param {'f32' | 'f16' | 'int8'} precision
 * @param {Means} means
 * @returns {{ precision: 'f32' | 'f16' | 'int8', buffers: Record<string, Bindable>, work: Work[] }}
 */
function inputOf({ weights: [{ nCols }], x }, precision, { spare }) {
  if (precision === 'f32') return { precision, buffers: { x }, work: [] };
  // A scale for a row of x, or for 32 of its values; a code for each value.
  const scales = spare('scales', x.bytes / (precision === 'int8' ? 32 : up16(nCols)));
  if (precision === 'f16') {
    const shader = scaleActivations({ nCols });
    /** @type {Work} */
    const work = { shader, buffers: { x, scales }, groups: ({ nTokens }) => scaleGroups(nTokens) };
    return { precision, buffers: { x, x_scale: scales }, work: [work] };
  }
  const codes = spare('codes', x.bytes / 4);
  /** @type {Work} */
  const work = {
    shader: quantizeActivations({ nCols }),
    buffers: { x, codes, scales },
    groups: ({ nTokens }) => quantizeGroups({ nCols }, nTokens),
  };
  return { precision, buffers: { codes, scales }, work: [work] };
}

/**
 * @param {Product} product
 * @param {Piece} piece
 * @param {number} first  row of y of the weight
 * @param {number | undefined} bias
 * @param {ReturnType<typeof inputOf>} input
 * @param {Means} means
 * @returns {Work}
 */
function tiles(product, { unit, buffer, firstRow }, first, bias, { precision, buffers }, { variants }) {
  const { weights, y, vectors, epilogue, residualScale, output } = product;
  const nAll = weights.reduce((sum, weight) => sum + weight.nRows, 0);
  if (epilogue === 'gated') throw new TypeError('a gate of many tokens is a kernel of its own');
  const { tile = PLAIN.tile } = variants;
  const side = unit.nRows >= SMALL_ROWS ? tile : SMALL_TILE;
  const options = {
    ...{ unit, epilogue, residualScale, tileRows: side, tileTokens: side },
    bias: bias === undefined ? undefined : bias + firstRow,
    yRowOffset: first + firstRow,
    yStride: output?.stride ?? up16(nAll),
    fromZero: output?.fromZero ?? false,
  };
  return {
    shader: precision === 'int8' ? matmulInt8(options) : matmul({ ...options, f16: precision === 'f16' }),
    buffers: { w: buffer, ...buffers, y, ...(vectors && bias !== undefined && { vectors }) },
    groups: ({ nTokens }) => matmulGroups(options, nTokens),
  };
}
