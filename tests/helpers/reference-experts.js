/**
 * Mixtures of experts in plain float64 JavaScript, with the formulas of js/llama/plan.js: one token at
 * a time, one expert after another.
 */
import { rms } from './reference-rows.js';

/** @import { ExpertSettings, FeedSettings, RouterSettings } from '../../js/llama/plan.js' */
/** @import { Matrix } from './reference-rows.js' */

/** Least divisor of normalised weights. */
const LEAST_SUM = 2 ** -14;

/** @param {number} x */
const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** @param {ArrayLike<number>} logits */
function softmax(logits) {
  const largest = Math.max(...Array.from(logits));
  const powers = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

/**
 * Numbers from 0 on, by falling value; of equal values the first one comes first.
 * @param {readonly number[]} values
 */
const byRank = (values) => [...values.keys()].sort((a, b) => values[b] - values[a] || a - b);

/**
 * The experts of a token, best first, and their weights.
 * @param {ArrayLike<number>} logits
 * @param {RouterSettings & { nUsed: number }} router
 * @param {ArrayLike<number>} [bias]  added for the choice only
 */
export function routeReference(logits, router, bias) {
  const { scores: kind, over, normalize, scale, nGroups, nGroupsUsed, nUsed } = router;
  const isLate = kind === 'softmax' && over === 'chosen';
  const scores = isLate
    ? Array.from(logits)
    : kind === 'sigmoid'
      ? Array.from(logits, sigmoid)
      : softmax(logits);
  const ranks = scores.map((score, e) => score + (bias?.[e] ?? 0));
  const size = ranks.length / nGroups;
  const sums = Array.from({ length: nGroups }, (_, g) => {
    const [first, second = 0] = ranks.slice(g * size, (g + 1) * size).sort((a, b) => b - a);
    return first + second;
  });
  const groups = new Set(byRank(sums).slice(0, nGroupsUsed));
  const chosen = byRank(ranks)
    .filter((e) => groups.has(Math.floor(e / size)))
    .slice(0, nUsed);
  const own = chosen.map((e) => scores[e]);
  const weights = isLate ? softmax(own) : own;
  const sum = weights.reduce((total, weight) => total + weight, 0);
  const divisor = normalize ? Math.max(sum, LEAST_SUM) : 1;
  return { chosen, weights: weights.map((weight) => (weight / divisor) * scale) };
}

/**
 * Rows first .. first + nRows - 1 of a matrix, times x, plus the row of a bias.
 * @param {Matrix} w @param {Float64Array} x @param {number} first @param {number} nRows
 * @param {Float64Array} [bias]
 */
function product(w, x, first = 0, nRows = w.nRows, bias) {
  return Float64Array.from({ length: nRows }, (_, r) => {
    const row = w.row(first + r);
    return x.reduce((sum, value, c) => sum + value * row[c], bias?.[r] ?? 0);
  });
}

/**
 * The result of a block for one token, before it is added.
 * @param {Float64Array} x  hidden state
 * @param {Float64Array} h  hidden state after the norm of the block
 * @param {FeedSettings} settings
 * @param {Record<string, Matrix>} weights
 * @param {(gate: number, up: number) => number} gated  activation function and product
 */
export function mixReference(x, h, { nFf, experts }, weights, gated) {
  const { nUsed, router, shared, routerNorm, norms } = /** @type {ExpertSettings} */ (experts);
  const nEmbd = h.length;
  const bias = weights.routerBias?.row(0);
  const given = routerNorm
    ? rms(x, routerNorm.eps, weights.routerNorm).map((value) => routerNorm.scale * value)
    : h;
  const logits = product(weights.router, given, 0, weights.router.nRows, bias);
  const routed = routeReference(logits, { ...router, nUsed }, weights.selectBias?.row(0));
  const y = new Float64Array(nEmbd);
  for (const [i, e] of routed.chosen.entries()) {
    /** @param {string} role @param {Float64Array} from @param {number} nRows */
    const ofExpert = (role, from, nRows) => {
      const factor = weights[`${role}Factor`]?.values[e] ?? 1;
      const y = product(weights[role], from, e * nRows, nRows).map((value) => factor * value);
      const bias = weights[`${role}Bias`]?.row(e);
      return bias ? y.map((value, i) => value + bias[i]) : y;
    };
    const gate = ofExpert('gate', h, nFf);
    const up = ofExpert('up', h, nFf);
    const inner = gate.map((value, c) => gated(value, up[c]));
    const down = ofExpert('down', inner, nEmbd);
    for (let c = 0; c < nEmbd; c++) y[c] += routed.weights[i] * down[c];
  }
  const mixed = norms ? rms(y, norms.eps, weights.expertsNorm) : y;
  if (!shared) return mixed;
  const own = norms ? rms(x, norms.eps, weights.sharedNorm) : h;
  const up = product(weights.sharedUp, own);
  const inner = product(weights.sharedGate, own).map((value, c) => gated(value, up[c]));
  const factor = shared.gated ? sigmoid(product(weights.sharedRouter, own)[0]) : 1;
  const result = product(weights.sharedDown, inner).map((value) => factor * value);
  const after = norms ? rms(result, norms.eps, weights.sharedPostNorm) : result;
  return after.map((value, c) => mixed[c] + value);
}
