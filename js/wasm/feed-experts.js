/* Feed-forward blocks of experts on the CPU. The results of a token's experts, and of the shared
 * expert after them, are rows of one tensor, which mixRows adds. With norms of their own, both results
 * are added after these. */

import { addBias, correct } from './after-products.js';
import { floatsOf } from './handles.js';
import { viewOf } from './tensor-view.js';

/** @typedef {import('../llama/plan.js').FeedSettings} FeedSettings */
/** @typedef {import('../llama/plan.js').ExpertSettings} ExpertSettings */
/** @typedef {import('./handles.js').Tensor} Tensor */
/** @typedef {import('./kernel-types.js').Gate} Gate */
/** @typedef {import('./kernel-types.js').Routing} Routing */
/** @typedef {import('./kernels.js').Kernels} Kernels */

/**
 * out = the result of a block of experts, before the norm and the sum that follow it.
 * @param {Kernels} fm
 * @param {Tensor} x  hidden states
 * @param {Tensor} h  hidden states after the norm of the block
 * @param {Tensor} out
 * @param {ReturnType<import('./hidden.js').WasmHidden['experts']>} work
 * @param {FeedSettings} settings
 * @param {import('../backend.js').Weights} weights
 * @param {import('./selftest.js').Activation} activation
 */
export function feedExperts(fm, x, h, out, work, settings, weights, activation) {
  const act = /** @type {Gate} */ (settings.activation);
  const { nUsed, router, shared, routerNorm, norms } = /** @type {ExpertSettings} */ (settings.experts);
  const { logits, gate, up, routed, results } = work;
  const given = routerNorm ? fm.rmsNorm(x, weights.routerNorm, { eps: routerNorm.eps, out }) : h;
  fm.fusedMatmul(weights.router, given, { out: logits, activation });
  if (routerNorm) fm.scale(logits, routerNorm.scale, { out: logits });
  correct(fm, logits, weights, 'router');
  const routing = fm.route(logits, { nUsed, ...router, bias: weights.selectBias });
  multiplyExperts(fm, ['gate', 'up'], h, routing, weights, { out: [gate, up], activation });
  multiplyExperts(fm, ['down'], gate, routing, weights, { act, up, out: [routed], activation });
  if (norms || !shared) {
    fm.mixRows(routed, routing, { out });
    if (norms) fm.rmsNorm(out, weights.expertsNorm, { eps: norms.eps, out });
  }
  if (!shared || !work.shared) return;
  // The results of the other experts are added by now.
  const ofShared = norms
    ? fm.rmsNorm(x, weights.sharedNorm, { eps: norms.eps, out: viewOf(results, { nRows: x.nRows }) })
    : h;
  const { gate: sharedGate, up: sharedUp, out: sharedOut, logits: sharedLogits } = work.shared;
  const inner = { out: [sharedGate, sharedUp], activation };
  fm.fusedMatmulMany([weights.sharedGate, weights.sharedUp], ofShared, inner);
  correct(fm, sharedGate, weights, 'sharedGate');
  correct(fm, sharedUp, weights, 'sharedUp');
  fm.fusedSwigluMatmul(weights.sharedDown, sharedGate, sharedUp, { act, out: sharedOut, activation });
  correct(fm, sharedOut, weights, 'sharedDown');
  if (norms) {
    fm.rmsNorm(sharedOut, weights.sharedPostNorm, { eps: norms.eps, out: sharedOut });
    fm.add(out, sharedOut, { out });
    return;
  }
  const factors = new Float32Array(h.nRows).fill(1);
  if (shared.gated) {
    fm.fusedMatmul(weights.sharedRouter, h, { out: sharedLogits, activation });
    correct(fm, sharedLogits, weights, 'sharedRouter');
    fm.gated(sharedLogits, factors, { act: 'sigmoid', out: factors });
  }
  fm.mixRows(results, withShared(routing, factors), { out });
}

/**
 * Products with the matrices of experts, with their factors and biases.
 * @param {Kernels} fm
 * @param {readonly string[]} roles
 * @param {Tensor} x
 * @param {Routing} routing
 * @param {import('../backend.js').Weights} weights
 * @param {import('./kernel-types.js').ExpertsOptions<Tensor> & { out: Tensor[] }} options
 */
function multiplyExperts(fm, roles, x, routing, weights, options) {
  const matrices = roles.map((role) => weights[role]);
  const factors = roles.map((role) => weights[`${role}Factor`]);
  const biases = roles.map((role) => weights[`${role}Bias`]);
  // A bias is added after the factor.
  const early = biases.map((bias, i) => (factors[i] ? undefined : bias));
  fm.fusedMatmulExperts(matrices, x, routing, { ...options, biases: early });
  for (const [i, ofExperts] of factors.entries()) {
    if (!ofExperts) continue;
    const values = floatsOf(ofExperts).slice();
    let start = 0;
    for (const [e, end] of routing.ends.entries()) {
      if (end === start) continue;
      const rows = viewOf(options.out[i], { start, nRows: end - start });
      fm.scale(rows, values[e], { out: rows });
      addBias(fm, rows, biases[i] && viewOf(biases[i], { start: e, nRows: 1 }));
      start = end;
    }
  }
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
