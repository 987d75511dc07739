/* Checks of arguments, shared by the public functions. */

import { ArgumentError, ShapeError, show } from './errors.js';

/**
 * Refuses unknown names in an object of options. A known name may have the value undefined. This
 * runs for every operation with options, so the usual case is just a loop.
 * @param {object} given
 * @param {readonly string[]} known
 * @param {string} [kind]  word for one of the names
 * @throws {ArgumentError} a name is unknown; the message has the known names, and the one that was
 *   probably meant
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
  // Names that other code adds to Object.prototype are no options.
  if (!Object.hasOwn(given, name)) return;
  if (Array.isArray(given) || ArrayBuffer.isView(given))
    throw new ArgumentError(`${kind}s must be an object, got ${show(given)}`);
  const near = known.reduce((best, other) => (likeness(name, other) > likeness(name, best) ? other : best));
  const isMeant = 2 * likeness(name, near) >= Math.max(name.length, near.length);
  const hint = isMeant ? `; did you mean ${show(near)}?` : '';
  throw new ArgumentError(`there is no ${kind} ${show(name)}; ${kind}s are ${known.join(', ')}${hint}`);
}

/**
 * The number of letters that two names share at their beginnings and at their ends, ignoring case.
 * For a misspelt name these are all but a few letters.
 * @param {string} one
 * @param {string} other
 */
function likeness(one, other) {
  const [a, b] = [one.toLowerCase(), other.toLowerCase()];
  let start = 0;
  let end = 0;
  while (start < a.length && a[start] === b[start]) start += 1;
  while (end < a.length - start && a.at(-1 - end) === b.at(-1 - end)) end += 1;
  return start + end;
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
 * @param {number} nCols
 * @param {{ blockValues: number, name: string }} type
 */
export function checkBlocks(nCols, { blockValues, name }) {
  if (nCols % blockValues === 0) return;
  throw new ShapeError(
    `nCols is ${nCols}, which is no multiple of the ${blockValues} values of a ${name} block`,
    { got: nCols, expected: blockValues },
  );
}

/**
 * @param {Uint8Array} bytes
 * @param {number} expected
 * @param {{ blockBytes: number }} type
 * @param {string} what
 */
export function checkData({ byteLength }, expected, { blockBytes }, what) {
  if (byteLength === expected) return;
  throw new ShapeError(
    `data has ${byteLength} bytes (${byteLength / blockBytes} blocks), but ${what} take ${expected} (${expected / blockBytes} blocks of ${blockBytes})`,
    { got: byteLength, expected },
  );
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
 * @param {unknown} n
 * @param {number} of  what it must divide
 * @param {string} what
 * @param {string} whole  name of what it must divide
 */
export function checkDivisor(n, of, what, whole) {
  if (Number.isInteger(n) && Number(n) >= 1 && of % Number(n) === 0) return;
  throw new ShapeError(`${what} is ${show(n)}, which does not divide ${of} ${whole}`, {
    got: typeof n === 'number' ? n : undefined,
    expected: of,
  });
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
  // Shared or not, and also from another realm.
  if (/ArrayBuffer]$/.test(Object.prototype.toString.call(data)))
    return new Uint8Array(/** @type {ArrayBufferLike} */ (data));
  throw new ArgumentError(`data must be an ArrayBuffer or a view of one, got ${show(data)}`);
}
