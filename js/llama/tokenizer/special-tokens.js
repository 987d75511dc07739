/* Finds the tokens that are cut out of a text before it is split into words: control tokens and
 * user-defined ones.
 *
 * The longest token (in UTF-8 bytes) is cut first, wherever it occurs, then the next longest from
 * the rest, as in llama.cpp. An Aho-Corasick automaton finds all occurrences in one pass, so
 * neither the number of tokens nor their length slows it down. */

import { Trie } from './trie.js';
import { encoder } from './utf8.js';

/**
 * @typedef {object} SpecialToken
 * @property {number} id
 * @property {string} text  Text of the token: not empty, and different from all others.
 * @property {boolean} always  Whether it is found even if control tokens are not asked for: a
 *   user-defined token.
 * @property {boolean} [stripLeft]  Whether it takes the white space before it.
 * @property {boolean} [stripRight]  Whether it takes the white space after it.
 */

/** A token and its range text[from, to). @typedef {{ from: number, to: number, id: number }} Cut */

const SPACES = ' \t\n\v\f\r';

export class SpecialTokens {
  /** The tokens in the order of cutting. */
  #tokens;
  #trie;
  /**
   * For each node: the node of the longest proper suffix of its text, and the longest suffix node
   * in which a token ends; 0 if there is none.
   */
  #suffix;
  #shorter;
  /** For each token: the node in which it ends. @type {number[]} */
  #nodes = [];

  /** @param {SpecialToken[]} tokens */
  constructor(tokens) {
    const sized = tokens.map((token) => ({ ...token, bytes: encoder.encode(token.text).length }));
    this.#tokens = sized.sort((a, b) => b.bytes - a.bytes || a.id - b.id);
    this.#trie = new Trie(this.#tokens.map(({ text }) => text));
    const { units, text } = this.#trie;
    for (const [node, token] of text.entries()) if (token >= 0) this.#nodes[token] = node;
    this.#suffix = new Int32Array(units.length);
    this.#shorter = new Int32Array(units.length);
    this.#link();
  }

  /**
   * @param {string} text
   * @param {boolean | ((from: number, to: number) => boolean)} control  whether control tokens are
   *   found, or in which ranges
   * @returns {Cut[]} in the order of the text, without overlaps
   */
  find(text, control) {
    const allowed = typeof control === 'function' ? control : () => control;
    /**
     * Possible ends of each token. Of the tokens that end at one place, only the longest that is
     * still possible is listed.
     * @type {number[][]}
     */
    const places = [];
    /**
     * @param {number} node
     * @param {number} end
     * @param {number} room  number of free units before `end`
     */
    const offer = (node, end, room) => {
      for (let at = node; at > 0; at = this.#shorter[at]) {
        const i = this.#trie.text[at];
        if (i < 0 || this.#tokens[i].text.length > room) continue;
        if (!this.#tokens[i].always && !allowed(end - this.#tokens[i].text.length, end)) continue;
        places[i] ??= [];
        places[i].push(end);
        return;
      }
    };
    let node = 0;
    for (let at = 0; at < text.length; at++) {
      node = this.#next(node, text.charCodeAt(at));
      offer(node, at + 1, at + 1);
    }
    /** @type {Cut[]} */
    const cuts = [];
    /** For each unit the end of the cut that contains it; 0 if the unit is free. */
    const taken = new Int32Array(text.length);
    for (let i = 0; i < places.length; i++) {
      const { id, text: token, stripLeft, stripRight } = this.#tokens[i];
      const ends = places[i]?.sort((a, b) => a - b) ?? [];
      // Earlier cuts are at least as long, so a cut that overlaps a token contains its first or
      // last unit.
      for (const end of ends) {
        let from = end - token.length;
        if (taken[from] || taken[end - 1]) continue;
        let to = end;
        while (stripLeft && from > 0 && !taken[from - 1] && SPACES.includes(text[from - 1])) from -= 1;
        while (stripRight && to < text.length && !taken[to] && SPACES.includes(text[to])) to += 1;
        taken.fill(to, from, to);
        cuts.push({ from, to, id });
      }
      // If only the beginning is taken, a shorter token may end at the same place.
      for (const end of ends) {
        if (!taken[end - 1]) offer(this.#shorter[this.#nodes[i]], end, end - taken[end - token.length]);
      }
    }
    return cuts.sort((a, b) => a.from - b.from);
  }

  /** Computes the suffix nodes, parents before children. */
  #link() {
    const { units, children, text } = this.#trie;
    for (let node = 0; node < units.length; node++) {
      for (let child = children[node]; child < children[node + 1]; child++) {
        const suffix = node === 0 ? 0 : this.#next(this.#suffix[node], units[child]);
        this.#suffix[child] = suffix;
        this.#shorter[child] = text[suffix] >= 0 ? suffix : this.#shorter[suffix];
      }
    }
  }

  /**
   * The node of the longest suffix of the text read so far that is in the trie.
   * @param {number} node
   * @param {number} unit
   */
  #next(node, unit) {
    for (let at = node; ; at = this.#suffix[at]) {
      const child = this.#trie.child(at, unit);
      if (child > 0 || at === 0) return child;
    }
  }
}
