/* What a template may use up. A template comes with a file that anyone may have made, and it is a program. */

import { ModelError } from '../../errors.js';

/** The limits of one rendering. Real templates stay far below: a hundred messages take some 20,000 steps. */
export const LIMITS = Object.freeze({
  /** Characters of the template's source. */
  source: 1_000_000,
  /** Expressions and statements evaluated, and items handled by filters. */
  steps: 2_000_000,
  /** Milliseconds of computation. */
  milliseconds: 2_000,
  /** Items of one range(), as in Jinja2's sandbox. */
  range: 100_000,
  /** Characters of any one text, the whole conversation included. */
  length: 10_000_000,
  /** Characters of all the texts that filters, methods and operators make. */
  characters: 100_000_000,
  /** Levels of blocks and parentheses in the source. */
  nesting: 150,
  /** Levels of what is being evaluated, calls of macros included, and of values. */
  depth: 500,
});

const UNITS = {
  source: 'characters of source',
  steps: 'steps',
  milliseconds: 'milliseconds',
  range: 'items of a range',
  length: 'characters of one text',
  characters: 'characters made',
  nesting: 'levels of nesting in the source',
  depth: 'levels of nesting',
};

/** @typedef {keyof typeof LIMITS} Limit */

/** A template wanted more than it may have. */
export class LimitError extends ModelError {
  /**
   * @param {Limit} limit
   * @param {number} got
   * @param {{ cause?: unknown }} [options]
   */
  constructor(limit, got, options) {
    super(
      `the chat template takes too much: ${Number.isFinite(got) ? got : 'too many'} ${UNITS[limit]}, the limit (${limit}) is ${LIMITS[limit]}`,
      options,
    );
    /** Which limit. */
    this.limit = limit;
    /** How much the template wanted, as far as it got. */
    this.got = got;
    /** The limit. */
    this.expected = LIMITS[limit];
  }
}

/** Steps between two looks at the clock, less one. */
const CLOCK_MASK = 255;
/** Milliseconds after which other tasks get their turn. */
const SLICE = 12;

/** Counts what one rendering has used. */
export class Budget {
  steps = 0;
  characters = 0;
  #used = 0;
  #since = performance.now();
  #looked = 0;

  /** One step. @returns {boolean}  whether it is time to let other tasks run */
  step() {
    this.steps += 1;
    if (this.steps > LIMITS.steps) throw new LimitError('steps', this.steps);
    return (this.steps & CLOCK_MASK) === 0 && this.#clock() > SLICE;
  }

  /** Steps that are taken at once: items of a list that a filter goes through. @param {number} count */
  spend(count) {
    this.steps += count;
    if (this.steps > LIMITS.steps) throw new LimitError('steps', this.steps);
    if (this.steps - this.#looked > CLOCK_MASK) this.#clock();
  }

  /**
   * A text is about to be made. Called before it is, so that no memory is taken first.
   * @param {number} length  its characters
   */
  makes(length) {
    this.fits(length);
    this.characters += length;
    if (this.characters > LIMITS.characters) throw new LimitError('characters', this.characters);
    this.spend(1 + Math.floor(length / 1000));
  }

  /**
   * Two or three texts are put together. The engine may share their characters, so they count less.
   * @param {number} length  of the result
   */
  joins(length) {
    this.fits(length);
    this.characters += length >> 2;
    if (this.characters > LIMITS.characters) throw new LimitError('characters', this.characters);
    this.reads(length);
  }

  /** A text is searched or compared. @param {number} length */
  reads(length) {
    if (length >= 1000) this.spend(Math.floor(length / 1000));
  }

  /** The length of one text. @param {number} length */
  fits(length) {
    if (length > LIMITS.length) throw new LimitError('length', length);
  }

  /** Levels of nesting. @param {number} depth */
  nests(depth) {
    if (depth > LIMITS.depth) throw new LimitError('depth', depth);
  }

  /** The rendering stops for a while: the time until resume() does not count. */
  rest() {
    this.#used += performance.now() - this.#since;
  }

  /** The rendering goes on. */
  resume() {
    this.#since = performance.now();
  }

  #clock() {
    this.#looked = this.steps;
    const now = performance.now() - this.#since;
    const total = this.#used + now;
    if (total > LIMITS.milliseconds) throw new LimitError('milliseconds', Math.ceil(total));
    return now;
  }
}
