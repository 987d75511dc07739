/** Runs of the attention kernels of js/gpu on cases of attention.js. */
import assert from 'node:assert/strict';
import { up16 } from '../../js/gpu/shader.js';
import {
  attention,
  attentionGroups,
  mergeGroups,
  mergeSplits,
  partsBytes,
} from '../../js/gpu/wgsl/attention.js';
import { attentionTiles, tileGroups } from '../../js/gpu/wgsl/attention-tiles.js';
import { floatsOf } from './activations.js';
import { KV, makeCache, seenBy } from './attention.js';
import { gpuCache } from './gpu-cache.js';
import { Prng } from './prng.js';

/** @import { AttentionShape } from '../../js/gpu/wgsl/attention.js' */
/** @import { Shader } from '../../js/gpu/shader.js' */
/** @import { KvType } from '../../js/wasm/kv-cache.js' */
/** @import { Case, Shape } from './attention.js' */
/** @import { TestGpu } from './gpu.js' */

/** What is in values that no kernel may write. */
const CANARY = 12345.5;
/** Words before the first row of queries, as in a workspace. */
const HEADER = 16;
/** A NaN, of f32 and of one half in two. */
const POISON = 0x7fc00000;

/**
 * The GPU's errors against those of the wasm kernels, for which attention.js has the bounds. WGSL
 * allows e^x to be wrong by 3 + 2|x| ulp, that is by (6 + 4|x|) u instead of 2.1u. Weights are made
 * of two such factors at most, whose exponents add up to the range, and scaled by one for each
 * tile: their error is delta + u (5 range + 7 tiles + 13) <= 3 eta. A soft cap is wrong by softcap
 * (2^-22 + 8u), a quotient by 5u: no more than 3 times the others.
 */
const WGSL = 3;

/** @param {{ out: Float64Array, bound: Float64Array }} reference */
export const wgslBound = ({ out, bound }) => ({ out, bound: bound.map((b) => WGSL * b) });

/** @param {number} n @returns {Float32Array} */
export function gaussians(n) {
  const prng = new Prng(n);
  return floatsOf(n, () => 2 * prng.gaussian());
}

/**
 * Makes all keys, and all queries, nearly the same, so that every score is near `score`.
 * @param {Case} made
 * @param {number} score
 * @returns {Case}
 */
export function allOneSign({ shape, q, k, v }, score) {
  const { headSize, scale, kvType } = shape;
  const keys = makeCache(
    kvType,
    k.values.map((x) => 1 + 0.05 * x),
  );
  const size = score / (scale * headSize);
  return { shape, q: q.map((x) => size * (1 + 0.1 * x)), k: keys, v };
}

/** @param {Shape} s */
export function describeLayer({ kvType, nHeads, nKvHeads, headSize, causal, window, softcap, sinks }) {
  const [type] = Object.entries(KV).filter(([, value]) => value === kvType)[0];
  const settings = [
    causal ? 'causal' : 'all see all',
    window && `window ${window}`,
    softcap && `softcap ${softcap}`,
  ];
  return [`${type}, ${nHeads}/${nKvHeads} heads of ${headSize}`, ...settings, sinks && 'sinks']
    .filter(Boolean)
    .join(', ');
}

/**
 * Where a run has its rows.
 * @typedef {object} Place
 * @property {boolean} [ofBatch]  rows begin at `start` in the buffers of queries and results
 * @property {number} [start]  of the step
 * @property {boolean} [alone]  there are only queries in a row, not queries, keys and values
 * @property {number} [room]  positions of the cache
 * @property {number} [split]
 */

/** The shape of kernels. @param {Shape} s @param {Place} [place] @returns {AttentionShape} */
export function kernelShape(s, { ofBatch = false, alone = false, room = s.nPositions, split = 64 } = {}) {
  const { nHeads, nKvHeads, headSize, scale, softcap, window } = s;
  const type = /** @type {KvType} */ (Object.entries(KV).find(([, value]) => value === s.kvType)?.[0]);
  const stride = up16((nHeads + (alone ? 0 : 2 * nKvHeads)) * headSize);
  return {
    nHeads,
    nKvHeads,
    headSize,
    cache: { type, nPositions: room, nKvHeads, headSize },
    scale,
    softcap,
    window,
    causal: s.causal === 1,
    sinks: s.sinks !== undefined,
    q: { offset: HEADER, stride, ofBatch },
    out: { offset: 0, stride: up16(nHeads * headSize), ofBatch },
    split,
  };
}

/** The buffers of a run. @param {Case} made @param {AttentionShape} kernel @param {number} start */
function buffersOf({ shape: s, q, k, v }, { q: rows, out, cache, nHeads, headSize }, start) {
  const nCols = nHeads * headSize;
  const outRows = /** @type {import('../../js/gpu/wgsl/attention.js').Rows} */ (out);
  const first = rows.ofBatch ? start : 0;
  const queries = new Float32Array(HEADER + (first + s.nTokens) * rows.stride).fill(NaN);
  const results = new Float32Array((first + s.nTokens + 1) * outRows.stride).fill(CANARY);
  for (let t = 0; t < s.nTokens; t++) {
    queries.set(q.subarray(t * nCols, (t + 1) * nCols), HEADER + (first + t) * rows.stride);
    const at = (first + t) * outRows.stride;
    results.fill(NaN, at, at + nCols);
  }
  // Positions that no token sees are NaN: those before the first, and those without a row.
  const hidden = seenBy(s, 0)[0] / s.nPositions;
  const [keys, values] = [k, v].map(({ bytes }) => bytes.slice().fill(255, 0, hidden * bytes.length));
  const words = gpuCache(cache, keys, values, POISON);
  return { q: queries, cache: words, out: results, ...(s.sinks && { sinks: s.sinks }) };
}

/**
 * The rows of results, after a check that nothing else was written.
 * @param {Float32Array} got
 * @param {Case} made
 * @param {AttentionShape} kernel
 * @param {number} start
 */
function resultsOf(got, { shape: s }, { nHeads, headSize, out }, start) {
  const nCols = nHeads * headSize;
  const { stride, ofBatch } = /** @type {import('../../js/gpu/wgsl/attention.js').Rows} */ (out);
  const first = ofBatch ? start : 0;
  const y = new Float32Array(s.nTokens * nCols);
  for (let row = 0; row * stride < got.length; row++) {
    const t = row - first;
    const isOut = t >= 0 && t < s.nTokens;
    if (isOut) y.set(got.subarray(row * stride, row * stride + nCols), t * nCols);
    for (let c = isOut ? nCols : 0; c < stride; c++)
      assert.equal(got[row * stride + c], CANARY, `row ${row}, column ${c} was written`);
  }
  return y;
}

/** @param {Shape} s @param {number} start */
const stepOf = (s, start) => ({
  position: s.firstPosition,
  start,
  nTokens: s.nTokens,
  seen: s.nPositions,
});

/**
 * Runs a kernel that writes `out`.
 * @param {TestGpu} gpu
 * @param {Case} made
 * @param
 *   {(kernel: AttentionShape, step: { seen: number, nTokens: number }) => [Shader, [number, number, number]]}
 *   kernelOf
 * @param {Place} [place]
 */
export async function runKernel(gpu, made, kernelOf, place = {}) {
  const { start = 0 } = place;
  const kernel = kernelShape(made.shape, place);
  const step = stepOf(made.shape, start);
  const [shader, groups] = kernelOf(kernel, step);
  const got = await gpu.run(shader, buffersOf(made, kernel, start), groups, 'out', step);
  return resultsOf(new Float32Array(got), made, kernel, start);
}

/** Attention in one split. @param {TestGpu} gpu @param {Case} made @param {Place} [place] */
export const runOneSplit = (gpu, made, place) =>
  runKernel(
    gpu,
    made,
    (kernel, step) => [attention({ ...kernel, parts: false }), attentionGroups(kernel, step)],
    place,
  );

/**
 * Attention in splits, and their merging.
 * @param {TestGpu} gpu
 * @param {Case} made
 * @param {Place & { moreSplits?: number }} [place]  moreSplits: workgroups for splits beyond the
 *   last position
 */
export async function runSplits(gpu, made, place = {}) {
  const { start = 0, moreSplits = 0 } = place;
  const kernel = kernelShape(made.shape, place);
  const step = stepOf(made.shape, start);
  const { out, sinks, ...inputs } = buffersOf(made, kernel, start);
  const [x, y, z] = attentionGroups(kernel, step);
  const bytes = partsBytes(
    { ...kernel, window: 0 },
    { ...step, seen: (y + moreSplits) * (kernel.split ?? 1) },
  );
  const empty = new Float32Array(bytes / 4).fill(NaN);
  const many = attention({ ...kernel, parts: true });
  const parts = await gpu.run(many, { ...inputs, parts: empty }, [x, y + moreSplits, z], 'parts', step);
  const written = new Float32Array(parts);
  const perSplit = written.length / (y + moreSplits);
  assert.ok(
    written.subarray(y * perSplit).every(Number.isNaN),
    'a split beyond the last position wrote its part',
  );
  const data = { parts: written, out, ...(sinks && { sinks }) };
  const got = await gpu.run(mergeSplits(kernel), data, mergeGroups(kernel, step), 'out', step);
  return resultsOf(new Float32Array(got), made, kernel, start);
}

/** Attention in tiles. @param {TestGpu} gpu @param {Case} made @param {Place} [place] */
export const runTiles = (gpu, made, place) =>
  runKernel(gpu, made, (kernel, step) => [attentionTiles(kernel), tileGroups(kernel, step)], place);
