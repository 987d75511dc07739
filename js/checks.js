/* Checks of arguments that the public functions share. */

import { ArgumentError, ShapeError, show } from './errors.js';

/**
 * Refuses names that a call does not know. A known name may stand there with the value undefined. Called for every operation
 * that is given options, so the usual case is a loop and nothing more.
 * @param {object} given
 * @param {readonly string[]} known
 * @param {string} [kind]  what the names are, in the singular
 * @throws {ArgumentError} an unknown name: the message has the known ones, and the one that was probably meant
 */
export function checkNames(given, known, kind = 'option') {
  if (typeof given !== 'object' || given === null)
    throw new ArgumentError(`${kind}s must be an object, got ${show(given)}`);
  for (const name in given) if (!known.includes(name)) refuseName(given, name, known, kind);
}

/**
 * @param {object} given
 * @param {string} name
 * @param {readonly string[]} known
 * @param {string} kind
 */
function refuseName(given, name, known, kind) {
  // What other code adds to Object.prototype is no option of anyone's.
  if (!Object.hasOwn(given, name)) return;
  if (Array.isArray(given) || ArrayBuffer.isView(given))
    throw new ArgumentError(`${kind}s must be an object, got ${show(given)}`);
  // Case and punctuation do not count: max_tokens is maxTokens.
  const plain = (/** @type {string} */ text) => text.toLowerCase().replace(/[^a-z0-9]/g, '');
  const distance = (/** @type {string} */ other) => editDistance(plain(name), plain(other));
  const near = known.reduce((best, other) => (distance(other) < distance(best) ? other : best));
  const isMeant = distance(near) <= Math.max(name.length, near.length) / 2;
  const hint = isMeant ? `; did you mean ${show(near)}?` : '';
  throw new ArgumentError(`there is no ${kind} ${show(name)}; ${kind}s are ${known.join(', ')}${hint}`);
}

/**
 * How many letters to put in, take out or replace to get from one to the other (Levenshtein).
 * @param {string} a
 * @param {string} b
 */
export function editDistance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++)
      next.push(Math.min(next[j] + 1, row[j + 1] + 1, row[j] + (a[i] === b[j] ? 0 : 1)));
    row = next;
  }
  return row[b.length];
}

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
