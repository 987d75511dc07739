/**
 * The values that every layer gets beside the hidden states, with the formulas of js/llama/plan.js, in
 * plain float64 JavaScript: one token at a time.
 */
import { ACTIVATIONS, multiply, rms } from './reference-rows.js';

/** @import { FeedSettings, LayerInputs } from '../../js/llama/plan.js' */
/** @import { Matrix } from './reference-rows.js' */

/**
 * The values of a token for all layers.
 * @param {Float64Array} x  its embedding
 * @param {number} token
 * @param {LayerInputs} settings
 * @param {Record<string, Matrix>} weights
 */
export function inputsReference(x, token, settings, weights) {
  const { size, tableScale, projectionScale, eps, scale } = settings;
  const { layerTable, layerProjection, layerProjectionFactor, layerNorm } = weights;
  const product = multiply(layerProjection, x, layerProjectionFactor);
  const out = product.map((value) => projectionScale * value);
  for (let at = 0; at < out.length; at += size) out.set(rms(out.subarray(at, at + size), eps, layerNorm), at);
  const row = layerTable.row(token);
  return out.map((value, i) => scale * (tableScale * row[i] + value));
}

/**
 * Adds what a layer makes of its values.
 * @param {Float64Array} x  a row of hidden states, added to
 * @param {Float64Array} inputs  values of all layers
 * @param {number} layer
 * @param {NonNullable<FeedSettings['layerInput']>} settings
 * @param {Record<string, Matrix>} weights
 */
export function addInput(x, inputs, layer, { activation, eps }, weights) {
  const { inputGate, inputGateFactor, inputOutput, inputOutputFactor, inputNorm } = weights;
  const size = inputGate.nRows;
  const own = inputs.subarray(layer * size, (layer + 1) * size);
  const gate = multiply(inputGate, x, inputGateFactor);
  const inner = gate.map((value, i) => ACTIVATIONS[activation](value) * own[i]);
  const y = rms(multiply(inputOutput, inner, inputOutputFactor), eps, inputNorm);
  x.set(x.map((value, i) => value + y[i]));
}
