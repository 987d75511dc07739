/* Where values of experts lie in GPU memory. */

import { up16 } from '../shader.js';

/** @typedef {import('../../llama/plan.js').ExpertSettings} ExpertSettings */

/** The most experts: their scores, ranks and places fit into workgroup memory. */
export const MOST_EXPERTS = 1024;

/**
 * Words of a token in `routes`: its experts, their weights, and the factor of the shared expert.
 * @param {{ nUsed: number }} experts
 */
export const routeWords = ({ nUsed }) => 2 * nUsed + 1;

/** The stride of rows of logits: those of the experts, and one of the shared expert. @param {number} nExperts */
export const logitStride = (nExperts) => up16(nExperts + 1);

/**
 * Inner values of a token: a row of `slotStride` values for each of its experts, then one of the
 * shared expert.
 * @typedef {{ nUsed: number, slotStride: number, tokenStride: number }} InnerLayout
 */

/**
 * @param {number} nFf
 * @param {Pick<ExpertSettings, 'nUsed' | 'shared'>} experts
 * @returns {InnerLayout}
 */
export function innerLayout(nFf, { nUsed, shared }) {
  const slotStride = up16(nFf);
  return { nUsed, slotStride, tokenStride: nUsed * slotStride + up16(shared?.nFf ?? 0) };
}
