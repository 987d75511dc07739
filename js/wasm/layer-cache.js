/* Keys and values of one attention layer, by position. They may be the same rows. */

/** @typedef {import('../backend.js').Resource} Resource */
/** @typedef {import('./kv-cache.js').KvCache} KvCache */

/**
 * Where tokens see only a window, the cache holds fewer rows than the context has positions: when they
 * are full, those of the window move to the beginning.
 * @implements {Resource}
 */
export class LayerCache {
  /** The position of the first row. */
  first = 0;
  #window;

  /** @param {KvCache} keys @param {KvCache} values @param {number} window */
  constructor(keys, values, window) {
    this.keys = keys;
    this.values = values;
    this.#window = window;
  }

  /** The memory that keys and values take. */
  get #parts() {
    return new Set([this.keys, this.values]);
  }

  get freed() {
    return this.keys.freed;
  }

  free() {
    for (const one of this.#parts) one.free();
  }

  /**
   * Makes room for tokens.
   * @param {number} position  of the first of them
   * @param {number} nTokens
   * @returns {number} its row
   */
  rowFor(position, nTokens) {
    if (position === 0) this.first = 0;
    const { nPositions: nRows } = this.keys;
    const earliest = Math.max(0, position + 1 - this.#window);
    if (this.first > 0 && earliest < this.first)
      throw new RangeError(`position ${earliest} is not in the cache any more; it begins at ${this.first}`);
    if (position + nTokens - this.first > nRows) {
      for (const one of this.#parts) one.keep(earliest - this.first, position - this.first);
      this.first = earliest;
    }
    return position - this.first;
  }
}
