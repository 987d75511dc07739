/**
 * The gated delta net in float64, token by token, with the error bounds of f32 arithmetic, and calls
 * of the export on raw memory.
 *
 * Error of a column of the state, its length as the norm. With u = 2^-24, and for token i: s the
 * column before it, r what the token writes to it, v its value, x = a * time the logarithm of its
 * decay, time = softplus(alpha + dtBias).
 *   - The step s -> decay (I - beta k k^T) s has a norm of at most 1, since decay and beta are at most
 *     1 and |k| is: an error, once made, does not grow. What a later token reads of it, neither:
 *     |q| <= 1.
 *   - The decay is off by |a| (|alpha + dtBias| + 9 time) u + 2u, relatively, which changes the column
 *     by that part of |s|.
 *   - Every other rounding is relative to a term of r or of the result. These terms are at most |s0|,
 *     |v| and the |r| of the chunk's tokens so far, where s0 is the column before any of the 32 tokens
 *     that a chunk may have. On the way to a term are at most `steps` roundings: a dot product of
 *     keySize terms, sums over a chunk and over 4 parts, decays multiplied up over a chunk, and 24
 *     for lengths, beta and factors.
 * The error of a result or a state is at most the sum of these local errors over all tokens so far.
 *
 * The gated norm y = o f w silu(z), f = (mean o^2 + eps)^-1/2 turns an error e of o into
 *   |w silu(z)| f (e + |o| sum|o e| / (sum o^2 + n eps)) + 10 u |y|.
 */
import assert from 'node:assert/strict';
import { floatsOf } from './activations.js';

/** @import { Prng } from './prng.js' */
/** @import { RawModule } from './raw.js' */

const U = 2 ** -24;
const TINY = 2 ** -130;
const CHUNK = 32;

/**
 * @typedef {object} DeltaShape
 * @property {number} nTokens
 * @property {number} nKeyHeads
 * @property {number} nValueHeads
 * @property {number} keySize
 * @property {number} valueSize
 * @property {number} eps
 */

/**
 * @typedef {object} DeltaCase
 * @property {DeltaShape} shape
 * @property {Float32Array} qkv
 * @property {Float32Array} alpha
 * @property {Float32Array} beta
 * @property {Float32Array} dtBias
 * @property {Float32Array} a
 * @property {Float32Array} [gate]
 * @property {Float32Array} [normWeight]
 * @property {Float32Array} state
 */

/** @param {Partial<DeltaShape>} changes @returns {DeltaShape} */
export const deltaShape = (changes) => ({
  nTokens: 1,
  nKeyHeads: 2,
  nValueHeads: 4,
  keySize: 16,
  valueSize: 16,
  eps: 1e-6,
  ...changes,
});

/** Values of a token in qkv, and in the result. @param {DeltaShape} s */
export const deltaCols = (s) => ({
  qkv: 2 * s.nKeyHeads * s.keySize + s.nValueHeads * s.valueSize,
  out: s.nValueHeads * s.valueSize,
});

/** @param {DeltaShape} s @returns {Uint8Array} the struct fm_delta */
export function deltaBytes(s) {
  const view = new DataView(new ArrayBuffer(24));
  [s.nTokens, s.nKeyHeads, s.nValueHeads, s.keySize, s.valueSize].forEach((word, i) => {
    view.setUint32(4 * i, word, true);
  });
  view.setFloat32(20, s.eps, true);
  return new Uint8Array(view.buffer);
}

/**
 * @param {DeltaShape} shape @param {Prng} prng
 * @param {{ gated?: boolean, normed?: boolean, memory?: number }} [options]  memory: for how many
 *   tokens, about, a state remembers
 * @returns {DeltaCase}
 */
export function deltaCase(shape, prng, { gated = true, normed = gated, memory = 8 } = {}) {
  const { nTokens, nValueHeads, keySize, valueSize } = shape;
  const gaussian = (/** @type {number} */ n, sigma = 1) => floatsOf(n, () => sigma * prng.gaussian());
  const cols = deltaCols(shape);
  return {
    shape,
    qkv: gaussian(nTokens * cols.qkv),
    alpha: gaussian(nTokens * nValueHeads, 2),
    beta: gaussian(nTokens * nValueHeads, 2),
    dtBias: gaussian(nValueHeads),
    a: gaussian(nValueHeads, 0.3).map((x) => -Math.exp(x) / memory),
    gate: gated ? gaussian(nTokens * cols.out, 2) : undefined,
    normWeight: normed ? gaussian(valueSize) : undefined,
    state: gaussian(nValueHeads * keySize * valueSize),
  };
}

const sigmoid = (/** @type {number} */ x) => 1 / (1 + Math.exp(-x));
const softplus = (/** @type {number} */ x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

/** @param {Float32Array} x @param {number} eps @param {number} scale */
function unit(x, eps, scale) {
  const length = Math.sqrt(x.reduce((sum, value) => sum + value * value, eps));
  return Float64Array.from(x, (value) => (value === 0 ? 0 : (value * scale) / length));
}

/** @typedef {{ out: Float64Array, bound: Float64Array }} Bounded */

/** @param {DeltaCase} made @returns {{ out: Bounded, state: Bounded }} */
export function referenceDelta(made) {
  const { shape: s, state: before } = made;
  const cols = deltaCols(s);
  const out = { out: new Float64Array(s.nTokens * cols.out), bound: new Float64Array(s.nTokens * cols.out) };
  const state = { out: Float64Array.from(before), bound: new Float64Array(before.length) };
  const steps = s.keySize + 2 * CHUNK + 24;
  for (let h = 0; h < s.nValueHeads; h++) {
    const S = state.out.subarray(h * s.keySize * s.valueSize, (h + 1) * s.keySize * s.valueSize);
    const errors = new Float64Array(s.valueSize);
    /** For each of the last tokens: the lengths of the columns before it, and what it wrote. */
    const past = /** @type {{ lengths: Float64Array, written: Float64Array }[]} */ ([]);
    for (let t = 0; t < s.nTokens; t++) {
      const at = t * cols.qkv + (h % s.nKeyHeads) * s.keySize;
      const keys = s.nKeyHeads * s.keySize;
      const q = unit(made.qkv.subarray(at, at + s.keySize), s.eps, 1 / Math.sqrt(s.keySize));
      const k = unit(made.qkv.subarray(at + keys, at + keys + s.keySize), s.eps, 1);
      const v = made.qkv.subarray(t * cols.qkv + 2 * keys + h * s.valueSize);
      const gateAt = t * s.nValueHeads + h;
      const input = made.alpha[gateAt] + made.dtBias[h];
      const time = softplus(input);
      const decay = Math.exp(made.a[h] * time);
      const decayError = (Math.abs(made.a[h]) * (Math.abs(input) + 9 * time) + 2) * U;
      const beta = sigmoid(made.beta[gateAt]);
      const lengths = new Float64Array(s.valueSize);
      const written = new Float64Array(s.valueSize);
      const o = new Float64Array(s.valueSize);
      if (past.length === CHUNK) past.shift();
      for (let c = 0; c < s.valueSize; c++) {
        let squares = 0;
        let seen = 0;
        for (let i = 0; i < s.keySize; i++) {
          squares += S[i * s.valueSize + c] ** 2;
          seen += k[i] * S[i * s.valueSize + c];
        }
        lengths[c] = Math.sqrt(squares);
        written[c] = beta * (v[c] - decay * seen);
        for (let i = 0; i < s.keySize; i++) {
          S[i * s.valueSize + c] = decay * S[i * s.valueSize + c] + k[i] * written[c];
          o[c] += q[i] * S[i * s.valueSize + c];
        }
        let terms = Math.abs(v[c]) + Math.abs(written[c]);
        for (const one of past) terms += Math.abs(one.written[c]);
        terms += past.reduce((most, one) => Math.max(most, one.lengths[c]), lengths[c]);
        errors[c] += decayError * lengths[c] + steps * U * terms;
      }
      past.push({ lengths, written });
      const to = (t * s.nValueHeads + h) * s.valueSize;
      const finished = finish(o, errors, made, to);
      out.out.set(finished.out, to);
      out.bound.set(finished.bound, to);
    }
    for (let i = 0; i < S.length; i++)
      state.bound[h * S.length + i] = errors[i % s.valueSize] + U * Math.abs(S[i]) + TINY;
  }
  return { out, state };
}

/**
 * The gated norm of a head's result.
 * @param {Float64Array} o @param {Float64Array} errors @param {DeltaCase} made
 * @param {number} at  place of the head in the gate
 * @returns {Bounded}
 */
function finish(o, errors, { gate, normWeight, shape }, at) {
  if (!gate) return { out: o, bound: errors.map((e, c) => e + U * Math.abs(o[c]) + TINY) };
  const n = o.length;
  const squares = o.reduce((sum, x) => sum + x * x, 0) + n * shape.eps;
  const drift = o.reduce((sum, x, c) => sum + Math.abs(x) * errors[c], 0) / squares;
  const factor = Math.sqrt(n / squares);
  const bound = new Float64Array(n);
  const out = o.map((x, c) => {
    const z = gate[at + c];
    const weight = (normWeight ? normWeight[c] : 1) * z * sigmoid(z);
    const y = x * factor * weight;
    bound[c] = Math.abs(weight) * factor * (errors[c] + Math.abs(x) * drift) + 10 * U * Math.abs(y) + TINY;
    return y;
  });
  return { out, bound };
}

/** @param {Float32Array} array */
const bytesOf = (array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/**
 * Calls fm_delta_net between canaries.
 * @param {RawModule} module @param {DeltaCase} made
 * @returns {{ out: Float32Array, state: Float32Array }}
 */
export function deltaNet(module, made) {
  const { shape, state } = made;
  const arrays = [made.qkv, made.alpha, made.beta, made.dtBias, made.a, made.gate, made.normWeight];
  const given = arrays.filter((array) => array !== undefined);
  const inputs = [deltaBytes(shape), ...given.map(bytesOf)].map((bytes) => ({ bytes, alignment: 4 }));
  const nOut = shape.nTokens * deltaCols(shape).out;
  // The state is in front of the result, in one output.
  const { status, y } = module.guarded(inputs, state.length + nOut, ([shapeAt, ...rest], at) => {
    module.u8.set(bytesOf(state), at);
    const [qkv, alpha, beta, dtBias, a, gate, normWeight] = arrays.map((array) =>
      array === undefined ? 0 : rest[given.indexOf(array)],
    );
    const outAt = at + 4 * state.length;
    return module.exports.fm_delta_net(
      ...[shapeAt, qkv, alpha, beta, dtBias, a, gate, normWeight, at, outAt],
    );
  });
  assert.equal(status, 0);
  return { state: y.slice(0, state.length), out: y.slice(state.length) };
}
