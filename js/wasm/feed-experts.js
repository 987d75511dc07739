/* Feed-forward blocks of experts on the CPU. The results of a token's experts, and of the shared
 * expert after them, are rows of one tensor, which mixRows adds. */

import { correct } from './after-products.js';

/** @typedef {import('../llama/plan.js').FeedSettings} FeedSettings */
/** @typedef {import('../llama/plan.js').ExpertSettings} ExpertSettings */
/** @typedef {import('./handles.js').Tensor} Tensor */
/** @typedef {import('./kernel-types.js').Gate} Gate */
/** @typedef {import('./kernel-types.js').Routing} Routing */
/** @typedef {import('./kernels.js').Kernels} Kernels */

/**
 * out = the result of a block of experts, before the norm and the sum that follow it.
 * @param {Kernels} fm
 * @param {Tensor} h  hidden states after the norm of the block
 * @param {Tensor} out
 * @param {ReturnType<import('./hidden.js').WasmHidden['experts']>} work
 * @param {FeedSettings} settings
 * @param {import('../backend.js').Weights} weights
 * @param {import('./selftest.js').Activation} activation
 */
export function feedExperts(fm, h, out, work, settings, weights, activation) {
  const act = /** @type {Gate} */ (settings.activation);
  const { nUsed, router, shared } = /** @type {ExpertSettings} */ (settings.experts);
  const { logits, gate, up, routed, results } = work;
  fm.fusedMatmul(weights.router, h, { out: logits, activation });
  correct(fm, logits, weights, 'router');
  const routing = fm.route(logits, { nUsed, ...router, bias: weights.selectBias });
  fm.fusedMatmulExperts([weights.gate, weights.up], h, routing, {
    ...{ biases: [weights.gateBias, weights.upBias], out: [gate, up], activation },
  });
  fm.fusedMatmulExperts([weights.down], gate, routing, {
    ...{ act, up, biases: [weights.downBias], out: [routed], activation },
  });
  if (!shared || !work.shared) {
    fm.mixRows(results, routing, { out });
    return;
  }
  const { gate: sharedGate, up: sharedUp, out: sharedOut, logits: sharedLogits } = work.shared;
  const inner = { out: [sharedGate, sharedUp], activation };
  fm.fusedMatmulMany([weights.sharedGate, weights.sharedUp], h, inner);
  correct(fm, sharedGate, weights, 'sharedGate');
  correct(fm, sharedUp, weights, 'sharedUp');
  fm.fusedSwigluMatmul(weights.sharedDown, sharedGate, sharedUp, { act, out: sharedOut, activation });
  correct(fm, sharedOut, weights, 'sharedDown');
  const factors = new Float32Array(h.nRows).fill(1);
  if (shared.gated) {
    fm.fusedMatmul(weights.sharedRouter, h, { out: sharedLogits, activation });
    correct(fm, sharedLogits, weights, 'sharedRouter');
    fm.gated(sharedLogits, factors, { act: 'sigmoid', out: factors });
  }
  fm.mixRows(results, withShared(routing, factors), { out });
}

/**
 * The same routing with one more row for each token.
 * @param {Routing} routing
 * @param {Float32Array} factors  weights of these rows
 * @returns {Routing}
 */
function withShared({ nTokens, rows, ends, weights }, factors) {
  const [allRows, allWeights] = [
    new Uint32Array(rows.length + nTokens),
    new Float32Array(rows.length + nTokens),
  ];
  allRows.set(rows);
  allWeights.set(weights);
  for (let t = 0; t < nTokens; t++) allRows[rows.length + t] = t;
  allWeights.set(factors, rows.length);
  return { nTokens, rows: allRows, ends, weights: allWeights };
}
