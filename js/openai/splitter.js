/* Divides an answer into thoughts, text and calls of tools, while it is written. Text is given out as
 * soon as it cannot be the beginning of anything else. */

import { overlap } from '../llama/text-stream.js';
import { BARE, BARE_BEGIN, BARE_LOOK, callsIn, FORMATS } from './tool-calls.js';

/** @typedef {import('./tool-calls.js').Call} Call */
/** @typedef {import('./tool-calls.js').Format} Format */

/**
 * A piece of an answer.
 * @typedef {{ content: string } | { reasoning: string } | { call: Call }} Part
 */

/** Marks of thoughts, which an answer may begin with. */
const THOUGHTS = Object.freeze([
  { begin: '<think>', end: '</think>' },
  { begin: '[THINK]', end: '[/THINK]' },
]);

export class Splitter {
  #tools;
  /** Text that belongs to no part yet. */
  #held = '';
  /** The end of the thoughts that the text is in. @type {string | undefined} */
  #thoughtEnd;
  /** The format of calls that the text is in. @type {Format | undefined} */
  #format;
  /** Whether there were thoughts already, so that none may follow. */
  #hasThought;
  /** Whether there are no text and no calls yet. */
  #isFirst = true;
  /** Whether white space that follows separates, and is no text. */
  #trims;

  /**
   * @param {import('./tool-calls.js').Tools} tools  the tools that may be called
   * @param {boolean} startsInThought  whether the prompt ends with the beginning of thoughts
   */
  constructor(tools, startsInThought) {
    this.#tools = tools;
    this.#hasThought = startsInThought;
    this.#trims = startsInThought;
    this.#thoughtEnd = startsInThought ? THOUGHTS[0].end : undefined;
  }

  /** @param {string} piece @returns {Part[]} */
  push(piece) {
    this.#held += piece;
    return this.#split(false);
  }

  /** The rest, when no more text follows. @returns {Part[]} */
  end() {
    return this.#split(true);
  }

  /** @param {boolean} isEnd */
  #split(isEnd) {
    /** @type {Part[]} */
    const parts = [];
    let goesOn = true;
    while (goesOn) {
      if (this.#thoughtEnd !== undefined) goesOn = this.#think(parts, this.#thoughtEnd, isEnd);
      else if (this.#format) goesOn = this.#call(parts, this.#format, isEnd);
      else goesOn = this.#write(parts, isEnd);
    }
    return parts;
  }

  /** @param {Part[]} parts @param {string} end @param {boolean} isEnd @returns {boolean} */
  #think(parts, end, isEnd) {
    const at = this.#held.indexOf(end);
    const isOver = at >= 0 || isEnd;
    const length = at >= 0 ? at : this.#held.length - (isEnd ? 0 : overlap(this.#held, end));
    // White space around thoughts is dropped.
    const text = this.#held.slice(0, length).trimEnd();
    const shown = this.#trims ? text.trimStart() : text;
    if (shown !== '') {
      parts.push({ reasoning: shown });
      this.#trims = false;
    }
    this.#held = this.#held.slice(isOver ? length + (at >= 0 ? end.length : 0) : text.length);
    if (at < 0) return false;
    this.#thoughtEnd = undefined;
    this.#trims = true;
    return true;
  }

  /** @param {Part[]} parts @param {Format} format @param {boolean} isEnd @returns {boolean} */
  #call(parts, format, isEnd) {
    const { begin, end = '' } = format;
    const at = end === '' ? -1 : this.#held.indexOf(end);
    if (at < 0 && !isEnd) return false;
    const text = at < 0 ? this.#held : this.#held.slice(0, at);
    this.#held = at < 0 ? '' : this.#held.slice(at + end.length);
    this.#format = undefined;
    const calls = callsIn(format, text, this.#tools);
    if (calls) for (const call of calls) parts.push({ call });
    else parts.push({ content: `${begin}${text}${at < 0 ? '' : end}` });
    this.#trims = calls !== undefined;
    this.#isFirst = false;
    return true;
  }

  /** @param {Part[]} parts @param {boolean} isEnd @returns {boolean} */
  #write(parts, isEnd) {
    const text = this.#held;
    const thoughts = this.#isFirst && !this.#hasThought ? THOUGHTS : [];
    const formats = this.#tools.size > 0 ? FORMATS : [];
    const marks = [...thoughts, ...formats];
    const first = marks
      .map((mark) => ({ mark, at: text.indexOf(mark.begin) }))
      .filter(({ mark, at }) => at >= 0 && ('parse' in mark || text.slice(0, at).trim() === ''))
      .sort((a, b) => a.at - b.at)
      .at(0);
    if (first) {
      const { mark, at } = first;
      if ('parse' in mark) {
        this.#give(parts, text.slice(0, at));
        this.#format = mark;
      } else {
        this.#thoughtEnd = mark.end;
        this.#hasThought = true;
        this.#trims = true;
      }
      this.#held = text.slice(at + mark.begin.length);
      return true;
    }
    if (this.#isFirst && this.#tools.size > 0 && /^\s*[[{]/.test(text)) {
      if (BARE_BEGIN.test(text)) {
        this.#format = BARE;
        return true;
      }
      if (!isEnd && text.length < BARE_LOOK) return false;
    }
    const length = text.length - (isEnd ? 0 : Math.max(0, ...marks.map(({ begin }) => overlap(text, begin))));
    const given = text.slice(0, length);
    // At the start, and after thoughts and calls, white space is text only if text follows it.
    if (!isEnd && (this.#isFirst || this.#trims) && given.trim() === '') return false;
    this.#give(parts, given);
    this.#held = text.slice(length);
    return false;
  }

  /** @param {Part[]} parts @param {string} text */
  #give(parts, text) {
    if (text === '' || ((this.#isFirst || this.#trims) && text.trim() === '')) return;
    parts.push({ content: this.#trims ? text.trimStart() : text });
    this.#isFirst = false;
    this.#trims = false;
  }
}
