/* The texts of a step: all its tokens belong to one text, or to several that are computed side by
 * side. */

import { viewOf } from './tensor-view.js';

/** @typedef {import('../backend.js').Step} Step */
/** @typedef {import('./handles.js').Tensor} Tensor */

/**
 * @typedef {object} Text
 * @property {number} start  First row of the step's tensors.
 * @property {number} nTokens  Number of rows.
 * @property {number} position  Position of the first token.
 * @property {number} seen  Number of positions that are stored when the tokens attend.
 * @property {number} cached  Place in the caches of the text's position 0.
 * @property {import('./layer-cache.js').LayerCache} [cache]  Its own cache of the layer.
 * @property {import('./recurrent/state.js').RecurrentState} [state]  Its own state of the layer.
 */

/** @param {Step} step @returns {Text[]} */
export function textsOf({ position, nTokens, seen, texts }) {
  if (!texts) return [{ start: 0, nTokens, position, seen, cached: 0 }];
  return texts.map(({ nRows, ...text }) => ({ ...text, nTokens: nRows, seen: text.position + nRows }));
}

/** The rows of a text. @param {Tensor} tensor  rows of the step @param {Pick<Text, 'start' | 'nTokens'>} text */
export const rowsOf = (tensor, { start, nTokens }) =>
  nTokens === tensor.nRows ? tensor : viewOf(tensor, { start, nRows: nTokens });

/** The position of each token. @param {Step} step */
export function positionsOf(step) {
  const positions = new Uint32Array(step.nTokens);
  for (const { start, nTokens, position } of textsOf(step))
    for (let t = 0; t < nTokens; t++) positions[start + t] = position + t;
  return positions;
}
