/* What tells one decoder of the llama family from another, as rows of a table, and the numbers of a model, read from the
 * metadata of its file. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';

/**
 * @typedef {object} Architecture
 * @property {'adjacent' | 'halves'} pairing  of RoPE, as converters lay out the rows of attn_q and attn_k
 * @property {boolean} bias  attn_q, attn_k and attn_v have biases; where not, they may have
 * @property {boolean} headNorm  queries and keys are normalised head by head
 * @property {string} models  for people
 */

/** By general.architecture. @type {Readonly<Record<string, Architecture>>} */
export const ARCHITECTURES = Object.freeze({
  llama: {
    pairing: 'adjacent',
    bias: false,
    headNorm: false,
    models: 'Llama 1 to 3.x, Mistral, SmolLM, TinyLlama',
  },
  qwen2: { pairing: 'halves', bias: true, headNorm: false, models: 'Qwen 2, Qwen 2.5' },
  qwen3: { pairing: 'halves', bias: false, headNorm: true, models: 'Qwen 3' },
});

/**
 * @typedef {object} Hyperparameters
 * @property {string} architecture
 * @property {Architecture} row
 * @property {number} nLayers
 * @property {number} nEmbd
 * @property {number} nFf
 * @property {number} nHeads
 * @property {number} nKvHeads
 * @property {number} headSize
 * @property {number} trainedContext
 * @property {number} eps
 * @property {{ nDims: number, base: number, linearScale: number }} rope
 */

/**
 * @param {Record<string, import('../../gguf/index.js').MetadataValue>} metadata
 * @returns {Hyperparameters}
 * @throws {ModelError} an architecture or a variant of it that is not supported, or a number that is missing
 */
export function readHyperparameters(metadata) {
  const architecture = String(metadata['general.architecture']);
  const row = Object.hasOwn(ARCHITECTURES, architecture) ? ARCHITECTURES[architecture] : undefined;
  if (!row) {
    throw new ModelError(
      `the architecture ${show(metadata['general.architecture'])} is not supported; supported are ${Object.keys(ARCHITECTURES).join(', ')}`,
    );
  }
  const key = (/** @type {string} */ name) => `${architecture}.${name}`;
  /** @param {string} name @param {number} [fallback] */
  const count = (name, fallback) => {
    const given = metadata[key(name)];
    // Some files give a list, one value for each layer.
    const value = Array.isArray(given) && given.every((one) => one === given[0]) ? given[0] : given;
    if (value === undefined && fallback !== undefined) return fallback;
    if (Number.isSafeInteger(value) && Number(value) > 0) return Number(value);
    throw new ModelError(`metadata ${show(key(name))} must be an integer over 0, got ${show(given)}`);
  };
  /** @param {string} name @param {number} [fallback] */
  const positive = (name, fallback) => {
    const value = metadata[key(name)] ?? fallback;
    if (typeof value === 'number' && Number.isFinite(value) && value > 0) return value;
    throw new ModelError(`metadata ${show(key(name))} must be a number over 0, got ${show(value)}`);
  };

  const experts = Number(metadata[key('expert_count')] ?? 0);
  if (experts > 0)
    throw new ModelError(`mixtures of experts are not supported: the file has ${experts} experts`);
  const nEmbd = count('embedding_length');
  const nHeads = count('attention.head_count');
  const nKvHeads = count('attention.head_count_kv', nHeads);
  if (nHeads % nKvHeads !== 0)
    throw new ModelError(`${nHeads} heads are no multiple of the ${nKvHeads} KV heads`);
  const headSize = count('attention.key_length', nEmbd / nHeads);
  if (!Number.isInteger(headSize))
    throw new ModelError(`an embedding of ${nEmbd} values is not divisible by ${nHeads} heads`);
  const valueSize = count('attention.value_length', headSize);
  if (valueSize !== headSize)
    throw new ModelError(`keys of ${headSize} and values of ${valueSize} values a head are not supported`);
  if (headSize > 256) throw new ModelError(`heads of ${headSize} values are not supported; 256 at most`);
  const nDims = count('rope.dimension_count', headSize);
  if (nDims % 2 !== 0 || nDims > headSize)
    throw new ModelError(`${show(key('rope.dimension_count'))} is ${nDims}, heads have ${headSize} values`);
  return {
    architecture,
    row,
    nLayers: count('block_count'),
    nEmbd,
    nFf: count('feed_forward_length'),
    nHeads,
    nKvHeads,
    headSize,
    trainedContext: count('context_length'),
    eps: positive('attention.layer_norm_rms_epsilon'),
    rope: {
      nDims,
      base: positive('rope.freq_base', 10000),
      linearScale: linearScale(metadata, key, positive),
    },
  };
}

/**
 * RoPE position scale: positions are divided by it. A factor without a type is a linear one, as in llama.cpp; the factor has an
 * older key, and 0 means that there is none.
 * @param {Record<string, import('../../gguf/index.js').MetadataValue>} metadata
 * @param {(name: string) => string} key
 * @param {(name: string, fallback?: number) => number} positive
 */
function linearScale(metadata, key, positive) {
  const type = metadata[key('rope.scaling.type')] ?? 'linear';
  if (type !== 'none' && type !== 'linear') {
    throw new ModelError(
      `RoPE scaling of type ${show(type)} is not supported; supported are none, linear, and llama3's factors in rope_freqs.weight`,
    );
  }
  const attention = positive('rope.scaling.attn_factor', 1);
  if (attention !== 1) {
    throw new ModelError(
      `RoPE that scales attention is not supported: ${show(key('rope.scaling.attn_factor'))} is ${attention}, supported is 1`,
    );
  }
  const name = ['rope.scaling.factor', 'rope.scale_linear'].find((one) => metadata[key(one)] !== undefined);
  return type === 'none' || name === undefined || metadata[key(name)] === 0 ? 1 : positive(name);
}
