/* Strings of a template that record which of their characters come from outside.
 *
 * A string written by the template itself is a plain string. A string of a message, a tool or a
 * variable is a Text: a string with marks, the ranges of characters that come from outside. Every
 * operation keeps the marks, so the rendered conversation tells which characters may form control
 * tokens. */

/** @typedef {string | Text} Str */

/** A string with at least one marked character. */
export class Text {
  /**
   * @param {string} value
   * @param {number[]} marks  start and end of each marked range in UTF-16 units, ascending, not
   *   touching
   */
  constructor(value, marks) {
    this.value = value;
    this.marks = marks;
  }

  toString() {
    return this.value;
  }
}

/** @param {unknown} value @returns {value is Str} */
export const isStr = (value) => typeof value === 'string' || value instanceof Text;

/** The string without its marks. @param {Str} text */
export const plain = (text) => (typeof text === 'string' ? text : text.value);

/** Marks a whole string as coming from outside. @param {string} value @returns {Str} */
export const outside = (value) => (value === '' ? '' : new Text(value, [0, value.length]));

/** The marks of a string. @param {Str} text @returns {readonly number[]} */
export const marksOf = (text) => (typeof text === 'string' ? [] : text.marks);

/** @param {readonly Str[]} parts @returns {Str} */
export function concat(parts) {
  if (parts.length === 1) return parts[0];
  if (parts.every((part) => typeof part === 'string')) return parts.join('');
  /** @type {number[]} */
  const marks = [];
  /** @type {string[]} */
  const values = [];
  let at = 0;
  for (const part of parts) {
    const value = plain(part);
    values.push(value);
    if (part instanceof Text) {
      for (let i = 0; i < part.marks.length; i += 2) {
        const start = at + part.marks[i];
        if (marks.length > 0 && marks[marks.length - 1] === start) marks.pop();
        else marks.push(start);
        marks.push(at + part.marks[i + 1]);
      }
    }
    at += value.length;
  }
  return new Text(values.join(''), marks);
}

/**
 * A part of a string.
 * @param {Str} text
 * @param {number} start  in UTF-16 units, like `end`
 * @param {number} [end]
 * @returns {Str}
 */
export function cut(text, start, end = plain(text).length) {
  if (typeof text === 'string') return text.slice(start, end);
  if (start >= end) return '';
  if (start === 0 && end >= text.value.length) return text;
  const { marks } = text;
  const value = text.value.slice(start, end);
  /** @type {number[]} */
  const kept = [];
  for (let i = 0; i < marks.length; i += 2) {
    const from = Math.max(marks[i], start);
    const to = Math.min(marks[i + 1], end);
    if (from < to) kept.push(from - start, to - start);
  }
  return kept.length > 0 ? new Text(value, kept) : value;
}

/**
 * Changes a string character by character: `change` gets each run of characters with the same
 * origin.
 * @param {Str} text
 * @param {(run: string) => string} change
 * @returns {Str}
 */
export function mapRuns(text, change) {
  if (typeof text === 'string') return change(text);
  const { value, marks } = text;
  /** @type {Str[]} */
  const parts = [];
  let at = 0;
  for (let i = 0; i < marks.length; i += 2) {
    if (marks[i] > at) parts.push(change(value.slice(at, marks[i])));
    parts.push(outside(change(value.slice(marks[i], marks[i + 1]))));
    at = marks[i + 1];
  }
  if (at < value.length) parts.push(change(value.slice(at)));
  return concat(parts);
}

/**
 * Changes a string as a whole, if a change depends on neighbouring characters. If the length
 * changes, all of the result counts as coming from outside.
 * @param {Str} text
 * @param {(value: string) => string} change
 * @returns {Str}
 */
export function mapWhole(text, change) {
  if (typeof text === 'string') return change(text);
  const value = change(text.value);
  return value.length === text.value.length ? new Text(value, text.marks) : outside(value);
}

/** A character of two UTF-16 units. */
const WIDE = /[\ud800-\udbff][\udc00-\udfff]/;

/** Number of characters in a string, as Python counts them. @param {string} text */
export function countChars(text) {
  if (!WIDE.test(text)) return text.length;
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

/** Position of a character in UTF-16 units. @param {string} text @param {number} index */
export function unitAt(text, index) {
  if (!WIDE.test(text)) return Math.min(index, text.length);
  let at = 0;
  for (let i = 0; i < index && at < text.length; i++) at += Number(text.codePointAt(at)) > 0xffff ? 2 : 1;
  return at;
}

/**
 * Index of the character at a position in UTF-16 units.
 * @param {string} text
 * @param {number} unit
 */
export const charAt = (text, unit) => (unit <= 0 ? unit : countChars(text.slice(0, unit)));

/** The characters of a string, as strings. @param {Str} text @returns {Str[]} */
export function chars(text) {
  const value = plain(text);
  const whole = text instanceof Text && text.marks.length === 2 && text.marks[1] === value.length;
  if (typeof text === 'string') return Array.from(text);
  if (whole && text.marks[0] === 0) return Array.from(value, (char) => new Text(char, [0, char.length]));
  /** @type {Str[]} */
  const out = [];
  let at = 0;
  for (const char of value) {
    out.push(cut(text, at, at + char.length));
    at += char.length;
  }
  return out;
}

/** White space as Python's str.strip() defines it. */
const SPACES = new Set(
  '\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000',
);

/** @param {string} char */
export const isSpace = (char) => SPACES.has(char);

/**
 * Removes white space, or the characters in `set`, from the ends of a string.
 * @param {Str} text
 * @param {string | undefined} set
 * @param {{ left?: boolean, right?: boolean }} sides
 * @returns {Str}
 */
export function strip(text, set, { left = false, right = false }) {
  const value = plain(text);
  const chosen = set === undefined ? undefined : new Set(set);
  const goes = (/** @type {string} */ char) => (chosen ? chosen.has(char) : isSpace(char));
  let start = 0;
  let end = value.length;
  while (left && start < end) {
    const char = String.fromCodePoint(/** @type {number} */ (value.codePointAt(start)));
    if (!goes(char)) break;
    start += char.length;
  }
  while (right && end > start) {
    const pair = end - start > 1 && WIDE.test(value.slice(end - 2, end));
    const char = value.slice(end - (pair ? 2 : 1), end);
    if (!goes(char)) break;
    end -= char.length;
  }
  return cut(text, start, end);
}
