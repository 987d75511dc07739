/* Reads numbers from the metadata of a file, and refuses wrong ones by name. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';
import { DEFAULT_CONTEXT } from '../options.js';

/** @typedef {import('../../gguf/index.js').MetadataValue} MetadataValue */

/**
 * Reads metadata. Names are keys without the architecture in front: `block_count` is
 * `llama.block_count` in a llama file.
 * @typedef {object} MetadataReader
 * @property {string} architecture  Architecture as the file names it.
 * @property {(name: string) => string} key  The whole key, for messages.
 * @property {(name: string) => MetadataValue | undefined} value  Any value.
 * @property {(name: string, fallback?: number) => number} count  An integer over 0; a list of equal
 *   integers counts as one.
 * @property {(name: string, fallback?: number) => number} positive  A number over 0.
 * @property {(name: string, fallback: number) => number} optional  A number over 0; 0 is as good as
 *   none.
 * @property {(name: string, fallback: boolean) => boolean} flag  True or false.
 * @property {(layer: number, suffix?: string) => MetadataReader} ofLayer  Reads the entry of one layer
 *   where the file has a list, and the key with the suffix where it has that.
 * @property {number} nVocab  Entries of the tokenizer's list.
 * @property {number} nTokenTypes  Token types that a tokenizer tells apart.
 * @property {number} contextLength  Positions of the context that the model is loaded with.
 */

/**
 * @param {Record<string, MetadataValue>} metadata
 * @param {string} architecture
 * @param {number | undefined} contextLength  positions of the context; default: the model's own, at
 *   most DEFAULT_CONTEXT
 * @returns {MetadataReader}
 */
export function metadataReader(metadata, architecture, contextLength) {
  const tokens = metadata['tokenizer.ggml.tokens'];
  const key = (/** @type {string} */ name) => `${architecture}.${name}`;
  /** @param {MetadataReader['value']} value @returns {MetadataReader} */
  const readerOf = (value) => ({
    ...{ architecture, key, value, ...checksOf(key, value) },
    ofLayer: (layer, suffix = '') =>
      readerOf((name) => {
        const given = value(name + suffix) ?? value(name);
        return Array.isArray(given) ? given[layer] : given;
      }),
    nVocab: Array.isArray(tokens) ? tokens.length : 0,
    nTokenTypes: Number(metadata['tokenizer.ggml.token_type_count'] ?? 1),
    get contextLength() {
      return contextLength ?? Math.min(this.count('context_length'), DEFAULT_CONTEXT);
    },
  });
  return readerOf((name) => metadata[key(name)]);
}

/**
 * @param {MetadataReader['key']} key
 * @param {MetadataReader['value']} value
 * @returns {Pick<MetadataReader, 'count' | 'positive' | 'optional' | 'flag'>}
 */
function checksOf(key, value) {
  /** @type {MetadataReader['count']} */
  const count = (name, fallback) => {
    const given = value(name);
    // Some files have a list with one value for each layer.
    const one = Array.isArray(given) && given.every((item) => item === given[0]) ? given[0] : given;
    if (one === undefined && fallback !== undefined) return fallback;
    if (Number.isSafeInteger(one) && Number(one) > 0) return Number(one);
    throw new ModelError(`metadata ${show(key(name))} must be an integer over 0, got ${show(given)}`);
  };
  /** @type {MetadataReader['positive']} */
  const positive = (name, fallback) => {
    const given = value(name) ?? fallback;
    if (typeof given === 'number' && Number.isFinite(given) && given > 0) return given;
    throw new ModelError(`metadata ${show(key(name))} must be a number over 0, got ${show(given)}`);
  };
  return {
    ...{ count, positive },
    optional: (name, fallback) =>
      value(name) === undefined || value(name) === 0 ? fallback : positive(name),
    flag(name, fallback) {
      const given = value(name) ?? fallback;
      if (typeof given === 'boolean') return given;
      throw new ModelError(`metadata ${show(key(name))} must be true or false, got ${show(given)}`);
    },
  };
}
