/**
 * Blocks of experts for tests: a plan, and random tensors for every setting that a block may have.
 */
import { planModel } from '../../js/llama/plan.js';

/** @import { ExpertSettings, FeedSettings, Plan, RouterSettings } from '../../js/llama/plan.js' */
/** @import { Prng } from './prng.js' */

export const [N_EMBD, N_FF, N_EXPERTS] = [64, 32, 8];
const FACTORS = ['gateFactor', 'upFactor', 'downFactor'];
const NORMS = ['routerNorm', 'expertsNorm', 'sharedNorm', 'sharedPostNorm'];

/**
 * @typedef {object} Change
 * @property {Partial<ExpertSettings>} [experts]
 * @property {Partial<RouterSettings>} [router]
 * @property {Partial<FeedSettings>} [feed]
 * @property {readonly string[]} [biases]  roles
 * @property {readonly string[]} [factors]  roles
 */

/** Changes of a block, each of which has an effect. @type {Record<string, Change>} */
export const SETTINGS = {
  'softmax of all': {},
  'one expert': { experts: { nUsed: 1 } },
  'weights with the sum 1, scaled': { router: { normalize: true, scale: 2.5 } },
  'softmax of the chosen': { router: { over: 'chosen' } },
  'sigmoid with a bias for the choice': { router: { scores: 'sigmoid' }, biases: ['selectBias'] },
  'groups of experts': { router: { nGroups: 4, nGroupsUsed: 2 }, experts: { nUsed: 3 } },
  'a shared expert': { experts: { shared: { nFf: 96, gated: false } } },
  'a shared expert with a factor': { experts: { shared: { nFf: 16, gated: true } } },
  'GELU gates': { feed: { activation: 'gelu' } },
  'clamped gates': { feed: { activation: 'clamped' } },
  'residual scale': { feed: { residualScale: 0.4 } },
  'no norm': { feed: { norm: undefined } },
  'norm after the block': { feed: { postNorm: { kind: 'rms', eps: 1e-3 } } },
  'biases of the experts': { biases: ['gateBias', 'upBias', 'downBias'] },
  'a bias of the router': { biases: ['routerBias'] },
  'a norm of the router': { experts: { routerNorm: { eps: 0.2, scale: 0.5 } }, biases: ['routerBias'] },
  'norms of the experts': { experts: { norms: { eps: 0.2 } } },
  'norms of the experts and of a shared one': {
    experts: { norms: { eps: 0.2 }, shared: { nFf: 48, gated: false } },
    feed: { norm: undefined },
  },
  'factors of the experts': { factors: ['gateFactor', 'downFactor'] },
  'factors and biases of the experts': {
    ...{ factors: ['gateFactor', 'upFactor', 'downFactor'], biases: ['gateBias', 'upBias', 'downBias'] },
  },
};

/** @param {Change} change */
export function planOf({ experts, router, feed }) {
  const plan = planModel({
    'general.architecture': 'llama',
    'tokenizer.ggml.tokens': ['a', 'b'],
    'llama.context_length': 64,
    'llama.embedding_length': N_EMBD,
    'llama.block_count': 1,
    'llama.feed_forward_length': N_FF,
    'llama.attention.head_count': 2,
    'llama.attention.layer_norm_rms_epsilon': 1e-5,
    'llama.expert_count': N_EXPERTS,
    'llama.expert_used_count': 2,
  });
  const [layer] = plan.layers;
  const mixture = /** @type {ExpertSettings} */ (layer.feed.experts);
  Object.assign(mixture, experts);
  Object.assign(mixture.router, { normalize: false }, router);
  Object.assign(layer.feed, feed);
  return plan;
}

/** Shapes of all tensors that a block may have, and whether they are matrices. @param {Plan} plan */
function shapesOf(plan) {
  const { shared } = /** @type {ExpertSettings} */ (plan.layers[0].feed.experts);
  const sharedFf = shared?.nFf ?? 1;
  return /** @type {Record<string, [nRows: number, nCols: number, isMatrix: boolean]>} */ ({
    norm: [1, N_EMBD, false],
    postNorm: [1, N_EMBD, false],
    router: [N_EXPERTS, N_EMBD, true],
    routerBias: [1, N_EXPERTS, false],
    selectBias: [1, N_EXPERTS, false],
    gate: [N_EXPERTS * N_FF, N_EMBD, true],
    up: [N_EXPERTS * N_FF, N_EMBD, true],
    down: [N_EXPERTS * N_EMBD, N_FF, true],
    gateBias: [N_EXPERTS, N_FF, false],
    upBias: [N_EXPERTS, N_FF, false],
    downBias: [N_EXPERTS, N_EMBD, false],
    sharedGate: [sharedFf, N_EMBD, true],
    sharedUp: [sharedFf, N_EMBD, true],
    sharedDown: [N_EMBD, sharedFf, true],
    sharedRouter: [1, N_EMBD, true],
    ...Object.fromEntries(FACTORS.map((role) => [role, [1, N_EXPERTS, false]])),
    ...Object.fromEntries(NORMS.map((role) => [role, [1, N_EMBD, false]])),
  });
}

/**
 * Random F32 tensors of a block.
 * @param {Plan} plan @param {Change} change @param {Prng} prng
 * @returns {Record<string, { nRows: number, nCols: number, isMatrix: boolean, data: Float32Array }>}
 */
export function tensorsOf(plan, { biases = [], factors = [] }, prng) {
  const chosen = [...biases, ...factors];
  const all = Object.entries(shapesOf(plan)).map(([role, [nRows, nCols, isMatrix]]) => {
    const size = isMatrix ? 0.2 : 1;
    const data = Float32Array.from({ length: nRows * nCols }, () => size * prng.gaussian());
    return /** @type {const} */ ([role, { nRows, nCols, isMatrix, data }]);
  });
  return Object.fromEntries(all.filter(([role]) => !/(Bias|Factor)$/.test(role) || chosen.includes(role)));
}
