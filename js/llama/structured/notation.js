/* Parts of grammars in EBNF, as the engine reads it. */

/**
 * A text that is written as it is.
 * @param {string} text
 */
export function literal(text) {
  const escaped = text.replace(/["\\\p{Cc}]/gu, (char) =>
    char < ' ' || char > '~' ? `\\x${hex(Number(char.codePointAt(0)), 2)}` : `\\${char}`,
  );
  return `"${escaped}"`;
}

/**
 * A part several times.
 * @param {string} part
 * @param {number} least
 * @param {number} most  may be Infinity
 */
export function times(part, least, most) {
  if (most === Number.POSITIVE_INFINITY) {
    if (least === 0) return `(${part})*`;
    return least === 1 ? `(${part})+` : `(${part}){${least},}`;
  }
  return most === 0 ? '""' : `(${part}){${least},${most}}`;
}

/** First and last code point. @typedef {[number, number]} Range */

/** Characters beyond ASCII. @type {Range[]} */
const BEYOND_ASCII = [
  [0x80, 0xd7ff],
  [0xe000, 0x10ffff],
];
/** They need no escape in JSON and end no line for it. @type {Range[]} */
const SEPARATORS = [[0x2028, 0x2029]];

/** Control characters, quotes, and backslashes. @type {Range[]} */
const ESCAPED = [
  [0, 0x1f],
  [0x22, 0x22],
  [0x5c, 0x5c],
];

/** Letters after a backslash in JSON. @type {[number, string][]} */
const LETTERS = [
  [0x22, '\\"'],
  [0x5c, '\\\\'],
  [8, 'b'],
  [9, 't'],
  [10, 'n'],
  [12, 'f'],
  [13, 'r'],
];

/**
 * Characters inside the quotes of a JSON string. Control characters, quotes and backslashes are
 * escaped. Beyond ASCII, the engine tells only single characters apart: sets have either one, or all, or
 * none, so that a grammar may allow less than the ranges. The separators U+2028 and U+2029 count as
 * characters of any set of all others.
 * @param {Range[]} ranges
 * @returns {string} empty if there are none
 */
export function characters(ranges) {
  const [[first, last] = [0, 1]] = ranges;
  if (ranges.length === 1 && first === last && first > 0x7f && first <= 0x10ffff)
    return first >= 0xd800 && first <= 0xdfff ? '' : literal(String.fromCodePoint(first));
  const ascii = within(without(ranges, ESCAPED), [[0, 0x7f]]);
  const hasAll = without(without(BEYOND_ASCII, SEPARATORS), within(ranges, BEYOND_ASCII)).length === 0;
  const has = (/** @type {number} */ code) => ranges.some(([from, to]) => from <= code && code <= to);
  /** @type {string[]} */
  const parts = [];
  if (hasAll)
    parts.push(
      `[^${without([[0, 0x7f]], ascii)
        .map(bounds)
        .join('')}]`,
    );
  else if (ascii.length > 0) parts.push(`[${ascii.map(bounds).join('')}]`);
  const letters = LETTERS.filter(([code]) => has(code)).map(([, letter]) => letter);
  if (letters.length > 0) parts.push(`"\\\\" [${letters.join('')}]`);
  return parts.length === 1 ? parts[0] : parts.length === 0 ? '' : `(${parts.join(' | ')})`;
}

/** @type {Range[]} */
export const ALL = [[0, 0x10ffff]];

/**
 * The code points of the first ranges that are not in the second ones.
 * @param {Range[]} ranges
 * @param {Range[]} removed
 * @returns {Range[]}
 */
export function without(ranges, removed) {
  /** @type {Range[]} */
  let left = ranges;
  for (const [from, to] of removed)
    left = left.flatMap(([first, last]) => {
      /** @type {Range[]} */
      const sides = [
        [first, Math.min(last, from - 1)],
        [Math.max(first, to + 1), last],
      ];
      return to < first || from > last ? [[first, last]] : sides.filter(([a, b]) => a <= b);
    });
  return left;
}

/** The code points that are in both. @param {Range[]} ranges @param {Range[]} others */
const within = (ranges, others) => without(ranges, without(ALL, others));

/** @param {number} code @param {number} digits */
const hex = (code, digits) => code.toString(16).padStart(digits, '0');

/** @param {Range} range */
const bounds = ([from, to]) => (from === to ? codePoint(from) : `${codePoint(from)}-${codePoint(to)}`);

/** @param {number} code  of ASCII */
const codePoint = (code) => `\\x${hex(code, 2)}`;
