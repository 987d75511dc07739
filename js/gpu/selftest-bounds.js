/* How far the results of two backends may be apart when both compute in f32.
 *
 * u = 2^-24. A sum of n products, in any order, errs by (n + 8) u of the sum of their magnitudes (tests/helpers/bounds.js), which is at
 * most |w| |x|, the Euclidean norms of the row and of the input. A decoded value, or the share of a minimum that is summed apart for
 * some 32 columns, errs by 40 u of its terms; those are at most 4 times the largest value of the matrix, since no type's offset is
 * larger than its range and codes of both ends occur. So, for one backend,
 *
 *   error(w x) <= ((n + 8) |w| + 160 sqrt(n) largest) u |x|.
 *
 * A norm errs by (n / 2 + 13) u of each value. Two backends are apart by twice that. An error e of the input of a product becomes
 * |w| e. A whole block is a chain of these steps; errors of values are carried as the norm of a head, or of a token's row. */

/** @typedef {import('./selftest-data.js').Matrix} Matrix */
/** @typedef {import('../wasm/kv-cache.js').KvType} KvType */
/** @typedef {import('../llama/plan.js').AttentionSettings} AttentionSettings */
/** @typedef {import('../llama/plan.js').FeedSettings} FeedSettings */

const u = 2 ** -24;

/** Largest derivative of silu and gelu. */
const SLOPE = 1.13;

/** A vector: its norm, how far two of it may be apart, and its largest magnitude. @typedef {{ size: number, error: number, peak: number }} Bounded */

/** @param {Matrix} w @param {number} r  two backends' error in row r for an input of norm 1 */
const rowError = (w, r) => 2 * u * ((w.nCols + 8) * w.norm(r) + 160 * Math.sqrt(w.nCols) * w.largest);

/** The same with a norm in front. @param {Matrix} w @param {number} r */
const normedError = (w, r) => rowError(w, r) + 2 * u * (w.nCols / 2 + 13) * w.norm(r);

/** The Euclidean norm. @param {Float32Array | Float64Array} values */
export function normOf(values) {
  let sum = 0;
  for (const value of values) sum += value * value;
  return Math.sqrt(sum);
}

/** The norm of rms(x) * gain. @param {Float32Array} x @param {Float32Array} gain @param {number} eps */
export function normedSize(x, gain, eps) {
  let squares = 0;
  let gained = 0;
  for (let i = 0; i < x.length; i++) {
    squares += x[i] ** 2;
    gained += (x[i] * gain[i]) ** 2;
  }
  return Math.sqrt(gained / (squares / x.length + eps));
}

/**
 * The rows of a product, by what is multiplied with it: norm and error for an input of norm 1.
 * @param {Matrix} w
 * @param {(w: Matrix, r: number) => number} errorOf
 */
function rowsOf(w, errorOf) {
  const sizes = Float64Array.from({ length: w.nRows }, (_, r) => w.norm(r));
  return { sizes, errors: sizes.map((_, r) => errorOf(w, r)) };
}

/** The largest head of a product of norm(x), for an input of norm 1. @param {Matrix} w @param {number} headSize @returns {Bounded} */
function headOf(w, headSize) {
  const { sizes, errors } = rowsOf(w, normedError);
  const most = { size: 0, error: 0, peak: 0 };
  for (let h = 0; h < w.nRows; h += headSize) {
    most.size = Math.max(most.size, normOf(sizes.subarray(h, h + headSize)));
    most.error = Math.max(most.error, normOf(errors.subarray(h, h + headSize)));
  }
  return { ...most, peak: sizes.reduce((peak, size) => Math.max(peak, size), 0) };
}

/**
 * What is added to x, for each row of the token.
 * @typedef {{ errors: Float64Array }} Added
 */

/**
 * @param {{ gate: Matrix, up: Matrix, down: Matrix }} weights
 * @returns {(normed: number) => Float64Array}  errors of a feed-forward block's result, by the norm of its input
 */
export function feedErrors({ gate, up, down }) {
  const [g, v] = [rowsOf(gate, normedError), rowsOf(up, normedError)];
  let sizes = 0;
  let errors = 0;
  for (let f = 0; f < gate.nRows; f++) {
    // |act(a)| <= |a|; exp errs by a few units, more where its result matters less.
    const size = g.sizes[f] * v.sizes[f];
    sizes += size ** 2;
    errors += (SLOPE * g.errors[f] * v.sizes[f] + g.sizes[f] * v.errors[f] + 32 * u * size) ** 2;
  }
  const [size, error] = [Math.sqrt(sizes), Math.sqrt(errors)];
  const d = rowsOf(down, rowError);
  return (normed) => d.sizes.map((norm, r) => normed ** 2 * (norm * error + d.errors[r] * size));
}

/** @param {Matrix} w @returns {(normed: number) => Float64Array}  errors of the product with norm(x) */
export function headErrors(w) {
  const { errors } = rowsOf(w, normedError);
  return (normed) => errors.map((error) => normed * error);
}

/** Errors of decoded rows. @param {Matrix} w @param {number} scale */
export const embedError = ({ largest }, scale) => 2 * 12 * u * 4 * largest * Math.abs(scale);

/** What storing a head in a cache adds to the distance of two. @param {KvType} type @param {Bounded} head @param {number} headSize */
function storeError(type, { size, peak }, headSize) {
  if (type === 'F32') return 0;
  // Each may take either neighbour.
  if (type === 'F16') return 2 ** -10 * size + 2 ** -24 * Math.sqrt(headSize);
  return (Math.sqrt(headSize) * peak) / 127 + 2 ** -10 * size;
}

/**
 * Bounds of an attention block. Tokens are given in the order of their positions.
 * @param {AttentionSettings} settings
 * @param {{ q: Matrix, k: Matrix, v: Matrix, output: Matrix }} weights
 * @param {Record<string, Float32Array | undefined>} vectors
 * @param {KvType} kvType
 */
export function attentionErrors(settings, weights, vectors, kvType) {
  const { headSize, nHeads, scale, softcap, qkNorm, rope } = settings;
  const [ofQ, ofK, ofV] = [weights.q, weights.k, weights.v].map((w) => headOf(w, headSize));
  const output = rowsOf(weights.output, rowError);
  const bias = (/** @type {string} */ name) =>
    vectors[name]?.reduce((most, v) => Math.max(most, Math.abs(v)), 0) ?? 0;
  /** A head of a token. @param {Bounded} of @param {number} normed @param {string} name @returns {Bounded} */
  const made = (of, normed, name) => {
    const most = bias(name);
    const size = of.size * normed + Math.sqrt(headSize) * most;
    return { size, error: of.error * normed + 2 * u * size, peak: of.peak * normed + most };
  };
  /** After its norm and rotation. @param {Bounded} head @param {number} position @param {number} least  norm of a head that was computed @param {string} gain */
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
    // The angle of a table in float64, or in f32.
    return {
      size: head.size,
      error: head.error + (8 + 2 * position) * u * head.size,
      peak: Math.SQRT2 * head.peak,
    };
  };
  /** Of all positions so far. */
  const seen = { k: { size: 0, error: 0 }, v: { size: 0, error: 0 } };
  const raise = (/** @type {{ size: number, error: number }} */ most, /** @type {Bounded} */ head) => {
    most.size = Math.max(most.size, head.size);
    most.error = Math.max(most.error, head.error + storeError(kvType, head, headSize));
  };
  return {
    /** Keys and values of a token. @param {number} normed @param {number} position @param {number} least */
    store(normed, position, least) {
      raise(seen.k, turned(made(ofK, normed, 'kBias'), position, least, 'kNorm'));
      raise(seen.v, made(ofV, normed, 'vBias'));
    },
    /** Errors of the result of a token. @param {number} normed @param {number} position @param {number} least @param {number} nSeen @returns {Float64Array} */
    attend(normed, position, least, nSeen) {
      const q = turned(made(ofQ, normed, 'qBias'), position, least, 'qNorm');
      const { k, v } = seen;
      const largest = scale * q.size * k.size;
      const score =
        scale * (q.error * k.size + q.size * k.error) + 2 * (headSize + 8) * u * largest + 16 * u * softcap;
      // A weight is off by the error of its score and of the largest one, by that of exp, and by that of their sum.
      const relative = Math.expm1(2 * score) + (24 + 16 * largest + 2 * nSeen) * u;
      const size = Math.sqrt(nHeads) * v.size;
      const error = Math.sqrt(nHeads) * (relative * v.size + v.error);
      const most = bias('outputBias');
      return output.sizes.map((norm, r) => norm * error + output.errors[r] * size + 2 * u * most);
    },
  };
}

/**
 * Errors after the norm of what a block adds.
 * @param {Float64Array} errors  before it
 * @param {Float32Array} added  before it
 * @param {Float32Array} gain
 * @param {number} eps
 */
export function postNormErrors(errors, added, gain, eps) {
  const rms = Math.sqrt(normOf(added) ** 2 / added.length + eps);
  const relative = normOf(errors) / (rms * Math.sqrt(added.length)) + 2 * u * (added.length / 2 + 13);
  return errors.map(
    (error, r) => (Math.abs(gain[r]) / rms) * (error + (Math.abs(added[r]) + error) * 1.05 * relative),
  );
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
