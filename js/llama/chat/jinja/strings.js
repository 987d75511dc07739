/* The methods of Python's str. */

import { integer, optionalText, text } from './calls.js';
import { TemplateError } from './lexer.js';
import { charAt, concat, countChars, cut, isSpace, mapRuns, mapWhole, plain, strip, unitAt } from './text.js';
import { assemble, iterate, Tuple, typeName } from './values.js';

/** @typedef {import('./values.js').Value} Value */
/** @typedef {import('./values.js').Budget} Budget */
/** @typedef {import('./text.js').Str} Str */
/** @typedef {(self: Str, args: (Value | undefined)[], budget: Budget) => Value} Method */

/** @param {Str} self @param {(value: string) => string} change @param {Budget} budget */
const whole = (self, change, budget) => {
  budget.makes(plain(self).length);
  return mapWhole(self, change);
};

/** @param {string} value */
export const capitalize = (value) => {
  const first = value.slice(0, unitAt(value, 1));
  return titleCase(first) + value.slice(first.length).toLowerCase();
};

/** The first character of a word in title case. @param {string} char */
const titleCase = (char) =>
  char.toUpperCase().length > char.length ? char[0] + char.slice(1) : char.toUpperCase();

/** @param {string} value */
const title = (value) =>
  value.replace(/\p{L}[\p{L}\p{M}]*/gu, (word) => {
    const first = word.slice(0, unitAt(word, 1));
    return titleCase(first) + word.slice(first.length).toLowerCase();
  });

/**
 * Replaces parts of a text.
 * @param {Str} self
 * @param {string} old
 * @param {Str} by
 * @param {number} count  most replacements; below 0: all
 * @param {Budget} budget
 */
export function replace(self, old, by, count, budget) {
  const value = plain(self);
  const limit = count < 0 ? Number.POSITIVE_INFINITY : count;
  /** @type {Str[]} */
  const parts = [];
  let length = 0;
  let at = 0;
  let done = 0;
  const put = (/** @type {Str} */ part) => {
    parts.push(part);
    length += plain(part).length;
    budget.fits(length);
    budget.spend(1);
  };
  if (old === '') {
    for (const char of value) {
      if (done++ < limit) put(by);
      put(cut(self, at, at + char.length));
      at += char.length;
    }
    if (done < limit) put(by);
  } else {
    for (let found = value.indexOf(old); found >= 0 && done < limit; found = value.indexOf(old, at)) {
      put(cut(self, at, found));
      put(by);
      at = found + old.length;
      done += 1;
    }
    put(cut(self, at));
  }
  return assemble(parts, budget);
}

/**
 * Splits a text at separators, or at runs of white space.
 * @param {Str} self
 * @param {string | undefined} separator
 * @param {number} limit  most splits; below 0: all
 * @param {Budget} budget
 * @returns {Str[]}
 */
function split(self, separator, limit, budget) {
  const value = plain(self);
  const most = limit < 0 ? Number.POSITIVE_INFINITY : limit;
  /** @type {Str[]} */
  const parts = [];
  budget.spend(1 + Math.floor(value.length / 100));
  let at = 0;
  if (separator === undefined) {
    const skip = () => {
      while (at < value.length && isSpace(value[at])) at += 1;
    };
    for (skip(); at < value.length; skip()) {
      if (parts.length >= most) {
        parts.push(cut(self, at));
        break;
      }
      const start = at;
      while (at < value.length && !isSpace(value[at])) at += 1;
      budget.spend(1);
      parts.push(cut(self, start, at));
    }
    return parts;
  }
  if (separator === '') throw new TemplateError('empty separator');
  for (
    let found = value.indexOf(separator);
    found >= 0 && parts.length < most;
    found = value.indexOf(separator, at)
  ) {
    budget.spend(1);
    parts.push(cut(self, at, found));
    at = found + separator.length;
  }
  parts.push(cut(self, at));
  return parts;
}

/**
 * Splits a text from the right.
 * @param {Str} self
 * @param {string | undefined} separator
 * @param {number} limit
 * @param {Budget} budget
 * @returns {Str[]}
 */
export function rsplit(self, separator, limit, budget) {
  if (limit < 0) return split(self, separator, -1, budget);
  const value = plain(self);
  budget.spend(1 + Math.floor(value.length / 100));
  /** @type {Str[]} */
  const parts = [];
  let end = value.length;
  if (separator === undefined) {
    const skip = () => {
      while (end > 0 && isSpace(value[end - 1])) end -= 1;
    };
    for (skip(); end > 0; skip()) {
      if (parts.length >= limit) {
        parts.push(cut(self, 0, end));
        break;
      }
      const stop = end;
      while (end > 0 && !isSpace(value[end - 1])) end -= 1;
      budget.spend(1);
      parts.push(cut(self, end, stop));
    }
    return parts.reverse();
  }
  if (separator === '') throw new TemplateError('empty separator');
  while (parts.length < limit) {
    const found = end < separator.length ? -1 : value.lastIndexOf(separator, end - separator.length);
    if (found < 0) break;
    budget.spend(1);
    parts.push(cut(self, found + separator.length, end));
    end = found;
  }
  parts.push(cut(self, 0, end));
  return parts.reverse();
}

const LINE_ENDS = '\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029';
const LINE_END = new RegExp(`\r\n|[${LINE_ENDS}]`, 'g');

/**
 * @param {Str} self
 * @param {boolean} keep  whether to keep the line ends
 * @param {Budget} budget
 * @returns {Str[]}
 */
export function splitLines(self, keep, budget) {
  const value = plain(self);
  /** @type {Str[]} */
  const lines = [];
  let at = 0;
  for (const match of value.matchAll(LINE_END)) {
    budget.spend(1);
    const end = match.index + match[0].length;
    lines.push(cut(self, at, keep ? end : match.index));
    at = end;
  }
  if (at < value.length) lines.push(cut(self, at));
  return lines;
}

/**
 * Joins texts with `self` between them.
 * @param {Str} self
 * @param {Value[]} items
 * @param {Budget} budget
 * @returns {Str}
 */
export function join(self, items, budget) {
  /** @type {Str[]} */
  const parts = [];
  let length = 0;
  for (const [i, item] of items.entries()) {
    if (i > 0) parts.push(self);
    parts.push(item);
    length += plain(item).length + plain(self).length;
    budget.fits(length - plain(self).length);
    budget.spend(1);
  }
  return assemble(parts, budget);
}

/**
 * Range of a search in a text, in UTF-16 units.
 * @param {string} value
 * @param {Value | undefined} from
 * @param {Value | undefined} to
 */
function bounds(value, from, to) {
  const count = from === undefined && to === undefined ? 0 : countChars(value);
  const at = (/** @type {Value | undefined} */ index, /** @type {number} */ by) => {
    if (index === undefined || index === null) return by;
    const place = integer(index, 0, 'an index');
    return unitAt(value, Math.min(count, Math.max(0, place < 0 ? place + count : place)));
  };
  return { start: at(from, 0), end: at(to, value.length) };
}

/** @param {string} name @param {boolean} last @param {boolean} must @returns {Method} */
const finder =
  (name, last, must) =>
  (self, [sub, from, to]) => {
    const value = plain(self);
    const wanted = plain(text(sub, name));
    const { start, end } = bounds(value, from, to);
    const part = value.slice(start, end);
    const found = start > end ? -1 : last ? part.lastIndexOf(wanted) : part.indexOf(wanted);
    if (found < 0 && must) throw new TemplateError('substring not found');
    return found < 0 ? -1 : charAt(value, start + found);
  };

/**
 * @param {string} name
 * @param {(value: string, affix: string) => boolean} test
 * @returns {Method}
 */
const affix =
  (name, test) =>
  (self, [wanted, from, to]) => {
    const { start, end } = bounds(plain(self), from, to);
    const value = plain(self).slice(start, end);
    const list = wanted instanceof Tuple ? wanted.items : [wanted];
    return list.some((one) => test(value, plain(text(one, name))));
  };

/** @param {'left' | 'right' | 'center'} side @returns {Method} */
const justify =
  (side) =>
  (self, [width, fill], budget) => {
    const target = integer(width, 0, 'width');
    const char = fill === undefined ? ' ' : plain(text(fill, 'fillchar'));
    if (countChars(char) !== 1)
      throw new TemplateError('The fill character must be exactly one character long');
    const missing = target - countChars(plain(self));
    if (missing <= 0) return self;
    budget.makes(target);
    const odd = side === 'center' ? missing & target & 1 : 0;
    const left = side === 'left' ? 0 : side === 'right' ? missing : (missing >> 1) + odd;
    return concat([char.repeat(left), self, char.repeat(missing - left)]);
  };

/** @param {boolean} last @returns {Method} */
const partition =
  (last) =>
  (self, [separator]) => {
    const wanted = plain(text(separator, 'sep'));
    if (wanted === '') throw new TemplateError('empty separator');
    const found = last ? plain(self).lastIndexOf(wanted) : plain(self).indexOf(wanted);
    if (found < 0) return new Tuple(last ? ['', '', self] : [self, '', '']);
    return new Tuple([
      cut(self, 0, found),
      cut(self, found, found + wanted.length),
      cut(self, found + wanted.length),
    ]);
  };

/** @param {{ left?: boolean, right?: boolean }} sides @returns {Method} */
const stripper =
  (sides) =>
  (self, [set]) =>
    strip(self, optionalText(set, 'strip'), sides);

/**
 * Tells whether a text has cased characters, all of the same case.
 * @param {string} value
 * @param {(value: string) => string} change
 */
export const isCased = (value, change) =>
  change(value) === value && value.toUpperCase() !== value.toLowerCase();

/** @param {RegExp} expression @returns {Method} */
const matches = (expression) => (self) => expression.test(plain(self));

/**
 * Methods with the names of their parameters.
 * @type {Record<string, { names: string[], run: Method }>}
 */
export const STRING_METHODS = {
  capitalize: { names: [], run: (self, _, budget) => whole(self, capitalize, budget) },
  casefold: {
    names: [],
    run: (self, _, budget) => whole(self, (s) => s.toLowerCase().replaceAll('ß', 'ss'), budget),
  },
  center: { names: ['width', 'fillchar'], run: justify('center') },
  count: {
    names: ['sub', 'start', 'end'],
    run: (self, [sub, from, to]) => {
      const { start, end } = bounds(plain(self), from, to);
      const wanted = plain(text(sub, 'count'));
      const value = plain(self).slice(start, end);
      return wanted === '' ? countChars(value) + 1 : value.split(wanted).length - 1;
    },
  },
  endswith: {
    names: ['suffix', 'start', 'end'],
    run: affix('endswith', (value, one) => value.endsWith(one)),
  },
  expandtabs: {
    names: ['tabsize'],
    run: (self, [size], budget) => {
      const width = integer(size, 8, 'tabsize');
      budget.makes(plain(self).length + plain(self).split('\t').length * width);
      let column = 0;
      return mapRuns(self, (run) =>
        run.replace(/[^\t\n\r]+|[\t\n\r]/g, (part) => {
          if (part === '\n' || part === '\r') column = 0;
          if (part !== '\t') {
            column += part === '\n' || part === '\r' ? 0 : countChars(part);
            return part;
          }
          const spaces = width > 0 ? width - (column % width) : 0;
          column += spaces;
          return ' '.repeat(spaces);
        }),
      );
    },
  },
  find: { names: ['sub', 'start', 'end'], run: finder('find', false, false) },
  index: { names: ['sub', 'start', 'end'], run: finder('index', false, true) },
  isalnum: { names: [], run: matches(/^[\p{L}\p{N}]+$/u) },
  isalpha: { names: [], run: matches(/^\p{L}+$/u) },
  isascii: { names: [], run: (self) => !/[^\0-\x7f]/.test(plain(self)) },
  isdecimal: { names: [], run: matches(/^\p{Nd}+$/u) },
  isdigit: { names: [], run: matches(/^[\p{Nd}\u00b2\u00b3\u00b9\u2070-\u2079\u2080-\u2089]+$/u) },
  isidentifier: { names: [], run: matches(/^[\p{L}\p{Nl}_][\p{L}\p{N}\p{M}\p{Pc}]*$/u) },
  islower: { names: [], run: (self) => isCased(plain(self), (value) => value.toLowerCase()) },
  isnumeric: { names: [], run: matches(/^\p{N}+$/u) },
  isprintable: { names: [], run: (self) => !/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u.test(plain(self)) },
  isspace: { names: [], run: (self) => plain(self) !== '' && Array.from(plain(self)).every(isSpace) },
  istitle: { names: [], run: (self) => isCased(plain(self), title) },
  isupper: { names: [], run: (self) => isCased(plain(self), (value) => value.toUpperCase()) },
  join: {
    names: ['iterable'],
    run: (self, [items], budget) => {
      const list = iterate(items, budget);
      for (const [i, item] of list.entries())
        if (typeName(item) !== 'str')
          throw new TemplateError(`sequence item ${i}: expected str instance, ${typeName(item)} found`);
      return join(self, list, budget);
    },
  },
  ljust: { names: ['width', 'fillchar'], run: justify('left') },
  lower: { names: [], run: (self, _, budget) => whole(self, (value) => value.toLowerCase(), budget) },
  lstrip: { names: ['chars'], run: stripper({ left: true }) },
  partition: { names: ['sep'], run: partition(false) },
  removeprefix: {
    names: ['prefix'],
    run: (self, [prefix]) => {
      const one = plain(text(prefix, 'removeprefix'));
      return plain(self).startsWith(one) ? cut(self, one.length) : self;
    },
  },
  removesuffix: {
    names: ['suffix'],
    run: (self, [suffix]) => {
      const one = plain(text(suffix, 'removesuffix'));
      return one && plain(self).endsWith(one) ? cut(self, 0, plain(self).length - one.length) : self;
    },
  },
  replace: {
    names: ['old', 'new', 'count'],
    run: (self, [old, by, count], budget) =>
      replace(self, plain(text(old, 'replace')), text(by, 'replace'), integer(count, -1, 'count'), budget),
  },
  rfind: { names: ['sub', 'start', 'end'], run: finder('rfind', true, false) },
  rindex: { names: ['sub', 'start', 'end'], run: finder('rindex', true, true) },
  rjust: { names: ['width', 'fillchar'], run: justify('right') },
  rpartition: { names: ['sep'], run: partition(true) },
  rsplit: {
    names: ['sep', 'maxsplit'],
    run: (self, [sep, limit], budget) =>
      rsplit(self, optionalText(sep, 'sep'), integer(limit, -1, 'maxsplit'), budget),
  },
  rstrip: { names: ['chars'], run: stripper({ right: true }) },
  split: {
    names: ['sep', 'maxsplit'],
    run: (self, [sep, limit], budget) =>
      split(self, optionalText(sep, 'sep'), integer(limit, -1, 'maxsplit'), budget),
  },
  splitlines: {
    names: ['keepends'],
    run: (self, [keep], budget) => splitLines(self, Boolean(integer(keep, 0, 'keepends')), budget),
  },
  startswith: {
    names: ['prefix', 'start', 'end'],
    run: affix('startswith', (value, one) => value.startsWith(one)),
  },
  strip: { names: ['chars'], run: stripper({ left: true, right: true }) },
  swapcase: {
    names: [],
    run: (self, _, budget) => {
      const swap = (/** @type {string} */ char) =>
        char === char.toUpperCase() ? char.toLowerCase() : char.toUpperCase();
      return whole(self, (value) => Array.from(value, swap).join(''), budget);
    },
  },
  title: { names: [], run: (self, _, budget) => whole(self, title, budget) },
  upper: { names: [], run: (self, _, budget) => whole(self, (value) => value.toUpperCase(), budget) },
  zfill: {
    names: ['width'],
    run: (self, [width], budget) => {
      const target = integer(width, 0, 'width');
      const missing = target - countChars(plain(self));
      if (missing <= 0) return self;
      budget.makes(target);
      const signed = /^[+-]/.test(plain(self)) ? 1 : 0;
      return concat([cut(self, 0, signed), '0'.repeat(missing), cut(self, signed)]);
    },
  },
};
