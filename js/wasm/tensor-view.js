/* Parts of tensors, and tensors under another shape, without a copy. */

import { HandleError, ShapeError, show } from '../errors.js';
import { dispose, Tensor } from './handles.js';

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
    return new TensorView(tensor, start, nRows, nCols);
  throw new ShapeError(
    `${tensor}: ${show(nRows)} row(s) of ${show(nCols)} from row ${show(start)} on end at ${show(end)} of ${tensor.length} values`,
    { got: end, expected: tensor.length },
  );
}

/** Owns nothing, and ends with the tensor it shows. */
class TensorView extends Tensor {
  #of;
  #offset;

  /**
   * @param {Tensor} of
   * @param {number} start
   * @param {number} nRows
   * @param {number} nCols
   */
  constructor(of, start, nRows, nCols) {
    super(of.memory, { ptr: 0, nRows, nCols, byteLength: 4 * nRows * nCols });
    this.#of = of;
    this.#offset = 4 * start * nCols;
  }

  get freed() {
    return this.#of.freed;
  }

  /** @param {import('./memory.js').Memory} memory */
  ptrIn(memory) {
    return this.#of.ptrIn(memory) + this.#offset;
  }

  free() {
    throw new HandleError(`${this} is a view: free the tensor it shows`, 'view');
  }

  [dispose]() {}
}
