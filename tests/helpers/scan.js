/**
 * The selective scan of Mamba-2 in float64 with the error bounds of f32 arithmetic, and calls of
 * fm_ssm_scan on raw memory.
 *
 * With u = 2^-24, for each head and token, first-order terms:
 *   step   v = dt + dt_bias is rounded to u |v|, and softplus changes by at most as much as its own
 *          value times that; with the 9u of the logarithm and the sum, relative to step
 *          r = (|v| + 10) u
 *   decay  of the exponent step * a a relative (r + u), and 2u of the exponential:
 *          q = |step a| (r + u) + 2u, relative
 *   h      both of its terms carry these errors and some roundings of their products (4u); the sums
 *          of a chunk of 16 tokens are rounded 17 times, relative to the sum of absolute terms
 *   y      sums over state_size and over 17 tokens, and the roundings of the terms
 * Weights below 2^-100 count as 0, which FLUSHED covers.
 */
import assert from 'node:assert/strict';
import { floatsOf } from './activations.js';
import { STATUS } from './raw.js';

/** @import { Prng } from './prng.js' */
/** @import { RawModule } from './raw.js' */

const u = 2 ** -24;
const CHUNK = 16;
const FLUSHED = 2 ** -90;

/**
 * @typedef {object} ScanShape
 * @property {number} nTokens
 * @property {number} nHeads
 * @property {number} nGroups
 * @property {number} headSize
 * @property {number} stateSize
 */

/**
 * @typedef {object} ScanCase
 * @property {ScanShape} shape
 * @property {Float32Array} x  rows of x of all heads, B of all groups, C of all groups
 * @property {Float32Array} dt
 * @property {Float32Array} a
 * @property {Float32Array} d
 * @property {Float32Array} dtBias
 * @property {Float32Array} state  [nHeads][stateSize][headSize]
 */

/** Values of a token of x. @param {ScanShape} s */
export const scanCols = (s) => s.nHeads * s.headSize + 2 * s.nGroups * s.stateSize;

/** The struct fm_scan. @param {ScanShape} s */
export const scanBytes = (s) =>
  new Uint8Array(Uint32Array.of(s.nTokens, s.nHeads, s.nGroups, s.headSize, s.stateSize).buffer);

/**
 * Ordinary numbers; the heads decay between slowly and at once.
 * @param {ScanShape} shape @param {Prng} prng @returns {ScanCase}
 */
export function makeScan(shape, prng) {
  const { nTokens, nHeads, stateSize, headSize } = shape;
  const values = (/** @type {number} */ n, scale = 1, mean = 0) =>
    floatsOf(n, () => mean + scale * prng.gaussian());
  return {
    shape,
    x: values(nTokens * scanCols(shape)),
    dt: values(nTokens * nHeads, 2, -1),
    a: Float32Array.from({ length: nHeads }, () => -(10 ** (4 * prng.unit() - 2))),
    d: values(nHeads),
    dtBias: values(nHeads),
    state: values(nHeads * stateSize * headSize),
  };
}

/** ln(1 + e^v). @param {number} v */
export const softplus = (v) => Math.max(v, 0) + Math.log1p(Math.exp(-Math.abs(v)));

/**
 * @param {ScanCase} given
 * @returns {Record<'y' | 'yBound' | 'state' | 'stateBound', Float64Array>}
 */
export function referenceScan({ shape, x, dt, a, d, dtBias, state: before }) {
  const { nTokens, nHeads, nGroups, headSize, stateSize } = shape;
  const [row, inner] = [scanCols(shape), nHeads * headSize];
  const state = Float64Array.from(before);
  const mass = state.map(Math.abs);
  const error = new Float64Array(state.length);
  const y = new Float64Array(nTokens * inner);
  const yBound = new Float64Array(y.length);
  for (let t = 0; t < nTokens; t++) {
    const isEnd = t % CHUNK === CHUNK - 1 || t === nTokens - 1;
    for (let head = 0; head < nHeads; head++) {
      const v = dt[t * nHeads + head] + dtBias[head];
      const step = softplus(v);
      const decay = Math.exp(step * a[head]);
      const r = (Math.abs(v) + 10) * u;
      const q = Math.abs(step * a[head]) * (r + u) + 2 * u;
      const b = t * row + inner + Math.floor(head / (nHeads / nGroups)) * stateSize;
      const c = b + nGroups * stateSize;
      for (let p = 0; p < headSize; p++) {
        const from = x[t * row + head * headSize + p];
        const direct = Math.abs(d[head] * from);
        let [sum, sumMass, sumError] = [0, 0, 0];
        for (let n = 0; n < stateSize; n++) {
          const at = (head * stateSize + n) * headSize + p;
          const term = x[b + n] * step * from;
          error[at] = error[at] * decay + mass[at] * decay * (q + 4 * u) + Math.abs(term) * (r + 4 * u);
          state[at] = state[at] * decay + term;
          mass[at] = mass[at] * decay + Math.abs(term);
          error[at] += u * mass[at];
          sum += x[c + n] * state[at];
          sumMass += Math.abs(x[c + n]) * mass[at];
          sumError += Math.abs(x[c + n]) * error[at];
          if (isEnd) error[at] += (CHUNK + 1) * u * mass[at];
        }
        const out = t * inner + head * headSize + p;
        y[out] = sum + d[head] * from;
        yBound[out] =
          1.01 * sumError + (stateSize + CHUNK + 8) * u * (sumMass + direct) + FLUSHED * (1 + sumMass);
      }
    }
  }
  const stateBound = error.map((one, i) => 1.01 * one + FLUSHED * (1 + mass[i]));
  return { y, yBound, state, stateBound };
}

/**
 * Calls fm_ssm_scan, and checks that nothing but state and y changes.
 * @param {RawModule} module @param {ScanCase} given
 * @returns {{ y: Float32Array, state: Float32Array }}
 */
export function runScan(module, { shape, x, dt, a, d, dtBias, state }) {
  const nY = shape.nTokens * shape.nHeads * shape.headSize;
  const bytes = [scanBytes(shape), x, dt, a, d, dtBias].map((part) => ({
    bytes: new Uint8Array(part.buffer, part.byteOffset, part.byteLength),
    alignment: 4,
  }));
  const { status, y: out } = module.guarded(bytes, state.length + nY, (pointers, output) => {
    module.u8.set(new Uint8Array(state.buffer, state.byteOffset, state.byteLength), output);
    return module.exports.fm_ssm_scan(...pointers, output, output + state.byteLength);
  });
  assert.equal(status, STATUS.OK);
  return { state: out.slice(0, state.length), y: out.slice(state.length) };
}

/**
 * @param {Float32Array} got @param {Float64Array} expected @param {Float64Array} bound
 * @param {string} what
 */
export function checkScan(got, expected, bound, what) {
  for (const [i, value] of got.entries()) {
    const error = Math.abs(value - expected[i]);
    assert.ok(
      error <= bound[i],
      `${what}: [${i}] is ${value}, expected ${expected[i]}: off by ${error}, allowed ${bound[i]}`,
    );
  }
}
