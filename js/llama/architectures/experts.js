/* Mixtures of experts, as the metadata and the tensors of a file describe them. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';
import { tensor } from './decoder-plan.js';

/** @typedef {import('./metadata.js').MetadataReader} MetadataReader */
/** @typedef {import('../plan.js').Plan} Plan */
/** @typedef {import('../plan.js').RouterSettings} RouterSettings */

/** Tensors of a block that is no mixture. */
const DENSE = /^layers\.(\d+)\.feed\.(gate|up|down|gateUp)$/;

/**
 * @typedef {object} MixtureOptions
 * @property {Partial<RouterSettings>} router  How a router differs from the softmax of all logits,
 *   without any change of the weights.
 * @property {number} [nFf]  Values between the products of an expert. Default:
 *   expert_feed_forward_length, or an equal share of feed_forward_length for each expert in use.
 * @property {number} [first]  First layer that is a mixture; those before it stay as they are.
 *   Default 0.
 * @property {'plain' | 'gated'} [shared]  Shared expert: without or with a factor of its own.
 *   Default: none.
 * @property {number} [sharedFf]  Values between the products of the shared expert. Default:
 *   expert_shared_feed_forward_length, or feed_forward_length.
 * @property {boolean} [selectBias]  Whether a bias is added to the scores for the choice.
 * @property {boolean} [biases]  Whether the router and the experts have biases.
 * @property {boolean} [fused]  Whether gate and up of an expert share a matrix.
 */

/** How many layers at the start have no experts. */
const DENSE_LAYERS = 'leading_dense_block_count';

/**
 * The number of layers at the start that have no experts.
 * @param {MetadataReader} read
 * @param {number} nLayers
 * @throws {ModelError} these are all layers
 */
export function readDenseLayers(read, nLayers) {
  const first = read.value(DENSE_LAYERS) ? read.count(DENSE_LAYERS) : 0;
  if (first < nLayers) return first;
  throw new ModelError(`${show(read.key(DENSE_LAYERS))} is ${first}, the model has ${nLayers} layers`);
}

/** Scores and what a softmax is taken over, by the value of expert_gating_func. */
const FUNCTIONS = ['', 'softmax over all', 'sigmoid over all', 'softmax over chosen'];

/**
 * @param {MetadataReader} read
 * @param {RouterSettings} router  of the architecture
 * @throws {ModelError} the file has another function
 */
function checkFunction(read, { scores, over }) {
  const given = Number(read.value('expert_gating_func') ?? 0);
  const expected = `${scores} over ${over}`;
  if (given === 0 || FUNCTIONS[given] === expected) return;
  throw new ModelError(
    `${show(read.key('expert_gating_func'))} is ${given} (${FUNCTIONS[given] ?? 'unknown'}); supported is ${FUNCTIONS.indexOf(expected)} (${expected})`,
  );
}

/**
 * @param {MetadataReader} read
 * @param {number} nExperts
 * @returns {Pick<RouterSettings, 'nGroups' | 'nGroupsUsed'>}
 * @throws {ModelError} the groups do not divide the experts, or more are used than there are
 */
function readGroups(read, nExperts) {
  const [nGroups, nGroupsUsed] = ['expert_group_count', 'expert_group_used_count'].map((name) =>
    read.value(name) ? read.count(name) : 1,
  );
  if (nExperts % nGroups === 0 && nGroupsUsed <= nGroups) return { nGroups, nGroupsUsed };
  throw new ModelError(
    `${show(read.key('expert_group_count'))} is ${nGroups}, of which ${nGroupsUsed} are used, for ${nExperts} experts`,
  );
}

/**
 * Turns feed-forward blocks of a plan into mixtures of experts.
 * @param {MetadataReader} read
 * @param {Plan} plan
 * @param {MixtureOptions} options
 */
export function mixExperts(read, plan, options) {
  const { router, first = 0, selectBias = false, biases = false, fused = false } = options;
  const nExperts = read.count('expert_count');
  const nUsed = read.count('expert_used_count');
  if (nUsed > nExperts) {
    throw new ModelError(
      `${show(read.key('expert_used_count'))} is ${nUsed}, the file has ${nExperts} experts`,
    );
  }
  const dense = plan.layers[first].feed.nFf;
  const nFf = options.nFf ?? read.count('expert_feed_forward_length', dense / nUsed);
  if (!Number.isInteger(nFf))
    throw new ModelError(`a width of ${nFf * nUsed} is not divisible by ${nUsed} experts`);
  const shared = options.shared && {
    nFf: options.sharedFf ?? read.count('expert_shared_feed_forward_length', dense),
    gated: options.shared === 'gated',
  };
  /** @type {RouterSettings} */
  const settings = {
    ...{ scores: 'softmax', over: 'all', normalize: false },
    ...{ scale: read.optional('expert_weights_scale', 1), ...readGroups(read, nExperts), ...router },
  };
  checkFunction(read, settings);
  for (const { feed } of plan.layers.slice(first)) {
    feed.kind = 'experts';
    feed.nFf = nFf;
    feed.experts = {
      ...{ nExperts, nUsed, shared },
      router: { ...settings },
    };
  }
  plan.tensors = plan.tensors.filter(({ role }) => Number(DENSE.exec(role)?.[1] ?? -1) < first);
  for (let i = first; i < plan.layers.length; i++) {
    /** @typedef {import('../plan.js').PlannedTensor['use']} Use */
    const add = (
      /** @type {string} */ role,
      /** @type {string} */ name,
      /** @type {number} */ nRows,
      /** @type {number} */ nCols,
      /** @type {Use} */ use,
    ) => plan.tensors.push(tensor(`layers.${i}.feed.${role}`, `blk.${i}.${name}`, nRows, nCols, use));
    const { nEmbd } = plan;
    add('router', 'ffn_gate_inp.weight', nExperts, nEmbd, 'matrix');
    if (fused) {
      const nRows = nExperts * nFf;
      const of = `layers.${i}.feed.gateUp`;
      add('gateUp', 'ffn_gate_up_exps.weight', 2 * nRows, nEmbd, 'experts');
      Object.assign(plan.tensors[plan.tensors.length - 1], { alternating: nFf });
      plan.shared[`layers.${i}.feed.gate`] = { of, start: 0, nRows };
      plan.shared[`layers.${i}.feed.up`] = { of, start: nRows, nRows };
    } else {
      add('gate', 'ffn_gate_exps.weight', nExperts * nFf, nEmbd, 'experts');
      add('up', 'ffn_up_exps.weight', nExperts * nFf, nEmbd, 'experts');
    }
    add('down', 'ffn_down_exps.weight', nExperts * nEmbd, nFf, 'experts');
    if (selectBias) add('selectBias', 'exp_probs_b.bias', 1, nExperts, 'bias');
    if (biases) {
      add('routerBias', 'ffn_gate_inp.bias', 1, nExperts, 'bias');
      add('gateBias', 'ffn_gate_exps.bias', nExperts, nFf, 'values');
      add('upBias', 'ffn_up_exps.bias', nExperts, nFf, 'values');
      add('downBias', 'ffn_down_exps.bias', nExperts, nEmbd, 'values');
    }
    if (!shared) continue;
    add('sharedGate', 'ffn_gate_shexp.weight', shared.nFf, nEmbd, 'matrix');
    add('sharedUp', 'ffn_up_shexp.weight', shared.nFf, nEmbd, 'matrix');
    add('sharedDown', 'ffn_down_shexp.weight', nEmbd, shared.nFf, 'matrix');
    if (shared.gated) add('sharedRouter', 'ffn_gate_inp_shexp.weight', 1, nEmbd, 'matrix');
  }
}
