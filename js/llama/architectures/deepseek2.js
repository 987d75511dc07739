/* DeepSeek 2 and 3, and their relatives: latent attention, and experts after the first layers. Keys
 * and values are cached in their common, compressed form. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';
import { decoderPlan, hasExperts, tensor } from './decoder-plan.js';
import { mixExperts, readDenseLayers } from './experts.js';
import { scalingFactor, yarnMagnitude } from './rope.js';

/** @typedef {import('./metadata.js').MetadataReader} MetadataReader */
/** @typedef {import('../plan.js').Rope} Rope */

/** Values of a head of keys before they are compressed. */
const KEY_SIZE = 'attention.key_length_mla';
const TEMPERATURE = 'attention.temperature_scale';
/** Tensors of attention that latent attention has in another form. */
const REPLACED = /\.attention\.([qkv](Bias)?|output)$/;
/** Value of expert_gating_func. */
const SIGMOID = 2;

/** @type {import('../plan.js').ArchitectureFile} */
export const deepseek2 = {
  plan(read) {
    if (read.value(KEY_SIZE) === undefined) {
      throw new ModelError(
        `files without ${show(read.key(KEY_SIZE))} are not supported: they have the matrices of attention in an older form (attn_kv_b instead of attn_k_b and attn_v_b); convert the model again`,
      );
    }
    if (read.value(TEMPERATURE))
      throw new ModelError(`${show(read.key(TEMPERATURE))} is not supported for this architecture`);
    const plan = decoderPlan(read, { pairing: 'adjacent', experts: true, areValuesInKeys: true });
    plan.tensors = plan.tensors.filter(({ role }) => !REPLACED.test(role));
    for (const [i, { attention }] of plan.layers.entries()) {
      const rope = /** @type {Rope} */ (attention.rope);
      attention.latent = readLatent(read, attention, rope);
      addTensors(plan, i, attention.latent);
      Object.assign(attention, stretch(read, rope));
    }
    if (hasExperts(read)) mix(read, plan);
    return plan;
  },
};

/**
 * @param {MetadataReader} read
 * @param {import('../plan.js').AttentionSettings} attention
 * @param {Rope} rope
 * @returns {import('../plan.js').Latent}
 */
function readLatent(read, { nKvHeads, headSize, norm }, { nDims }) {
  const rank = read.count('attention.kv_lora_rank');
  if (nKvHeads !== 1 || headSize !== rank + nDims) {
    throw new ModelError(
      `${nKvHeads} KV heads of ${headSize} values are not supported; latent attention has one of ${rank} + ${nDims}`,
    );
  }
  const keySize = read.count(KEY_SIZE);
  if (keySize <= nDims)
    throw new ModelError(`${show(read.key(KEY_SIZE))} is ${keySize}, of which ${nDims} turn`);
  return {
    rank,
    qRank: read.optional('attention.q_lora_rank', 0),
    nopeSize: keySize - nDims,
    valueSize: read.count('attention.value_length_mla'),
    norm: /** @type {import('../plan.js').Norm} */ (norm),
  };
}

/**
 * The scale of the scores, and the rotation. Where YaRN has a multiplier, of which files have a tenth,
 * its factor of the magnitude is one of the scores instead.
 * @param {MetadataReader} read
 * @param {Rope} rope
 * @returns {{ scale: number, rope: Rope }}
 */
function stretch(read, rope) {
  const multiplier = 10 * read.optional('rope.scaling.yarn_log_multiplier', 0);
  const isYarn = read.value('rope.scaling.type') === 'yarn';
  const magnitude = isYarn && multiplier > 0 ? read.positive('rope.scaling.attn_factor', 1) : rope.magnitude;
  const factor = magnitude * (isYarn ? yarnMagnitude(scalingFactor(read), multiplier) : 1);
  return { scale: factor ** 2 / Math.sqrt(read.count(KEY_SIZE)), rope: { ...rope, magnitude } };
}

/**
 * Adds the tensors of a layer's attention.
 * @param {import('../plan.js').AttentionPlan} plan  changed
 * @param {number} i  index of the layer
 * @param {import('../plan.js').Latent} latent
 */
function addTensors({ layers, nEmbd, tensors, shared }, i, { rank, qRank, nopeSize, valueSize }) {
  const { nHeads, headSize } = layers[i].attention;
  const nQ = nHeads * (nopeSize + headSize - rank);
  const role = (/** @type {string} */ part) => `layers.${i}.attention.${part}`;
  const add = (
    /** @type {string} */ part,
    /** @type {string} */ name,
    /** @type {number} */ nRows,
    /** @type {number} */ nCols,
    /** @type {import('../plan.js').PlannedTensor['use']} */ use = 'matrix',
  ) => tensors.push(tensor(role(part), `blk.${i}.${name}.weight`, nRows, nCols, use));
  if (qRank > 0) {
    add('qDown', 'attn_q_a', qRank, nEmbd);
    add('qDownNorm', 'attn_q_a_norm', 1, qRank, 'vector');
    add('q', 'attn_q_b', nQ, qRank);
  } else {
    add('q', 'attn_q', nQ, nEmbd);
  }
  add('kv', 'attn_kv_a_mqa', headSize, nEmbd);
  shared[role('latent')] = { of: role('kv'), start: 0, nRows: rank };
  shared[role('kRope')] = { of: role('kv'), start: rank, nRows: headSize - rank };
  add('latentNorm', 'attn_kv_a_norm', 1, rank, 'vector');
  add('keyUp', 'attn_k_b', nHeads * rank, nopeSize, 'experts');
  add('valueUp', 'attn_v_b', nHeads * valueSize, rank, 'experts');
  add('output', 'attn_output', nEmbd, nHeads * valueSize);
}

/**
 * @param {MetadataReader} read
 * @param {import('../plan.js').AttentionPlan} plan  changed
 */
function mix(read, plan) {
  const nShared = read.optional('expert_shared_count', 0);
  mixExperts(read, plan, {
    router: {
      scores: read.value('expert_gating_func') === SIGMOID ? 'sigmoid' : 'softmax',
      normalize: read.flag('expert_weights_norm', false),
    },
    first: readDenseLayers(read, plan.layers.length),
    selectBias: true,
    ...(nShared > 0 && {
      shared: /** @type {const} */ ('plain'),
      sharedFf: nShared * read.count('expert_feed_forward_length'),
    }),
  });
  for (const one of plan.tensors) if (one.role.endsWith('.selectBias')) one.optional = true;
}
