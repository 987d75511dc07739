/* Gemma 4: layers with a window have heads, a rotation and a feed-forward block of other sizes than
 * those that see all positions. Values are normalised. In some models the last layers read the keys
 * and values of earlier ones, and each layer gets values of its own for a token. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';
import { decoderPlan, hasExperts, rename, tensor } from './decoder-plan.js';
import { mixExperts } from './experts.js';
import { unscaled } from './rope.js';
import { readWindows } from './windows.js';

/** @typedef {import('./metadata.js').MetadataReader} MetadataReader */
/** @typedef {import('../plan.js').AttentionPlan} AttentionPlan */

const LOCAL_BASE = 10000;
const SHARED = 'attention.shared_kv_layers';
const INPUT_SIZE = 'embedding_length_per_layer_input';
const LISTS = ['feed_forward_length', 'attention.head_count', 'attention.head_count_kv'];

/** Norms beside experts, by role. */
const NORMS = {
  routerNorm: 'ffn_gate_inp.scale',
  sharedNorm: 'ffn_norm.weight',
  sharedPostNorm: 'post_ffw_norm_1.weight',
  expertsNorm: 'post_ffw_norm_2.weight',
};

/** @type {import('../plan.js').ArchitectureFile} */
export const gemma4 = {
  plan(read) {
    const nLayers = read.count('block_count');
    for (const name of LISTS) {
      const given = read.value(name);
      if (Array.isArray(given) && given.length !== nLayers)
        throw new ModelError(`${show(read.key(name))} has ${given.length} values for ${nLayers} layers`);
    }
    // A file without the size of the windows is refused.
    read.count('attention.sliding_window');
    const windows = readWindows(read, nLayers, {});
    const plan = decoderPlan(read, {
      ...{ pairing: 'halves', norms: 'both', activation: 'gelu', qkNorm: { span: 'head' }, experts: true },
      ofLayer: (i) => read.ofLayer(i, windows[i] > 0 ? '_swa' : ''),
    });
    const { layers, tensors, shared, nEmbd } = plan;
    plan.embedding.scale = Math.sqrt(nEmbd);
    plan.head.softcap = read.optional('final_logit_softcapping', 30);
    const eps = read.positive('attention.layer_norm_rms_epsilon');
    const base = read.positive('rope.freq_base_swa', LOCAL_BASE);
    for (const [i, { attention }] of layers.entries()) {
      Object.assign(attention, { window: windows[i], scale: 1, valueNorm: { eps } });
      if (windows[i] > 0 && attention.rope) {
        attention.rope = { ...unscaled(attention.rope), base };
        delete shared[`layers.${i}.attention.ropeFactors`];
      }
      // Without a matrix of their own, values are the product of the keys. Their norm makes up for a
      // factor of that matrix.
      shared[`layers.${i}.attention.v`] = { of: `layers.${i}.attention.k` };
      const factor = `blk.${i}.layer_output_scale.weight?`;
      tensors.push(tensor(`layers.${i}.feed.sumFactor`, factor, 1, 1, 'factor'));
    }
    for (const one of tensors) {
      if (one.role.endsWith('.attention.v')) one.optional = true;
      if (one.role === 'rope.factors') one.optional = !windows.includes(0);
    }
    shareKeys(read, plan);
    if (read.value(INPUT_SIZE)) addInputs(plan, read.count(INPUT_SIZE), eps);
    if (hasExperts(read)) addExperts(read, plan, eps);
    return plan;
  },
};

/**
 * Adds experts. The dense block of a layer is a shared expert with norms of its own.
 * @param {MetadataReader} read
 * @param {AttentionPlan} plan  changed
 * @param {number} eps
 */
function addExperts(read, plan, eps) {
  const { nEmbd, layers, tensors: dense } = plan;
  for (const [i] of layers.entries())
    for (const one of dense)
      if (one.role === `layers.${i}.feed.norm`) one.name = `blk.${i}.pre_ffw_norm_2.weight`;
  mixExperts(read, plan, { router: { normalize: true, scale: 1 }, shared: 'plain', fused: true });
  rename(plan, /(ffn_gate|ffn_up|ffn_down)_shexp/, '$1');
  for (const [i, { feed }] of layers.entries()) {
    Object.assign(feed.experts ?? {}, { norms: { eps }, routerNorm: { eps, scale: 1 / Math.sqrt(nEmbd) } });
    for (const [role, name] of Object.entries(NORMS))
      plan.tensors.push(tensor(`layers.${i}.feed.${role}`, `blk.${i}.${name}`, 1, nEmbd, 'vector'));
  }
}

/**
 * Gives the last layers the keys and values of the last one of their kind, with a window or without,
 * that has its own.
 * @param {MetadataReader} read
 * @param {AttentionPlan} plan  changed
 */
function shareKeys(read, { layers, tensors, shared }) {
  const first = layers.length - (read.value(SHARED) ? read.count(SHARED) : 0);
  for (const [i, { attention }] of layers.entries()) {
    if (i < first) continue;
    const owner = layers.findLastIndex(
      (layer, j) => j < first && layer.attention.window === attention.window,
    );
    if (owner < 0) {
      throw new ModelError(
        `${show(read.key(SHARED))} is ${layers.length - first}: before layer ${first} there is no layer with a window of ${attention.window} positions, whose keys and values layer ${i} could read`,
      );
    }
    attention.kvBack = i - owner;
    delete shared[`layers.${i}.attention.v`];
    // A file may have these tensors nevertheless.
    for (const one of tensors)
      if (/\.attention\.(k|v|kBias|vBias|kNorm)$/.test(one.role) && one.role.startsWith(`layers.${i}.`))
        Object.assign(one, { optional: true, use: 'none' });
  }
}

/**
 * Adds the values that layers get for a token.
 * @param {AttentionPlan} plan  changed
 * @param {number} size
 * @param {number} eps
 */
function addInputs({ embedding, layers, tensors, nVocab, nEmbd }, size, eps) {
  const all = layers.length * size;
  embedding.layerInputs = {
    ...{ size, eps, scale: Math.SQRT1_2 },
    ...{ tableScale: Math.sqrt(size), projectionScale: 1 / Math.sqrt(nEmbd) },
  };
  tensors.push(
    tensor('embedding.layerTable', 'per_layer_token_embd.weight', nVocab, all, 'table'),
    tensor('embedding.layerProjection', 'per_layer_model_proj.weight', all, nEmbd, 'matrix'),
    tensor('embedding.layerNorm', 'per_layer_proj_norm.weight', 1, size, 'vector'),
  );
  for (const [i, { feed }] of layers.entries()) {
    feed.layerInput = { activation: 'gelu', eps };
    const role = (/** @type {string} */ part) => `layers.${i}.feed.${part}`;
    tensors.push(
      tensor(role('inputGate'), `blk.${i}.inp_gate.weight`, size, nEmbd, 'matrix'),
      tensor(role('inputOutput'), `blk.${i}.proj.weight`, nEmbd, size, 'matrix'),
      tensor(role('inputNorm'), `blk.${i}.post_norm.weight`, 1, nEmbd, 'vector'),
    );
  }
}
