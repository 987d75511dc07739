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
 * Weights of one call, which all have as many columns as the first.
 * @param {unknown} weights
 * @returns {readonly Weight[]}
 */
export function asWeights(weights) {
  if (!Array.isArray(weights) || weights.length === 0)
    throw new ArgumentError(`weights must be a list of Weights, got ${show(weights)}`);
  const [first, ...others] = weights.map((w, i) => asWeight(w, `weights[${i}]`));
  for (const w of others) {
    if (w.nCols === first.nCols) continue;
    throw new ShapeError(`${w} has ${w.nCols} columns, ${first} has ${first.nCols}`, {
      got: w.nCols,
      expected: first.nCols,
    });
  }
  return weights;
}

/**
 * Checks a list that has an entry for each weight of a call, if it is given.
 * @param {unknown} list
 * @param {number} nWeights
 * @param {string} what
 */
export function checkEntries(list, nWeights, what) {
  if (list === undefined) return;
  if (!Array.isArray(list)) throw new ArgumentError(`${what} must be a list, got ${show(list)}`);
  if (list.length === nWeights) return;
  throw new ShapeError(`${what} has ${list.length} entries for ${nWeights} weights`, {
    got: list.length,
    expected: nWeights,
  });
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
