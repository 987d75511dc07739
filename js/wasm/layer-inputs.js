/* Values that every layer gets beside the hidden states. They are computed with the embedding, and kept
 * with the hidden states. */

import { correct, multiplyBy } from './after-products.js';
import { floatsOf } from './handles.js';
import { viewOf } from './tensor-view.js';

/** @typedef {import('../backend.js').Step} Step */
/** @typedef {import('../llama/plan.js').EmbeddingSettings} EmbeddingSettings */
/** @typedef {import('../llama/plan.js').FeedSettings} FeedSettings */
/** @typedef {import('./handles.js').Tensor} Tensor */
/** @typedef {import('./hidden.js').WasmHidden} WasmHidden */
/** @typedef {import('./kernels.js').Kernels} Kernels */
/** @typedef {import('./selftest.js').Activation} Activation */

/** @template S @typedef {import('../backend.js').Block<S>} Block */

/**
 * Work memory of a step: the values of all layers, with a row for each token; of the same shape, rows
 * of the table; values and gates of one layer, which take the place of these rows.
 * @typedef {{ all: Tensor, table: Tensor, own: Tensor, gate: Tensor }} InputWork
 */

/**
 * Computes the values of all layers from the embeddings, if layers get any.
 * @param {Kernels} fm
 * @param {WasmHidden} hidden
 * @param {Uint32Array} ids  tokens by position
 * @param {Block<EmbeddingSettings>} block
 * @param {Step} at
 * @param {Activation} activation
 */
export function makeLayerInputs(fm, hidden, ids, { settings, weights }, at, activation) {
  if (!settings.layerInputs) return;
  const { size, tableScale, projectionScale, eps, scale } = settings.layerInputs;
  const { x } = hidden.states(at);
  const { all, table } = hidden.layerInputs(at, size);
  fm.fusedMatmul(weights.layerProjection, x, { out: all, activation });
  multiplyBy(fm, all, weights.layerProjectionFactor);
  fm.scale(all, projectionScale, { out: all });
  const ofLayers = viewOf(all, { nRows: all.length / size, nCols: size });
  fm.rmsNorm(ofLayers, weights.layerNorm, { eps, out: ofLayers });
  fm.embed(weights.layerTable, ids.subarray(at.position, at.position + at.nTokens), { out: table });
  fm.addScaled(all, table, tableScale, { out: all });
  fm.scale(all, scale, { out: all });
}

/**
 * Adds to the hidden states what a layer makes of its values, if it gets any.
 * @param {Kernels} fm
 * @param {WasmHidden} hidden
 * @param {Block<FeedSettings>} block
 * @param {Step} at
 * @param {Activation} activation
 */
export function addLayerInput(fm, hidden, { settings, weights, layer = 0 }, at, activation) {
  if (!settings.layerInput) return;
  const { activation: act, eps } = settings.layerInput;
  const size = weights.inputGate.nRows;
  const { x, added } = hidden.states(at);
  const { all, own, gate } = hidden.layerInputs(at, size);
  const [from, to] = [floatsOf(all), floatsOf(own)];
  for (let t = 0; t < all.nRows; t++) {
    const at = t * all.nCols + layer * size;
    to.set(from.subarray(at, at + size), t * size);
  }
  fm.fusedMatmul(weights.inputGate, x, { out: gate, activation });
  correct(fm, gate, weights, 'inputGate');
  fm.fusedSwigluMatmul(weights.inputOutput, gate, own, { act, out: added, activation });
  correct(fm, added, weights, 'inputOutput');
  fm.rmsNorm(added, weights.inputNorm, { eps, out: added });
  fm.add(x, added, { out: x });
}
