/* The softcap of logits. */

import { floatsOf } from './handles.js';

/**
 * x = limit * tanh(x / limit), unless the limit is 0.
 * @param {import('./handles.js').Tensor} x
 * @param {number} limit
 */
export function cap(x, limit) {
  if (limit === 0) return;
  const values = floatsOf(x);
  for (let i = 0; i < values.length; i++) values[i] = limit * Math.tanh(values[i] / limit);
}
