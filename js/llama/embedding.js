/* Embeddings: one vector for a text, pooled from its hidden states as the metadata of the file
 * say. */

import { oneOf } from '../checks.js';
import { show } from '../errors.js';
import { ModelError } from './errors.js';

/** Kinds of pooling in the order of their numbers in GGUF. */
const POOLING_TYPES = /** @type {const} */ (['none', 'mean', 'cls', 'last', 'rank']);
const POOLINGS = POOLING_TYPES.slice(0, 4);

/**
 * How hidden states become a vector: their mean, the state of the first token ('cls') or of the
 * last one, or all states one after another ('none').
 * @typedef {'none' | 'mean' | 'cls' | 'last'} Pooling
 */

/**
 * @typedef {object} EmbedOptions
 * @property {Pooling} [pooling]  How the hidden states become a vector. Default: what the file says
 *   (`<architecture>.pooling_type`), and 'mean' if it says nothing.
 * @property {boolean} [normalize]  Scale the vector to length 1. Default true.
 * @property {AbortSignal} [signal]  Aborts the computation with its reason.
 */

/**
 * @param {Record<string, import('../gguf/index.js').MetadataValue>} metadata
 * @param {string} architecture
 * @param {unknown} asked  the option `pooling`
 * @returns {Pooling}
 * @throws {ModelError} the file asks for a kind of pooling that is not supported
 */
export function choosePooling(metadata, architecture, asked) {
  if (asked !== undefined) {
    oneOf(POOLINGS, asked, 'pooling');
    return /** @type {Pooling} */ (asked);
  }
  const key = `${architecture}.pooling_type`;
  const value = metadata[key];
  // llama.cpp writes -1 for "unspecified".
  if (value === undefined || value === -1) return 'mean';
  const name = POOLING_TYPES[/** @type {any} */ (value)];
  if (name && name !== 'rank') return name;
  throw new ModelError(
    `metadata ${show(key)} is ${show(value)}${name ? ' (rank: scores, no vectors)' : ''}; supported are 0 to 3 (${POOLINGS.join(', ')})`,
  );
}

/**
 * Pools the hidden states of a text, batch by batch.
 * @param {Pooling} pooling
 * @param {number} nTokens  tokens of the text
 * @param {number} nEmbd
 */
export function pool(pooling, nTokens, nEmbd) {
  // Range of the tokens whose states are used.
  const first = pooling === 'last' ? nTokens - 1 : 0;
  const end = pooling === 'cls' ? 1 : nTokens;
  const isMean = pooling === 'mean';
  const values = new Float64Array(isMean ? nEmbd : (end - first) * nEmbd);
  return {
    /**
     * @param {number} start  index of the batch's first token in the text
     * @param {number} size  tokens of the batch
     * @param {(start: number, nRows: number) => Promise<Float32Array>} hidden  reads states of
     *   tokens of the batch
     */
    async take(start, size, hidden) {
      const from = Math.max(first, start);
      const nRows = Math.min(end, start + size) - from;
      if (nRows < 1) return;
      for (const [i, value] of (await hidden(from - start, nRows)).entries()) {
        if (isMean) values[i % nEmbd] += value / nTokens;
        else values[(from - first) * nEmbd + i] = value;
      }
    },
    /** @param {boolean} normalize  scale each vector to length 1; a vector of zeros stays */
    result(normalize) {
      for (let i = 0; normalize && i < values.length; i += nEmbd) {
        const length = Math.hypot(...values.subarray(i, i + nEmbd)) || 1;
        for (let j = i; j < i + nEmbd; j++) values[j] /= length;
      }
      return Float32Array.from(values);
    },
  };
}
