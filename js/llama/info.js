/* What a model says about itself. */

/** @typedef {import('./model.js').Parts} Parts */

/**
 * @typedef {object} TypeUse  the tensors of one type
 * @property {number} count  how many
 * @property {number} bytes  of all of them
 * @property {import('../wasm/selftest.js').Isa} isa  of the kernels that serve it
 * @property {import('../wasm/selftest.js').Activation} activation  that those kernels work in
 */

/**
 * @typedef {object} RopeInfo  rotary position embedding
 * @property {'adjacent' | 'halves'} pairing  which values of a head turn together
 * @property {number} nDims  values of a head that turn
 * @property {number} base  of the frequencies
 * @property {number} linearScale  by which positions are divided
 * @property {boolean} factors  the file has its own for the frequencies
 */

/**
 * @typedef {object} TokenizerInfo
 * @property {string} kind  as the file names it
 * @property {string | undefined} pre  how texts are cut into words, as the file names it
 * @property {boolean} addBos  texts begin with BOS
 * @property {boolean} addEos  texts end with EOS; prompts of generate do not
 * @property {number | undefined} bos  the token that begins a text
 * @property {number[]} ends  the tokens that end one
 * @property {boolean} chat  the file has a template for conversations
 */

/**
 * @typedef {object} ModelMemory
 * @property {number} weights  quantised, as in the file
 * @property {number} kvCache  keys and values of all positions
 * @property {number} workspace  activations
 * @property {number} linear  the whole wasm memory
 */

/**
 * @typedef {object} ModelInfo
 * @property {string} architecture  as the file names it, e.g. 'llama'
 * @property {string | undefined} name  as the file has it
 * @property {number} parameters  weights in all
 * @property {number} nLayers  blocks
 * @property {number} nEmbd  values of a hidden state
 * @property {number} nFf  values within the feed-forward block
 * @property {number} nHeads  of queries
 * @property {number} nKvHeads  of keys and values
 * @property {number} headSize  values of a head
 * @property {number} nVocab  tokens there are
 * @property {boolean} tied  the output matrix is the embedding
 * @property {boolean} causal  a token sees only those before it; where not, the model makes embeddings and no text
 * @property {RopeInfo} rope  how positions turn queries and keys
 * @property {number} trainedContext  positions it was trained for
 * @property {number} contextLength  positions of the KV cache
 * @property {number} batch  tokens of a prompt that are computed at a time
 * @property {import('../wasm/kv-cache.js').KvType} kvType  what keys and values are stored as
 * @property {import('../wasm/selftest.js').Activation} activation  the mode of its products
 * @property {TokenizerInfo} tokenizer  how texts become tokens
 * @property {Record<string, TypeUse>} types  of weights, by name
 * @property {ModelMemory} memory  in bytes
 * @property {import('../wasm/kernel-types.js').KernelsInfo} kernels  what was chosen and why
 * @property {Record<string, number>} timings  milliseconds of loading: header, tokenizer, kernels, weights
 */

/** Where a model has no rotary positions. */
const NO_ROPE = /** @type {const} */ ({ pairing: 'adjacent', nDims: 0, base: 0, linearScale: 1 });

/** @param {Parts} parts @returns {ModelInfo} */
export function describe(parts) {
  const { backend, plan, weights, decoder, tokenizer, metadata, tensors, settings, timings } = parts;
  const { architecture, layers, nEmbd, nVocab, trainedContext } = plan;
  const [{ attention, feed }] = layers;
  const { nHeads, nKvHeads, headSize, rope } = attention;
  const { embedding, head } = weights.byRole;
  const { contextLength, kvType, activation, causal } = settings;
  /** @type {Record<string, TypeUse>} */
  const types = {};
  let parameters = 0;
  let weightBytes = 0;
  for (const { type, byteLength, nRows, nCols } of tensors) {
    types[type] ??= { count: 0, bytes: 0, ...backend.servedBy(type) };
    types[type].count += 1;
    types[type].bytes += byteLength;
    parameters += nRows * nCols;
    weightBytes += byteLength;
  }
  const { info } = backend;
  const name = metadata['general.name'];
  const { kind, pre, addBos, addEos, bos, ends } = tokenizer;
  const chat = typeof metadata['tokenizer.chat_template'] === 'string';
  return {
    architecture,
    name: typeof name === 'string' ? name : undefined,
    parameters,
    nLayers: layers.length,
    ...{ nEmbd, nFf: feed.nFf, nHeads, nKvHeads, headSize, nVocab },
    tied: head.output === embedding.table,
    causal,
    rope: { ...NO_ROPE, ...rope, factors: weights.byRole.layers[0].attention.ropeFactors !== undefined },
    ...{ trainedContext, contextLength, batch: decoder.batch, kvType, activation },
    tokenizer: { kind, pre, addBos, addEos, bos, ends: [...ends], chat },
    types,
    memory: {
      weights: weightBytes,
      kvCache: decoder.kvBytes,
      workspace: decoder.workspaceBytes,
      linear: info.memoryBytes,
    },
    kernels: /** @type {import('../wasm/kernel-types.js').KernelsInfo} */ (info.kernels),
    timings: { ...timings },
  };
}
