/* The state of a recurrent layer in wasm memory, which the tokens so far have left there, and a copy
 * of an earlier one. */

import { ShapeError } from '../../errors.js';
import { floatsOf } from '../handles.js';
import { viewOf } from '../tensor-view.js';
import { KINDS, stateValues } from './kinds.js';

/** @typedef {import('../../backend.js').Rows} Rows */
/** @typedef {import('../../backend.js').State} State */
/** @typedef {import('../handles.js').Tensor} Tensor */

/**
 * A state never takes a token back. The copy is made before the last token of a step, so that the
 * same prompt can be computed again for the cost of one token. A step of one token leaves the copy
 * alone: after the answer to a prompt, it still belongs to that prompt.
 * @implements {State}
 */
export class RecurrentState {
  /** Tokens that the state has seen; -1 if that is not known. */
  position = 0;
  /** Tokens that the copy has seen. */
  savedAt = 0;
  /** The parts of the state. @type {Record<string, Tensor>} */
  parts = {};
  #both;

  /**
   * @param {import('../kernels.js').Kernels} fm
   * @param {import('../../llama/plan.js').RecurrentSettings} settings
   */
  constructor(fm, settings) {
    this.#both = fm.tensor({ nRows: 2, nCols: stateValues(settings) });
    let at = 0;
    for (const [name, shape] of Object.entries(KINDS[settings.kind].state(settings))) {
      const n = shape.nRows * shape.nCols;
      this.parts[name] = viewOf(viewOf(this.#both, { start: at, nRows: n, nCols: 1 }), shape);
      at += n;
    }
  }

  get freed() {
    return this.#both.freed;
  }

  free() {
    this.#both.free();
  }

  /**
   * Goes on at a position, over the tokens of a text, which leaves a copy before the last of several
   * tokens.
   * @param {{ position: number, nTokens: number }} text
   * @param {(rows: Rows) => void} run  computes rows of the text from the state, and changes it
   * @throws {ShapeError} the state of that position is not there
   */
  over({ position, nTokens }, run) {
    this.#begin(position);
    // Should an error end this, nobody knows what the state has seen.
    this.position = -1;
    if (nTokens > 1) {
      run({ start: 0, nRows: nTokens - 1 });
      this.#copy(0, 1);
      this.savedAt = position + nTokens - 1;
    }
    run({ start: nTokens - 1, nRows: 1 });
    this.position = position + nTokens;
  }

  /** The values of the state, then those of the copy. */
  get values() {
    return floatsOf(this.#both);
  }

  /** After several texts, no position counts as seen. */
  forget() {
    this.position = -1;
    this.savedAt = -1;
  }

  /** @param {number} position */
  #begin(position) {
    if (position === 0) {
      floatsOf(this.#both).fill(0);
      this.savedAt = 0;
    } else if (position !== this.position) {
      if (position !== this.savedAt) {
        throw new ShapeError(
          `a recurrent layer cannot go on at position ${position}: its states are those of ${this.position} and ${this.savedAt}`,
          { got: position, expected: this.position },
        );
      }
      this.#copy(1, 0);
    }
  }

  /** @param {number} from @param {number} to  rows */
  #copy(from, to) {
    const { nCols } = this.#both;
    floatsOf(this.#both).copyWithin(to * nCols, from * nCols, (from + 1) * nCols);
  }
}
