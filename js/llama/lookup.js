/* Drafts by lookup: a text that repeats itself goes on as it did after the same tokens before.
 *
 * Each pair of adjacent tokens has a chain of the positions where it ended, the latest first. The end of
 * the text is compared along the chain of its last pair, and the longest match gives the draft. */

/** Most positions of a chain that are compared. */
const MOST_TRIES = 32;
/** Tokens of a match after which no longer one is looked for. */
const LONGEST_MATCH = 32;
/** More than any number of tokens of a vocabulary; its square is a safe integer. */
const MOST_IDS = 2 ** 26;

/**
 * Tokens that may come next.
 * @typedef {object} Draft
 * @property {number[]} tokens
 * @property {number} matched  Tokens at the end of the text that the place they come from ends with too.
 */

export class Lookup {
  /** @type {number[]} */
  #tokens = [];
  /** The last position of each pair. @type {Map<number, number>} */
  #last = new Map();
  /** The position before it of the pair that ends at a position; 0: none. @type {number[]} */
  #before = [];

  /** @param {readonly number[]} tokens  the text so far */
  constructor(tokens) {
    for (const token of tokens) this.push(token);
  }

  /** Number of tokens. */
  get length() {
    return this.#tokens.length;
  }

  /** Adds a token to the text. @param {number} token */
  push(token) {
    const at = this.#tokens.push(token) - 1;
    const pair = at > 0 ? this.#tokens[at - 1] * MOST_IDS + token : -1;
    this.#before.push(this.#last.get(pair) ?? 0);
    if (at > 0) this.#last.set(pair, at);
  }

  /**
   * The tokens after the longest match, of equally long ones the latest.
   * @param {number} most  number of tokens
   * @returns {Draft | undefined}
   */
  find(most) {
    const tokens = this.#tokens;
    const end = tokens.length - 1;
    let best = 0;
    let matched = 1;
    let at = this.#before[end] ?? 0;
    for (let tries = 0; at > 0 && tries < MOST_TRIES && matched < LONGEST_MATCH; tries++) {
      const length = this.#match(at, end);
      if (length > matched) [best, matched] = [at, length];
      at = this.#before[at];
    }
    if (best === 0) return undefined;
    // Past the end of the text its repetition goes on.
    const period = end - best;
    return { tokens: Array.from({ length: most }, (_, i) => tokens[best + 1 + (i % period)]), matched };
  }

  /** Tokens that two positions end with, 2 at least. @param {number} at @param {number} end */
  #match(at, end) {
    const tokens = this.#tokens;
    let length = 2;
    while (length < LONGEST_MATCH && length <= at && tokens[at - length] === tokens[end - length])
      length += 1;
    return length;
  }
}
