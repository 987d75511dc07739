/** Activations for tests: x [nTokens][nCols], f32. */

/** @import { Prng } from './prng.js' */

/** Columns that share a scale in the integer activation modes: int8 of some types; all others. */
const [SMALL_COLS, GROUP_COLS] = [32, 256];

/**
 * Makes integers up to `largest`, which occurs in every 32 columns of a token at least once, times a
 * power of two per group. Quantising them in an integer mode with that largest code loses nothing.
 * @param {number} largest @param {number} groupCols
 * @returns {(nTokens: number, nCols: number, prng: Prng) => Float32Array}
 */
const exactIntegers = (largest, groupCols) => (nTokens, nCols, prng) => {
  const x = new Float32Array(nTokens * nCols);
  for (let t = 0; t < nTokens; t++) {
    let scale = 1;
    for (let first = 0; first < nCols; first += SMALL_COLS) {
      const n = Math.min(SMALL_COLS, nCols - first);
      if (first % groupCols === 0) scale = 2 ** prng.int(-4, 4);
      const peak = prng.int(0, n - 1);
      for (let i = 0; i < n; i++) {
        const code = i === peak ? prng.pick([-largest, largest]) : prng.int(-largest, largest);
        x[t * nCols + first + i] = code * scale;
      }
    }
  }
  return x;
};

/**
 * As Float32Array.from() does, which is slow for values by the million.
 * @param {number} length @param {(i: number) => number} value
 */
export function floatsOf(length, value) {
  const x = new Float32Array(length);
  for (let i = 0; i < length; i++) x[i] = value(i);
  return x;
}

/** @type {Record<string, (nTokens: number, nCols: number, prng: Prng) => Float32Array>} */
export const activations = {
  gaussian: (nTokens, nCols, prng) => floatsOf(nTokens * nCols, () => prng.gaussian()),
  /**
   * One value in 64 is a hundred times larger than the others, as in the activations of trained
   * transformers.
   */
  outliers: (nTokens, nCols, prng) =>
    floatsOf(nTokens * nCols, () => prng.gaussian() * (prng.int(0, 63) ? 1 : 100)),
  zeros: (nTokens, nCols, prng) => floatsOf(nTokens * nCols, () => prng.pick([0, -0])),
  /** Some groups are all zeros, next to groups of values. */
  gaps: (nTokens, nCols, prng) => {
    const x = activations.gaussian(nTokens, nCols, prng);
    for (let first = 0; first < x.length; first += GROUP_COLS) {
      if (prng.int(0, 1)) x.fill(0, first, first + GROUP_COLS);
    }
    return x;
  },
  denormals: (nTokens, nCols, prng) => floatsOf(nTokens * nCols, () => prng.gaussian() * 1e-40),
  /**
   * Values so small that the inverse of their scale is beyond f32; a token for each power of ten.
   */
  tiny: (nTokens, nCols, prng) =>
    floatsOf(nTokens * nCols, (i) => prng.gaussian() * 10 ** (-34 - (Math.floor(i / nCols) % 5))),
  /** The largest activations whose products with natural weights are still finite in f32. */
  huge: (nTokens, nCols, prng) => floatsOf(nTokens * nCols, () => prng.gaussian() * 1e31),
  exactInt8: exactIntegers(127, GROUP_COLS),
  /** Exact only where 32 columns share a scale. */
  exactInt8By32: exactIntegers(127, SMALL_COLS),
  exactInt16: exactIntegers(32767, GROUP_COLS),
};

/**
 * Token rows that drive integer sums to their limits: all values at the largest code of one sign,
 * at that of the other sign, and with the sign of each weight of a few given rows.
 * @param {number} largest @param {number} nCols @param {Float64Array[]} weightRows
 * @returns {{ x: Float32Array, nTokens: number }}
 */
export function extremeActivations(largest, nCols, weightRows) {
  /** @type {((c: number) => number)[]} */
  const tokens = [() => largest, () => -largest];
  for (const row of weightRows) tokens.push((c) => (row[c] < 0 ? -largest : largest));
  const x = new Float32Array(tokens.length * nCols);
  tokens.forEach((value, t) => {
    for (let c = 0; c < nCols; c++) x[t * nCols + c] = value(c);
  });
  return { x, nTokens: tokens.length };
}
