/* The tokenizer 'llama' (SentencePiece): merges by the score of the merged token; single bytes where
 * no token fits. */

import { mergeSymbols } from './merge.js';
import { scoresOf } from './scores.js';
import { byteOf, byteToken, encoder } from './utf8.js';

export class SentencePieces {
  static title = 'SentencePiece';
  static bos = { names: ['bos'], fallback: 1 };
  static eos = { names: ['eos'], fallback: 2 };
  pre = undefined;
  addBos = true;
  addEos = false;
  #ids;
  #scores;
  #unknown;
  #rank;

  /** @param {import('./tokenizer.js').Vocabulary} vocabulary */
  constructor({ of, tokens, ids }) {
    this.#scores = scoresOf(of, tokens.length);
    this.#ids = ids;
    const unknown = of('unknown_token_id');
    this.#unknown = typeof unknown === 'number' ? unknown : ids.get('<unk>');
    /** Whether a text is encoded with a space in front of it. */
    this.leadingSpace = Boolean(of('add_space_prefix') ?? true);
    /** @type {import('./merge.js').Rank} */
    this.#rank = (text, start, _, end) => {
      const id = ids.get(text.slice(start, end));
      return id === undefined ? undefined : -this.#scores[id];
    };
  }

  /**
   * @param {string} text
   * @param {boolean} first  whether the text is at the start, or after a control token
   * @param {number[]} out
   */
  encode(text, first, out) {
    const escaped = (this.leadingSpace && first ? ` ${text}` : text).replaceAll(' ', '\u2581');
    let start = 0;
    for (const end of mergeSymbols(escaped, this.#rank)) {
      const symbol = escaped.slice(start, end);
      start = end;
      const id = this.#ids.get(symbol);
      if (id === undefined) this.#encodeBytes(symbol, out);
      else out.push(id);
    }
  }

  /**
   * @param {string} text
   * @param {boolean} isByte
   */
  bytes(text, isByte) {
    if (isByte) return byteOf(text);
    return encoder.encode(text.replaceAll('\u2581', ' '));
  }

  /** @param {string} symbol @param {number[]} out */
  #encodeBytes(symbol, out) {
    for (const byte of encoder.encode(symbol)) {
      const id = this.#ids.get(byteToken(byte)) ?? this.#unknown;
      if (id !== undefined) out.push(id);
    }
  }
}
