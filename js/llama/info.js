/* Facts about a loaded model, for `model.info`. */

/** @typedef {import('./model.js').Parts} Parts */

/**
 * @typedef {object} TypeUse  Tensors of one type.
 * @property {number} count  Number of tensors.
 * @property {number} bytes  Bytes of all of them.
 * @property {import('../wasm/selftest.js').Isa | 'webgpu'} isa  Instruction set of the kernels that
 *   serve the type.
 * @property {import('../wasm/selftest.js').Activation | 'f16'} activation  Activation mode that
 *   those kernels work in.
 */

/**
 * @typedef {object} RopeInfo  Rotary position embedding.
 * @property {'adjacent' | 'halves'} pairing  Which values of a head turn together: neighbours, or
 *   the halves of the head.
 * @property {number} nDims  Values of a head that turn.
 * @property {number} base  Base of the frequencies.
 * @property {number} linearScale  RoPE position scale: positions are divided by it.
 * @property {boolean} factors  Whether the file has factors for the frequencies.
 */

/**
 * @typedef {object} TokenizerInfo
 * @property {string} kind  Kind of tokenizer, as the file names it: llama (SentencePiece), gpt2 (byte
 *   pairs), gemma4 (byte pairs over lines), bert (WordPiece) or t5 (unigrams).
 * @property {string | undefined} pre  How texts are cut into words, as the file names it.
 * @property {boolean} addBos  Whether texts begin with BOS.
 * @property {boolean} addEos  Whether texts end with EOS; prompts of generate do not.
 * @property {number | undefined} bos  Token that begins a text.
 * @property {number[]} ends  Tokens that end a text.
 * @property {boolean} chat  Whether the file has a chat template.
 */

/**
 * @typedef {object} ModelMemory
 * @property {number} weights  Bytes of the weights, quantised as in the file, and of adapters.
 * @property {number} kvCache  Bytes of the keys and values of all positions, and of the states of
 *   recurrent layers, in all contexts.
 * @property {number} workspace  Bytes of the activations.
 * @property {number} linear  All bytes that the devices hold for the model; on the CPU the
 *   whole wasm memory.
 */

/**
 * @typedef {object} BackendLayers  Layers of a model that one device computes.
 * @property {'cpu' | 'gpu'} backend  The device.
 * @property {number} from  The first of them, counted from 0.
 * @property {number} to  The one after the last of them.
 */

/**
 * @typedef {object} BackendChoice  Where a model runs.
 * @property {'cpu' | 'gpu' | 'mixed'} name  Device of all layers; 'mixed' if there are several.
 * @property {string} reason  Why, in a sentence.
 * @property {BackendLayers[]} [layers]  Layers by device, if there are several.
 * @property {string[]} steps  Sentences about what was tried and measured.
 */

/**
 * @typedef {object} AdapterInfo  A LoRA adapter.
 * @property {string} name  Name of the adapter as its file has it, or the name of the file.
 * @property {number} rank  Rank of its matrices; the largest, if they differ.
 * @property {number} alpha  Number of the file that the additions are multiplied by and divided by the
 *   rank; 0 if they are not.
 * @property {number} scale  Factor that was given with the adapter.
 * @property {number} tensors  Number of its tensors: two for each matrix that it changes.
 * @property {number} bytes  Bytes of them.
 */

/**
 * @typedef {object} ModelInfo
 * @property {string} architecture  Architecture as the file names it, e.g. 'llama'.
 * @property {string | undefined} name  Name of the model, as the file has it.
 * @property {number} parameters  Number of weights.
 * @property {number} nLayers  Number of layers.
 * @property {number} nEmbd  Width of the hidden state.
 * @property {number} nFf  Width inside the feed-forward block of the first layer; with experts,
 *   of one expert.
 * @property {number} nHeads  Query heads of the first layer with attention.
 * @property {number} nKvHeads  Key and value heads of that layer.
 * @property {number} headSize  Values of a head of that layer.
 * @property {number} nVocab  Tokens of the vocabulary.
 * @property {boolean} tied  Whether the output matrix is the embedding.
 * @property {boolean} causal  Whether a token sees only itself and earlier tokens. Other models
 *   make embeddings, not text.
 * @property {RopeInfo} rope  How positions turn queries and keys.
 * @property {number} trainedContext  Positions that the model was trained for.
 * @property {number} contextLength  Positions of the KV cache.
 * @property {number} batch  Prompt tokens that are computed at a time.
 * @property {import('../wasm/kv-cache.js').KvType} kvType  Type in which keys and values are
 *   stored.
 * @property {import('../wasm/selftest.js').Activation | 'f16'} activation  Activation mode of the
 *   products; on a GPU the least precise one that is in use.
 * @property {TokenizerInfo} tokenizer  How texts become tokens.
 * @property {AdapterInfo[]} adapters  LoRA adapters of the model.
 * @property {Record<string, TypeUse>} types  The model's own tensors by weight type.
 * @property {ModelMemory} memory  Memory in bytes.
 * @property {import('../wasm/kernel-types.js').KernelsInfo} kernels  How the kernels were chosen,
 *   and how they run. Undefined on a GPU.
 * @property {import('../gpu/kernels.js').GpuInfo | undefined} gpu  The GPU and what is used of it;
 *   undefined on the CPU.
 * @property {BackendChoice} backend  The device that the model runs on, and why.
 * @property {Record<string, number>} timings  Milliseconds of the steps of loading: header,
 *   tokenizer, kernels, weights.
 */

/** For a model without rotary positions. */
const NO_ROPE = /** @type {const} */ ({ pairing: 'adjacent', nDims: 0, base: 0, linearScale: 1 });

/** For a model without attention. */
const NO_ATTENTION = /** @type {const} */ ({ nHeads: 0, nKvHeads: 0, headSize: 0, rope: undefined });

/** @param {Parts} parts @returns {ModelInfo} */
export function describe(parts) {
  const { backend, choice, plan, weights, decoder, tokenizer, metadata, tensors, settings, timings } = parts;
  const decoders = [decoder, ...[...parts.contexts].map((context) => context.decoder)];
  const { architecture, layers, nEmbd, nVocab, trainedContext } = plan;
  const [{ feed }] = layers;
  const first = layers.findIndex((layer) => layer.attention);
  const { nHeads, nKvHeads, headSize, rope } = layers[first]?.attention ?? NO_ATTENTION;
  const { pairing, nDims, base, linearScale } = rope ?? NO_ROPE;
  const factors = weights.byRole.layers[first]?.attention.ropeFactors !== undefined;
  const output = plan.tensors.find(({ role }) => role === 'head.output');
  const { contextLength, kvType, causal } = settings;
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
  const adapters = parts.adapters.map(({ checksum: _, ...adapter }) => adapter);
  const { info } = backend;
  const { activation = settings.activation } = info;
  const name = metadata['general.name'];
  const { kind, pre, addBos, addEos, bos, ends } = tokenizer;
  const chat = typeof metadata['tokenizer.chat_template'] === 'string';
  return {
    architecture,
    name: typeof name === 'string' ? name : undefined,
    parameters,
    nLayers: layers.length,
    ...{ nEmbd, nFf: feed.nFf, nHeads, nKvHeads, headSize, nVocab },
    tied: !tensors.some(({ name: given }) => given === output?.name),
    causal,
    rope: { pairing, nDims, base, linearScale, factors },
    ...{ trainedContext, contextLength, batch: decoder.batch, kvType, activation },
    tokenizer: { kind, pre, addBos, addEos, bos, ends: [...ends], chat },
    ...{ adapters, types },
    memory: {
      weights: adapters.reduce((sum, { bytes, scale }) => sum + (scale === 0 ? 0 : bytes), weightBytes),
      kvCache: decoders.reduce((sum, { kvBytes }) => sum + kvBytes, 0),
      workspace: decoder.workspaceBytes,
      linear: info.memoryBytes,
    },
    kernels: /** @type {import('../wasm/kernel-types.js').KernelsInfo} */ (info.kernels),
    gpu: info.gpu,
    backend: structuredClone(choice),
    timings: { ...timings },
  };
}
