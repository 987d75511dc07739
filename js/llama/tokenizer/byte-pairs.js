/* The tokenizer 'gpt2' (byte pairs): words cut by regular expressions, merges by rank. The one of
 * Gemma 4 is the same with lines as words and characters instead of bytes. */

import { ModelError } from '../errors.js';
import { mergeSymbols } from './merge.js';
import { preTokenizer } from './pre-tokenizers.js';
import { byteOf, byteToken, encoder } from './utf8.js';

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
  #rules;
  #rank;
  /** @type {Map<string, number[]>} */
  #cache = new Map();

  /**
   * @param {import('./tokenizer.js').Vocabulary} vocabulary
   * @param {string} [pre]  name of the pre-tokenizer; by default the file names it
   */
  constructor({ of, ids }, pre = String(of('pre') || 'default')) {
    this.pre = pre;
    this.#rules = preTokenizer(pre);
    this.addBos = this.#rules.bos;
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
    const { split, raw } = this.#rules;
    for (const word of split(raw ? text.replaceAll(' ', '\u2581') : text)) {
      let tokens = this.#cache.get(word);
      if (!tokens) {
        tokens = this.#encodeWord(word);
        if (this.#cache.size >= CACHED_WORDS) this.#cache.clear();
        if (word.length <= LONGEST_CACHED) this.#cache.set(word, tokens);
      }
      for (const token of tokens) out.push(token);
    }
  }

  /**
   * @param {string} text
   * @param {boolean} isByte
   */
  bytes(text, isByte) {
    if (isByte) return byteOf(text);
    if (this.#rules.raw) return encoder.encode(text.replaceAll('\u2581', ' '));
    return Uint8Array.from(text, (char) => CHAR_BYTES.get(char) ?? 63);
  }

  /** @param {string} word */
  #encodeWord(word) {
    const { raw, whole, newlines } = this.#rules;
    const spelt = raw ? word : Array.from(encoder.encode(word), (byte) => BYTE_CHARS[byte]).join('');
    const known = whole || (newlines && word.startsWith('\n')) ? this.#ids.get(spelt) : undefined;
    if (known !== undefined) return [known];
    /** @type {number[]} */
    const tokens = [];
    let start = 0;
    for (const end of mergeSymbols(spelt, this.#rank)) {
      const symbol = spelt.slice(start, end);
      start = end;
      const id = this.#ids.get(symbol);
      // If the vocabulary lacks the symbol, its bytes are used as far as they are tokens.
      const parts =
        id !== undefined ? [symbol] : raw ? Array.from(encoder.encode(symbol), byteToken) : symbol;
      for (const part of parts) {
        const token = this.#ids.get(part);
        if (token !== undefined) tokens.push(token);
      }
    }
    return tokens;
  }
}

/** The tokenizer 'gemma4', whose files may name another pre-tokenizer. */
export class Gemma4Pairs extends BytePairs {
  static title = 'byte pairs over lines';

  /** @param {import('./tokenizer.js').Vocabulary} vocabulary */
  constructor(vocabulary) {
    super(vocabulary, 'gemma4');
  }
}
