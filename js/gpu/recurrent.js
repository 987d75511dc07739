/* Recurrent blocks on a GPU: what they take. What computes them is imported with the weights of the
 * first model that has some. */

import { up16 } from './shader.js';

/** @typedef {import('../llama/plan.js').RecurrentSettings} RecurrentSettings */

/**
 * A kind of recurrent block.
 * @template {RecurrentSettings} [S=any]
 * @typedef {object} RecurrentShape
 * @property {(settings: S) => Record<string, number>[]} products  Products of the input that are
 *   computed together: by the role of their matrix, how many values a token has. All of them follow
 *   one another in a row of work memory.
 * @property {(settings: S) => number} result  Values of a token before the output matrix.
 * @property {(settings: S) => { columns: number, heads: number }} state  Values of the state:
 *   columns of the convolution, then what heads have.
 * @property {(settings: S) => string[]} lacks  Names what no kernel computes.
 */

/** The most tokens that a convolution covers. */
const LONGEST_CONVOLUTION = 16;

/** @param {number} length @returns {string[]} */
const convolutionLacks = (length) =>
  length >= 2 && length <= LONGEST_CONVOLUTION
    ? []
    : [
        `convolutions of length ${length} are not supported on the GPU: they must cover 2 to ${LONGEST_CONVOLUTION} tokens`,
      ];

/** @type {RecurrentShape<import('../llama/plan.js').ConvolutionSettings>} */
const convolution = {
  products: ({ nChannels }) => [{ b: nChannels, c: nChannels, x: nChannels }],
  result: ({ nChannels }) => nChannels,
  state: ({ nChannels, length }) => ({ columns: nChannels * (length - 1), heads: 0 }),
  lacks: ({ length }) => convolutionLacks(length),
};

/** Largest head of a delta net, and state of a scan. */
const LARGEST_HEAD = 256;

/** @type {RecurrentShape<import('../llama/plan.js').DeltaSettings>} */
const delta = {
  products(settings) {
    const { nKeyHeads, nValueHeads, keySize } = settings;
    const values = delta.result(settings);
    /** @type {Record<string, number>[]} */
    const products = [
      { qkv: 2 * nKeyHeads * keySize + values, gate: values },
      { alpha: nValueHeads, beta: nValueHeads },
    ];
    return products;
  },
  result: ({ nValueHeads, valueSize }) => nValueHeads * valueSize,
  state(settings) {
    const [{ qkv }] = delta.products(settings);
    return {
      columns: qkv * (settings.length - 1),
      heads: settings.nValueHeads * settings.keySize * settings.valueSize,
    };
  },
  lacks({ keySize, valueSize, length }) {
    const wrong = [...new Set([keySize, valueSize])].filter((size) => size % 8 !== 0 || size > LARGEST_HEAD);
    const heads = wrong.map(
      (size) =>
        `delta nets with heads of ${size} values are not supported on the GPU: they must be a multiple of 8, ${LARGEST_HEAD} at most`,
    );
    return [...convolutionLacks(length), ...heads];
  },
};

/** @type {RecurrentShape<import('../llama/plan.js').ScanSettings>} */
const scan = {
  products(settings) {
    const { nHeads, nGroups, stateSize } = settings;
    const inner = scan.result(settings);
    return [{ z: inner, x: inner + 2 * nGroups * stateSize, dt: nHeads }];
  },
  result: ({ nHeads, headSize }) => nHeads * headSize,
  state(settings) {
    const [{ x }] = scan.products(settings);
    return { columns: x * (settings.length - 1), heads: scan.result(settings) * settings.stateSize };
  },
  lacks(settings) {
    const { stateSize, length } = settings;
    const inner = scan.result(settings);
    return [
      ...convolutionLacks(length),
      ...(stateSize % 4 !== 0 || stateSize > LARGEST_HEAD
        ? [
            `scans with states of ${stateSize} rows are not supported on the GPU: they must be a multiple of 4, ${LARGEST_HEAD} at most`,
          ]
        : []),
      ...(inner % 4 !== 0
        ? [`scans of ${inner} values are not supported on the GPU: they must be a multiple of 4`]
        : []),
    ];
  },
};

/** @type {Readonly<Record<string, RecurrentShape>>} */
const SHAPES = Object.freeze({ convolution, delta, scan });

/** @param {RecurrentSettings} settings @returns {RecurrentShape | undefined} */
export const shapeOf = ({ kind }) => (Object.hasOwn(SHAPES, kind) ? SHAPES[kind] : undefined);

/**
 * Where the products of a block lie in a row of work memory, by role, and how long a row is.
 * @param {RecurrentSettings} settings
 */
export function inputsOf(settings) {
  /** @type {Record<string, number>} */
  const at = {};
  let nCols = 0;
  for (const [role, n] of (shapeOf(settings)?.products(settings) ?? []).flatMap(Object.entries)) {
    at[role] = nCols;
    nCols += n;
  }
  return { at, nCols, stride: up16(nCols) };
}

/** f32 values of a row of work memory: products, and the result. @param {RecurrentSettings | undefined} of */
export const workCols = (of) =>
  of ? { inputs: inputsOf(of).stride, result: shapeOf(of)?.result(of) ?? 0 } : { inputs: 0, result: 0 };

/** Bytes of a state, and as many of its copy. @param {RecurrentSettings} settings */
export function stateBytes(settings) {
  const { columns, heads } = shapeOf(settings)?.state(settings) ?? { columns: 0, heads: 0 };
  return 4 * (columns + heads);
}

/** @type {typeof import('./recurrent-blocks.js') | undefined} */
let blocks;

/** Imports what computes recurrent blocks. */
export async function loadRecurrent() {
  blocks ??= await import('./recurrent-blocks.js');
}

/** The module that computes recurrent blocks, after loadRecurrent(). */
export function recurrentBlocks() {
  if (!blocks) throw new TypeError('recurrent blocks are computed before they are loaded');
  return blocks;
}
