/* The tokenizer 'gpt2' (byte pairs): words cut by regular expressions, merges by rank. */

import { ModelError } from '../errors.js';
import { mergeSymbols } from './merge.js';
import { preTokenizer } from './pre-tokenizers.js';
import { encoder } from './utf8.js';

/** Most words, and longest word, whose tokens are cached. */
const CACHED_WORDS = 20_000;
const LONGEST_CACHED = 64;

/**
 * The 256 bytes as byte-pair vocabularies spell them: printable ones as themselves, the others from
 * U+0100 on.
 */
const BYTE_CHARS = (() => {
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    return String.fromCharCode(printable ? byte : 256 + others++);
  });
})();
const CHAR_BYTES = new Map(BYTE_CHARS.map((char, byte) => [char, byte]));

export class BytePairs {
  static title = 'byte pairs';
  static bos = { names: ['bos'] };
  static eos = { names: ['eos'] };
  addEos = false;
  leadingSpace = false;
  #ids;
  #split;
  #whole;
  #rank;
  /** @type {Map<string, number[]>} */
  #cache = new Map();

  /** @param {import('./tokenizer.js').Vocabulary} vocabulary */
  constructor({ of, ids }) {
    this.pre = String(of('pre') || 'default');
    const { split, whole, bos } = preTokenizer(this.pre);
    this.#split = split;
    this.#whole = whole;
    this.addBos = bos;
    this.#ids = ids;
    const merges = of('merges');
    if (!Array.isArray(merges)) throw new ModelError('tokenizer.ggml.merges is missing');
    /** @type {Map<string, number>} */
    const ranks = new Map();
    for (let i = merges.length - 1; i >= 0; i--) ranks.set(/** @type {string} */ (merges[i]), i);
    /** @type {import('./merge.js').Rank} */
    this.#rank = (text, start, middle, end) =>
      ranks.get(`${text.slice(start, middle)} ${text.slice(middle, end)}`);
  }

  /**
   * @param {string} text
   * @param {boolean} _
   * @param {number[]} out
   */
  encode(text, _, out) {
    for (const word of this.#split(text)) {
      let tokens = this.#cache.get(word);
      if (!tokens) {
        tokens = this.#encodeWord(word);
        if (this.#cache.size >= CACHED_WORDS) this.#cache.clear();
        if (word.length <= LONGEST_CACHED) this.#cache.set(word, tokens);
      }
      for (const token of tokens) out.push(token);
    }
  }

  /** @param {string} text */
  bytes(text) {
    return Uint8Array.from(text, (char) => CHAR_BYTES.get(char) ?? 63);
  }

  /** @param {string} word */
  #encodeWord(word) {
    const spelt = Array.from(encoder.encode(word), (byte) => BYTE_CHARS[byte]).join('');
    const known = this.#whole ? this.#ids.get(spelt) : undefined;
    if (known !== undefined) return [known];
    /** @type {number[]} */
    const tokens = [];
    let start = 0;
    for (const end of mergeSymbols(spelt, this.#rank)) {
      const symbol = spelt.slice(start, end);
      start = end;
      const id = this.#ids.get(symbol);
      // If the vocabulary lacks the merged symbol, its bytes are used as far as they are tokens.
      for (const part of id === undefined ? symbol : [symbol]) {
        const token = this.#ids.get(part);
        if (token !== undefined) tokens.push(token);
      }
    }
    return tokens;
  }
}
