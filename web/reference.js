/**
 * The float64 reference a multiply is checked against, and how far from it a result may be.
 * W [nRows][nCols], X [nTokens][nCols], Y [nTokens][nRows]
 */

/** Columns that share one activation scale. */
const blockCols = 256;

/** Half a step of the quantised activation, as a part of the block's largest value; 2 % for the rounding of the scale itself. */
const halfStep = { f32: 0, int16: 0.51 / 32767, int8: 0.51 / 127 };

/** What each activation mode promises norm-wise on activations without structure, which is what this page multiplies by. */
export const normBound = { f32: 1e-5, int16: 1e-4, int8: 2e-2 };

/**
 * Normal-distributed activations, the same for the same seed.
 * @param {number} length
 * @param {number} seed
 */
export function randomActivations(length, seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const x = new Float32Array(length);
  for (let i = 0; i < length; i++)
    x[i] = Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return x;
}

/**
 * Compares some rows of a result with sums in float64. Two tests: the norm of the error against `normBound`, and each
 * output against its own bound: half a quantisation step of each block times sum|w| over it, plus the f32 rounding of a
 * sum of nCols products.
 */
export class Comparison {
  /**
   * @param {Float32Array} x  nTokens * nCols activations
   * @param {number} nCols
   * @param {'f32' | 'int16' | 'int8'} activation  what the kernel turned x into
   */
  constructor(x, nCols, activation) {
    this.x = x;
    this.nCols = nCols;
    this.nTokens = x.length / nCols;
    this.activation = activation;
    this.nBlocks = Math.ceil(nCols / blockCols);
    this.errorSquares = 0;
    this.referenceSquares = 0;
    this.worst = 0;
    this.largest = 0;
    this.outputs = 0;
    this.steps = new Float64Array(this.nTokens * this.nBlocks);
    for (let t = 0; t < this.nTokens; t++) {
      for (let c = 0; c < nCols; c++) {
        const at = t * this.nBlocks + Math.floor(c / blockCols);
        this.steps[at] = Math.max(this.steps[at], Math.abs(x[t * nCols + c]) * halfStep[activation]);
      }
    }
  }

  /**
   * @param {Float32Array} row  nCols dequantised weights of one row
   * @param {(token: number) => number} output  the result to judge for this row
   */
  addRow(row, output) {
    const { x, nCols, nTokens, nBlocks, steps } = this;
    const blockWeights = new Float64Array(nBlocks);
    for (let c = 0; c < nCols; c++) blockWeights[Math.floor(c / blockCols)] += Math.abs(row[c]);
    for (let t = 0; t < nTokens; t++) {
      let reference = 0;
      let magnitude = 0;
      for (let c = 0, at = t * nCols; c < nCols; c++, at++) {
        const product = x[at] * row[c];
        reference += product;
        magnitude += Math.abs(product);
      }
      let bound = (nCols + 8) * 2 ** -24 * magnitude + Number.MIN_VALUE;
      for (let b = 0; b < nBlocks; b++) bound += steps[t * nBlocks + b] * blockWeights[b];
      const error = Math.abs(output(t) - reference);
      this.errorSquares += error * error;
      this.referenceSquares += reference * reference;
      // NaN must count as wrong, and Math.max would keep it only by accident.
      this.worst = Number.isNaN(error) ? Infinity : Math.max(this.worst, error / bound);
      this.largest = Number.isNaN(error) ? Infinity : Math.max(this.largest, error);
      this.outputs++;
    }
  }

  /**
   * error and bound are norm-wise and relative; worst is the largest error as a part of its output's own bound; largest
   * is it relative to the root mean square of the outputs.
   */
  summary() {
    const error = this.errorSquares === 0 ? 0 : Math.sqrt(this.errorSquares / this.referenceSquares);
    const bound = normBound[this.activation];
    return {
      error,
      bound,
      worst: this.worst,
      largest: this.largest === 0 ? 0 : this.largest / Math.sqrt(this.referenceSquares / this.outputs),
      outputs: this.outputs,
      pass: error <= bound && this.worst <= 1,
    };
  }
}
