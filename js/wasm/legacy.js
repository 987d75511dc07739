/* The flat 4-bit layout from before Q4_K. It is deprecated, but still works. */

import {
  asBytes,
  asFloats,
  checkBlocks,
  checkData,
  checkDimension,
  checkLength,
  checkNames,
} from '../checks.js';
import { statusError } from '../errors.js';
import { countRows } from './operands.js';

/** Bytes of a block: 12 that are skipped, 128 of nibbles. */
const LEGACY = { name: 'legacy', blockValues: 256, blockBytes: 140 };
/** Each part of the scratch memory starts at a multiple of this many bytes. */
const PART_ALIGNMENT = 64;

const FIELDS = ['data', 'scales', 'nRows', 'nCols'];

const DEPRECATION = 'fusedDequantMatmulQ4KLegacy is deprecated: quantize to Q4_K and use fusedMatmul';

/**
 * @typedef {object} LegacyQ4Weight
 * @property {ArrayBufferLike | ArrayBufferView} data  nRows * nCols / 256 blocks of 140 bytes: 12
 *   that are skipped, then 128 bytes. Byte k has the codes of the values 2k (low nibble) and 2k + 1
 *   (high nibble).
 * @property {Float32Array} scales  One scale a block: value = scale * (code - 8).
 * @property {number} nRows  Rows: the outputs of a product.
 * @property {number} nCols  Columns: a multiple of 256.
 */

let warned = false;

function warnOnce() {
  if (warned) return;
  warned = true;
  if (globalThis.process?.emitWarning !== undefined) {
    process.emitWarning(DEPRECATION, { type: 'DeprecationWarning', code: 'FM_DEP_LEGACY' });
  } else {
    // biome-ignore lint/suspicious/noConsole: the only way to warn without process.emitWarning
    console.warn(`DeprecationWarning: ${DEPRECATION}`);
  }
}

/** @type {import('./core.js').Operation<'fusedDequantMatmulQ4KLegacy'>} */
export const fusedDequantMatmulQ4KLegacy = ({ memory }, w, x) => {
  checkNames(w, FIELDS, 'field');
  const { data, scales, nRows, nCols } = w;
  const { exports } = memory;
  checkDimension(nRows, 'nRows');
  checkDimension(nCols, 'nCols');
  checkBlocks(nCols, LEGACY);
  const bytes = asBytes(data);
  const nBlocks = nRows * (nCols / LEGACY.blockValues);
  const expected = nBlocks * LEGACY.blockBytes;
  checkData(bytes, expected, LEGACY, `${nRows} x ${nCols}`);
  checkLength(asFloats(scales, 'scales'), nBlocks, `scales of ${nBlocks} blocks`);
  const nTokens = countRows(asFloats(x, 'x'), nCols, 'x', 'w');
  warnOnce();

  let total = 0;
  const [atW, atScales, atX, atY] = [expected, 4 * nBlocks, 4 * x.length, 4 * nTokens * nRows].map((size) => {
    const at = total;
    total += Math.ceil(size / PART_ALIGNMENT) * PART_ALIGNMENT;
    return at;
  });
  const base = memory.alloc(total, 'scratch');
  try {
    memory.u8.set(bytes, base + atW);
    memory.f32.set(scales, (base + atScales) / 4);
    memory.f32.set(x, (base + atX) / 4);
    const { fused_dequant_matmul_q4k_legacy: matmul } = exports;
    const status = matmul(base + atW, base + atScales, base + atX, base + atY, nTokens, nRows, nCols);
    if (status !== 0) throw statusError(status, `fusedDequantMatmulQ4KLegacy of ${nRows} x ${nCols}`);
    const y = (base + atY) / 4;
    return memory.f32.slice(y, y + nTokens * nRows);
  } finally {
    memory.free(base, total, 'scratch');
  }
};
