/* Regular expressions of `pattern` as grammars of JSON strings. */

import { ALL, characters, times, without } from './notation.js';

/** @typedef {import('./notation.js').Range} Range */

/** @type {Range[]} */
const DIGITS = [[0x30, 0x39]];
/** @type {Range[]} */
const WORDS = [
  [0x30, 0x39],
  [0x41, 0x5a],
  [0x5f, 0x5f],
  [0x61, 0x7a],
];
/** @type {Range[]} */
const SPACES = [
  ...[
    [9, 0xd],
    [0x20, 0x20],
    [0xa0, 0xa0],
    [0x1680, 0x1680],
    [0x2000, 0x200a],
  ],
  ...[
    [0x2028, 0x2029],
    [0x202f, 0x202f],
    [0x205f, 0x205f],
    [0x3000, 0x3000],
    [0xfeff, 0xfeff],
  ],
].map(([from, to]) => [from, to]);
/** @type {Range[]} */
const LINE_ENDS = [
  [0xa, 0xa],
  [0xd, 0xd],
  [0x2028, 0x2029],
];

/** @type {Record<string, Range[]>} */
const CLASSES = {
  d: DIGITS,
  w: WORDS,
  s: SPACES,
  D: without(ALL, DIGITS),
  W: without(ALL, WORDS),
  S: without(ALL, SPACES),
};
/** @type {Record<string, number>} */
const CONTROLS = { n: 0xa, r: 0xd, t: 9, f: 0xc, v: 0xb, 0: 0 };

/** A part of a regular expression that has no grammar. */
export class PatternError extends Error {}

/**
 * The grammar of the strings in which a regular expression matches.
 * @param {string} source
 * @param {(parts: string[]) => string} choice  one of several parts
 * @returns {{ body: string, copies: number }}  without the quotes; copies: how many characters are
 *   counted by repetitions
 * @throws {PatternError} it has a part that is not supported
 */
export function patternGrammar(source, choice) {
  const reader = new Reader(source, choice);
  const body = reader.alternatives(true);
  if (reader.more) throw new PatternError(`"${reader.peek}" at ${reader.at} closes nothing`);
  return { body, copies: reader.copies };
}

class Reader {
  #points;
  #choice;
  at = 0;
  copies = 0;

  /** @param {string} source @param {(parts: string[]) => string} choice */
  constructor(source, choice) {
    this.#points = [...source];
    this.#choice = choice;
  }

  get more() {
    return this.at < this.#points.length;
  }

  get peek() {
    return this.#points[this.at];
  }

  /** @param {string} text */
  #take(text) {
    const is = this.#points.slice(this.at, this.at + text.length).join('') === text;
    if (is) this.at += text.length;
    return is;
  }

  #next() {
    const point = this.#points[this.at++];
    if (point === undefined) throw new PatternError('it ends in the middle of an expression');
    return point;
  }

  /**
   * Alternatives up to the end or a closing parenthesis.
   * @param {boolean} outside  whether they are the whole expression, which may match within a text
   * @returns {string}
   */
  alternatives(outside) {
    const all = [this.#sequence(outside)];
    while (this.#take('|')) all.push(this.#sequence(outside));
    return this.#choice(all);
  }

  /** @param {boolean} outside */
  #sequence(outside) {
    const rest = `(${characters(ALL)})*`;
    const parts = [];
    if (outside && !this.#take('^')) parts.push(rest);
    let ended = false;
    while (this.more && this.peek !== '|' && this.peek !== ')') {
      if (outside && this.#take('$')) {
        ended = true;
        if (this.more && this.peek !== '|') throw new PatternError(`"$" at ${this.at - 1} is not at an end`);
      } else {
        const before = this.copies;
        parts.push(this.#repeated(this.#atom(), before));
      }
    }
    if (outside && !ended) parts.push(rest);
    return parts.length === 0 ? '""' : parts.join(' ');
  }

  #atom() {
    const from = this.at;
    const point = this.#next();
    if (point === '(') {
      if (this.peek === '?' && !this.#take('?:'))
        throw new PatternError(`"(?" at ${from} is not supported; only (?:...) is`);
      const body = this.alternatives(false);
      if (!this.#take(')')) throw new PatternError(`"(" at ${from} is not closed`);
      return `(${body})`;
    }
    if ('^$*+?{'.includes(point)) throw new PatternError(`"${point}" at ${from} is not supported there`);
    if (point === '.') return this.#set(without(ALL, LINE_ENDS), from);
    if (point === '[') return this.#set(this.#class(from), from);
    if (point === '\\') return this.#set(this.#escape(from, false), from);
    const code = /** @type {number} */ (point.codePointAt(0));
    return this.#set([[code, code]], from);
  }

  /**
   * @param {string} atom
   * @param {number} before  copies that were counted before the atom
   */
  #repeated(atom, before) {
    const from = this.at;
    const point = this.peek;
    let [least, most] = [0, Number.POSITIVE_INFINITY];
    if (point === '*' || point === '+' || point === '?') {
      this.at += 1;
      if (point === '+') least = 1;
      if (point === '?') most = 1;
    } else if (point === '{') {
      const text = /^\{(\d+)(,(\d*))?\}/.exec(this.#points.slice(from, from + 30).join(''));
      if (!text) throw new PatternError(`"{" at ${from} is not a number of times`);
      this.at += text[0].length;
      least = Number(text[1]);
      most = text[2] === undefined ? least : text[3] === '' ? most : Number(text[3]);
      if (most < least) throw new PatternError(`${text[0]} at ${from} is out of order`);
      const n = most === Number.POSITIVE_INFINITY ? least : most;
      // The repetitions inside are repeated too.
      this.copies = before + n * Math.max(1, this.copies - before);
    } else return atom;
    // Whether it takes as much or as little as it can makes no difference to what matches.
    this.#take('?');
    return times(atom, least, most);
  }

  /** @param {Range[]} ranges @param {number} from */
  #set(ranges, from) {
    const text = characters(ranges);
    if (text === '')
      throw new PatternError(
        ranges.some(([, last]) => last > 0x7f)
          ? `the set at ${from} has only some characters beyond ASCII, which is not supported; write (?:ä|ö) for [äö]`
          : `the characters at ${from} cannot be written in JSON`,
      );
    return text;
  }

  /** @param {number} from @returns {Range[]} */
  #class(from) {
    const negated = this.#take('^');
    /** @type {Range[]} */
    const ranges = [];
    while (!this.#take(']')) {
      const first = this.#member(from);
      const isRange = this.peek === '-' && this.#points[this.at + 1] !== ']';
      if (!isRange) {
        ranges.push(...first);
        continue;
      }
      this.at += 1;
      const last = this.#member(from);
      const [low, high] = [first[0][0], last[0][0]];
      const single = [first, last].every((set) => set.length === 1 && set[0][0] === set[0][1]);
      if (!single || low > high) throw new PatternError(`the class at ${from} has a range out of order`);
      ranges.push([low, high]);
    }
    return negated ? without(ALL, ranges) : ranges;
  }

  /** @param {number} from @returns {Range[]} */
  #member(from) {
    const point = this.#next();
    if (point === '\\') return this.#escape(from, true);
    const code = /** @type {number} */ (point.codePointAt(0));
    return [[code, code]];
  }

  /** @param {number} from @param {boolean} inClass @returns {Range[]} */
  #escape(from, inClass) {
    const point = this.#next();
    if (Object.hasOwn(CLASSES, point)) return CLASSES[point];
    const one = (/** @type {number} */ code) => /** @type {Range[]} */ ([[code, code]]);
    if (Object.hasOwn(CONTROLS, point) && !/\d/.test(this.peek ?? '')) return one(CONTROLS[point]);
    if (inClass && point === 'b') return one(8);
    if (point === 'x' || point === 'u') {
      const digits = /^(\{[0-9a-f]{1,6}\}|[0-9a-f]+)/i.exec(
        this.#points.slice(this.at, this.at + 8).join(''),
      );
      const length = point === 'x' ? 2 : 4;
      const braced = point === 'u' && digits?.[0].startsWith('{');
      const taken = braced ? digits?.[0] : digits?.[0].slice(0, length);
      const code = Number.parseInt(taken?.replace(/[{}]/g, '') ?? '', 16);
      if (!taken || (!braced && taken.length < length) || code > 0x10ffff)
        throw new PatternError(`"\\${point}" at ${from} is no character`);
      this.at += taken.length;
      return one(code);
    }
    if (/[\^$\\.*+?()[\]{}|/-]/.test(point)) return one(/** @type {number} */ (point.codePointAt(0)));
    throw new PatternError(`"\\${point}" at ${from} is not supported`);
  }
}
