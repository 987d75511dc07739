/* Changes of a product: the factor and the bias of its matrix, and the soft cap of logits. */

import { floatsOf } from './handles.js';

/** @typedef {import('./handles.js').Tensor} Tensor */
/** @typedef {import('./kernels.js').Kernels} Kernels */

/**
 * Multiplies a product by the factor of its matrix, if there is one.
 * @param {Kernels} fm
 * @param {Tensor} x
 * @param {number | undefined} factor
 */
export function multiplyBy(fm, x, factor) {
  if (factor !== undefined) fm.scale(x, factor, { out: x });
}

/**
 * Adds a bias to every row, if there is one.
 * @param {Kernels} fm
 * @param {Tensor} x
 * @param {Tensor | undefined} bias
 */
export function addBias(fm, x, bias) {
  if (bias) fm.add(x, bias, { out: x });
}

/**
 * Applies the factor and the bias of the matrix with a role.
 * @param {Kernels} fm
 * @param {Tensor} x
 * @param {import('../backend.js').Weights} weights
 * @param {string} role  of the matrix
 */
export function correct(fm, x, weights, role) {
  multiplyBy(fm, x, weights[`${role}Factor`]);
  addBias(fm, x, weights[`${role}Bias`]);
}

/**
 * x = limit * tanh(x / limit), unless the limit is 0.
 * @param {Tensor} x
 * @param {number} limit
 */
export function cap(x, limit) {
  if (limit === 0) return;
  const values = floatsOf(x);
  for (let i = 0; i < values.length; i++) values[i] = limit * Math.tanh(values[i] / limit);
}
