/* The kinds of recurrent blocks that the CPU computes. */

import { convolution } from './convolution.js';
import { delta } from './delta.js';
import { scan } from './scan.js';

/** @typedef {import('../../llama/plan.js').RecurrentSettings} RecurrentSettings */
/** @typedef {import('../handles.js').Tensor} Tensor */

/**
 * A kind of recurrent block. Work tensors have one row for each token.
 * @template {RecurrentSettings} [S=any]
 * @typedef {object} RecurrentKind
 * @property {(settings: S) => Record<string, number>} inputs  Products of the input: by the role of
 *   their matrix, how many values a token has. Each is a work tensor of that name.
 * @property {(settings: S) => Record<string, number>} work  The same for further work tensors.
 * @property {string} result  The work tensor that is multiplied by the output matrix in the end.
 * @property {(settings: S) => Record<string, { nRows: number, nCols: number }>} state  The parts of
 *   the state.
 * @property {(settings: S) => string[]} lacks  Names what cannot be computed.
 * @property {(fm: import('../kernels.js').Kernels, block: import('../../backend.js').Block<S>,
 *   work: Record<string, Tensor>, state: Record<string, Tensor>) => void} run  Computes the result
 *   of some rows, which follow the state, and leaves the state after them.
 */

/** @type {Readonly<Record<string, RecurrentKind>>} */
export const KINDS = Object.freeze({ convolution, delta, scan });

/**
 * Values of a token in each work tensor, and in what is added to the hidden states in the end.
 * @param {RecurrentSettings} settings
 * @param {number} nEmbd  values of a hidden state
 * @returns {Record<string, number>}
 */
export function workCols(settings, nEmbd) {
  const kind = KINDS[settings.kind];
  return { ...kind.inputs(settings), ...kind.work(settings), added: nEmbd };
}

/** Values of the state of a layer, without the copy. @param {RecurrentSettings} settings */
export const stateValues = (settings) =>
  Object.values(KINDS[settings.kind].state(settings)).reduce(
    (sum, { nRows, nCols }) => sum + nRows * nCols,
    0,
  );
