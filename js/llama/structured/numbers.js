/* Grammars of numbers between two bounds, as lists of alternatives. */

/** Digits of an integer without bounds: all of them are exact in JavaScript. */
const DIGITS = 15;

/** Bounds of numbers with a fraction, so that a fraction of six digits is exact beside them. */
export const LARGEST_BOUND = 1e9;

export const ANY_INTEGER = `("0" | "-"? [1-9] [0-9]{0,${DIGITS - 1}})`;
export const ANY_NUMBER = `"-"? ("0" | [1-9] [0-9]{0,${DIGITS - 1}}) ("." [0-9]{1,${DIGITS}})? ([eE] [+-]? [0-9]{1,2})?`;

/**
 * Integers from a first to a last one.
 * @param {number} from  may be -Infinity
 * @param {number} to  may be Infinity
 * @returns {string[]}
 */
export function integers(from, to) {
  const parts = [];
  if (to >= 0) parts.push(...magnitudes(Math.max(from, 0), to));
  if (from < 0) parts.push(...magnitudes(Math.max(-to, 1), -from).map((part) => `"-" ${part}`));
  return parts;
}

/**
 * Numbers between two integers.
 * @param {{ from: number, to: number, afterFrom: boolean, beforeTo: boolean }} bounds  afterFrom,
 *   beforeTo: the bound itself is none of them
 * @returns {string[]}
 */
export function numbers({ from, to, afterFrom, beforeTo }) {
  /** @type {string[]} */
  const parts = [];
  if (to > 0 || (to === 0 && !beforeTo)) {
    const open = from >= 0 && afterFrom;
    parts.push(...fractions(Math.max(from, 0), to, open, beforeTo));
  }
  if (from < 0) {
    const open = to <= 0 && beforeTo;
    const negative = fractions(Math.max(-to, 0), -from, open, afterFrom);
    parts.push(...negative.map((part) => `"-" ${part}`));
  }
  return parts;
}

/**
 * Numbers that are not negative.
 * @param {number} from
 * @param {number} to
 * @param {boolean} afterFrom
 * @param {boolean} beforeTo
 */
function fractions(from, to, afterFrom, beforeTo) {
  const any = '("." [0-9]{1,6})?';
  const some = '"." [0-9]{0,5} [1-9]';
  const parts = [];
  const first = afterFrom ? from + 1 : from;
  if (afterFrom && from < to) parts.push(`"${from}" ${some}`);
  const last = to === Number.POSITIVE_INFINITY ? to : to - 1;
  if (first <= last) parts.push(...magnitudes(first, last).map((part) => `${part} ${any}`));
  if (!beforeTo && to !== Number.POSITIVE_INFINITY && to >= first) parts.push(`"${to}" ("." "0"{1,6})?`);
  return parts;
}

/**
 * Integers that are not negative, as a list of alternatives.
 * @param {number} from
 * @param {number} to  may be Infinity
 * @returns {string[]}
 */
function magnitudes(from, to) {
  if (to === Number.POSITIVE_INFINITY) {
    const { length } = String(from);
    const same = sameLength(String(from), '9'.repeat(length));
    const more = Math.max(DIGITS, length) - length;
    return more === 0 ? same : [...same, `[1-9] [0-9]{${length},${length + more - 1}}`];
  }
  const parts = [];
  for (let length = String(from).length; length <= String(to).length; length++) {
    const least = length === String(from).length ? String(from) : `1${'0'.repeat(length - 1)}`;
    const most = length === String(to).length ? String(to) : '9'.repeat(length);
    parts.push(...sameLength(least, most));
  }
  return parts;
}

/**
 * Numbers between two of the same length.
 * @param {string} from
 * @param {string} to
 * @returns {string[]}
 */
function sameLength(from, to) {
  let same = 0;
  while (same < from.length && from[same] === to[same]) same += 1;
  const start = same > 0 ? `"${from.slice(0, same)}"` : '';
  if (same === from.length) return [start];
  const rest = from.length - same - 1;
  const [low, high] = [Number(from[same]), Number(to[same])];
  const digits = (/** @type {number} */ a, /** @type {number} */ b) => (a === b ? `"${a}"` : `[${a}-${b}]`);
  const free = rest === 0 ? '' : ` [0-9]{${rest}}`;
  const fromEnd = from.slice(same + 1);
  const toEnd = to.slice(same + 1);
  const isLeast = /^0*$/.test(fromEnd);
  const isMost = /^9*$/.test(toEnd);
  const parts = [];
  if (!isLeast)
    parts.push(...sameLength(fromEnd, '9'.repeat(rest)).map((end) => `${digits(low, low)} ${end}`));
  const [a, b] = [isLeast ? low : low + 1, isMost ? high : high - 1];
  if (a <= b) parts.push(`${digits(a, b)}${free}`);
  if (!isMost)
    parts.push(...sameLength('0'.repeat(rest), toEnd).map((end) => `${digits(high, high)} ${end}`));
  return parts.map((part) => (start ? `${start} ${part}` : part));
}
