/* What depends on the positions of tokens: the rotation of queries and keys, and a factor of queries. */

import { viewOf } from './tensor-view.js';

/** @typedef {import('./handles.js').Tensor} Tensor */
/** @typedef {import('./kernels.js').Kernels} Kernels */

/**
 * Turns queries and keys by their positions.
 * @param {Kernels} fm
 * @param {Tensor} q
 * @param {Tensor | undefined} k  undefined: only the queries
 * @param {import('../llama/plan.js').AttentionSettings} settings
 * @param {import('../backend.js').Weights} weights
 * @param {{ position: number }} text
 */
export function turn(fm, q, k, { headSize, rope }, { ropeFactors: factors }, { position }) {
  if (!rope) return;
  // Written out because it runs for every token, and copying properties takes longer than the call.
  const { pairing, nDims, base, linearScale, magnitude } = rope;
  fm.rope(q, { headSize, position, nDims, base, linearScale, factors, magnitude, pairing, out: q });
  if (k) fm.rope(k, { headSize, position, nDims, base, linearScale, factors, magnitude, pairing, out: k });
}

/**
 * Multiplies queries by a factor that depends on their position. Neighbours have the same factor,
 * except where a new stretch begins.
 * @param {Kernels} fm
 * @param {Tensor} q
 * @param {import('../llama/plan.js').Temperature} temperature
 * @param {number} position  of the first token
 */
export function heat(fm, q, { scale, length }, position) {
  for (let start = 0; start < q.nRows; ) {
    const stretch = Math.floor((position + start) / length);
    const nRows = Math.min(q.nRows - start, (stretch + 1) * length - position - start);
    if (stretch > 0) {
      const rows = viewOf(q, { start, nRows });
      fm.scale(rows, 1 + scale * Math.log(1 + stretch), { out: rows });
    }
    start += nRows;
  }
}
