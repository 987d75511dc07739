/** Rows of float64 numbers, and products with them, for the reference backend. */

export class Freeable {
  freed = false;

  free() {
    if (this.freed) throw new Error('freed twice');
    this.freed = true;
  }
}

/** Rows of float64 numbers: a tensor, a weight, hidden states. */
export class Matrix extends Freeable {
  /** @param {number} nRows @param {number} nCols @param {Float64Array} [values] */
  constructor(nRows, nCols, values = new Float64Array(nRows * nCols)) {
    super();
    this.nRows = nRows;
    this.nCols = nCols;
    this.values = values;
  }

  /** One row, for reading and writing. @param {number} i */
  row(i) {
    if (this.freed) throw new Error('used after free');
    return this.values.subarray(i * this.nCols, (i + 1) * this.nCols);
  }
}

/**
 * factor * w * x.
 * @param {Matrix} w @param {Float64Array} x @param {Matrix} [factor]  a number of the file
 */
export function multiply(w, x, factor) {
  const y = new Float64Array(w.nRows);
  for (let r = 0; r < w.nRows; r++) {
    const row = w.row(r);
    for (let c = 0; c < row.length; c++) y[r] += row[c] * x[c];
  }
  return factor ? y.map((value) => factor.values[0] * value) : y;
}

/** @param {Float64Array} x @param {Matrix | undefined} bias */
export const plus = (x, bias) => (bias ? x.map((value, i) => value + bias.values[i]) : x);

/** An RMS norm. @param {Float64Array} x @param {number} eps @param {Matrix} weight */
export function rms(x, eps, weight) {
  const square = x.reduce((sum, value) => sum + value ** 2, 0) / x.length;
  return x.map((value, i) => (value / Math.sqrt(square + eps)) * weight.values[i]);
}

/** Largest gate, and size of the other factor, of 'clamped'. */
export const CLAMP = 7;
export const ACTIVATIONS = {
  silu: (/** @type {number} */ x) => x / (1 + Math.exp(-x)),
  gelu: (/** @type {number} */ x) =>
    0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  relu: (/** @type {number} */ x) => Math.max(x, 0),
  relu2: (/** @type {number} */ x) => Math.max(x, 0) ** 2,
  clamped: (/** @type {number} */ x) => {
    const least = Math.min(x, CLAMP);
    return least / (1 + Math.exp(-1.702 * least));
  },
};
