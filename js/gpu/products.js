/* Products of weights as work for the GPU: which kernels compute them, by the number of tokens. */

import { matmul, matmulGroups, sumTiles, sumTilesGroups, partValues as tileValues } from './wgsl/matmul.js';
import { matvec, matvecChoice, matvecGroups } from './wgsl/matvec.js';
import { partValues, sumSplits, sumSplitsGroups } from './wgsl/split.js';

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

/** @param {number} nTokens @returns {Form} */
export const formOf = (nTokens) => (nTokens === 1 ? 'one' : nTokens <= FEW ? 'few' : 'many');

/** @typedef {import('./features.js').Variants} Variants */

/**
 * A product. Rows of x and y are those of the batch.
 * @typedef {object} Product
 * @property {readonly GpuWeight[]} weights  their rows follow one another in y
 * @property {GpuBuffer} x
 * @property {Bindable} y
 * @property {GpuBuffer} [vectors]  norm and biases
 * @property {{ eps: number }} [norm]  of x, its weight at the beginning of vectors; not for many tokens
 * @property {readonly number[]} [biases]  by weight: where its bias begins in vectors
 * @property {'store' | 'add' | 'gated'} [epilogue]  'gated' not for many tokens
 * @property {'silu' | 'gelu'} [activation]  of a gate
 * @property {number} [residualScale]
 * @property {{ first?: number, stride?: number, fromZero?: boolean }} [output]
 * @property {boolean} [fromZero]  the first token is row 0 of x too
 */

/**
 * @typedef {object} Means
 * @property {Variants} variants
 * @property {number} groups  workgroups that fill the device
 * @property {(bytes: number) => GpuBuffer} parts  a buffer for sums of parts
 */

/** Tokens and rows of a tile, by the rows of a weight: small matrices would give few workgroups. */
const tileOf = (/** @type {number} */ nRows) =>
  nRows >= 1024 ? { tileRows: 64, tileTokens: 64 } : { tileRows: 32, tileTokens: 32 };

/** A part of a weight that lies in one buffer, and where its rows begin in y. @typedef {ReturnType<GpuWeight['units']>[0]} Piece */

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
    return weights.flatMap((weight, i) => {
      const work = pieces[i].map((piece) => tiles(product, piece, first, biases?.[i], means));
      first += weight.nRows;
      return work.flat();
    });
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
function rows(product, pieces, first, biases, form, { variants, groups, parts }) {
  const {
    weights,
    x,
    y,
    vectors,
    norm,
    epilogue,
    activation,
    residualScale,
    output,
    fromZero = false,
  } = product;
  const units = pieces.map(({ unit }) => unit);
  const nRows = epilogue === 'gated' ? units[0].nRows : units.reduce((sum, unit) => sum + unit.nRows, 0);
  const nAll = weights.reduce((sum, weight) => sum + weight.nRows, 0);
  const stride = output?.stride ?? Math.ceil((epilogue === 'gated' ? nRows : nAll) / 16) * 16;
  // More sums than these would not fit into registers.
  const nPerGroup = form === 'one' ? 4 : 2;
  const options = {
    ...{ units, norm, biases, epilogue, activation, residualScale },
    ...(form === 'one' ? { nTokens: 1 } : { nTokens: FEW }),
    rows: nPerGroup,
    ...matvecChoice(nRows, units[0].nCols, { rows: nPerGroup, groups }),
    ...{ yRowOffset: first, yStride: stride, fromZero: output?.fromZero ?? false, xFromZero: fromZero },
    subgroups: variants.subgroups,
  };
  /** @type {Record<string, Bindable>} */
  const ofVectors = vectors ? { vectors } : {};
  const bound = Object.fromEntries(pieces.map(({ buffer }, i) => [`w${i}`, buffer]));
  const shader = matvec(options);
  const all = matvecGroups(options);
  if (options.splitK === 1) return [{ shader, buffers: { ...bound, x, y, ...ofVectors }, groups: () => all }];
  const sums = parts(4 * partValues(options));
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
 * @param {Product} product
 * @param {Piece} piece
 * @param {number} first  row of y of the weight
 * @param {number | undefined} bias
 * @param {Means} means
 * @returns {Work[]}
 */
function tiles(product, { unit, buffer, firstRow }, first, bias, { parts }) {
  const { weights, x, y, vectors, epilogue, residualScale, output } = product;
  const nAll = weights.reduce((sum, weight) => sum + weight.nRows, 0);
  if (epilogue === 'gated') throw new TypeError('a gate of many tokens is a kernel of its own');
  const options = {
    ...{ unit, epilogue, residualScale, ...tileOf(unit.nRows) },
    bias: bias === undefined ? undefined : bias + firstRow,
    yRowOffset: first + firstRow,
    yStride: output?.stride ?? Math.ceil(nAll / 16) * 16,
    fromZero: output?.fromZero ?? false,
    splitK: 1,
  };
  /** @type {Record<string, Bindable>} */
  const ofVectors = vectors && bias !== undefined ? { vectors } : {};
  const shader = matmul(options);
  const groups = (/** @type {import('../backend.js').Step} */ { nTokens }) => matmulGroups(options, nTokens);
  if (options.splitK === 1) return [{ shader, buffers: { w: buffer, x, y, ...ofVectors }, groups }];
  const sums = parts(4 * tileValues(options, 512));
  return [
    { shader, buffers: { w: buffer, x, parts: sums }, groups },
    {
      shader: sumTiles(options),
      buffers: { parts: sums, y, ...ofVectors },
      groups: ({ nTokens }) => sumTilesGroups(options, nTokens),
    },
  ];
}
