/**
 * Products of GPU kernels for tests: weights as kernels read them, rows of activations, and the
 * check of what else was written.
 */
import assert from 'node:assert/strict';
import { up16 } from '../../js/gpu/shader.js';
import { matmul, matmulGroups, partValues, sumTiles, sumTilesGroups } from '../../js/gpu/wgsl/matmul.js';
import { matmulInt8 } from '../../js/gpu/wgsl/matmul-int8.js';
import {
  quantizeActivations,
  quantizeGroups,
  rowScales,
  scaleActivations,
  scaleGroups,
} from '../../js/gpu/wgsl/quantize.js';
import { blockBytes, fieldOffsets, layoutOf, rowBlocks, WGSL_TYPES } from '../../js/gpu/wgsl/types.js';
import { makeWeights } from './blocks.js';
import { ReferenceWeight } from './bounds.js';
import { gpuSkip, openTestDevice } from './gpu.js';
import { gaussian } from './layer.js';
import { Prng } from './prng.js';
import { referenceByName } from './reference.js';

/** @import { TestGpu } from './gpu.js' */
/** @import { MatmulOptions } from '../../js/gpu/wgsl/matmul.js' */
/** @import { ReferenceType } from './reference.js' */
/** @import { Unit } from '../../js/gpu/wgsl/types.js' */

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
 * Blocks as GPU memory holds them: rows of whole pieces, and planes where blocks are no whole
 * words.
 * @param {string} type
 * @param {Uint8Array} bytes  of the file
 * @param {number} nRows
 * @param {number} nCols
 */
function placed(type, bytes, nRows, nCols) {
  const rowBytes = rowBlocks({ type, nCols }) * blockBytes(type);
  const padded = new Uint8Array(Math.ceil((nRows * rowBytes) / 4) * 4);
  const given = bytes.length / nRows;
  for (let r = 0; r < nRows; r++) padded.set(bytes.subarray(r * given, (r + 1) * given), r * rowBytes);
  if (layoutOf(type) === 'blocks') return padded;
  const size = blockBytes(type);
  const nBlocks = nRows * rowBlocks({ type, nCols });
  const offsets = fieldOffsets(type);
  const planes = new Uint8Array(padded.length);
  for (let b = 0; b < nBlocks; b++) {
    let at = b * size;
    for (const [field, n] of WGSL_TYPES[type].fields) {
      planes.set(padded.subarray(at, at + n), nBlocks * offsets[field] + b * n);
      at += n;
    }
  }
  return planes;
}

/**
 * A weight with random blocks. `skip` rows of the tensor come before those of the unit.
 * @param {string} type
 * @param {number} nRows
 * @param {number} nCols
 * @param {Prng} prng
 * @param {number} [skip]
 * @returns {{ unit: Unit, words: Uint8Array, reference: ReferenceWeight }}
 */
export function randomWeight(type, nRows, nCols, prng, skip = 0) {
  const of = /** @type {ReferenceType} */ (referenceByName.get(type));
  const all = nRows + skip;
  const bytes = makeWeights(of, 'natural', all, nCols, prng);
  const blocks = rowBlocks({ type, nCols });
  return {
    unit: { type, nRows, nCols, nBlocks: all * blocks, firstBlock: skip * blocks },
    words: placed(type, bytes, all, nCols),
    reference: new ReferenceWeight(of, bytes.subarray((skip * bytes.length) / all), nRows, nCols),
  };
}

/**
 * Rows with the stride of a buffer: zeros as padding, NaN in the rows before and after.
 * @param {Float32Array} dense  [nTokens][nCols] @param {number} nCols @param {number} start
 */
function paddedRows(dense, nCols, start) {
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
 * @property {ReturnType<typeof randomWeight>} weight
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
    const groups = quantizeGroups(unit, nTokens);
    const before = {
      codes: new Uint32Array((nAll * up16(nCols)) / 4),
      scales: new Float32Array(nAll * rowScales(nCols)),
    };
    Object.assign(data, before);
    const codes = new Int8Array(await run(quantizeActivations(unit), 'codes', groups));
    const scales = new Float32Array(await run(quantizeActivations(unit), 'scales', groups));
    Object.assign(data, { codes, scales });
    quantized = quantized.map(
      (_, i) => codes[start * nCols + i] * scales[start * rowScales(nCols) + Math.floor(i / 32)],
    );
  }
  const shader = int8 ? matmulInt8(all) : matmul(all);
  const groups = matmulGroups(all, nTokens);
  let bytes;
  if ((options.splitK ?? 1) === 1) {
    bytes = await run(shader, 'y', groups);
  } else {
    data.parts = new Float32Array(partValues(all, nTokens)).fill(NaN);
    data.parts = new Float32Array(await run(shader, 'parts', groups));
    bytes = await run(sumTiles(all), 'y', sumTilesGroups(all, nTokens));
  }
  const first = options.yRowOffset ?? 0;
  const where = { start: options.fromZero ? 0 : start, nTokens, nRows, stride, first };
  return {
    got: takeOutputs(new Float32Array(bytes), y, where),
    quantized,
    before: (/** @type {number} */ t, /** @type {number} */ r) => y[(where.start + t) * stride + first + r],
    bias: (/** @type {number} */ r) => vectors[(options.bias ?? 0) + r],
  };
}
