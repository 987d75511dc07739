/* Parts of tensors, and tensors under another shape, without a copy. */

import { ShapeError, show } from '../errors.js';
import { partOf } from './handles.js';

/** @typedef {import('./handles.js').Tensor} Tensor */

/**
 * The same memory under another shape, from row `start` of `nCols` values on.
 * @param {Tensor} tensor
 * @param {{ start?: number, nRows: number, nCols?: number }} shape  start: 0; nCols: the tensor's
 * @returns {Tensor}
 * @throws {ShapeError} it reaches beyond the tensor; the message has both numbers
 */
export function viewOf(tensor, { start = 0, nRows, nCols = tensor.nCols }) {
  const isCount = (/** @type {number} */ n, least = 1) => Number.isSafeInteger(n) && n >= least;
  const end = (start + nRows) * nCols;
  if (isCount(start, 0) && isCount(nRows) && isCount(nCols) && end <= tensor.length)
    return partOf(tensor, 4 * start * nCols, nRows, nCols);
  throw new ShapeError(
    `${tensor}: ${show(nRows)} row(s) of ${show(nCols)} from row ${show(start)} on end at ${show(end)} of ${tensor.length} values`,
    { got: end, expected: tensor.length },
  );
}
