/** Weights for tests of GPU kernels: bytes as a file has them, and the words that kernels read. */
import { blockBytes, fieldOffsets, layoutOf, rowBlocks, WGSL_TYPES } from '../../js/gpu/wgsl/types.js';
import { makeWeights } from './blocks.js';
import { ReferenceWeight } from './bounds.js';
import { referenceByName } from './reference.js';

/** @import { Prng } from './prng.js' */
/** @import { ReferenceType } from './reference.js' */
/** @import { Unit } from '../../js/gpu/wgsl/types.js' */

/**
 * The layout that kernels read: blocks as they are or planes, floats padded to whole pieces.
 * @param {string} type @param {Uint8Array} bytes @param {number} nRows @param {number} nCols
 * @returns {Uint8Array} whole words
 */
export function arrange(type, bytes, nRows, nCols) {
  const { blockValues, fields } = WGSL_TYPES[type];
  const perRow = rowBlocks({ type, nCols });
  const nBlocks = nRows * perRow;
  const size = blockBytes(type);
  const out = new Uint8Array(Math.ceil((nBlocks * size) / 4) * 4);
  const rowBytes = bytes.length / nRows;
  const offsets = fieldOffsets(type);
  for (let r = 0; r < nRows; r++) {
    const row = new Uint8Array(perRow * size);
    row.set(bytes.subarray(r * rowBytes, (r + 1) * rowBytes));
    if (layoutOf(type) === 'blocks' || blockValues === 16) {
      out.set(row, r * perRow * size);
      continue;
    }
    for (let b = 0; b < perRow; b++) {
      let at = b * size;
      for (const [field, n] of fields) {
        out.set(row.subarray(at, at + n), nBlocks * offsets[field] + (r * perRow + b) * n);
        at += n;
      }
    }
  }
  return out;
}

/**
 * A random weight: its float64 reference, its words, and how kernels name it.
 * @param {string} type @param {number} nRows @param {number} nCols @param {Prng} prng
 * @param {string} [kind]
 * @returns {{ unit: Unit, words: Uint8Array, reference: ReferenceWeight }}
 */
export function randomWeight(type, nRows, nCols, prng, kind = 'natural') {
  const of = /** @type {ReferenceType} */ (referenceByName.get(type));
  const bytes = makeWeights(of, kind, nRows, nCols, prng);
  return {
    unit: { type, nRows, nCols, nBlocks: nRows * rowBlocks({ type, nCols }), firstBlock: 0 },
    words: arrange(type, bytes, nRows, nCols),
    reference: new ReferenceWeight(of, bytes, nRows, nCols),
  };
}
