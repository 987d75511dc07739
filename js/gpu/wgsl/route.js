/* The choice of a token's experts, of the logits of all of them.
 *
 * An expert's place is the number of experts that go before it: those with a larger rank, and those
 * with the same rank and a smaller number. So there are no ties, and all experts are placed at once.
 * Ranks are compared as integers in the order of the numbers, NaN the largest: an expert that cannot
 * be right is chosen, and its token shows it. */

import { float, groupsOf, shader } from '../shader.js';
import { logitStride, routeWords } from './expert-layout.js';

/** @typedef {import('../../llama/plan.js').RouterSettings} RouterSettings */

/** Least divisor of normalised weights. */
const LEAST_SUM = 2 ** -14;
const INVOCATIONS = 256;

/**
 * @typedef {object} RouteOptions
 * @property {number} nExperts
 * @property {number} nUsed
 * @property {RouterSettings} router
 * @property {number} [logitScale]  factor of the logits, before their bias; default 1
 * @property {number} [bias]  where the bias of the logits begins in `vectors`
 * @property {number} [selectBias]  the same for the bias of the choice
 * @property {boolean} [gatedShared]  the factor of the shared expert is the sigmoid of the logit that
 *   follows those of the experts; otherwise it is 1
 */

/** Integers in the order of f32 numbers, above 0. Both zeros are the same, and NaN is the largest. */
const RANK = `
fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn rank_of(x: f32) -> u32 {
  let bits = bitcast<u32>(x);
  if (is_nan(x)) { return 0xffffffffu; }
  if ((bits & 0x7fffffffu) == 0u) { return 0x80000000u; }
  return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}
fn number_of(rank: u32) -> f32 { return bitcast<f32>(select(~rank, rank & 0x7fffffffu, (rank >> 31u) == 1u)); }
fn sigmoid(x: f32) -> f32 { return select(1.0 / (1.0 + exp(clamp(-x, -80.0, 80.0))), x, is_nan(x)); }`;

/**
 * routes[start + t] = the experts of token t, best first, and their weights. Bindings: logits;
 * vectors where there is a bias; routes.
 * @param {RouteOptions} options
 */
export function route({ nExperts, nUsed, router, logitScale = 1, bias, selectBias, gatedShared = false }) {
  const { scores, over, normalize, scale, nGroups, nGroupsUsed } = router;
  const isLate = scores === 'softmax' && over === 'chosen';
  const grouped = nGroupsUsed < nGroups;
  const size = nExperts / nGroups;
  const words = routeWords({ nUsed });
  const hasVectors = bias !== undefined || selectBias !== undefined;
  const vector = (/** @type {number | undefined} */ at) =>
    at === undefined ? '' : ` + vectors[(${at}u + e) / 4u][(${at}u + e) % 4u]`;
  const all = (/** @type {string} */ body, n = nExperts) =>
    `for (var e = tid; e < ${n}u; e += ${INVOCATIONS}u) { ${body} }`;
  /** Every invocation adds up all values, in their order. */
  const softmax = (/** @type {string} */ of, /** @type {number} */ n) => `
  var largest = ${of}[0];
  for (var i = 1u; i < ${n}u; i++) { largest = max(largest, ${of}[i]); }
  workgroupBarrier();
  ${all(`${of}[e] = exp(${of}[e] - largest);`, n)}
  workgroupBarrier();
  var total = 0.0;
  for (var i = 0u; i < ${n}u; i++) { total += ${of}[i]; }
  workgroupBarrier();
  ${all(`${of}[e] = ${of}[e] / total;`, n)}
  workgroupBarrier();`;
  // The place of a rank: how many go before it.
  const place = (/** @type {string} */ of, /** @type {number} */ n) => `
    let own = ${of}[e];
    var place = 0u;
    for (var i = 0u; i < ${n}u; i++) {
      let other = ${of}[i];
      if (other > own || (other == own && i < e)) { place += 1u; }
    }`;
  const groups = `
  ${all(
    `
    var best = 0u;
    var second = 0u;
    var sum = 0.0;
    for (var i = e * ${size}u; i < (e + 1u) * ${size}u; i++) {
      let rank = ranks[i];
      if (rank > best) { second = best; best = rank; } else if (rank > second) { second = rank; }
    }
    sums[e] = select(rank_of(number_of(best)${size > 1 ? ' + number_of(second)' : ''}), best, best == 0xffffffffu);`,
    nGroups,
  )}
  workgroupBarrier();
  ${all(
    `${place('sums', nGroups)}
    if (place >= ${nGroupsUsed}u) {
      for (var i = e * ${size}u; i < (e + 1u) * ${size}u; i++) { ranks[i] = 0u; }
    }`,
    nGroups,
  )}
  workgroupBarrier();`;
  return shader({
    name: `route ${nUsed} of ${nExperts}`,
    bindings: {
      logits: 'read array<f32>',
      ...(hasVectors && { vectors: 'read array<vec4f>' }),
      routes: 'read_write array<u32>',
    },
    step: true,
    workgroup: {
      scores: `array<f32, ${nExperts}>`,
      ranks: `array<u32, ${nExperts}>`,
      ...(grouped && { sums: `array<u32, ${nGroups}>` }),
      weights: `array<f32, ${nUsed}>`,
    },
    size: [INVOCATIONS],
    code: `${RANK}
@compute
fn main(@builtin(local_invocation_index) tid: u32, @builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) nwg: vec3u) {
  let t = wid.x + wid.z * nwg.x;
  if (t >= step.n_tokens) { return; }
  let row = (step.start + t) * ${logitStride(nExperts)}u;
  let to = (step.start + t) * ${words}u;
  ${all(`
    let logit = ${logitScale === 1 ? '' : `${float(logitScale)} * `}logits[row + e]${vector(bias)};
    scores[e] = ${scores === 'sigmoid' ? 'sigmoid(logit)' : 'logit'};`)}
  workgroupBarrier();${scores === 'softmax' && !isLate ? softmax('scores', nExperts) : ''}
  ${all(`ranks[e] = rank_of(scores[e]${vector(selectBias)});`)}
  workgroupBarrier();${grouped ? groups : ''}
  ${all(`${place('ranks', nExperts)}
    if (place < ${nUsed}u) {
      routes[to + place] = e;
      weights[place] = scores[e];
    }`)}
  workgroupBarrier();${isLate ? softmax('weights', nUsed) : ''}
  ${
    normalize
      ? `var sum = 0.0;
  for (var i = 0u; i < ${nUsed}u; i++) { sum += weights[i]; }
  let factor = ${float(scale)} / max(sum, ${float(LEAST_SUM)});`
      : `let factor = ${float(scale)};`
  }
  ${all(`routes[to + ${nUsed}u + e] = bitcast<u32>(weights[e] * factor);`, nUsed)}
  if (tid == 0u) { routes[to + ${2 * nUsed}u] = bitcast<u32>(${gatedShared ? `sigmoid(logits[row + ${nExperts}u])` : '1.0'}); }
}`,
  });
}

/** Workgroups of route(). @param {number} nTokens */
export const routeGroups = (nTokens) => groupsOf(nTokens);
