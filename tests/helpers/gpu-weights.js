/** Weights in the layouts of GPU memory, arranged by plain JavaScript. */
import {
  blockBytes,
  fieldOffsets,
  layoutOf,
  loadTypes,
  rowBlocks,
  tailAt,
  WGSL_TYPES,
} from '../../js/gpu/wgsl/types.js';
import { findType, types, weightBytes } from '../../js/types.js';
import { makeWeights } from './blocks.js';
import { ReferenceWeight } from './bounds.js';
import * as codebooks from './codebooks.js';
import { referenceByName } from './reference.js';

/** @import { Unit } from '../../js/gpu/wgsl/types.js' */
/** @import { Prng } from './prng.js' */
/** @import { ReferenceType } from './reference.js' */

await loadTypes(types.filter(({ served }) => served).map(({ name }) => name));
/** All types with kernels on the GPU. */
export const GPU_TYPES = Object.keys(WGSL_TYPES);

/**
 * A codebook as GPU memory has it, by the name of its type.
 * @param {string} type
 */
function codebook(type) {
  const digits = /** @type {Record<string, string>} */ (/** @type {unknown} */ (codebooks))[`${type}_GRID`];
  const bits = type.startsWith('IQ3') ? 4 : 2;
  return Uint16Array.from({ length: digits.length / 4 }, (_, entry) => {
    const inFront = Number.parseInt(digits.slice(4 * entry, 4 * entry + 4), 16);
    let packed = 0;
    for (let at = 0; at < 16; at += bits) packed |= ((inFront >> (16 - bits - at)) & (2 ** bits - 1)) << at;
    return packed;
  });
}

/**
 * The data that follow the blocks in GPU memory: a codebook, or a factor.
 * @param {string} type
 */
export function tailOf(type) {
  if (/^IQ[123]/.test(type)) return codebook(type === 'IQ1_M' ? 'IQ1_S' : type);
  return type === 'NVFP4' ? Float32Array.of(1) : new Uint8Array();
}

/** @param {string} type */
export const typeOf = (type) => /** @type {import('../../js/types.js').GgmlType} */ (findType(type));

/** @param {string} type @param {number} nRows @param {number} nCols */
export const fileBytes = (type, nRows, nCols) => weightBytes(typeOf(type), nRows, nCols);

/**
 * @param {{ type: string, nRows: number, nCols: number }} weight  bytes of blocks in GPU memory,
 *   without the rounding of a buffer
 */
export const gpuBytes = (weight) => weight.nRows * rowBlocks(weight) * blockBytes(weight.type);

/**
 * The bytes of a tensor as GPU memory holds them: its blocks, zeros up to a whole word, and what
 * follows the blocks.
 * @param {{ type: string, nRows: number, nCols: number }} weight
 * @param {Uint8Array} bytes  of the file
 */
export function arrange(weight, bytes) {
  const { type, nRows } = weight;
  const { buffer: tail, byteLength: more } = tailOf(type);
  const at = tailAt({ type, nBlocks: nRows * rowBlocks(weight) });
  const out = new Uint8Array(at + more);
  out.set(new Uint8Array(tail), at);
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
