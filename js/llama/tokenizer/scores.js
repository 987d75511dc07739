/* The scores of a vocabulary. */

import { ModelError } from '../errors.js';

/**
 * @param {import('./token-roles.js').Get} of
 * @param {number} size  number of tokens
 * @returns {number[]}
 * @throws {ModelError} the file does not have a score for each token
 */
export function scoresOf(of, size) {
  const scores = of('scores');
  if (Array.isArray(scores) && scores.length === size) return /** @type {number[]} */ (scores);
  throw new ModelError(
    `tokenizer.ggml.scores has ${Array.isArray(scores) ? scores.length : 'no'} values for ${size} tokens`,
  );
}
