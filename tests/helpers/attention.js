/**
 * Attention in float64 with the error bounds of f32 arithmetic, and calls of the exports on raw
 * memory.
 *
 * With u = 2^-24, s_j the logit of position j and p_j its weight, the module computes
 *   s_j   to delta_j <= (head_size / 4 + 6) u |scale| sum|q k|, and with a softcap to
 *         softcap (2^-22 + 3u) more;
 *   e^x   to 2.1u, of differences rounded to u |x|; where a tile (of 8 positions or more) raises
 *         the maximum, the weights before it are multiplied by one more such factor. Relative to
 *         p_j, eta_j <= delta_j + u (3 range + 3 tiles + 4), where range = max|s| - min|s| over
 *         the positions that the row sees;
 *   sums  over n positions and `tiles` tiles to gamma <= (n + 2 tiles + 4) u of their absolute
 *         terms.
 * The error of the quotient is then at most
 *   sum p_j |v_j| (eta_j + gamma) + |out| (sum p_j eta_j + gamma).
 */
import assert from 'node:assert/strict';
import { floatsOf } from './activations.js';
import { f16ToNumber, numberToF16 } from './floats.js';

/** @import { Prng } from './prng.js' */
/** @import { RawModule } from './raw.js' */

const U = 2 ** -24;
const TINY = 2 ** -140;
const SMALLEST_TILE = 8;

export const KV = /** @type {const} */ ({ F32: 0, F16: 1, Q8_0: 8 });

/**
 * @typedef {object} Shape
 * @property {number} nTokens
 * @property {number} nHeads
 * @property {number} nKvHeads
 * @property {number} headSize
 * @property {number} nPositions
 * @property {number} firstPosition
 * @property {number} kvType
 * @property {number} causal
 * @property {number} window
 * @property {number} scale
 * @property {number} softcap
 * @property {Float32Array} [sinks]  a logit a head that has a part in the softmax and no value
 */

/** @param {Partial<Shape>} changes @returns {Shape} */
export function makeShape(changes) {
  const headSize = changes.headSize ?? 64;
  return {
    nTokens: 1,
    nHeads: 4,
    nKvHeads: 2,
    headSize,
    nPositions: 40,
    firstPosition: 0,
    kvType: KV.F32,
    causal: 0,
    window: 0,
    scale: 1 / Math.sqrt(headSize),
    softcap: 0,
    ...changes,
  };
}

/**
 * The struct fm_attention.
 * @param {Shape} s @param {number} [sinks]  their address @returns {Uint8Array}
 */
export function shapeBytes(s, sinks = 0) {
  const view = new DataView(new ArrayBuffer(48));
  const words = [s.nTokens, s.nHeads, s.nKvHeads, s.headSize, s.nPositions, s.firstPosition];
  words.push(s.kvType, s.causal, s.window);
  words.forEach((word, i) => {
    view.setUint32(4 * i, word, true);
  });
  view.setFloat32(36, s.scale, true);
  view.setFloat32(40, s.softcap, true);
  view.setUint32(44, sinks, true);
  return new Uint8Array(view.buffer);
}

/**
 * Rows of a cache.
 * @param {number} kvType @param {ArrayLike<number>} values  whole heads
 * @returns {{ bytes: Uint8Array, values: Float64Array }} values: the numbers that the bytes encode
 */
export function makeCache(kvType, values) {
  if (kvType === KV.F32) {
    const f32 = Float32Array.from(values);
    return { bytes: new Uint8Array(f32.buffer), values: Float64Array.from(f32) };
  }
  if (kvType === KV.F16) {
    const halves = Uint16Array.from(values, (x) => (Number.isNaN(x) ? 0x7e00 : numberToF16(x)));
    return { bytes: new Uint8Array(halves.buffer), values: Float64Array.from(halves, f16ToNumber) };
  }
  const nBlocks = values.length / 32;
  const bytes = new Uint8Array(34 * nBlocks);
  const view = new DataView(bytes.buffer);
  const decoded = new Float64Array(values.length);
  for (let b = 0; b < nBlocks; b++) {
    let largest = 0;
    let special = 0;
    for (let i = 0; i < 32; i++) {
      const x = values[32 * b + i];
      if (Number.isFinite(x)) largest = Math.max(largest, Math.abs(x));
      else special = x;
    }
    const half = special === 0 ? numberToF16(largest / 127) : Number.isNaN(special) ? 0x7e00 : 0x7c00;
    const d = f16ToNumber(half);
    view.setUint16(34 * b, half, true);
    for (let i = 0; i < 32; i++) {
      const x = values[32 * b + i];
      const q = special !== 0 ? 1 : d === 0 ? 0 : Math.max(-128, Math.min(127, Math.round(x / d)));
      view.setInt8(34 * b + 2 + i, q);
      decoded[32 * b + i] = d * q;
    }
  }
  return { bytes, values: decoded };
}

/**
 * @typedef {{ shape: Shape, q: Float32Array, k: ReturnType<typeof makeCache>,
 *   v: ReturnType<typeof makeCache> }} Case
 */

/**
 * @param {Shape} shape @param {Prng} prng
 * @param {{ q?: number, v?: number }} [sizes]  standard deviations @returns {Case}
 */
export function makeCase(shape, prng, { q = 1, v = 1 } = {}) {
  const nKv = shape.nPositions * shape.nKvHeads * shape.headSize;
  const gaussian = (/** @type {number} */ n, /** @type {number} */ sigma) =>
    floatsOf(n, () => sigma * prng.gaussian());
  return {
    shape,
    q: gaussian(shape.nTokens * shape.nHeads * shape.headSize, q),
    k: makeCache(shape.kvType, gaussian(nKv, 1)),
    v: makeCache(shape.kvType, gaussian(nKv, v)),
  };
}

/** @param {Shape} s @param {number} token @returns {[number, number]} the positions that it sees */
export function seenBy(s, token) {
  const own = s.firstPosition + token;
  if (!s.causal && s.window > 0) {
    const reach = Math.floor(s.window / 2);
    const end = Math.min(s.nPositions, own + reach + 1);
    return [Math.min(end, Math.max(0, own - reach)), end];
  }
  const end = s.causal ? Math.min(own + 1, s.nPositions) : s.nPositions;
  return [s.window > 0 ? Math.max(0, end - s.window) : 0, end];
}

/**
 * Attends with one query row to the keys it sees, and gives logits, weights and their errors.
 * @param {ArrayLike<number>} q @param {(j: number) => ArrayLike<number>} key @param {number} first
 * @param {number} end @param {{ scale: number, softcap: number }} options
 * @param {number} [sink]  one more logit, without a weight
 */
export function referenceWeights(q, key, first, end, { scale, softcap }, sink) {
  const n = end - first;
  const logits = new Float64Array(n);
  const delta = new Float64Array(n);
  for (let j = 0; j < n; j++) {
    const k = key(first + j);
    let dot = 0;
    let absolute = 0;
    for (let c = 0; c < q.length; c++) {
      dot += q[c] * k[c];
      absolute += Math.abs(q[c] * k[c]);
    }
    logits[j] = scale * dot;
    delta[j] = (q.length / 4 + 6) * U * Math.abs(scale) * absolute;
    if (softcap > 0) {
      logits[j] = softcap * Math.tanh(logits[j] / softcap);
      delta[j] += softcap * (2 ** -22 + 3 * U);
    }
  }
  const max = logits.reduce((a, b) => Math.max(a, b), sink ?? -Infinity);
  const min = logits.reduce((a, b) => Math.min(a, b), sink ?? Infinity);
  const p = logits.map((s) => Math.exp(s - max));
  const sinkWeight = sink === undefined ? 0 : Math.exp(sink - max);
  const sum = p.reduce((a, b) => a + b, sinkWeight);
  const tiles = Math.ceil(n / SMALLEST_TILE);
  const weighing = U * (3 * (max - min) + 3 * tiles + 4);
  const eta = delta.map((d) => d + weighing);
  const gamma = (n + 2 * tiles + 4) * U + (sinkWeight / sum) * weighing;
  return { p: p.map((w) => w / sum), eta, gamma };
}

/** @param {Case} made @returns {{ out: Float64Array, bound: Float64Array }} */
export function referenceAttention({ shape: s, q, k, v }) {
  const out = new Float64Array(q.length);
  const bound = new Float64Array(q.length);
  const rowOf = (
    /** @type {Float64Array} */ values,
    /** @type {number} */ j,
    /** @type {number} */ kvHead,
  ) => {
    const at = (j * s.nKvHeads + kvHead) * s.headSize;
    return values.subarray(at, at + s.headSize);
  };
  for (let t = 0; t < s.nTokens; t++) {
    const [first, end] = seenBy(s, t);
    if (first >= end) continue;
    for (let h = 0; h < s.nHeads; h++) {
      const at = (t * s.nHeads + h) * s.headSize;
      const kvHead = Math.floor(h / (s.nHeads / s.nKvHeads));
      const key = (/** @type {number} */ j) => rowOf(k.values, j, kvHead);
      const { p, eta, gamma } = referenceWeights(
        q.subarray(at, at + s.headSize),
        key,
        first,
        end,
        s,
        s.sinks?.[h],
      );
      let drift = gamma;
      for (let j = 0; j < p.length; j++) {
        const value = rowOf(v.values, first + j, kvHead);
        drift += p[j] * eta[j];
        for (let c = 0; c < s.headSize; c++) {
          out[at + c] += p[j] * value[c];
          bound[at + c] += p[j] * Math.abs(value[c]) * (eta[j] + gamma);
        }
      }
      for (let c = 0; c < s.headSize; c++) bound[at + c] += Math.abs(out[at + c]) * drift + TINY;
    }
  }
  return { out, bound };
}

/** @param {Float32Array} array */
const bytesOf = (array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** @param {RawModule} module @param {Case} made @returns {{ status: number, y: Float32Array }} */
export function attend(module, { shape, q, k, v }) {
  const kvAlignment = shape.kvType === KV.F32 ? 4 : 2;
  const inputs = [
    { bytes: bytesOf(q), alignment: 4 },
    { bytes: k.bytes, alignment: kvAlignment },
    { bytes: v.bytes, alignment: kvAlignment },
    { bytes: bytesOf(shape.sinks ?? new Float32Array(1)), alignment: 4 },
  ];
  const shapeAt = module.alloc(64);
  try {
    return module.guarded(inputs, q.length, ([qAt, kAt, vAt, sinksAt], out) => {
      module.u8.set(shapeBytes(shape, shape.sinks && sinksAt), shapeAt);
      return module.exports.fm_flash_attention(shapeAt, qAt, kAt, vAt, out);
    });
  } finally {
    module.free(shapeAt);
  }
}

/**
 * @param {RawModule} module @param {Float32Array} q @param {Float32Array} k
 * @param {number} headSize @param {number} scale @param {number} causal
 */
export function attentionScore(module, q, k, headSize, scale, causal) {
  const [nQ, nK] = [q.length / headSize, k.length / headSize];
  const inputs = [q, k].map((array) => ({ bytes: bytesOf(array), alignment: 4 }));
  const { status, y } = module.guarded(inputs, nQ * nK, ([qAt, kAt], out) =>
    module.exports.fused_attention_score(qAt, kAt, out, nQ, nK, headSize, scale, causal),
  );
  assert.equal(status, 0);
  return y;
}

/**
 * @param {ArrayLike<number>} got @param {{ out: Float64Array, bound: Float64Array }} reference
 * @param {string} what @returns {number} the largest share of the bound that an error reaches
 */
export function checkWithin(got, { out, bound }, what) {
  assert.equal(got.length, out.length, what);
  let worst = 0;
  for (let i = 0; i < out.length; i++) {
    const error = Math.abs(got[i] - out[i]);
    if (!(error <= bound[i])) {
      assert.fail(`${what}: [${i}] is ${got[i]}, should be ${out[i]} +- ${bound[i]}, off by ${error}`);
    }
    if (bound[i] > 0) worst = Math.max(worst, error / bound[i]);
  }
  return worst;
}
