/* How far the results of two backends may be apart when both compute in f32.
 *
 * u = 2^-24. A sum of n products, in any order, errs by (n + 8) u of the sum of their magnitudes
 * (tests/helpers/bounds.js), which is at most |w| |x|, the Euclidean norms of the row and of the
 * input. A decoded value, or the share of a minimum that is summed apart for some 32 columns, errs
 * by 40 u of its terms; those are at most 4 times the largest value of the matrix, since no type's
 * offset is larger than its range and codes of both ends occur. So, for one backend,
 *
 *   error(w x) <= ((n + 8) |w| + 160 sqrt(n) largest) u |x|.
 *
 * A norm errs by (n / 2 + 13) u of each value. A layer norm subtracts a mean first, which errs by
 * (n + 8) u of the mean magnitude: at most twice the standard deviation in the hidden states of the
 * self-test, and gains differ by 5 / 3. So it errs by 15 times as much. Two backends are apart by twice
 * that. An error e of the input of a product becomes |w| e. A whole block is a chain of these steps;
 * errors of values are carried as the norm of a head, or of a token's row. */

import { WGSL_TYPES } from './wgsl/types.js';

/** @typedef {import('./selftest-data.js').Matrix} Matrix */
/** @typedef {import('../wasm/kv-cache.js').KvType} KvType */
/** @typedef {import('../llama/plan.js').AttentionSettings} AttentionSettings */
/** @typedef {import('../llama/plan.js').FeedSettings} FeedSettings */
/** @typedef {import('../llama/plan.js').Norm} Norm */

/** Half a unit in the last place of 1. */
export const u = 2 ** -24;

/** Largest derivative of silu, gelu and relu. */
export const SLOPE = 1.13;

/** @typedef {ReturnType<typeof import('./features.js').precisionOf>} Precision */

/**
 * The errors that a precision of one backend adds, for a row and an input of norm 1.
 *
 * int8: a code is off by at most a half of d = max|x| / 127 of its 32 columns, and max|x| is at
 * most the norm of those, so that the sum of d / 2 |w| is at most sqrt(32) / 254 |w| |x|.
 *
 * f16: a conversion may round either way, by 2^-10 of the value, and flush what is below 2^-14 S,
 * S the scale of the side: 1 for weights, at most |x| for activations. The products err by at most
 * (2^-9 + 2^-20) |x w| + 2^-14 (1 + 2^-10) (S |w| + |x|) + 2^-28 S, and sums of n columns have at
 * most sqrt(n) times the norms.
 * @type {Record<Precision, (w: Matrix, r: number) => number>}
 */
const ADDED = {
  f32: () => 0,
  f16(w, r) {
    const root = Math.sqrt(w.nCols);
    const flushed = 2 ** -14 * (1 + 2 ** -10) * root * (w.norm(r) + 1);
    return (2 ** -9 + 2 ** -20) * w.norm(r) + flushed + 2 ** -28 * w.nCols;
  },
  int8: (w, r) => (Math.sqrt(32) / 254 + 2 ** -20) * (w.norm(r) + 3 * u * w.nCols * w.largest),
};

/**
 * A vector: its norm, how far two of it may be apart, and its largest magnitude.
 * @typedef {{ size: number, error: number, peak: number }} Bounded
 */

/**
 * Two backends' error in row r for an input of norm 1.
 * @param {Matrix} w
 * @param {number} r
 * @param {Precision} precision  of one of them, if w has codes
 */
export const productError = (w, r, precision) =>
  2 * u * ((w.nCols + 8) * w.norm(r) + 160 * Math.sqrt(w.nCols) * w.largest) +
  (WGSL_TYPES[w.type].coded ? ADDED[precision](w, r) : 0);

/** Units that a layer norm errs by, for one of an RMS norm. */
const OF_LAYER_NORM = 15;

/**
 * The same with a norm in front.
 * @param {Matrix} w
 * @param {number} r
 * @param {Precision} precision
 * @param {Norm['kind']} [kind]  of the norm
 */
export const normedError = (w, r, precision, kind = 'rms') =>
  productError(w, r, precision) +
  2 * u * (w.nCols / 2 + 13) * w.norm(r) * (kind === 'layer' ? OF_LAYER_NORM : 1);

/** The Euclidean norm. @param {Float32Array | Float64Array} values */
export function normOf(values) {
  let sum = 0;
  for (const value of values) sum += value * value;
  return Math.sqrt(sum);
}

/** The mean of values, which a layer norm subtracts. @param {Float32Array} x @param {Norm['kind']} kind */
const meanOf = (x, kind) => (kind === 'layer' ? x.reduce((sum, value) => sum + value, 0) / x.length : 0);

/**
 * The norm of rms(x) * gain, or of the parts of a layer norm.
 * @param {Float32Array} x
 * @param {Float32Array} gain
 * @param {number} eps
 * @param {Norm['kind']} [kind]
 * @param {Float32Array} [bias]
 */
export function normedSize(x, gain, eps, kind = 'rms', bias = undefined) {
  const mean = meanOf(x, kind);
  let squares = 0;
  let gained = 0;
  for (let i = 0; i < x.length; i++) {
    squares += (x[i] - mean) ** 2;
    gained += ((x[i] - mean) * gain[i]) ** 2;
  }
  return Math.sqrt(gained / (squares / x.length + eps)) + (bias ? normOf(bias) : 0);
}

/**
 * The rows of a product, by what is multiplied with it: norm and error for an input of norm 1.
 * @param {Matrix} w
 * @param {typeof productError} errorOf
 * @param {Precision} precision
 */
function rowsOf(w, errorOf, precision) {
  const sizes = Float64Array.from({ length: w.nRows }, (_, r) => w.norm(r));
  return { sizes, errors: sizes.map((_, r) => errorOf(w, r, precision)) };
}

/**
 * The same rows, for products with a norm in front or without.
 * @param {Matrix} w
 * @param {Precision} precision
 * @param {boolean} [isNormed]
 */
export const productErrors = (w, precision, isNormed = false) =>
  rowsOf(w, isNormed ? normedError : productError, precision);

/**
 * The largest head of a product of norm(x), for an input of norm 1.
 * @param {Matrix} w
 * @param {number} headSize
 * @param {typeof productError} errorOf
 * @param {Precision} precision
 * @returns {Bounded}
 */
function headOf(w, headSize, errorOf, precision) {
  const { sizes, errors } = rowsOf(w, errorOf, precision);
  const most = { size: 0, error: 0, peak: 0 };
  for (let h = 0; h < w.nRows; h += headSize) {
    most.size = Math.max(most.size, normOf(sizes.subarray(h, h + headSize)));
    most.error = Math.max(most.error, normOf(errors.subarray(h, h + headSize)));
  }
  return { ...most, peak: sizes.reduce((peak, size) => Math.max(peak, size), 0) };
}

/** The errors of products with norm(x). @param {Norm | undefined} norm @returns {typeof productError} */
const errorAfter = (norm) => (w, r, precision) => normedError(w, r, precision, norm?.kind);

/**
 * Errors of a feed-forward block's result, by the norm of its input.
 * @param {Pick<FeedSettings, 'kind' | 'activation' | 'norm'>} settings
 * @param {{ gate?: Matrix | undefined, up: Matrix, down: Matrix }} weights
 * @param {Precision} precision
 * @param {Float32Array} [upBias]
 * @returns {(normed: number) => Float64Array}
 */
export function feedErrors({ kind, activation, norm: ofInput }, { gate, up, down }, precision, upBias) {
  const gated = kind === 'gated' && gate !== undefined;
  const squares = activation === 'relu2';
  const v = rowsOf(up, errorAfter(ofInput), precision);
  const first = gated ? rowsOf(gate, errorAfter(ofInput), precision) : v;
  const d = rowsOf(down, productError, precision);
  return (normed) => {
    let sizes = 0;
    let errors = 0;
    for (let f = 0; f < up.nRows; f++) {
      // |act(a)| <= |a|, or a^2. exp errs by a few units, more where its result matters less.
      const bias = Math.abs(upBias?.[f] ?? 0);
      const [a, ofA] = [first.sizes[f] * normed + bias, first.errors[f] * normed + 2 * u * bias];
      const size = squares ? a * a : a;
      const error = squares ? (2 * a + ofA) * ofA : SLOPE * ofA;
      const [b, ofB] = [v.sizes[f] * normed, v.errors[f] * normed];
      const inner = gated ? size * b : size;
      const ofInner = gated ? error * (b + ofB) + size * ofB : error;
      sizes += inner ** 2;
      errors += (ofInner + 32 * u * inner) ** 2;
    }
    const [size, error] = [Math.sqrt(sizes), Math.sqrt(errors)];
    return d.sizes.map((norm, r) => norm * error + d.errors[r] * (size + error));
  };
}

/**
 * @param {Matrix} w
 * @param {Norm | undefined} norm
 * @returns {(normed: number) => Float64Array} errors of the product with norm(x)
 */
export function headErrors(w, norm) {
  const { errors } = rowsOf(w, errorAfter(norm), 'f32');
  return (normed) => errors.map((error) => normed * error);
}

/** Errors of decoded rows. @param {Matrix} w @param {number} scale */
export const embedError = ({ largest }, scale) => 2 * 12 * u * 4 * largest * Math.abs(scale);

/**
 * The distance that storing a head in a cache adds between two backends.
 * @param {KvType} type
 * @param {Bounded} head
 * @param {number} headSize
 */
function storeError(type, { size, peak }, headSize) {
  if (type === 'F32') return 0;
  // Each may take either neighbour.
  if (type === 'F16') return 2 ** -10 * size + 2 ** -24 * Math.sqrt(headSize);
  return (Math.sqrt(headSize) * peak) / 127 + 2 ** -10 * size;
}

/**
 * A token: the norm of its normalised input, its position, leastHeads() of it, and whether it is
 * one of many.
 * @typedef {{ normed: number, position: number, least: number, many: boolean }} TokenFacts
 */

/**
 * Bounds of an attention block. Tokens are given in the order of their positions.
 * @param {AttentionSettings} settings
 * @param {{ q: Matrix, k: Matrix, v: Matrix, output: Matrix, gate?: Matrix }} weights
 * @param {Record<string, Float32Array | undefined>} vectors
 * @param {KvType} kvType
 * @param {Precision} precision  of products for many tokens
 */
export function attentionErrors(settings, weights, vectors, kvType, precision) {
  const { headSize, nHeads, scale, softcap, qkNorm, rope, temperature } = settings;
  const errorOf = errorAfter(settings.norm);
  // By whether there are many tokens.
  const modes = /** @type {const} */ (['f32', precision]).map((mode) => ({
    heads: [weights.q, weights.k, weights.v].map((w) => headOf(w, headSize, errorOf, mode)),
    output: rowsOf(weights.output, productError, mode),
    gate: weights.gate
      ? rowsOf(weights.gate, errorOf, mode).errors.reduce((a, b) => Math.max(a, b))
      : undefined,
  }));
  const bias = (/** @type {string} */ name) =>
    vectors[name]?.reduce((most, v) => Math.max(most, Math.abs(v)), 0) ?? 0;
  /**
   * A head of a token.
   * @param {Bounded} of
   * @param {number} normed
   * @param {string} name
   * @returns {Bounded}
   */
  const made = (of, normed, name) => {
    const most = bias(name);
    const size = of.size * normed + Math.sqrt(headSize) * most;
    return { size, error: of.error * normed + 2 * u * size, peak: of.peak * normed + most };
  };
  /**
   * After its norm and rotation.
   * @param {Bounded} head
   * @param {number} position
   * @param {number} least norm of a head that was computed
   * @param {string} gain
   */
  const turned = ({ size, error, peak }, position, least, gain) => {
    let head = { size, error, peak };
    if (qkNorm) {
      const g = /** @type {Float32Array} */ (vectors[gain]).reduce((most, v) => Math.max(most, v), 0);
      const by = (g * Math.sqrt(headSize)) / least;
      // A value changes with its own error and with that of the norm.
      const part = qkNorm.span === 'head' ? 1 : size / least;
      const rounded = 2 * u * ((headSize * nHeads) / 2 + 13);
      head = {
        size: by * least * part,
        error: by * (1.05 * (1 + part) * error + rounded * least * part),
        peak: peak * by,
      };
    }
    if (!rope) return head;
    const by = Math.max(1, Math.abs(rope.magnitude));
    // The angle of a table in float64, or in f32.
    const off = head.error + (8 + 2 * position) * u * head.size;
    return { size: by * head.size, error: by * off, peak: by * Math.SQRT2 * head.peak };
  };
  /** Factor of queries. */
  const heat = (/** @type {number} */ position) =>
    temperature ? 1 + temperature.scale * Math.log(1 + Math.floor(position / temperature.length)) : 1;
  /** The largest norms and errors of all positions so far. */
  const seen = { k: { size: 0, error: 0 }, v: { size: 0, error: 0 } };
  const raise = (/** @type {{ size: number, error: number }} */ most, /** @type {Bounded} */ head) => {
    most.size = Math.max(most.size, head.size);
    most.error = Math.max(most.error, head.error + storeError(kvType, head, headSize));
  };
  return {
    /**
     * Keys and values of a token.
     * @param {TokenFacts} token
     */
    store({ normed, position, least, many }) {
      const [, ofK, ofV] = modes[Number(many)].heads;
      raise(seen.k, turned(made(ofK, normed, 'kBias'), position, least, 'kNorm'));
      raise(seen.v, made(ofV, normed, 'vBias'));
    },
    /**
     * Errors of the result of a token.
     * @param {TokenFacts} token
     * @param {number} nSeen  positions in the cache
     */
    attend({ normed, position, least, many }, nSeen) {
      const { heads, output, gate } = modes[Number(many)];
      const q = turned(made(heads[0], normed, 'qBias'), position, least, 'qNorm');
      const { k, v } = seen;
      const by = scale * heat(position);
      const largest = by * q.size * k.size;
      const score =
        by * (q.error * k.size + (q.size + q.error) * k.error) +
        2 * (headSize + 8) * u * largest +
        16 * u * softcap;
      // A weight is off by the error of its score and of the largest one, by that of exp, and by
      // that of their sum.
      const relative = Math.expm1(2 * score) + (24 + 16 * largest + 2 * nSeen) * u;
      const size = Math.sqrt(nHeads) * v.size;
      const ofHeads = Math.sqrt(nHeads) * (relative * v.size + v.error);
      // A sigmoid is at most 1, its derivative at most 1 / 4.
      const error = ofHeads + (gate === undefined ? 0 : (size + ofHeads) * ((gate * normed) / 4 + 32 * u));
      const most = bias('outputBias');
      return output.sizes.map((norm, r) => norm * error + output.errors[r] * (size + error) + 2 * u * most);
    },
  };
}

/**
 * Errors after a norm of values that are off already.
 * @param {Float64Array} errors  before it
 * @param {Float32Array} values  before it
 * @param {Float32Array} gain
 * @param {Norm} norm
 * @param {Float32Array} [bias]
 */
export function normErrors(errors, values, gain, { kind, eps }, bias) {
  const n = values.length;
  const mean = meanOf(values, kind);
  const centred = values.map((value) => value - mean);
  // A mean is off by at most the root mean square of the errors, and by its own roundings.
  const magnitude = values.reduce((sum, value) => sum + Math.abs(value), 0) / n;
  const ofMean = kind === 'layer' ? normOf(errors) / Math.sqrt(n) + 2 * (n + 8) * u * magnitude : 0;
  const all = errors.map((error) => error + ofMean);
  const rms = Math.sqrt(normOf(centred) ** 2 / n + eps);
  const relative = normOf(all) / (rms * Math.sqrt(n)) + 2 * u * (n / 2 + 13);
  return all.map((error, r) => {
    const factor = Math.abs(gain[r]) / rms;
    const size = factor * Math.abs(centred[r]) + Math.abs(bias?.[r] ?? 0);
    return factor * (error + (Math.abs(centred[r]) + error) * 1.05 * relative) + (bias ? 4 * u * size : 0);
  });
}

/**
 * Bound of x + by * added, where both backends have the same x.
 * @param {number} error  of what is added
 * @param {number} before
 * @param {number} after
 * @param {number} by
 */
export const sumError = (error, before, after, by) =>
  Math.abs(by) * error + 4 * u * (Math.abs(after) + Math.abs(after - before)) + 2 ** -140;
