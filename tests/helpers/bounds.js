/**
 * Error bounds of a product, per output, relative to its float64 reference. They are derived for
 * any order of summation; none is measured or tuned.
 *
 * u = 2^-24 is the unit roundoff of f32. The *mass* of a weight is the sum of the magnitudes of the
 * terms of its formula when codes stay unsigned: |d*sc|*q + |dmin*m| for Q4_K, |d*sc|*(q + 32) for
 * Q6_K, whose 32 may be applied separately, and so on (reference.js). A kernel rounds these terms,
 * or sums of them, so the errors are proportional to the mass and not to the weight, which may be
 * small by cancellation.
 *
 * f32: y is a sum of n_cols products whose factors took at most 8 roundings (d*sc, *q, -min, *x,
 * and the factored forms' sum(x)*min). Adding n terms in any order has an error of at most (n - 1)
 * u times the sum of their magnitudes, hence
 *
 *   |got - ref| <= (n_cols + 8) u sum_c |x_c| mass_c.
 *
 * int16, int8: per group of columns the activations become round(x / d), d = max|x| / largest,
 * largest = 32767 or 127. A group has 256 columns, or 32 for int8 and weights in blocks of fewer than
 * 256 values (scaleCols). With every step of that in f32, the code is within 1/2 of
 * x / d * (1 + 3u), and d is off by at most a factor 1 + u, so that
 *
 *   |d code - x| <= d/2 (1 + u) + 4 u |x|.
 *
 * The first part makes the quantisation error, sum over groups of d/2 * sum_c |w_c|. Integer sums
 * are exact. They cover at least 16 columns (the smallest sub-block) before they are converted to
 * f32, with two terms (codes, offsets) each, every term with at most 8 roundings: a depth of
 * n_cols / 8 + 16, on masses of the quantised activations |x| + d/2:
 *
 *   |got - ref| <= sum_g d_g/2 sum_c |w_c| + (n_cols / 8 + 16) u sum_c (|x_c| + d/2) mass_c.
 *
 * Groups of 32: d, and its product with the sum of a group's codes, which minimums are multiplied
 * with, are rounded to 11 bits. Each is off by at most a factor 1 + v, v = 2^-11, which adds
 *
 *   v sum_c (|x_c| + d/2) mass_c.
 *
 * Underflow: if a result is below the normal numbers, a rounding has an error of up to 2^-150
 * instead.
 *
 * - f32: at most four such roundings per product, which later factors (codes and 6-bit scales,
 *   together under 2^14, and x) can enlarge: n_cols * 2^14 * 2^-150 * (1 + 3 max|x|).
 * - Integer: d itself, times the codes: largest * 2^-150 * sum mass. The product of d and a
 *   weight's scale, twice, times the integer sums, which are at most largest * sum mass / the
 *   smallest scale; and the products with those, twice per 16 columns.
 */
import { dequantizeF32, dequantizeF64, scaleOf } from './reference.js';

/** @import { ReferenceType } from './reference.js' */

const u = 2 ** -24;
const v = 2 ** -11;
/** The largest code of each activation mode (fm_activation); 0 means that activations stay f32. */
export const LARGEST_CODE = [0, 32767, 127];
export const ACTIVATION_NAMES = /** @type {const} */ (['f32', 'int16', 'int8']);

/**
 * Columns that share a scale of activations.
 * @param {ReferenceType} type @param {number} activation  fm_activation the kernel gets
 */
export const scaleCols = ({ blockValues }, activation) =>
  LARGEST_CODE[activation] === 127 && blockValues < 256 ? 32 : 256;

/** @typedef {{ n: number, abs: Float64Array, mass: Float64Array }} Groups  n: in a row */

/** The float64 values of a weight, and the sums per group of columns that the bounds need. */
export class ReferenceWeight {
  /** @type {Float32Array | undefined} */
  #exactF32;
  /** By their columns. @type {Map<number, Groups>} */
  #groups = new Map();

  /**
   * @param {ReferenceType} type @param {Uint8Array} bytes @param {number} nRows
   * @param {number} nCols
   */
  constructor(type, bytes, nRows, nCols) {
    const { values, masses } = dequantizeF64(type, bytes);
    if (values.length !== nRows * nCols)
      throw new RangeError(`${values.length} values, not ${nRows} x ${nCols}`);
    this.type = type;
    this.bytes = bytes;
    this.nRows = nRows;
    this.nCols = nCols;
    this.values = values;
    this.masses = masses;
    this.smallestScale = this.#findSmallestScale();
  }

  /** The values in ggml's f32 arithmetic, bit for bit. */
  get exactF32() {
    this.#exactF32 ??= dequantizeF32(this.type, this.bytes);
    return this.#exactF32;
  }

  /** The least magnitude of a scale, zero excluded. */
  #findSmallestScale() {
    const { type, bytes } = this;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let smallest = 1;
    for (let at = 0; at < bytes.length; at += type.blockBytes) {
      for (const field of type.fields) {
        const scale = Math.abs(scaleOf(view, at, field) ?? 1);
        if (scale > 0 && scale < smallest) smallest = scale;
      }
    }
    return smallest;
  }

  /** The sums of |values| and of masses of each group. @param {number} cols  of a group */
  groups(cols) {
    const known = this.#groups.get(cols);
    if (known) return known;
    const n = Math.ceil(this.nCols / cols);
    const made = {
      n,
      abs: this.#groupSums(this.values, n, cols),
      mass: this.#groupSums(this.masses, n, cols),
    };
    this.#groups.set(cols, made);
    return made;
  }

  /** @param {Float64Array} list @param {number} n @param {number} cols */
  #groupSums(list, n, cols) {
    const sums = new Float64Array(this.nRows * n);
    for (let r = 0; r < this.nRows; r++) {
      for (let c = 0; c < this.nCols; c++)
        sums[r * n + Math.floor(c / cols)] += Math.abs(list[r * this.nCols + c]);
    }
    return sums;
  }
}

/** Y = X * W^T in float64, with its bounds. */
export class ReferenceProduct {
  /** max|x|, by the columns of a group. @type {Map<number, Float64Array>} */
  #maxima = new Map();

  /** @param {ReferenceWeight} w @param {Float32Array} x @param {number} nTokens */
  constructor(w, x, nTokens) {
    if (x.length !== nTokens * w.nCols)
      throw new RangeError(`${x.length} activations, not ${nTokens} x ${w.nCols}`);
    this.w = w;
    this.x = x;
    this.nTokens = nTokens;
    this.y = new Float64Array(nTokens * w.nRows);
    /** sum_c |x_c| mass_c per output */
    this.mass = new Float64Array(nTokens * w.nRows);
    const { nRows, nCols } = w;
    for (let t = 0; t < nTokens; t++) {
      const row = x.subarray(t * nCols, (t + 1) * nCols);
      for (let r = 0; r < nRows; r++) {
        let sum = 0;
        let mass = 0;
        for (let c = 0, i = r * nCols; c < nCols; c++, i++) {
          sum += row[c] * w.values[i];
          mass += Math.abs(row[c]) * w.masses[i];
        }
        this.y[t * nRows + r] = sum;
        this.mass[t * nRows + r] = mass;
      }
    }
  }

  /** max|x| of each token and group. @param {number} cols  of a group */
  #groupMax(cols) {
    const known = this.#maxima.get(cols);
    if (known) return known;
    const { nCols } = this.w;
    const n = Math.ceil(nCols / cols);
    const made = new Float64Array(this.nTokens * n);
    for (let i = 0; i < this.x.length; i++) {
      const g = Math.floor(i / nCols) * n + Math.floor((i % nCols) / cols);
      made[g] = Math.max(made[g], Math.abs(this.x[i]));
    }
    this.#maxima.set(cols, made);
    return made;
  }

  /**
   * @param {number} t @param {number} r @param {number} activation  fm_activation the kernel gets
   * @param {boolean} [lossless]  the activations are exact in that mode: no quantisation error is
   *   allowed
   * @returns {number}
   */
  bound(t, r, activation, lossless = false) {
    const { nRows, nCols, type } = this.w;
    const mass = this.mass[t * nRows + r];
    const largest = LARGEST_CODE[activation];
    const cols = scaleCols(type, activation);
    const groups = this.w.groups(cols);
    const maxima = this.#groupMax(cols);
    if (largest === 0) {
      let most = 0;
      for (let g = 0; g < groups.n; g++) most = Math.max(most, maxima[t * groups.n + g]);
      return (nCols + 8) * u * mass + nCols * 2 ** -136 * (1 + 3 * most);
    }
    let quantisation = 0;
    let roundedMass = mass;
    let underflow = (nCols / 8) * 2 ** -150;
    for (let g = 0; g < groups.n; g++) {
      const half = maxima[t * groups.n + g] / largest / 2;
      const groupMass = groups.mass[r * groups.n + g];
      quantisation += half * groups.abs[r * groups.n + g];
      roundedMass += half * groupMass;
      underflow += largest * 2 ** -150 * groupMass * (1 + 2 / this.w.smallestScale);
    }
    // Where quantising loses nothing d is exact, but not its product with a sum of codes.
    const hasMins = type.fields.some(({ name }) => name === 'm');
    const roundings = (nCols / 8 + 16) * u + (cols === 32 && (hasMins || !lossless) ? v : 0);
    return (lossless ? 0 : quantisation * (1 + u)) + roundings * roundedMass + underflow;
  }

  /**
   * Throws if an output of `got` [nTokens][nRows], which may hold only the first rows and tokens,
   * is out of bounds.
   * @param {Float32Array} got
   * @param {{ nTokens?: number, nRows?: number, activation: number, lossless?: boolean,
   *   what: string }} how
   * @returns {number} the largest error, as a fraction of its bound
   */
  check(got, { nTokens = this.nTokens, nRows = this.w.nRows, activation, lossless, what }) {
    if (got.length !== nTokens * nRows)
      throw new Error(`${what}: ${got.length} outputs, not ${nTokens} x ${nRows}`);
    let worst = 0;
    for (let t = 0; t < nTokens; t++) {
      for (let r = 0; r < nRows; r++) {
        const value = got[t * nRows + r];
        const expected = this.y[t * this.w.nRows + r];
        const bound = this.bound(t, r, activation, lossless);
        const error = Math.abs(value - expected);
        if (!(error <= bound)) {
          throw new Error(
            `${what}: y[${t}][${r}] is ${value}, float64 gives ${expected}: error ${error}, bound ${bound}`,
          );
        }
        if (error > 0) worst = Math.max(worst, error / bound);
      }
    }
    return worst;
  }

  /** @param {ArrayLike<number>} got  all outputs @returns {number} ||got - ref|| / ||ref|| */
  normError(got) {
    return normError(got, this.y);
  }
}

/**
 * @param {ArrayLike<number>} got @param {ArrayLike<number>} expected
 * @returns {number} ||got - ref|| / ||ref||
 */
export function normError(got, expected) {
  let difference = 0;
  let size = 0;
  for (let i = 0; i < expected.length; i++) {
    difference += (got[i] - expected[i]) ** 2;
    size += expected[i] ** 2;
  }
  return difference === 0 ? 0 : Math.sqrt(difference / size);
}
