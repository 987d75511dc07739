/* Limits of a template. A template is a program, and it comes with a file that anyone may have
 * made. */

import { ModelError } from '../../errors.js';

/**
 * Limits of one rendering. Real templates stay far below them: a hundred messages take some 20,000
 * steps.
 */
export const LIMITS = Object.freeze({
  /** Characters in the source of the template. */
  source: 1_000_000,
  /** Expressions and statements evaluated, and items processed by filters. */
  steps: 2_000_000,
  /** Milliseconds of computation. */
  milliseconds: 2_000,
  /** Items of one range(), as in Jinja2's sandbox. */
  range: 100_000,
  /** Characters of each text, including the rendered conversation. */
  length: 10_000_000,
  /** Characters of all texts that filters, methods and operators make, added up. */
  characters: 100_000_000,
  /** Levels of blocks and parentheses in the source. */
  nesting: 150,
  /** Levels of evaluation, including calls of macros, and of nested values. */
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

/** The template exceeds a limit. */
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
    /** Name of the limit. */
    this.limit = limit;
    /** The amount that the template used, up to now. */
    this.got = got;
    /** The limit. */
    this.expected = LIMITS[limit];
  }
}

/** The clock is read every 256 steps; this is one less. */
const CLOCK_MASK = 255;
/** Milliseconds after which other tasks get a turn. */
const SLICE = 12;

/** Counts what a rendering has used. */
export class Budget {
  steps = 0;
  characters = 0;
  #used = 0;
  #since = performance.now();
  #looked = 0;

  /** Counts one step. @returns {boolean} whether other tasks should get a turn */
  step() {
    this.steps += 1;
    if (this.steps > LIMITS.steps) throw new LimitError('steps', this.steps);
    return (this.steps & CLOCK_MASK) === 0 && this.#clock() > SLICE;
  }

  /**
   * Counts several steps at once: the items of a list that a filter processes.
   * @param {number} count
   */
  spend(count) {
    this.steps += count;
    if (this.steps > LIMITS.steps) throw new LimitError('steps', this.steps);
    if (this.steps - this.#looked > CLOCK_MASK) this.#clock();
  }

  /**
   * Counts a text that is about to be made. It is called first, so that no memory is allocated
   * beyond the limit.
   * @param {number} length  characters of the text
   */
  makes(length) {
    this.fits(length);
    this.characters += length;
    if (this.characters > LIMITS.characters) throw new LimitError('characters', this.characters);
    this.spend(1 + Math.floor(length / 1000));
  }

  /**
   * Counts a join of two or three texts. They count less, because the engine may share their
   * characters.
   * @param {number} length  characters of the result
   */
  joins(length) {
    this.fits(length);
    this.characters += length >> 2;
    if (this.characters > LIMITS.characters) throw new LimitError('characters', this.characters);
    this.reads(length);
  }

  /** Counts a text that is searched or compared. @param {number} length */
  reads(length) {
    if (length >= 1000) this.spend(Math.floor(length / 1000));
  }

  /** Checks the length of one text. @param {number} length */
  fits(length) {
    if (length > LIMITS.length) throw new LimitError('length', length);
  }

  /** Checks a level of nesting. @param {number} depth */
  nests(depth) {
    if (depth > LIMITS.depth) throw new LimitError('depth', depth);
  }

  /** Pauses the rendering: the time until resume() does not count. */
  rest() {
    this.#used += performance.now() - this.#since;
  }

  /** Resumes the rendering. */
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
