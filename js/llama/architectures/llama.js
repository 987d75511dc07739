/* Llama and models with the same layers: RMS norms, rotary positions of adjacent values,
 * grouped-query attention, SwiGLU. */

import { decoderPlan } from './decoder-plan.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const llama = {
  models: 'Llama 1 to 3.x, Mistral, SmolLM, TinyLlama',
  plan: (read) => decoderPlan(read, { pairing: 'adjacent' }),
};
