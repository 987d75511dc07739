/* Views of tensors: a part of one, or another shape, without a copy. */

import { ShapeError, show } from '../errors.js';
import { partOf } from './handles.js';

/** @typedef {import('./handles.js').Tensor} Tensor */

/**
 * Makes a view of nRows x nCols values, from row `start` of such rows on.
 * @param {Tensor} tensor
 * @param {{ start?: number, nRows: number, nCols?: number }} shape  start: default 0; nCols:
 *   default the tensor's
 * @returns {Tensor}
 * @throws {ShapeError} the view reaches beyond the tensor; the message has both numbers
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
