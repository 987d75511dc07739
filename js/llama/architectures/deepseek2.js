/* DeepSeek 2 and 3, and their relatives: latent attention, and experts after the first layers. Keys
 * and values are cached in their common, compressed form. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';
import { decoderPlan, hasExperts, tensor } from './decoder-plan.js';
import { mixExperts, readDenseLayers } from './experts.js';
import { scalingFactor, yarnMagnitude } from './rope.js';

/** @typedef {import('./metadata.js').MetadataReader} MetadataReader */
/** @typedef {import('../plan.js').Rope} Rope */

/** Values of a head of keys before they are compressed, which older files have in another key. */
const KEY_SIZE = 'attention.key_length_mla';
const OLD_KEY_SIZE = 'attention.key_length';
/** Keys of variants that are not computed. */
const UNKNOWN = ['attention.temperature_scale', 'nextn_predict_layers'];
/** Tensors of attention that latent attention has in another form. */
const REPLACED = /\.attention\.([qkv](Bias)?|output)$/;
/** Values of expert_gating_func. */
const [SOFTMAX, SIGMOID] = [1, 2];
/** GLM 4.7 Flash, by its layers and tokens: some of its files say nothing of its sigmoids. */
const GLM_FLASH = { layers: [47, 48], nVocab: 154880 };

/** @type {import('../plan.js').ArchitectureFile} */
export const deepseek2 = {
  plan(read) {
    for (const name of UNKNOWN)
      if (read.value(name))
        throw new ModelError(`${show(read.key(name))} is not supported for this architecture`);
    const plan = decoderPlan(read, { pairing: 'adjacent', experts: true, areValuesInKeys: true });
    plan.tensors = plan.tensors.filter(({ role }) => !REPLACED.test(role));
    for (const [i, { attention }] of plan.layers.entries()) {
      const rope = /** @type {Rope} */ (attention.rope);
      const latent = readLatent(read, attention, rope);
      const headSize = rope.nDims + latent.rank;
      Object.assign(attention, { latent, nKvHeads: 1, headSize, ...stretch(read, rope) });
      addTensors(plan, i, latent, isOld(read));
    }
    if (hasExperts(read)) mix(read, plan);
    return plan;
  },
};

/**
 * Whether a file has attn_kv_b, where others have attn_k_b and attn_v_b.
 * @param {MetadataReader} read
 */
const isOld = (read) => read.value(KEY_SIZE) === undefined;

/** @param {MetadataReader} read */
const keySizeOf = (read) => read.count(isOld(read) ? OLD_KEY_SIZE : KEY_SIZE);

/**
 * @param {MetadataReader} read
 * @param {import('../plan.js').AttentionSettings} attention
 * @param {Rope} rope
 * @returns {import('../plan.js').Latent}
 */
function readLatent(read, { nKvHeads, headSize, norm }, { nDims }) {
  const rank = read.count('attention.kv_lora_rank');
  if (!isOld(read) && (nKvHeads !== 1 || headSize !== rank + nDims)) {
    throw new ModelError(
      `${nKvHeads} KV heads of ${headSize} values are not supported; latent attention has one of ${rank} + ${nDims}`,
    );
  }
  const keySize = keySizeOf(read);
  const valueSize = read.count(isOld(read) ? 'attention.value_length' : 'attention.value_length_mla');
  if (keySize <= nDims) throw new ModelError(`heads have ${keySize} values, of which ${nDims} turn`);
  const nopeSize = keySize - nDims;
  if (isOld(read) && nopeSize !== valueSize) {
    throw new ModelError(
      `attn_kv_b with ${nopeSize} rows for keys and ${valueSize} for values of a head is not supported; convert the model again`,
    );
  }
  return {
    rank,
    qRank: read.optional('attention.q_lora_rank', 0),
    nopeSize,
    valueSize,
    norm: /** @type {import('../plan.js').Norm} */ (norm),
  };
}

/**
 * The scale of the scores, and the rotation. Files have a tenth of YaRN's multiplier. With one, YaRN's
 * factor is in the scores alone; without one, it is in the rotation and in the scores.
 * @param {MetadataReader} read
 * @param {Rope} rope
 * @returns {{ scale: number, rope: Rope }}
 */
function stretch(read, rope) {
  const multiplier = 10 * read.optional('rope.scaling.yarn_log_multiplier', 0);
  const isYarn = read.value('rope.scaling.type') === 'yarn';
  const magnitude = isYarn && multiplier > 0 ? read.positive('rope.scaling.attn_factor', 1) : rope.magnitude;
  const factor = magnitude * (isYarn ? yarnMagnitude(scalingFactor(read), multiplier) : 1);
  return { scale: factor ** 2 / Math.sqrt(keySizeOf(read)), rope: { ...rope, magnitude } };
}

/**
 * Adds the tensors of a layer's attention.
 * @param {import('../plan.js').AttentionPlan} plan  changed
 * @param {number} i  index of the layer
 * @param {import('../plan.js').Latent} latent
 * @param {boolean} old  whether the matrices of keys and values alternate, head by head, in one tensor
 */
function addTensors({ layers, nEmbd, tensors, shared }, i, { rank, qRank, nopeSize, valueSize }, old) {
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
  if (old) {
    const [nKeys, nValues] = [nHeads * nopeSize, nHeads * valueSize];
    const of = role('kvUp');
    const both = tensor(of, `blk.${i}.attn_kv_b.weight`, nKeys + nValues, rank, 'experts');
    tensors.push({ ...both, alternating: nopeSize });
    shared[role('keyRows')] = { of, start: 0, nRows: nKeys };
    shared[role('valueUp')] = { of, start: nKeys, nRows: nValues };
  } else {
    add('keyUp', 'attn_k_b', nHeads * rank, nopeSize, 'experts');
    add('valueUp', 'attn_v_b', nHeads * valueSize, rank, 'experts');
  }
  add('output', 'attn_output', nEmbd, nHeads * valueSize);
}

/**
 * @param {MetadataReader} read
 * @param {import('../plan.js').AttentionPlan} plan  changed
 */
function mix(read, plan) {
  const nShared = read.optional('expert_shared_count', 0);
  const isFlash = GLM_FLASH.layers.includes(plan.layers.length) && plan.nVocab === GLM_FLASH.nVocab;
  const gating = read.value('expert_gating_func') || (isFlash ? SIGMOID : SOFTMAX);
  mixExperts(read, plan, {
    router: {
      scores: gating === SIGMOID ? 'sigmoid' : 'softmax',
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
