/**
 * Data that the contenders of a case share: a weight, activations, and the float64 product that
 * each must give before it is timed.
 */
import { makeWeights } from '../helpers/blocks.js';
import { normError, ReferenceProduct, ReferenceWeight } from '../helpers/bounds.js';
import { f16ToNumber, numberToF16 } from '../helpers/floats.js';
import { Prng } from '../helpers/prng.js';

/** @import { ReferenceType } from '../helpers/reference.js' */

/**
 * @typedef {{ type: ReferenceType, nRows: number, nCols: number, nTokens: number, cold?: boolean }}
 *   Case
 */
/** @typedef {'f32' | 'int16' | 'int8'} Mode  the type to which activations are converted */

/**
 * Number of rows after which the rows of a weight repeat, so that float64 is quick. All rows are
 * compared.
 */
const PATTERN_ROWS = 16;

/** Largest norm-wise error of a contender. */
const ERROR_BOUNDS = { f32: 1e-5, int16: 1e-4, int8: 2e-2 };

/** @param {Case} made */
export function makeData({ type, nRows, nCols, nTokens }) {
  const prng = new Prng(type.id + 1);
  const patternRows = Math.min(nRows, PATTERN_ROWS);
  const pattern = withFileScales(type, makeWeights(type, 'natural', patternRows, nCols, prng));
  const w = repeated(pattern, (nRows * nCols * type.blockBytes) / type.blockValues);
  const x = Float32Array.from({ length: nTokens * nCols }, () => prng.gaussian());
  const reference = new ReferenceProduct(new ReferenceWeight(type, pattern, patternRows, nCols), x, nTokens)
    .y;
  const expected = Float64Array.from(
    { length: nTokens * nRows },
    (_, i) => reference[Math.floor(i / nRows) * patternRows + ((i % nRows) % patternRows)],
  );
  return { w, x, expected };
}

/**
 * Scales of blocks of 256 as in files whose weights are about 0.02. Many of them are subnormal in
 * f16, which must not be slower.
 * @param {ReferenceType} type @param {Uint8Array} blocks
 */
function withFileScales({ fields, blockValues, blockBytes }, blocks) {
  const view = new DataView(blocks.buffer, blocks.byteOffset, blocks.byteLength);
  const scales = blockValues === 256 ? fields.filter(({ kind }) => kind === 'f16') : [];
  for (const { offset } of scales) {
    for (let at = offset; at < blocks.length; at += blockBytes)
      view.setUint16(at, numberToF16(f16ToNumber(view.getUint16(at, true)) / 128), true);
  }
  return blocks;
}

/** @param {Uint8Array} pattern @param {number} bytes */
export function repeated(pattern, bytes) {
  const all = new Uint8Array(bytes);
  for (let at = 0; at < bytes; at += pattern.length)
    all.set(pattern.subarray(0, Math.min(pattern.length, bytes - at)), at);
  return all;
}

/**
 * Compares every output of a contender with float64.
 * @param {string} name @param {Mode} mode @param {Float32Array} got @param {Float64Array} expected
 * @returns {number} the norm-wise error
 * @throws {Error} if it is over the bound of the mode, or outputs are missing
 */
export function checkResult(name, mode, got, expected) {
  if (got.length !== expected.length)
    throw new Error(`${name}: ${got.length} outputs, ${expected.length} expected`);
  const error = normError(got, expected);
  const bound = ERROR_BOUNDS[mode];
  if (!(error <= bound))
    throw new Error(`${name} is wrong: error ${error} to float64, at most ${bound} is allowed`);
  return error;
}
