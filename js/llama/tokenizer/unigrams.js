/* The tokenizer 't5' (unigrams): of all ways to divide a text into tokens, the one with the greatest
 * sum of scores. The text is normalised first; U+2581 stands for a space. */

import { Charsmap } from './charsmap.js';
import { scoresOf } from './scores.js';
import { namedTokens } from './token-roles.js';
import { Trie } from './trie.js';
import { byteOf, encoder } from './utf8.js';

/** Types of the tokens that a text is divided into. */
const NORMAL = 1;
const USER_DEFINED = 4;
const UNUSED = 5;

/** How much less than any token an unknown character counts. */
const PENALTY = 10;

const SPACE = 0x20;
const ESCAPED_SPACE = [0xe2, 0x96, 0x81];

export class Unigrams {
  static title = 'unigrams';
  static bos = { names: ['bos'] };
  static eos = { names: ['eos'], fallback: 1 };
  pre = undefined;
  addBos = false;
  addEos = true;
  #trie;
  /** Ids and scores of the texts in the trie. */
  #ids;
  #scores;
  #unknown;
  #unknownScore;
  #charsmap;
  #mergeSpaces;

  /** @param {import('./tokenizer.js').Vocabulary} vocabulary */
  constructor({ of, tokens, ids, types }) {
    const scores = scoresOf(of, tokens.length);
    const used = [...ids].filter(([, id]) => [NORMAL, USER_DEFINED, UNUSED].includes(types[id]));
    this.#trie = new Trie(used.map(([text]) => text));
    this.#ids = used.map(([, id]) => id);
    this.#scores = Float64Array.from(this.#ids, (id) => (types[id] === USER_DEFINED ? 0 : scores[id]));
    let least = Number.POSITIVE_INFINITY;
    for (const [id, score] of scores.entries()) if (types[id] === NORMAL) least = Math.min(least, score);
    this.#unknownScore = Math.fround(least - PENALTY);
    this.#unknown = namedTokens(of, 'unknown', tokens.length)[0] ?? 2;
    const charsmap = /** @type {number[]} */ (of('precompiled_charsmap') ?? []);
    this.#charsmap = charsmap.length > 0 ? new Charsmap(charsmap) : undefined;
    /** Whether a text is encoded with a space in front of it. */
    this.leadingSpace = Boolean(of('add_space_prefix'));
    this.#mergeSpaces = Boolean(of('remove_extra_whitespaces'));
  }

  /**
   * @param {string} text
   * @param {boolean} _
   * @param {number[]} out
   */
  encode(text, _, out) {
    const normal = this.#normalize(text);
    const size = normal.length;
    /** For each end of a token: the best sum up to it, where that token begins, and the token. */
    const sums = new Float64Array(size + 1).fill(-Infinity);
    const starts = new Int32Array(size + 1);
    const last = new Int32Array(size + 1).fill(-1);
    sums[0] = 0;
    const offer = (/** @type {number} */ from, /** @type {number} */ to, token = -1) => {
      const sum = sums[from] + (token < 0 ? this.#unknownScore : this.#scores[token]);
      if (sum <= sums[to]) return;
      sums[to] = sum;
      starts[to] = from;
      last[to] = token;
    };
    for (let from = 0; from < size; ) {
      const next = from + (Number(normal.codePointAt(from)) > 0xffff ? 2 : 1);
      let alone = false;
      let node = 0;
      for (let at = from; at < size; at++) {
        node = this.#trie.child(node, normal.charCodeAt(at));
        if (node === 0) break;
        const token = this.#trie.text[node];
        if (token < 0) continue;
        alone ||= at + 1 === next;
        offer(from, at + 1, token);
      }
      if (!alone) offer(from, next);
      from = next;
    }
    /** @type {number[]} */
    const tokens = [];
    let afterUnknown = false;
    for (let end = size; end > 0; end = starts[end]) {
      const unknown = last[end] < 0;
      // Neighbouring unknown characters are one token.
      if (!(unknown && afterUnknown)) tokens.push(unknown ? this.#unknown : this.#ids[last[end]]);
      afterUnknown = unknown;
    }
    for (let i = tokens.length - 1; i >= 0; i--) out.push(tokens[i]);
  }

  /**
   * @param {string} text
   * @param {boolean} isByte
   */
  bytes(text, isByte) {
    return isByte ? byteOf(text) : encoder.encode(text.replaceAll('\u2581', ' '));
  }

  /** @param {string} text */
  #normalize(text) {
    const bytes = encoder.encode(text);
    /** @type {number[]} */
    const out = [];
    let inWord = false;
    let prefixed = !this.leadingSpace;
    const put = (/** @type {number} */ byte) => {
      if (byte === SPACE) {
        inWord = false;
        if (!this.#mergeSpaces) out.push(...ESCAPED_SPACE);
        return;
      }
      if (!inWord && (this.#mergeSpaces || !prefixed)) {
        out.push(...ESCAPED_SPACE);
        prefixed = true;
      }
      inWord = true;
      out.push(byte);
    };
    for (let at = 0; at < bytes.length; ) {
      const found = this.#charsmap?.find(bytes, at);
      if (found) {
        found.text.forEach(put);
        at += found.length;
        continue;
      }
      put(bytes[at]);
      at += 1;
    }
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(out));
  }
}
