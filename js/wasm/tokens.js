/* Token ids of a model, by position. */

/** @typedef {import('../backend.js').Resource} Resource */

/**
 * Token ids. JavaScript chooses the tokens, so the ids need no wasm memory. @implements {Resource}
 */
export class Tokens {
  freed = false;

  /** @param {number} length */
  constructor(length) {
    this.length = length;
    this.ids = new Uint32Array(length);
  }

  free() {
    this.freed = true;
  }
}
