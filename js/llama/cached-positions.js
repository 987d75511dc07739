/* How many positions the cache of a layer holds. */

/**
 * Rows of a layer's cache: all positions of the context or, where tokens see only a window of earlier
 * ones, those of the window and of the batch that is computed.
 * @param {Pick<import('./plan.js').AttentionSettings, 'causal' | 'window'>} attention
 * @param {number} contextLength  positions of the context
 * @param {number} largestBatch  most tokens that are computed at a time
 */
export const cachedPositions = ({ causal, window }, contextLength, largestBatch) =>
  causal && window > 0 ? Math.min(contextLength, window + largestBatch) : contextLength;
