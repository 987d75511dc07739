/* The normalisation of a unigram vocabulary (tokenizer.ggml.precompiled_charsmap): sequences of bytes
 * and what replaces them. The bytes begin with the size of a double array, in which the sequences are
 * paths; the replacements follow it, each with a zero at its end.
 *
 * A unit of the array has 32 bits: the byte by which it is reached in bits 0 to 7; whether a sequence
 * ends in it in bit 8; the distance to its children, which is combined with XOR, in bits 10 to 30,
 * shifted by 8 if bit 9 is set. The child for byte 0 holds the place of the replacement. */

import { ModelError } from '../errors.js';

const KEY = 'tokenizer.ggml.precompiled_charsmap';

export class Charsmap {
  #units;
  #texts;

  /**
   * @param {ArrayLike<number>} values  bytes, signed or not
   * @throws {ModelError} they are too few
   */
  constructor(values) {
    const bytes = Uint8Array.from(values);
    const view = new DataView(bytes.buffer);
    const size = bytes.length < 4 ? 0 : view.getUint32(0, true);
    if (bytes.length < 8 || size < 4 || size > bytes.length - 5)
      throw new ModelError(`${KEY} has ${bytes.length} bytes for an array of ${size}`);
    this.#units = Uint32Array.from({ length: size >> 2 }, (_, i) => view.getUint32(4 + 4 * i, true));
    this.#texts = bytes.subarray(4 + size);
  }

  /**
   * Finds the longest sequence at a place.
   * @param {Uint8Array} bytes
   * @param {number} from
   * @returns {{ length: number, text: Uint8Array } | undefined}  its length and its replacement
   */
  find(bytes, from) {
    let length = 0;
    let place = 0;
    let node = distance(this.#unit(0));
    for (let at = from; at < bytes.length && bytes[at] !== 0; at++) {
      node ^= bytes[at];
      const unit = this.#unit(node);
      // The sign bit is set in units that hold a place.
      if ((unit & 0x800000ff) !== bytes[at]) break;
      node ^= distance(unit);
      if ((unit & 0x100) === 0) continue;
      length = at + 1 - from;
      place = this.#unit(node) & 0x7fffffff;
    }
    if (length === 0) return undefined;
    const end = this.#texts.indexOf(0, place);
    if (end < 0) throw new ModelError(`${KEY} has no text at ${place}`);
    return { length, text: this.#texts.subarray(place, end) };
  }

  /** @param {number} node */
  #unit(node) {
    if (node < this.#units.length) return this.#units[node];
    throw new ModelError(`${KEY} has no unit ${node}: there are ${this.#units.length}`);
  }
}

/** @param {number} unit */
const distance = (unit) => (unit >>> 10) << ((unit & 0x200) >> 6);
