/* Feed-forward blocks that the fused block does not compute: those whose matrices have factors, and
 * those without a gate. */

import { correct, multiplyBy } from './after-products.js';

/** @typedef {import('../backend.js').Weights} Weights */
/** @typedef {import('../llama/plan.js').FeedSettings} FeedSettings */
/** @typedef {import('./handles.js').Tensor} Tensor */
/** @typedef {import('./kernels.js').Kernels} Kernels */
/** @typedef {import('./selftest.js').Activation} Activation */

/** @param {FeedSettings} settings */
export const gateOf = ({ activation }) => /** @type {import('./kernel-types.js').Gate} */ (activation);

/**
 * A block with a gate, whose products are multiplied by factors of their own.
 * @param {Kernels} fm
 * @param {Tensor} x  h, or what becomes h by an RMS norm
 * @param {Tensor} out
 * @param {Tensor[]} work  for the products with gate and up
 * @param {FeedSettings} settings
 * @param {Weights} weights
 * @param {Activation} activation
 */
export function feedWithFactors(fm, x, out, work, settings, weights, activation) {
  const { norm } = settings;
  const products = [weights.gate, weights.up];
  const options = { out: work, activation };
  if (norm?.kind === 'rms') fm.fusedRmsNormMatmul(products, x, weights.norm, { eps: norm.eps, ...options });
  else fm.fusedMatmulMany(products, x, options);
  const [gate, up] = work;
  multiplyBy(fm, gate, weights.gateFactor);
  multiplyBy(fm, up, weights.upFactor);
  fm.fusedSwigluMatmul(weights.down, gate, up, { act: gateOf(settings), out, activation });
  correct(fm, out, weights, 'down');
}

/**
 * out = act(h up^T) down^T. The square of ReLU is a ReLU gate of the values by themselves.
 * @param {Kernels} fm
 * @param {Tensor} x  h, or what becomes h by an RMS norm
 * @param {Tensor} out
 * @param {Tensor} inner  work memory
 * @param {FeedSettings} settings
 * @param {Weights} weights
 * @param {Activation} activation
 */
export function feedPlain(fm, x, out, inner, { norm, activation: act }, weights, activation) {
  const { up, down } = weights;
  if (norm?.kind === 'rms')
    fm.fusedRmsNormMatmul([up], x, weights.norm, { eps: norm.eps, out: [inner], activation });
  else fm.fusedMatmul(up, x, { out: inner, activation });
  correct(fm, inner, weights, 'up');
  if (act === 'relu2') fm.fusedSwigluMatmul(down, inner, inner, { act: 'relu', out, activation });
  else fm.fusedSwigluMatmul(down, inner, undefined, { act, out, activation });
  correct(fm, out, weights, 'down');
}
