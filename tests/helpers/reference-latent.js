/** Latent attention of one token in float64, with the formulas of `Latent` in js/llama/plan.js. */

import { Matrix, multiply } from './reference-rows.js';

/** @import { AttentionSettings, Latent, Norm } from '../../js/llama/plan.js' */
/** @typedef {(x: Float64Array, norm: Norm | undefined, weight: Matrix) => Float64Array} Normalize */

/**
 * The matrix of one head.
 * @param {Matrix} all  rows of all heads @param {number} head @param {number} nRows  of a head
 */
const ofHead = (all, head, nRows) =>
  new Matrix(nRows, all.nCols, all.values.subarray(head * nRows * all.nCols, (head + 1) * nRows * all.nCols));

/** @param {Matrix} matrix */
function transposed({ nRows, nCols, values }) {
  const columns = Float64Array.from(values, (_, i) => values[(i % nRows) * nCols + Math.floor(i / nRows)]);
  return new Matrix(nCols, nRows, columns);
}

/**
 * The queries of all heads, and the key that they share, before they are turned.
 * @param {Float64Array} h  a token's hidden states after the norm
 * @param {AttentionSettings} settings
 * @param {Record<string, Matrix>} weights
 * @param {Normalize} normalize
 */
export function latentProjection(h, { nHeads, headSize, latent }, weights, normalize) {
  const { rank, qRank, nopeSize, norm } = /** @type {Latent} */ (latent);
  const nTurned = headSize - rank;
  const c = normalize(multiply(weights.latent, h, weights.latentFactor), norm, weights.latentNorm);
  const k = Float64Array.of(...multiply(weights.kRope, h, weights.kRopeFactor), ...c);
  const input =
    qRank > 0 ? normalize(multiply(weights.qDown, h, weights.qDownFactor), norm, weights.qDownNorm) : h;
  const raw = multiply(weights.q, input, weights.qFactor);
  const q = new Float64Array(nHeads * headSize);
  for (let head = 0; head < nHeads; head++) {
    const values = raw.subarray(head * (nopeSize + nTurned), (head + 1) * (nopeSize + nTurned));
    q.set(values.subarray(nopeSize), head * headSize);
    const nope = values.subarray(0, nopeSize);
    const up = weights.keyUp
      ? ofHead(weights.keyUp, head, rank)
      : transposed(ofHead(weights.keyRows, head, nopeSize));
    q.set(multiply(up, nope), head * headSize + nTurned);
  }
  return { q, k };
}

/**
 * The results of all heads.
 * @param {Float64Array} attended  for each head a mix of keys
 * @param {AttentionSettings} settings
 * @param {Record<string, Matrix>} weights
 */
export function latentResults(attended, { nHeads, headSize, latent }, { valueUp }) {
  const { rank, valueSize } = /** @type {Latent} */ (latent);
  const out = new Float64Array(nHeads * valueSize);
  for (let head = 0; head < nHeads; head++) {
    const c = attended.subarray((head + 1) * headSize - rank, (head + 1) * headSize);
    out.set(multiply(ofHead(valueUp, head, valueSize), c), head * valueSize);
  }
  return out;
}
