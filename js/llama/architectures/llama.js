/* Llama and what follows it to the letter: RMS norms, rotary positions of neighbouring values, grouped-query attention, SwiGLU. */

import { decoderPlan } from './decoder-plan.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const llama = {
  models: 'Llama 1 to 3.x, Mistral, SmolLM, TinyLlama',
  plan: (read) => decoderPlan(read, { pairing: 'adjacent' }),
};
