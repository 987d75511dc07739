/* The state of a recurrent layer in GPU memory, which the tokens so far leave there, and a copy of an
 * earlier one. Positions are those after all work that was recorded. */

import { ShapeError } from '../errors.js';

/** @typedef {import('../backend.js').State} State */
/** @typedef {import('./device.js').GpuDevice} GpuDevice */

/** Passes that may be under way when one of them fails, or more. */
const PASSES = 16;

/**
 * Kernels begin with zeros at position 0, and make the copy before the last of several tokens.
 * @implements {State}
 */
export class GpuState {
  position = 0;
  savedAt = 0;
  /** Passes that changed the state since it was zeros, the latest ones. @type {number[]} */
  #passes = [];
  /** The pass that made the copy. */
  #savedIn = -1;

  /** @param {GpuDevice} gpu @param {number} bytes */
  constructor(gpu, bytes) {
    this.current = gpu.buffer(bytes, { label: 'state' });
    this.saved = gpu.buffer(bytes, { label: 'copy of a state' });
  }

  get freed() {
    return this.current.freed;
  }

  free() {
    this.current.free();
    this.saved.free();
  }

  /**
   * Notes tokens that go through the state.
   * @param {{ position: number, nTokens: number }} step
   * @param {number} pass
   * @returns {boolean} whether the copy must be taken before
   * @throws {ShapeError} the state of that position is not there
   */
  advance({ position, nTokens }, pass) {
    const isThere = position === 0 || position === this.position;
    if (!isThere && position !== this.savedAt) {
      throw new ShapeError(
        `a recurrent layer cannot go on at position ${position}: its states are those of ${this.position} and ${this.savedAt}`,
        { got: position, expected: this.position },
      );
    }
    if (position === 0) {
      this.#passes = [];
      this.savedAt = 0;
    }
    if (this.#passes.at(-1) !== pass) this.#passes = [...this.#passes.slice(1 - PASSES), pass];
    this.position = position + nTokens;
    if (nTokens > 1) {
      this.savedAt = this.position - 1;
      this.#savedIn = pass;
    }
    return !isThere;
  }

  /** A number of a pass cannot be right, and may be in the state. @param {number} pass */
  spoil(pass) {
    if (!this.#passes.includes(pass)) return;
    this.position = -1;
    if (this.#savedIn >= pass) this.savedAt = -1;
  }
}
