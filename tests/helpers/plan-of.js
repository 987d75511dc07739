/** Plans of small models, made of metadata alone. */
import { ModelError } from '../../js/llama/index.js';
import { planModel } from '../../js/llama/plan.js';

/** @import { AttentionPlan } from '../../js/llama/plan.js' */
/** @import { MetadataValue } from '../../js/gguf/index.js' */

/** Keys of every small model. */
export const SIZES = {
  context_length: 8192,
  embedding_length: 256,
  block_count: 8,
  feed_forward_length: 128,
  'attention.head_count': 4,
  'attention.head_count_kv': 2,
  'attention.layer_norm_rms_epsilon': 1e-5,
};

/**
 * @param {string} architecture
 * @param {Record<string, MetadataValue | undefined>} [keys]  in addition to the sizes
 * @param {number} [contextLength]
 */
export function planOf(architecture, keys = {}, contextLength = undefined) {
  /** @type {Record<string, any>} */
  const metadata = { 'general.architecture': architecture, 'tokenizer.ggml.tokens': ['a', 'b'] };
  for (const [key, value] of Object.entries({ ...SIZES, ...keys }))
    if (value !== undefined) metadata[`${architecture}.${key}`] = value;
  const plan = /** @type {AttentionPlan} */ (planModel(metadata, contextLength));
  const attention = plan.layers.map((layer) => layer.attention);
  return {
    plan,
    attention,
    feed: plan.layers[0].feed,
    windows: attention.map((one) => one?.window),
    bases: attention.map((one) => one?.rope?.base ?? 0),
    names: plan.tensors.map(({ name }) => name),
  };
}

/** @param {RegExp} message */
export const refusal = (message) => (/** @type {unknown} */ error) =>
  error instanceof ModelError && message.test(error.message);
