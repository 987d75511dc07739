/** Weights in the layouts of GPU memory, arranged by plain JavaScript. */
import { blockBytes, fieldOffsets, layoutOf, rowBlocks, WGSL_TYPES } from '../../js/gpu/wgsl/types.js';
import { findType, weightBytes } from '../../js/types.js';
import { makeWeights } from './blocks.js';
import { ReferenceWeight } from './bounds.js';
import { referenceByName } from './reference.js';

/** @import { Unit } from '../../js/gpu/wgsl/types.js' */
/** @import { Prng } from './prng.js' */
/** @import { ReferenceType } from './reference.js' */

/** @param {string} type */
export const typeOf = (type) => /** @type {import('../../js/types.js').GgmlType} */ (findType(type));

/** @param {string} type @param {number} nRows @param {number} nCols */
export const fileBytes = (type, nRows, nCols) => weightBytes(typeOf(type), nRows, nCols);

/**
 * @param {{ type: string, nRows: number, nCols: number }} weight  bytes in GPU memory, without the
 *   rounding of a buffer
 */
export const gpuBytes = (weight) => weight.nRows * rowBlocks(weight) * blockBytes(weight.type);

/**
 * The bytes of a tensor as GPU memory holds them; the last word is filled up with zeros.
 * @param {{ type: string, nRows: number, nCols: number }} weight
 * @param {Uint8Array} bytes  of the file
 */
export function arrange(weight, bytes) {
  const { type, nRows } = weight;
  const out = new Uint8Array(Math.ceil(gpuBytes(weight) / 4) * 4);
  if (!WGSL_TYPES[type].coded) {
    const from = bytes.length / nRows;
    const to = rowBlocks(weight) * blockBytes(type);
    for (let r = 0; r < nRows; r++) out.set(bytes.subarray(r * from, (r + 1) * from), r * to);
    return out;
  }
  if (layoutOf(type) === 'blocks') {
    out.set(bytes);
    return out;
  }
  const offsets = fieldOffsets(type);
  const stride = blockBytes(type);
  const nBlocks = bytes.length / stride;
  for (let b = 0; b < nBlocks; b++) {
    let at = b * stride;
    for (const [field, size] of WGSL_TYPES[type].fields) {
      out.set(bytes.subarray(at, at + size), nBlocks * offsets[field] + b * size);
      at += size;
    }
  }
  return out;
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
    words: arrange({ type, nRows: all, nCols }, bytes),
    reference: new ReferenceWeight(of, bytes.subarray((skip * bytes.length) / all), nRows, nCols),
  };
}
