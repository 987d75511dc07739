/* Products of weights as work for the GPU: which kernels compute them, by the number of tokens. */

import { up16 } from './shader.js';
import { matmul, matmulGroups } from './wgsl/matmul.js';
import { matmulInt8 } from './wgsl/matmul-int8.js';
import { matvec, matvecChoice, matvecGroups } from './wgsl/matvec.js';
import { quantizeActivations, quantizeGroups } from './wgsl/quantize.js';
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
 * How many tokens work is made for: 'one', up to 8, or many.
 * @typedef {'one' | 'few' | 'many'} Form
 */

/** The most tokens of the form 'few'. */
export const FEW = 8;

/** Workgroups that fill a device; fewer rows than these make worth cutting the columns. */
export const FILLING_GROUPS = 1024;

/** The most tokens of a product. */
export const LARGEST_BATCH = 512;

/** @param {number} nTokens @returns {Form} */
export const formOf = (nTokens) => (nTokens === 1 ? 'one' : nTokens <= FEW ? 'few' : 'many');

/** @typedef {import('./features.js').GpuVariants} Variants */

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
 * @property {number} groups  workgroups that fill the device
 * @property {(label: string, bytes: number) => GpuBuffer} spare  a buffer for results in between
 */

/** Tokens and rows of a tile, by the rows of a weight: small matrices would give few workgroups. */
const tileOf = (/** @type {number} */ nRows) =>
  nRows >= 1024 ? { tileRows: 64, tileTokens: 64 } : { tileRows: 32, tileTokens: 32 };

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
    const codes = means.variants.int8 && isCoded ? quantized(product, means) : undefined;
    const work = weights.map((weight, i) => {
      const ofPieces = pieces[i].map((piece) => tiles(product, piece, first, biases?.[i], codes?.buffers));
      first += weight.nRows;
      return ofPieces.flat();
    });
    return [...(codes ? [codes.work] : []), ...work.flat()];
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
function rows(product, pieces, first, biases, form, { variants, groups, spare }) {
  const { weights, x, y, vectors, norm, epilogue, activation, residualScale, output } = product;
  const units = pieces.map(({ unit }) => unit);
  const nRows = epilogue === 'gated' ? units[0].nRows : units.reduce((sum, unit) => sum + unit.nRows, 0);
  const nAll = weights.reduce((sum, weight) => sum + weight.nRows, 0);
  const stride = output?.stride ?? up16(epilogue === 'gated' ? nRows : nAll);
  // More sums than these would not fit into registers.
  const nPerGroup = form === 'one' ? 4 : 2;
  const options = {
    ...{ units, norm, biases, epilogue, activation, residualScale },
    ...(form === 'one' ? { nTokens: 1 } : { nTokens: FEW }),
    rows: nPerGroup,
    ...matvecChoice(nRows, units[0].nCols, { rows: nPerGroup, groups }),
    ...{ yRowOffset: first, yStride: stride, fromZero: output?.fromZero ?? false },
    subgroups: variants.subgroups,
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
 * The activations of a product as int8.
 * @param {Product} product
 * @param {Means} means
 */
function quantized({ weights: [{ nCols }], x }, { spare }) {
  // A code for each value of x, a scale for 32 of them.
  const codes = spare('codes', x.bytes / 4);
  const scales = spare('scales', x.bytes / 32);
  /** @type {Work} */
  const work = {
    shader: quantizeActivations({ nCols }),
    buffers: { x, codes, scales },
    groups: ({ nTokens }) => quantizeGroups({ nCols }, nTokens),
  };
  return { work, buffers: { codes, scales } };
}

/**
 * @param {Product} product
 * @param {Piece} piece
 * @param {number} first  row of y of the weight
 * @param {number | undefined} bias
 * @param {{ codes: GpuBuffer, scales: GpuBuffer } | undefined} codes  of x, for integer products
 * @returns {Work[]}
 */
function tiles(product, { unit, buffer, firstRow }, first, bias, codes) {
  const { weights, x, y, vectors, epilogue, residualScale, output } = product;
  const nAll = weights.reduce((sum, weight) => sum + weight.nRows, 0);
  if (epilogue === 'gated') throw new TypeError('a gate of many tokens is a kernel of its own');
  const options = {
    ...{ unit, epilogue, residualScale, ...tileOf(unit.nRows) },
    bias: bias === undefined ? undefined : bias + firstRow,
    yRowOffset: first + firstRow,
    yStride: output?.stride ?? up16(nAll),
    fromZero: output?.fromZero ?? false,
  };
  /** @type {Record<string, Bindable>} */
  const ofVectors = vectors && bias !== undefined ? { vectors } : {};
  const shader = codes ? matmulInt8(options) : matmul(options);
  const inputs = { w: buffer, ...(codes ?? { x }) };
  const groups = (/** @type {import('../backend.js').Step} */ { nTokens }) => matmulGroups(options, nTokens);
  return [{ shader, buffers: { ...inputs, y, ...ofVectors }, groups }];
}
