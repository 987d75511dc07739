/** Formulas of js/llama/plan.js in float64 that several blocks use: norms, rotations, sums, attention. */

import { CLAMP, plus } from './reference-rows.js';

/** @import { AttentionSettings, FeedSettings, Norm, QkNorm, Rope } from '../../js/llama/plan.js' */
/** @import { Matrix } from './reference-rows.js' */

/**
 * @param {Float64Array} x @param {Norm | QkNorm | undefined} norm @param {Matrix} weight
 * @param {Matrix} [bias]
 */
export function normalize(x, norm, weight, bias) {
  if (!norm) return x;
  const mean = norm.kind === 'layer' ? x.reduce((sum, value) => sum + value, 0) / x.length : 0;
  const square = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
  return plus(
    x.map((value, i) => ((value - mean) / Math.sqrt(square + norm.eps)) * weight.values[i]),
    bias,
  );
}

/**
 * @param {Float64Array} x @param {number} headSize
 * @param {(head: Float64Array) => Float64Array} map
 */
export function byHead(x, headSize, map) {
  const out = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += headSize) out.set(map(x.subarray(at, at + headSize)), at);
  return out;
}

/**
 * @param {Float64Array} x @param {QkNorm | undefined} norm @param {Matrix} weight
 * @param {number} headSize
 */
export const normalizeQk = (x, norm, weight, headSize) =>
  norm?.span === 'head'
    ? byHead(x, headSize, (head) => normalize(head, norm, weight))
    : normalize(x, norm, weight);

/**
 * @param {Float64Array} head @param {Rope} rope @param {number} position
 * @param {Matrix | undefined} factors
 */
export function turn(head, { pairing, nDims, base, linearScale, divisors, magnitude }, position, factors) {
  const out = head.slice();
  for (let i = 0; i < nDims / 2; i++) {
    const divisor = (factors?.values[i] ?? 1) * (divisors?.[i] ?? 1);
    const frequency = Math.fround(base) ** ((-2 * i) / nDims) / divisor;
    const angle = (position / Math.fround(linearScale)) * frequency;
    const [a, b] = pairing === 'adjacent' ? [2 * i, 2 * i + 1] : [i, i + nDims / 2];
    out[a] = magnitude * (head[a] * Math.cos(angle) - head[b] * Math.sin(angle));
    out[b] = magnitude * (head[a] * Math.sin(angle) + head[b] * Math.cos(angle));
  }
  return out;
}

/** @param {number} x @param {number} limit */
export const cap = (x, limit) => (limit > 0 ? limit * Math.tanh(x / limit) : x);

/**
 * The second factor of a gated block.
 * @param {FeedSettings['activation']} activation @param {number} up
 */
export const factorOf = (activation, up) =>
  activation === 'clamped' ? Math.min(Math.max(up, -CLAMP), CLAMP) + 1 : up;

/**
 * @param {Float64Array} x  a row of hidden states, added to
 * @param {Float64Array} y  the output of a block
 * @param {Pick<FeedSettings, 'postNorm' | 'residualScale'> & { sumNorm?: Norm | undefined }} settings
 * @param {Record<string, Matrix>} weights
 */
export function addTo(x, y, settings, { postNorm, postNormBias, sumNorm, sumNormBias }) {
  const z = normalize(y, settings.postNorm, postNorm, postNormBias);
  const sum = x.map((value, i) => value + settings.residualScale * z[i]);
  x.set(normalize(sum, settings.sumNorm, sumNorm, sumNormBias));
}

/**
 * Attention of one token's queries over the cache.
 * @param {Float64Array} q
 * @param {{ keys: Matrix, values: Matrix }} cache
 * @param {AttentionSettings} settings
 * @param {{ position: number, base: number, seen: number }} place  of the token, as by placeOf
 * @param {Float64Array} [sinks]  one more score of each head, without a value
 */
export function attention(
  q,
  { keys, values },
  { nHeads, nKvHeads, headSize, causal, window, scale, softcap },
  { position, base, seen },
  sinks,
) {
  const reach = window === 0 ? seen : Math.floor(window / 2);
  const end = base + (causal ? position + 1 : Math.min(seen, position + reach + 1));
  const before = causal && window > 0 ? window - 1 : reach;
  const start = base + Math.max(0, position - before);
  const out = new Float64Array(q.length);
  for (let h = 0; h < nHeads; h++) {
    const query = q.subarray(h * headSize, (h + 1) * headSize);
    const at = Math.floor(h / (nHeads / nKvHeads)) * headSize;
    const scores = [];
    for (let j = start; j < end; j++) {
      const key = keys.row(j).subarray(at, at + headSize);
      scores.push(cap(scale * query.reduce((sum, value, i) => sum + value * key[i], 0), softcap));
    }
    const sink = sinks?.[h] ?? Number.NEGATIVE_INFINITY;
    const peak = Math.max(sink, ...scores);
    const weights = scores.map((score) => Math.exp(score - peak));
    const total = weights.reduce((sum, weight) => sum + weight, Math.exp(sink - peak));
    for (const [j, weight] of weights.entries()) {
      const value = values.row(start + j).subarray(at, at + headSize);
      for (let i = 0; i < headSize; i++) out[h * headSize + i] += (weight / total) * value[i];
    }
  }
  return out;
}
