/**
 * Products of GPU kernels for tests: rows of activations, a run, and its comparison with float64.
 */
import assert from 'node:assert/strict';
import { up16 } from '../../js/gpu/shader.js';
import { matmul, matmulGroups } from '../../js/gpu/wgsl/matmul.js';
import { matmulInt8 } from '../../js/gpu/wgsl/matmul-int8.js';
import {
  quantizeActivations,
  quantizeGroups,
  rowScales,
  scaleActivations,
  scaleGroups,
} from '../../js/gpu/wgsl/quantize.js';
import { ReferenceProduct } from './bounds.js';
import { gpuSkip, openTestDevice } from './gpu.js';
import { gaussian } from './layer.js';
import { Prng } from './prng.js';

/** @import { MatmulOptions } from '../../js/gpu/wgsl/matmul.js' */
/** @import { TestGpu } from './gpu.js' */
/** @import { randomWeight } from './gpu-weights.js' */

const u = 2 ** -24;
/** Columns whose values are all smaller become zeros when they are quantised. */
const NO_SCALE = 1e-30;

/**
 * Why tests that need a feature are skipped, or false.
 * @param {import('../../js/gpu/device.js').GpuFeature} feature
 */
export async function featureSkip(feature) {
  const skip = await gpuSkip();
  if (skip) return skip;
  const device = await openTestDevice();
  const has = device.features.has(feature);
  device.destroy();
  return has ? false : `this Vulkan driver has no ${feature}`;
}

/**
 * Rows with the stride of a buffer: zeros as padding, NaN in the rows before and after.
 * @param {Float32Array} dense  [nTokens][nCols] @param {number} nCols
 * @param {number} start  rows before
 */
export function paddedRows(dense, nCols, start) {
  const stride = up16(nCols);
  const nTokens = dense.length / nCols;
  const x = new Float32Array((start + nTokens + 1) * stride).fill(NaN);
  for (let t = 0; t < nTokens; t++) {
    const at = (start + t) * stride;
    x.fill(0, at, at + stride);
    x.set(dense.subarray(t * nCols, (t + 1) * nCols), at);
  }
  return x;
}

/**
 * Activations as codes and scales, both poisoned before, and what they stand for, which must be
 * near the activations.
 * @param {TestGpu} gpu
 * @param {Float32Array} dense  [nTokens][nCols]
 * @param {Float32Array} x  the same with the stride of a buffer
 * @param {{ nCols: number, start: number }} where  start: rows of x before those
 */
export async function quantizedRows(gpu, dense, x, { nCols, start }) {
  const nTokens = dense.length / nCols;
  const [stride, nScales] = [up16(nCols), rowScales(nCols)];
  const data = {
    x,
    codes: new Uint8Array(x.length).fill(99),
    scales: new Float32Array((x.length / stride) * nScales).fill(NaN),
  };
  const shader = quantizeActivations({ nCols });
  const groups = quantizeGroups({ nCols }, nTokens);
  const step = { position: 0, start, nTokens, seen: 0 };
  const codes = new Int8Array(await gpu.run(shader, data, groups, 'codes', step));
  const scales = new Float32Array(await gpu.run(shader, data, groups, 'scales', step));
  const values = Float64Array.from(dense, (exact, i) => {
    const [t, c] = [start + Math.floor(i / nCols), i % nCols];
    const d = scales[t * nScales + (c >> 5)];
    const value = codes[t * stride + c] * d;
    // Half a step, and a rounding of the scale, of its inverse and of the product with it.
    const bound = (d / 2) * (1 + 4 * 128 * 2 * u) + NO_SCALE;
    assert.ok(Math.abs(value - exact) <= bound, `column ${c}: ${value} for ${exact}`);
    return value;
  });
  return { codes, scales, values };
}

/**
 * The outputs of a batch; everything else must be as it was before.
 * @param {Float32Array} y @param {Float32Array} before
 * @param {{ start: number, nTokens: number, nRows: number, stride: number, first: number }} where
 * @returns {Float32Array} [nTokens][nRows]
 */
function takeOutputs(y, before, { start, nTokens, nRows, stride, first }) {
  const bits = new Uint32Array(y.buffer.slice(y.byteOffset, y.byteOffset + y.byteLength));
  const bitsBefore = new Uint32Array(before.buffer, before.byteOffset, before.length);
  const got = new Float32Array(nTokens * nRows);
  for (let t = 0; t < nTokens; t++) {
    const at = (start + t) * stride + first;
    got.set(y.subarray(at, at + nRows), t * nRows);
    bits.set(bitsBefore.subarray(at, at + nRows), at);
  }
  const changed = bits.findIndex((value, i) => value !== bitsBefore[i]);
  assert.equal(changed, -1, `row ${Math.floor(changed / stride)}, column ${changed % stride} was written`);
  return got;
}

/**
 * A product for tests.
 * @typedef {object} ProductCase
 * @property {ReturnType<typeof randomWeight>} weight  of gpu-weights.js
 * @property {Float32Array} dense  activations, [nTokens][nCols]
 * @property {Omit<MatmulOptions, 'unit'>} options
 * @property {number} [start]  rows before the batch
 * @property {boolean} [int8]  with activations as codes
 */

/**
 * Runs a product, with NaN in what it must not read and in what it must write.
 * @param {TestGpu} gpu
 * @param {ProductCase} given
 */
export async function runProduct(gpu, { weight, dense, options, start = 0, int8 = false }) {
  const { unit, words } = weight;
  const { nRows, nCols } = unit;
  const nTokens = dense.length / nCols;
  const all = { ...options, unit };
  const stride = options.yStride ?? up16(nRows);
  const step = { position: 0, start, nTokens, seen: 0 };
  const y = new Float32Array((start + nTokens + 1) * stride).fill(NaN);
  if (options.epilogue === 'add') y.set(gaussian(y.length, new Prng(y.length)));
  const x = paddedRows(dense, nCols, start);
  const vectors = gaussian(nRows + (options.bias ?? 0), new Prng(5));
  /** @type {Record<string, ArrayBufferView>} */
  const data = { w: words, x, y, vectors };
  /**
   * @param {import('../../js/gpu/shader.js').Shader} shader
   * @param {string} result
   * @param {readonly [number, number, number]} groups
   */
  const run = (shader, result, groups) => {
    const named = shader.bindings.map(({ name }) => [name, data[name]]);
    return gpu.run(shader, Object.fromEntries(named), groups, result, step);
  };
  const nAll = start + nTokens + 1;
  if (options.f16) {
    data.scales = new Float32Array(nAll).fill(NaN);
    data.x_scale = new Float32Array(await run(scaleActivations(unit), 'scales', scaleGroups(nTokens)));
  }
  /** What the activations became. */
  let quantized = new Float64Array(dense);
  if (int8) {
    const { codes, scales, values } = await quantizedRows(gpu, dense, x, { nCols, start });
    Object.assign(data, { codes, scales });
    quantized = values;
  }
  const shader = int8 ? matmulInt8(all) : matmul(all);
  const bytes = await run(shader, 'y', matmulGroups(all, nTokens));
  const first = options.yRowOffset ?? 0;
  const where = { start: options.fromZero ? 0 : start, nTokens, nRows, stride, first };
  return {
    got: takeOutputs(new Float32Array(bytes), y, where),
    quantized,
    before: (/** @type {number} */ t, /** @type {number} */ r) => y[(where.start + t) * stride + first + r],
    bias: (/** @type {number} */ r) => vectors[(options.bias ?? 0) + r],
  };
}

/**
 * Runs a product and compares it with float64, of activations as they were quantised.
 *
 * With integers, sums of 8 columns at least are exact before they meet f32, with at most 8
 * roundings each and two terms: that is within the bound of f32 products. Of a sum that is added to
 * y, the bias, y and a scale, which is an f32 itself, are roundings of each term.
 * @param {TestGpu} gpu @param {ProductCase} given @param {string} what
 * @returns {Promise<Float32Array>} [nTokens][nRows]
 */
export async function checkProduct(gpu, given, what) {
  const { got, quantized, before, bias } = await runProduct(gpu, given);
  const { weight, options } = given;
  const { nRows, nCols } = weight.unit;
  const x = /** @type {Float32Array} */ (/** @type {unknown} */ (quantized));
  const reference = new ReferenceProduct(weight.reference, x, x.length / nCols);
  if (options.epilogue !== 'add') {
    reference.check(got, { activation: 0, what });
    return got;
  }
  const { residualScale = 1 } = options;
  got.forEach((value, i) => {
    const [t, r] = [Math.floor(i / nRows), i % nRows];
    const [sum, old, added] = [reference.y[i], before(t, r), options.bias === undefined ? 0 : bias(r)];
    const expected = old + residualScale * (sum + added);
    const scaled = Math.abs(sum + added) * (residualScale === 1 ? 1 : 2) + Math.abs(added);
    const terms = Math.abs(old) + residualScale * scaled;
    const bound = residualScale * reference.bound(t, r, 0) + 2 * u * terms;
    assert.ok(Math.abs(value - expected) <= bound, `${what}: y[${t}][${r}] is ${value}, not ${expected}`);
  });
  return got;
}

/**
 * Activations of four kinds, token by token: large ones, small ones, large ones of one sign, and
 * ordinary ones.
 * @param {number} nTokens @param {number} nCols @param {Prng} prng
 */
export function extremeRows(nTokens, nCols, prng) {
  return gaussian(nTokens * nCols, prng).map((value, i) => {
    const kinds = [value * 2e5, value * 1e-6, 2e5 + Math.abs(value), value];
    return kinds[Math.floor(i / nCols) % 4];
  });
}
