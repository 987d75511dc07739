/* Latent attention on the CPU. Keys are cached in the form that all heads share, and the values are a
 * part of them. Products with the matrices of the heads are products with those of experts: a row is
 * one head of one token, and head h is the expert of the rows of head h. */

import { correct } from './after-products.js';
import { addressIn } from './handles.js';
import { viewOf } from './tensor-view.js';

/** @typedef {import('../llama/plan.js').AttentionSettings} AttentionSettings */
/** @typedef {import('../llama/plan.js').Latent} Latent */
/** @typedef {import('./handles.js').Tensor} Tensor */
/** @typedef {import('./kernel-types.js').Routing} Routing */
/** @typedef {{ latent: Latent, rope: { nDims: number }, nHeads: number }} Shape */

/**
 * The means of the backend that latent attention uses.
 * @typedef {object} Tools
 * @property {import('./kernels.js').Kernels} fm
 * @property {import('./memory.js').Memory} memory
 * @property {import('./selftest.js').Activation} activation  Mode of all products.
 */

/**
 * Where every head of every token has some values: the place of the first value in a tensor, and the
 * steps from token to token and from head to head, in values.
 * @typedef {{ tensor: Tensor, start?: number, token: number, head: number }} Layout
 */

/**
 * Columns of the work tensors of a layer, which share a buffer. A product by heads takes `input`, token
 * by token, and leaves `result`, head by head.
 * @param {AttentionSettings} attention
 * @returns {Record<string, number>}
 */
function workCols(attention) {
  const { nHeads, rope, latent } = /** @type {Shape} */ (attention);
  const { rank, qRank, nopeSize, valueSize } = latent;
  return {
    down: qRank,
    raw: nHeads * (nopeSize + rope.nDims),
    c: rank,
    kRope: rope.nDims,
    input: nHeads * Math.max(nopeSize, rank),
    result: nHeads * Math.max(rank, valueSize),
    values: nHeads * valueSize,
  };
}

/** Values of all work tensors of a token. @param {AttentionSettings} attention */
export const latentCols = (attention) =>
  attention.latent ? Object.values(workCols(attention)).reduce((sum, n) => sum + n, 0) : 0;

/**
 * The work tensors of a step.
 * @param {Tensor} buffer
 * @param {number} nTokens
 * @param {AttentionSettings} attention
 */
export function latentViews(buffer, nTokens, attention) {
  const { nHeads, latent } = /** @type {Shape} */ (attention);
  const { rank, nopeSize, valueSize } = latent;
  /** @type {Record<string, Tensor>} */
  const whole = {};
  let at = 0;
  for (const [name, nCols] of Object.entries(workCols(attention))) {
    if (nCols === 0) continue;
    const values = viewOf(buffer, { start: at, nRows: nTokens * nCols, nCols: 1 });
    whole[name] = viewOf(values, { nRows: nTokens, nCols });
    at += nTokens * nCols;
  }
  const nRows = nTokens * nHeads;
  const ofHeads = (/** @type {string} */ name, /** @type {number} */ nCols) =>
    viewOf(whole[name], { nRows, nCols });
  const { raw, c, kRope, values } = whole;
  /** @type {Tensor | undefined} */
  const down = whole.down;
  return {
    ...{ down, raw, c, kRope, values, routing: routeHeads(nTokens, nHeads) },
    nope: ofHeads('input', nopeSize),
    absorbed: ofHeads('result', rank),
    mixed: ofHeads('input', rank),
    results: ofHeads('result', valueSize),
  };
}

/**
 * The rows of each head, as a routing of rows to experts.
 * @param {number} nTokens
 * @param {number} nHeads
 * @returns {Routing}
 */
function routeHeads(nTokens, nHeads) {
  const n = nTokens * nHeads;
  return {
    nTokens: n,
    rows: Uint32Array.from({ length: n }, (_, i) => (i % nTokens) * nHeads + Math.floor(i / nTokens)),
    ends: Uint32Array.from({ length: nHeads }, (_, head) => (head + 1) * nTokens),
    weights: new Float32Array(n).fill(1),
  };
}

/**
 * Copies consecutive values of every head of every token.
 * @param {import('./memory.js').Memory} memory
 * @param {{ nTokens: number, nHeads: number, width: number }} shape
 * @param {Layout} from
 * @param {Layout} to
 */
function copyHeads(memory, { nTokens, nHeads, width }, from, to) {
  const { f32 } = memory;
  const [source, target] = [from, to].map(({ tensor, start = 0 }) => addressIn(tensor, memory) / 4 + start);
  for (let t = 0; t < nTokens; t++) {
    for (let h = 0; h < nHeads; h++) {
      const at = source + t * from.token + h * from.head;
      f32.copyWithin(target + t * to.token + h * to.head, at, at + width);
    }
  }
}

/**
 * Computes queries and keys that are not turned yet.
 * @param {Tools} tools
 * @param {(matrices: any[], out: Tensor[]) => void} multiply  products of the normed hidden states
 * @param {{ qkv: Tensor[], latent: ReturnType<typeof latentViews> }} views
 * @param {AttentionSettings} settings
 * @param {import('../backend.js').Weights} weights
 */
export function projectLatent(
  { fm, memory, activation },
  multiply,
  { qkv, latent: work },
  settings,
  weights,
) {
  const { nHeads, rope, latent } = /** @type {Shape} */ (settings);
  const { rank, nopeSize, norm } = latent;
  const { down, raw, c, kRope, nope, absorbed, routing } = work;
  const [q, k] = qkv;
  const { eps } = norm;
  const [first, role] = down ? [down, 'qDown'] : [raw, 'q'];
  multiply([weights[role], weights.latent, weights.kRope], [first, c, kRope]);
  correct(fm, first, weights, role);
  correct(fm, c, weights, 'latent');
  correct(fm, kRope, weights, 'kRope');
  if (down) {
    fm.fusedRmsNormMatmul([weights.q], down, weights.qDownNorm, { eps, out: [raw], activation });
    correct(fm, raw, weights, 'q');
  }
  fm.rmsNorm(c, weights.latentNorm, { eps, out: c });

  const nTokens = c.nRows;
  const { nDims } = rope;
  const ofHeads = { nTokens, nHeads };
  const inRaw = { tensor: raw, token: raw.nCols, head: nopeSize + nDims };
  const inQ = { tensor: q, token: q.nCols, head: nDims + rank };
  const inNope = { tensor: nope, token: nHeads * nopeSize, head: nopeSize };
  copyHeads(memory, { ...ofHeads, width: nopeSize }, inRaw, inNope);
  fm.fusedMatmulExperts([weights.keyUp], nope, routing, { out: [absorbed], activation });
  const inAbsorbed = { tensor: absorbed, token: rank, head: nTokens * rank };
  copyHeads(memory, { ...ofHeads, width: nDims }, { ...inRaw, start: nopeSize }, inQ);
  copyHeads(memory, { ...ofHeads, width: rank }, inAbsorbed, { ...inQ, start: nDims });
  const one = { nTokens, nHeads: 1 };
  const inK = { tensor: k, token: k.nCols, head: 0 };
  copyHeads(memory, { ...one, width: nDims }, { tensor: kRope, token: nDims, head: 0 }, inK);
  copyHeads(memory, { ...one, width: rank }, { tensor: c, token: rank, head: 0 }, { ...inK, start: nDims });
}

/**
 * The results of all heads, from what attention has mixed of the cached rows.
 * @param {Tools} tools
 * @param {Tensor} attended
 * @param {ReturnType<typeof latentViews>} work
 * @param {AttentionSettings} settings
 * @param {import('../backend.js').Weights} weights
 * @returns {Tensor} in work memory
 */
export function latentValues({ fm, memory, activation }, attended, work, settings, weights) {
  const { nHeads, rope, latent } = /** @type {Shape} */ (settings);
  const { rank, valueSize } = latent;
  const { mixed, results, values, routing } = work;
  const nTokens = attended.nRows;
  const shape = { nTokens, nHeads, width: rank };
  const inAttended = { tensor: attended, start: rope.nDims, token: attended.nCols, head: rope.nDims + rank };
  copyHeads(memory, shape, inAttended, { tensor: mixed, token: nHeads * rank, head: rank });
  fm.fusedMatmulExperts([weights.valueUp], mixed, routing, { out: [results], activation });
  const inResults = { tensor: results, token: valueSize, head: nTokens * valueSize };
  const inValues = { tensor: values, token: values.nCols, head: valueSize };
  copyHeads(memory, { ...shape, width: valueSize }, inResults, inValues);
  return values;
}
