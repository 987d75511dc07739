/* What the models of the Gemma family share: embeddings scaled by the root of their length, GELU
 * gates, norms before and after each block, windows in most layers. */

import { decoderPlan } from './decoder-plan.js';

/**
 * @param {import('./metadata.js').MetadataReader} read
 * @param {object} options
 * @param {import('./decoder-plan.js').DecoderOptions['qkNorm']} [options.qkNorm]
 * @param {number} options.wideScores  number of layers of the model whose scores are scaled by the
 *   values of the embedding for a head, not by those of a head
 * @returns {import('../plan.js').AttentionPlan}
 */
export function gemmaPlan(read, { qkNorm, wideScores }) {
  const plan = decoderPlan(read, { pairing: 'halves', norms: 'both', activation: 'gelu', qkNorm });
  const { layers, nEmbd } = plan;
  plan.embedding.scale = Math.sqrt(nEmbd);
  plan.head.softcap = read.optional('final_logit_softcapping', 0);
  if (layers.length === wideScores)
    for (const { attention } of layers) attention.scale = 1 / Math.sqrt(Math.floor(nEmbd / attention.nHeads));
  return plan;
}
