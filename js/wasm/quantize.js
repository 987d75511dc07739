/* Quantises f32 rows to GGUF blocks, with the quantisers of the module. */

import { asFloats, checkBlocks, checkDimension, checkLength } from '../checks.js';
import { ArgumentError, show, statusError } from '../errors.js';
import { findType, weightBytes } from '../types.js';

/** Types that can be quantised to. A test compares them with those of the modules. */
export const QUANTIZABLE = Object.freeze(['Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0', 'Q4_K', 'Q5_K', 'Q6_K']);

/** Bytes of values that are staged at a time. */
const STEP = 1 << 20;

/** @type {import('./core.js').Operation<'quantize'>} */
export const quantize = ({ memory, stagedX, stagedY }, typeKey, values, nRows, nCols) => {
  const { exports } = memory;
  const type = findType(typeKey);
  if (!type || !QUANTIZABLE.includes(type.name)) {
    const what = type ? `type ${type.name} cannot be quantised to` : `there is no type ${show(typeKey)}`;
    throw new ArgumentError(`${what}; those that can are ${QUANTIZABLE.join(', ')}`);
  }
  checkDimension(nRows, 'nRows');
  checkDimension(nCols, 'nCols');
  checkBlocks(nCols, type);
  checkLength(asFloats(values, 'values'), nRows * nCols, `values of a ${nRows} x ${nCols} matrix`);
  const rowBytes = weightBytes(type, 1, nCols);
  const result = new Uint8Array(nRows * rowBytes);
  const step = Math.max(1, Math.floor(STEP / (4 * nCols)));
  for (let row = 0; row < nRows; row += step) {
    const n = Math.min(step, nRows - row);
    const atX = stagedX.reserve(n * nCols);
    const atW = stagedY.reserve(Math.ceil((n * rowBytes) / 4));
    memory.f32.set(values.subarray(row * nCols, (row + n) * nCols), atX / 4);
    const status = exports.fm_quantize_rows(type.id, atX, atW, n, nCols);
    if (status !== 0) throw statusError(status, `quantize to ${type.name}`);
    result.set(memory.u8.subarray(atW, atW + n * rowBytes), row * rowBytes);
  }
  return result;
};
