/* UTF-8 beyond what the engine knows of it: which bytes occur, and which follow which. */

/** The second byte after some first ones: all others take 80 to BF. @type {Record<number, [number, number]>} */
const SECOND = {
  224: [0xa0, 0xbf],
  237: [0x80, 0x9f],
  240: [0x90, 0xbf],
  244: [0x80, 0x8f],
};

/** Whether two bytes may stand side by side, as far as the engine does not know. */
const mayFollow = (/** @type {number} */ byte, /** @type {number} */ next) => {
  const range = SECOND[byte];
  return !range || (range[0] <= next && next <= range[1]);
};

/** Whether bytes may be a part of a text. @param {Uint8Array} bytes */
export const isPossible = (bytes) =>
  bytes.every((byte, i) => {
    // The byte 1 is a mark in grammars of schemas.
    const occurs = byte < 0xf5 && byte !== 0xc0 && byte !== 0xc1 && byte !== 1;
    return occurs && (i + 1 === bytes.length || mayFollow(byte, bytes[i + 1]));
  });

/** The tokens of a vocabulary that cannot follow an incomplete character. */
export class Continuations {
  /** Tokens that begin in the middle of a character, and their first bytes. @type {[number, number][]} */
  #tokens = [];
  /** The last byte of tokens that end with such a first byte. @type {Map<number, number>} */
  #ends = new Map();

  /** @param {number} token @param {Uint8Array} bytes */
  add(token, bytes) {
    if (bytes.length === 0) return;
    const [first, last] = [bytes[0], bytes[bytes.length - 1]];
    if (first >= 0x80 && first < 0xc0) this.#tokens.push([token, first]);
    if (SECOND[last]) this.#ends.set(token, last);
  }

  /**
   * @param {Float32Array} logits  those of the tokens become -Infinity
   * @param {number | undefined} last  the token before
   */
  ruleOut(logits, last) {
    const byte = last === undefined ? undefined : this.#ends.get(last);
    if (byte === undefined) return;
    for (const [token, next] of this.#tokens)
      if (!mayFollow(byte, next)) logits[token] = Number.NEGATIVE_INFINITY;
  }
}
