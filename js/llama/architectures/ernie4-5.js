/* ERNIE 4.5 (dense): the layers of llama. */

import { decoderPlan } from './decoder-plan.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const ernie45 = {
  plan: (read) => decoderPlan(read, { pairing: 'adjacent' }),
};
