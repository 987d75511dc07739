/** Products of GPU kernels against their float64 references: weights as kernels read them, rows of activations, what may change. */
import assert from 'node:assert/strict';
import { up16 } from '../../js/gpu/shader.js';
import { blockBytes, fieldOffsets, layoutOf, rowBlocks, WGSL_TYPES } from '../../js/gpu/wgsl/types.js';
import { makeWeights } from './blocks.js';
import { ReferenceWeight } from './bounds.js';
import { referenceByName } from './reference.js';

/** @import { Prng } from './prng.js' */
/** @import { ReferenceType } from './reference.js' */
/** @import { Unit } from '../../js/gpu/wgsl/types.js' */

/**
 * Blocks as GPU memory holds them: rows of whole pieces, and planes where blocks are no whole words.
 * @param {string} type @param {Uint8Array} bytes  of the file @param {number} nRows @param {number} nCols
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
 * @param {string} type @param {number} nRows @param {number} nCols @param {Prng} prng @param {number} [skip]
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
 * The outputs of a batch; everything else must be as it was before.
 * @param {Float32Array} y @param {Float32Array} before
 * @param {{ start: number, nTokens: number, nRows: number, stride: number, first: number }} where
 * @returns {Float32Array} [nTokens][nRows]
 */
export function takeOutputs(y, before, { start, nTokens, nRows, stride, first }) {
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
