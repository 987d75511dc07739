/* Numbers from the metadata of a file, each checked and named where it is wrong. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';

/** @typedef {import('../../gguf/index.js').MetadataValue} MetadataValue */

/**
 * Keys are given without the architecture's name in front: `block_count` is `llama.block_count` in a llama file.
 * @typedef {object} MetadataReader
 * @property {string} architecture  as the file names it
 * @property {(name: string) => string} key  the whole key, for messages
 * @property {(name: string) => MetadataValue | undefined} value  whatever the file has
 * @property {(name: string, fallback?: number) => number} count  an integer over 0; a list of equal ones counts as one
 * @property {(name: string, fallback?: number) => number} positive  a number over 0
 * @property {(name: string, fallback: boolean) => boolean} flag  true or false
 * @property {number} nVocab  entries of the tokenizer's list
 */

/**
 * @param {Record<string, MetadataValue>} metadata
 * @param {string} architecture
 * @returns {MetadataReader}
 */
export function metadataReader(metadata, architecture) {
  const key = (/** @type {string} */ name) => `${architecture}.${name}`;
  const value = (/** @type {string} */ name) => metadata[key(name)];
  const tokens = metadata['tokenizer.ggml.tokens'];
  return {
    architecture,
    key,
    value,
    count(name, fallback) {
      const given = value(name);
      // Some files give a list, one value for each layer.
      const one = Array.isArray(given) && given.every((item) => item === given[0]) ? given[0] : given;
      if (one === undefined && fallback !== undefined) return fallback;
      if (Number.isSafeInteger(one) && Number(one) > 0) return Number(one);
      throw new ModelError(`metadata ${show(key(name))} must be an integer over 0, got ${show(given)}`);
    },
    positive(name, fallback) {
      const given = value(name) ?? fallback;
      if (typeof given === 'number' && Number.isFinite(given) && given > 0) return given;
      throw new ModelError(`metadata ${show(key(name))} must be a number over 0, got ${show(given)}`);
    },
    flag(name, fallback) {
      const given = value(name) ?? fallback;
      if (typeof given === 'boolean') return given;
      throw new ModelError(`metadata ${show(key(name))} must be true or false, got ${show(given)}`);
    },
    nVocab: Array.isArray(tokens) ? tokens.length : 0,
  };
}
