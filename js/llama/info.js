/* What a model says about itself. */

/** @typedef {import('./llama.js').Parts} Parts */

/**
 * @typedef {object} TypeUse  the tensors of one type
 * @property {number} count
 * @property {number} bytes
 * @property {import('../selftest.js').Isa} isa  of the kernels that serve it
 * @property {import('../selftest.js').Activation} activation  that those kernels work in
 */

/**
 * @typedef {object} ModelInfo
 * @property {string} architecture
 * @property {string | undefined} name
 * @property {number} parameters
 * @property {number} nLayers
 * @property {number} nEmbd
 * @property {number} nFf
 * @property {number} nHeads
 * @property {number} nKvHeads
 * @property {number} headSize
 * @property {number} nVocab
 * @property {boolean} tied  the output matrix is the embedding
 * @property {{ pairing: 'adjacent' | 'halves', nDims: number, base: number, linearScale: number, factors: boolean }} rope
 * @property {number} trainedContext
 * @property {number} contextLength
 * @property {number} batch  tokens of a prompt that are computed at a time
 * @property {import('../kv-cache.js').KvType} kvType
 * @property {import('../selftest.js').Activation} activation
 * @property {{ kind: string, pre: string | undefined, addBos: boolean, bos: number | undefined, ends: number[], chat: boolean }} tokenizer
 * @property {Record<string, TypeUse>} types
 * @property {{ weights: number, kvCache: number, workspace: number, linear: number }} memory  bytes; linear: of the wasm memory
 * @property {import('../kernels.js').KernelsInfo} kernels
 * @property {Record<string, number>} timings  milliseconds of loading: header, tokenizer, kernels, weights
 */

/** @param {Parts} parts @returns {ModelInfo} */
export function describe({ fm, shape, weights, decoder, tokenizer, metadata, tensors, settings, timings }) {
  const { architecture, row, nLayers, nEmbd, nFf, nHeads, nKvHeads, headSize, trainedContext, rope } = shape;
  const { contextLength, kvType, activation } = settings;
  /** @type {Record<string, TypeUse>} */
  const types = {};
  let parameters = 0;
  let weightBytes = 0;
  for (const { type, byteLength, nRows, nCols } of tensors) {
    types[type] ??= { count: 0, bytes: 0, ...fm.servedBy(type, activation) };
    types[type].count += 1;
    types[type].bytes += byteLength;
    parameters += nRows * nCols;
    weightBytes += byteLength;
  }
  const name = metadata['general.name'];
  const { kind, pre, addBos, bos, ends } = tokenizer;
  const chat = typeof metadata['tokenizer.chat_template'] === 'string';
  return {
    architecture,
    name: typeof name === 'string' ? name : undefined,
    parameters,
    ...{ nLayers, nEmbd, nFf, nHeads, nKvHeads, headSize },
    nVocab: tokenizer.size,
    tied: weights.output === weights.embedding,
    rope: { pairing: row.pairing, ...rope, factors: weights.ropeFactors !== undefined },
    ...{ trainedContext, contextLength, batch: decoder.batch, kvType, activation },
    tokenizer: { kind, pre, addBos, bos, ends: [...ends], chat },
    types,
    memory: {
      weights: weightBytes,
      kvCache: decoder.kvBytes,
      workspace: decoder.workspaceBytes,
      linear: fm.memory().bytes,
    },
    kernels: fm.info,
    timings: { ...timings },
  };
}
