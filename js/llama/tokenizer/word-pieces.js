/* The tokenizer 'bert' (WordPiece): words, cut at white space and punctuation, become the longest
 * pieces of the vocabulary from left to right. The first piece of a word begins with U+2581. */

import { namedTokens } from './token-roles.js';
import { Trie } from './trie.js';
import { encoder } from './utf8.js';

const SPACE = /\p{White_Space}/u;
const DROPPED = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\ufffd]/u;
const MARK = /\p{M}/u;
/** Punctuation, symbols of ASCII, and CJK ideographs. Each is a word of its own. */
const ALONE = new RegExp(
  String.raw`[\p{P}$+<=>^\x60|~\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u{20000}-\u{2a6df}` +
    String.raw`\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{2f800}-\u{2fa1f}]`,
  'u',
);

export class WordPieces {
  static title = 'WordPiece';
  static bos = { names: ['bos'], fallback: 101 };
  static eos = { names: ['seperator'], fallback: 102 };
  pre = undefined;
  addBos = /** @type {const} */ ('always');
  addEos = /** @type {const} */ ('always');
  leadingSpace = true;
  #trie;
  /** Ids of the texts in the trie. */
  #ids;
  #unknown;
  #lowerCase;
  #stripAccents;
  /** What each character becomes. @type {Map<string, string>} */
  #chars = new Map();

  /** @param {import('./tokenizer.js').Vocabulary} vocabulary */
  constructor({ of, tokens, ids }) {
    this.#trie = new Trie([...ids.keys()]);
    this.#ids = [...ids.values()];
    this.#unknown = namedTokens(of, 'unknown', tokens.length)[0] ?? (tokens.length > 100 ? 100 : undefined);
    this.#lowerCase = Boolean(of('normalizer.lowercase') ?? true);
    this.#stripAccents = Boolean(of('normalizer.strip_accents') ?? this.#lowerCase);
  }

  /**
   * @param {string} text
   * @param {boolean} _
   * @param {number[]} out
   */
  encode(text, _, out) {
    let words = '';
    for (const char of text) {
      let changed = this.#chars.get(char);
      if (changed === undefined) {
        changed = this.#normalize(char);
        this.#chars.set(char, changed);
      }
      words += changed;
    }
    for (const word of words.split(' ')) if (word) this.#encodeWord(`\u2581${word}`, out);
  }

  /** @param {string} text */
  bytes(text) {
    return encoder.encode(text.replaceAll('\u2581', ' '));
  }

  /**
   * The character as the vocabulary has it; nothing, if it is left out; between spaces, if it is a
   * word of its own. Of a decomposition only the first character is used, as in llama.cpp.
   * @param {string} char
   */
  #normalize(char) {
    const [base] = this.#stripAccents ? char.normalize('NFD') : [char];
    if (SPACE.test(base)) return ' ';
    if (DROPPED.test(base) || (this.#stripAccents && MARK.test(base))) return '';
    const [changed] = this.#lowerCase ? base.toLowerCase() : [base];
    return ALONE.test(base) ? ` ${changed} ` : changed;
  }

  /**
   * Appends the pieces of a word, or the unknown token if the pieces do not cover it.
   * @param {string} word
   * @param {number[]} out
   */
  #encodeWord(word, out) {
    const before = out.length;
    let from = 0;
    while (from < word.length) {
      let longest = -1;
      let end = from;
      let node = 0;
      for (let at = from; at < word.length; at++) {
        node = this.#trie.child(node, word.charCodeAt(at));
        if (node === 0) break;
        if (this.#trie.text[node] < 0) continue;
        longest = this.#trie.text[node];
        end = at + 1;
      }
      if (longest < 0) {
        out.length = before;
        if (this.#unknown !== undefined) out.push(this.#unknown);
        return;
      }
      out.push(this.#ids[longest]);
      from = end;
    }
  }
}
