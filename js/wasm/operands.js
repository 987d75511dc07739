/* Checks the weights and values given to operations. */

import { ArgumentError, ShapeError, show } from '../errors.js';
import { Tensor, Weight } from './handles.js';

/** @typedef {Float32Array | Tensor} Floats */

/**
 * @param {unknown} value
 * @param {string} what
 * @returns {Floats}
 */
export function asOperand(value, what) {
  if (value instanceof Float32Array || value instanceof Tensor) return value;
  throw new ArgumentError(`${what} must be a Float32Array or a Tensor, got ${show(value)}`);
}

/**
 * @param {unknown} value
 * @param {string} what
 * @returns {Weight}
 */
export function asWeight(value, what) {
  if (value instanceof Weight) return value;
  throw new ArgumentError(`${what} must be a Weight, got ${show(value)}`);
}

/**
 * The number of rows in x, each of nCols values.
 * @param {Floats} x
 * @param {number} nCols
 * @param {string} what  the name of x
 * @param {unknown} whose  the operand that needs nCols columns, for messages
 */
export function countRows(x, nCols, what, whose) {
  if (x instanceof Tensor && x.nCols !== nCols) {
    throw new ShapeError(`${what} has ${x.nCols} columns, ${whose} has ${nCols}`, {
      got: x.nCols,
      expected: nCols,
    });
  }
  const nRows = x.length / nCols;
  if (nRows >= 1 && Number.isInteger(nRows)) return nRows;
  throw new ShapeError(
    `${what} has ${x.length} values, which is no multiple of the ${nCols} columns of ${whose}`,
    { got: x.length, expected: nCols },
  );
}

/**
 * @param {unknown} value
 * @param {string} what
 * @param {{ above?: number, from?: number }} [least]
 */
export function checkNumber(value, what, { above = Number.NEGATIVE_INFINITY, from } = {}) {
  if (Number.isFinite(value) && (from === undefined ? Number(value) > above : Number(value) >= from)) return;
  const range =
    from === undefined ? (above === Number.NEGATIVE_INFINITY ? '' : ` over ${above}`) : ` from ${from} on`;
  throw new ArgumentError(`${what} must be a finite number${range}, got ${show(value)}`);
}
