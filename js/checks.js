/* Checks of arguments that the public functions share. */

import { ArgumentError, ShapeError, show } from './errors.js';

/**
 * @param {readonly string[]} allowed
 * @param {unknown} value
 * @param {string} what
 */
export function oneOf(allowed, value, what) {
  if (!allowed.includes(/** @type {string} */ (value))) {
    throw new ArgumentError(`${what} must be one of ${allowed.join(', ')}, got ${show(value)}`);
  }
}

/**
 * @param {number} value
 * @param {string} what
 */
export function checkDimension(value, what) {
  if (!Number.isSafeInteger(value) || value < 1 || value > 0xffffffff) {
    throw new ShapeError(`${what} must be an integer from 1 to 4294967295, got ${show(value)}`, {
      got: value,
      expected: 1,
    });
  }
}

/**
 * @param {{ length: number }} values
 * @param {number} expected
 * @param {string} what
 */
export function checkLength({ length }, expected, what) {
  if (length !== expected)
    throw new ShapeError(`${what}: ${length} values, expected ${expected}`, { got: length, expected });
}

/**
 * @param {unknown} value
 * @param {string} what
 * @returns {Float32Array}
 */
export function asFloats(value, what) {
  if (value instanceof Float32Array) return value;
  throw new ArgumentError(`${what} must be a Float32Array, got ${show(value)}`);
}

/** @param {unknown} data */
export function asBytes(data) {
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  if (typeof SharedArrayBuffer === 'function' && data instanceof SharedArrayBuffer)
    return new Uint8Array(data);
  throw new ArgumentError(`data must be an ArrayBuffer or a view of one, got ${show(data)}`);
}
