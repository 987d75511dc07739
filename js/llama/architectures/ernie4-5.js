/* ERNIE 4.5 (dense): the layers of llama. */

import { decoderPlan } from './decoder-plan.js';

/** @type {import('../plan.js').ArchitectureFile} */
export const ernie45 = {
  models: 'ERNIE 4.5 (dense)',
  plan: (read) => decoderPlan(read, { pairing: 'adjacent' }),
};
