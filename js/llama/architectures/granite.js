/* Granite 3: llama with scales of the embeddings, of what each block adds, of the scores and of the
 * logits. A file can switch rotary positions off. */

import { decoderPlan } from './decoder-plan.js';

/** @typedef {import('./decoder-plan.js').DecoderOptions} DecoderOptions */

/**
 * @param {import('./metadata.js').MetadataReader} read
 * @param {Pick<DecoderOptions, 'experts'>} [options]
 */
export function granitePlan(read, options) {
  const plan = decoderPlan(read, { pairing: 'adjacent', ...options });
  const residualScale = read.optional('residual_scale', 1);
  const hasRope = read.flag('rope.scaling.finetuned', true);
  for (const { attention, feed } of plan.layers) {
    attention.scale = read.optional('attention.scale', attention.scale);
    if (!hasRope) attention.rope = undefined;
    attention.residualScale = residualScale;
    feed.residualScale = residualScale;
  }
  plan.embedding.scale = read.optional('embedding_scale', 1);
  plan.head.scale = 1 / read.positive('logit_scale');
  return plan;
}

/** @type {import('../plan.js').ArchitectureFile} */
export const granite = { plan: (read) => granitePlan(read) };
