/* Data of the self-test: weights of every type in use, vectors, and hidden states. A fixed
 * generator makes them, so a failure repeats. */

import { servedType, weightBytes } from '../types.js';
import { WGSL_TYPES } from './wgsl/types.js';

/** @typedef {import('../wasm/kernels.js').Kernels} Kernels */

/**
 * A matrix, with what bounds of its products need.
 * @typedef {object} Matrix
 * @property {string} type
 * @property {number} nRows
 * @property {number} nCols
 * @property {Uint8Array<ArrayBuffer>} data  blocks as in a file
 * @property {(row: number) => number} norm  square root of the sum of squares of a row
 * @property {number} largest  magnitude of all values
 */

/**
 * Rows that differ; the others repeat them. No tile has so many, so rows that change places are
 * found.
 */
export const DISTINCT = 61;

/** Bits of every byte of a field, or a pattern of bytes that repeats. @typedef {number | number[]} Bits */

/**
 * For each type of codes: the mean of its positive values with a scale of 1, and bits that lean the
 * bytes of its fields towards positive values, as [set, kept]. Sums of positive terms do not
 * cancel, so their bounds are sharp.
 * @type {Record<string, { mean: number, lean?: Record<string, [Bits, Bits]> }>}
 */
const CODES = {
  Q4_0: { mean: 4, lean: { qs: [0x88, 0xff] } },
  Q4_1: { mean: 8 },
  Q5_0: { mean: 8, lean: { qh: [0xff, 0xff] } },
  Q5_1: { mean: 16 },
  Q8_0: { mean: 64, lean: { qs: [0, 0x7f] } },
  IQ4_NL: { mean: 50, lean: { qs: [0x88, 0xff] } },
  MXFP4: { mean: 2, lean: { qs: [0, 0x77] } },
  Q2_K: { mean: 11 },
  Q3_K: { mean: 30, lean: { hmask: [0xff, 0xff], scales: [0xaa, 0xff] } },
  Q4_K: { mean: 240 },
  Q5_K: { mean: 480 },
  Q6_K: { mean: 480, lean: { qh: [0xaa, 0xff], scales: [0, 0x3f] } },
  Q8_K: { mean: 64, lean: { qs: [0, 0x7f] } },
  IQ4_XS: { mean: 800, lean: { d: [0xaa, 0xff], qs: [0x88, 0xff] } },
  TQ1_0: { mean: 0.5, lean: { qs: [0xe0, 0xff] } },
  TQ2_0: { mean: 1.5, lean: { qs: [0xaa, 0xff] } },
  Q1_0: { mean: 0.75, lean: { qs: [0xee, 0xff] } },
  Q2_0: { mean: 1.5, lean: { qs: [0xaa, 0xff] } },
  NVFP4: { mean: 2, lean: { qs: [0, 0x77] } },
  // Signs of zero; large entries of IQ1, whose last values are positive, and positive deltas.
  IQ2_XXS: { mean: 30, lean: { qs: [0, [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0xf0]] } },
  IQ2_XS: { mean: 30, lean: { qs: [0, [0xff, 0x01]] } },
  IQ2_S: { mean: 30, lean: { signs: [0, 0] } },
  IQ3_XXS: { mean: 80, lean: { scales_signs: [0, [0, 0, 0, 0xf0]] } },
  IQ3_S: { mean: 90, lean: { signs: [0, 0] } },
  IQ1_S: {
    mean: 5,
    lean: {
      qh: [
        [0xff, 0x0f],
        [0xff, 0x7f],
      ],
    },
  },
  IQ1_M: { mean: 5, lean: { qh: [0x77, 0x77] } },
};

/** Random numbers: of 32 bits, and from 0 to 1 (xorshift32). @param {number} seed */
export function generator(seed) {
  let state = seed;
  const bits = () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  return { bits, unit: () => bits() / 2 ** 32 };
}

/** @typedef {ReturnType<typeof generator>} Generator */

/** The bits of the f16 number next to a positive one, up to 2^15. @param {number} value */
function f16Bits(value) {
  const exponent = Math.max(-14, Math.floor(Math.log2(value)));
  // A carry out of the mantissa raises the exponent, as it must.
  return (exponent + 14) * 1024 + Math.round(value * 2 ** (10 - exponent));
}

/** @param {Bits} bits @param {number} i */
const bitsOf = (bits, i) => (typeof bits === 'number' ? bits : bits[i % bits.length]);

/**
 * Blocks of random codes. Values are positive for the most part, with a mean of about `mean`.
 * @param {string} type
 * @param {number} nBytes
 * @param {number} mean
 * @param {Generator} random
 */
function randomBlocks(type, nBytes, mean, random) {
  const bytes = new Uint8Array(nBytes);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < nBytes; i += 2) view.setUint16(i, random.bits() >>> 8, true);
  const { mean: ofCodes, lean = {} } = CODES[type];
  const { fields } = WGSL_TYPES[type];
  const size = fields.reduce((sum, [, n]) => sum + n, 0);
  for (let block = 0; block < nBytes; block += size) {
    let at = block;
    for (const [field, n] of fields) {
      const [set, kept] = lean[field] ?? [0, 0xff];
      // One byte of eight stays as it is: negative values have a part as well.
      for (let i = 0; i < n; i++)
        if (i % 8 !== 7) bytes[at + i] = (bytes[at + i] | bitsOf(set, i)) & bitsOf(kept, i);
      const scale = (mean / ofCodes) * (0.75 + random.unit() / 2);
      if (field === 'e') bytes[at] = 127 + Math.round(Math.log2(scale));
      else if (type === 'NVFP4' && field === 'scales') {
        // A number of 4 bits of exponent and 3 of mantissa, without a sign.
        for (let i = 0; i < n; i++) bytes[at + i] = f16Bits((scale * (1 + (i % 2))) / 128 / 1.5) >> 7;
      } else if (type === 'IQ1_M' && field === 'scales') {
        // The upper nibbles of four integers.
        const d = f16Bits(scale);
        for (let i = 0; i < 4; i++)
          bytes[at + 2 * i + 1] = (bytes[at + 2 * i + 1] & 15) | (((d >> (4 * i)) & 15) << 4);
      } else if (field === 'd') {
        if (type === 'Q8_K') view.setFloat32(at, scale, true);
        else view.setUint16(at, f16Bits(scale), true);
        // The other half is a minimum, or a part of the scales.
        if (n === 4 && !['Q8_K', 'IQ4_XS'].includes(type))
          view.setUint16(at + 2, f16Bits(scale / (2 + 2 * random.unit())), true);
      }
      at += n;
    }
  }
  return bytes;
}

/**
 * @param {string} type  a float type
 * @param {number} n
 * @param {number} mean
 * @param {Generator} random
 */
function randomFloats(type, n, mean, random) {
  const bytes = new Uint8Array(n * servedType(type).blockBytes);
  const view = new DataView(bytes.buffer);
  const word = new DataView(new ArrayBuffer(4));
  for (let i = 0; i < n; i++) {
    const value = mean * 2 * random.unit() * (i % 8 === 7 ? -1 : 1);
    if (type === 'F32') view.setFloat32(4 * i, value, true);
    else if (type === 'F16')
      view.setUint16(2 * i, f16Bits(Math.abs(value) + 2 ** -24) | (value < 0 ? 0x8000 : 0), true);
    else {
      word.setFloat32(0, value);
      view.setUint16(2 * i, word.getUint16(0), true);
    }
  }
  return bytes;
}

/**
 * A random matrix.
 * @param {Kernels} fm  decodes it
 * @param {{ type: string, nRows: number, nCols: number, mean: number }} shape
 * @param {Generator} random
 * @returns {Matrix}
 */
export function makeMatrix(fm, { type, nRows, nCols, mean }, random) {
  const row = servedType(type);
  const n = Math.min(DISTINCT, nRows);
  const base =
    row.blockValues === 1
      ? randomFloats(type, n * nCols, mean, random)
      : randomBlocks(type, weightBytes(row, n, nCols), mean, random);
  const rowBytes = base.length / n;
  const data = new Uint8Array(nRows * rowBytes);
  for (let r = 0; r < nRows; r += n)
    data.set(base.subarray(0, Math.min(n, nRows - r) * rowBytes), r * rowBytes);
  const weight = fm.weight({ type, nRows: n, nCols, data: base });
  const values = fm.dequantize(weight);
  weight.free();
  const norms = new Float64Array(n);
  let largest = 0;
  for (let r = 0; r < n; r++) {
    let sum = 0;
    for (let i = r * nCols; i < (r + 1) * nCols; i++) {
      sum += values[i] ** 2;
      largest = Math.max(largest, Math.abs(values[i]));
    }
    norms[r] = Math.sqrt(sum);
  }
  return { type, nRows, nCols, data, norm: (r) => norms[r % n], largest };
}

/** Numbers around `mean`. @param {number} n @param {number} mean @param {Generator} random */
export const makeVector = (n, mean, random) =>
  Float32Array.from({ length: n }, () => mean * (0.75 + random.unit() / 2));

/** Numbers for a layer norm: of the sign that makeStates() has there, minus a mean. @param {Float32Array} gain */
export const alternating = (gain) => gain.map((value, c) => (c % 2 === 0 ? value : -value));

/** Factors of the tokens, in turn: one overflows f16, one has squares smaller than eps. */
const SIZES = [1e5, 1, 1, 1e-6];

/**
 * Hidden states. Most values of a token have the same sign, tokens do not. In one of four tokens
 * some columns are far larger than the others. What no norm makes alike has values of one size. Before
 * a layer norm columns differ, so that values minus their mean have the sign of alternating().
 * @param {number} nRows
 * @param {number} nCols
 * @param {Generator} random
 * @param {import('../llama/plan.js').Norm['kind'] | undefined} norm  that follows
 */
export function makeStates(nRows, nCols, random, norm) {
  const states = new Float32Array(nRows * nCols);
  for (let r = 0; r < nRows; r++) {
    const kind = norm ? r % SIZES.length : 1;
    const sign = r % 3 === 1 ? -1 : 1;
    for (let c = 0; c < nCols; c++) {
      const outlier = kind === 2 && c % 32 === 5 ? 1000 : 1;
      const against = c % 7 === 3 && random.unit() < 0.5 ? -1 : 1;
      const smaller = norm === 'layer' && c % 2 === 1 ? 0.1 : 1;
      states[r * nCols + c] = SIZES[kind] * outlier * smaller * sign * against * (0.2 + 1.8 * random.unit());
    }
  }
  return states;
}
