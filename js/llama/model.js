/* The class Llama: a loaded model that writes, chats and embeds. */

import { checkNames } from '../checks.js';
import { dispose } from '../dispose.js';
import { ArgumentError, HandleError, show } from '../errors.js';
import { GgufFile, openGguf } from '../gguf/index.js';
import { Context } from './context.js';
import { ContextError, ModelError } from './errors.js';
import { Generation } from './generation.js';
import { describe } from './info.js';
import { isCausal } from './layers.js';
import { Lease } from './lease.js';
import { checkLoadOptions, isDevice, pick } from './load-options.js';
import {
  asksForDevices,
  asList,
  CALL_OPTIONS,
  CHAT_OPTIONS,
  checkGenerateOptions,
  DEFAULT_CONTEXT,
  EMBED_OPTIONS,
  FORMAT_OPTIONS,
  OPEN_OPTIONS,
} from './options.js';
import { deviceCode, freeParts, loadParts, openOwnBackend, wasmBackend } from './place.js';

/** @typedef {import('./options.js').CallOptions} CallOptions */
/** @typedef {import('./options.js').GenerateOptions} GenerateOptions */
/** @typedef {import('./chat/messages.js').Message} Message */
/** @typedef {import('./chat/overflow.js').ChatLimits} ChatLimits */
/** @typedef {import('./chat.js').ChatFormat} ChatFormat */
/** @typedef {import('./load-options.js').LlamaOptions} LlamaOptions */

/**
 * @typedef {object} Settings
 * @property {number} contextLength
 * @property {import('../wasm/kv-cache.js').KvType} kvType
 * @property {import('../wasm/selftest.js').Activation} activation
 * @property {boolean} causal
 */

/**
 * @typedef {object} Parts  The parts of a loaded model.
 * @property {import('../backend.js').Backend} backend
 * @property {import('./plan.js').Plan} plan
 * @property {import('../backend.js').LoadedWeights} weights
 * @property {import('./info.js').BackendChoice} choice
 * @property {import('./decoder.js').Decoder} decoder
 * @property {Context} context  The context of the model's own methods.
 * @property {Set<Context>} contexts  Further contexts.
 * @property {import('./tokenizer/tokenizer.js').Tokenizer} tokenizer
 * @property {Record<string, import('../gguf/index.js').MetadataValue>} metadata
 * @property {import('../gguf/index.js').GgufTensor[]} tensors  Those of the model itself.
 * @property {import('./adapters.js').LoadedAdapter[]} adapters
 * @property {Settings} settings
 * @property {Record<string, number>} timings
 * @property {import('./info.js').ModelInfo} [lastInfo]  What info says while lost devices are
 *   replaced.
 */

/**
 * A loaded model. `Llama.load` makes it. Its methods use one context, so that one of them runs at a
 * time; `context()` makes further ones.
 */
export class Llama {
  #parts;
  #disposed = false;

  /** @hideconstructor @param {Parts} parts */
  constructor(parts) {
    if (!parts) throw new ArgumentError('a model is made by Llama.load(source, options), not by new Llama()');
    this.#parts = parts;
  }

  /**
   * Loads a model. The weights stay quantised, byte for byte as the file holds them.
   * @param {import('../gguf/source.js').GgufSource | GgufFile} source  a URL, a File or Blob,
   *   bytes, or in Node a path; for a split model the URL or path of the first part, or a list of
   *   all parts; or an open file
   * @param {LlamaOptions} [options]
   * @returns {Promise<Llama>}
   * @throws {import('./errors.js').ModelError} the architecture, the tokenizer or a variant is not
   *   supported; the message lists what is
   * @throws {import('../errors.js').GgufError} the file cannot be read or lacks tensors
   * @throws {import('../errors.js').ShapeError} a tensor has another shape than the metadata say
   * @throws {import('../errors.js').MemoryError} the model does not fit into a wasm memory: 4 GiB,
   *   more with memory64
   * @throws {import('../gpu/errors.js').GpuError} with `backend` 'gpu' or a list that has one: there
   *   is no GPU to be used, or it failed; `reason` says why in one word
   * @throws {ArgumentError} an option is unknown or out of range
   */
  static load(source, options = {}) {
    return Llama.loadTo(openOwnBackend, source, options);
  }

  /**
   * @internal Loads a model to any backend.
   * @param {import('./place.js').Open} openBackend  called once the file is known to be a model that the runner supports
   * @param {import('../gguf/source.js').GgufSource | GgufFile} source
   * @param {LlamaOptions} options
   * @returns {Promise<Llama>}
   */
  static async loadTo(openBackend, source, options = {}) {
    const { contextLength: asked, kvType, activation } = checkLoadOptions(options);
    const { kernels, signal, adapters: given } = options;
    if (given !== undefined) (await import('./adapters.js')).checkAdapters(given);
    if (kernels !== undefined && !isDevice(kernels)) (await wasmBackend()).checkKernels(kernels);
    const devices = asksForDevices(options) ? await deviceCode() : undefined;
    devices?.checkDevices(options);
    /** @type {Record<string, number>} */
    const timings = {};
    let since = performance.now();
    const lap = (/** @type {string} */ name) => {
      const now = performance.now();
      timings[name] = now - since;
      since = now;
    };
    // This code is needed only for models; it is fetched while the file's header is read.
    const code = import('./read-model.js');
    code.catch(() => {});
    const isOpen = source instanceof GgufFile;
    const gguf = isOpen ? source : await openGguf(source, { signal, ...pick(options, OPEN_OPTIONS) });
    lap('header');
    let isKept = false;
    try {
      const { tokenizer, own, adapters, ...read } = await (await code).readModel(gguf, options);
      const { plan } = read;
      lap('tokenizer');
      const contextLength = asked ?? Math.min(plan.trainedContext, DEFAULT_CONTEXT);
      const causal = isCausal(plan.layers);
      const settings = { contextLength, kvType, activation, causal };
      const facts = { ...read, settings };
      const opened = await openBackend(options, facts);
      lap('kernels');
      const loaded = await loadParts(opened, facts, options);
      lap('weights');
      const context = new Context(loaded.decoder, contextLength);
      const contexts = new Set();
      const { metadata } = gguf;
      const parts = {
        ...{ ...loaded, plan, context, contexts, tokenizer, metadata, tensors: own, adapters },
        ...{ settings, timings },
      };
      if (devices) {
        context.keeper = new devices.DeviceKeeper(parts, openBackend, facts, options);
        isKept = true;
      }
      return new Llama(parts);
    } finally {
      if (!isOpen && !isKept) gguf.close();
    }
  }

  /** Facts about the model. @returns {import('./info.js').ModelInfo} */
  get info() {
    const parts = this.#alive();
    return parts.lastInfo ?? describe(parts);
  }

  /**
   * Kernels that the model runs on; on a GPU these are GpuKernels, on several devices those of its
   * first layer. Where the model has opened a GPU itself and it is lost, others take their place.
   * @returns {import('../wasm/kernels.js').Kernels}
   */
  get kernels() {
    return /** @type {import('../wasm/backend.js').WasmBackend} */ (this.#alive().backend).kernels;
  }

  /** True after dispose(). */
  get disposed() {
    return this.#disposed;
  }

  /**
   * Continues a prompt. The result is an async iterator of pieces of text; its `stats` has the
   * speeds, and `text()` the whole text. The model is in use from the first read until the end,
   * `stop()`, `cancel()`, an abort, an error, or the end of the reading loop.
   * @param {string | readonly number[]} prompt  a text, or tokens
   * @param {GenerateOptions} [options]
   * @returns {Generation}
   * @throws {ContextError} the prompt leaves no room for a token
   * @throws {ArgumentError} an option is unknown or out of range
   * @throws {ModelError} the model's attention is not causal: it makes embeddings, not text
   */
  generate(prompt, options = {}) {
    return this.#generate(this.#alive().context, prompt, options);
  }

  /**
   * @param {Context} context
   * @param {string | readonly number[]} prompt
   * @param {GenerateOptions} options
   */
  #generate(context, prompt, options) {
    const { settings, plan } = this.#alive();
    const checked = checkGenerateOptions(options);
    if (!settings.causal) {
      throw new ModelError(
        `generate: this ${plan.architecture} model embeds texts and writes none, as its attention is not causal; use embed`,
      );
    }
    // A prompt never ends with EOS, whatever the file says about texts.
    const tokens =
      typeof prompt === 'string'
        ? this.tokenize(prompt, { eos: false })
        : this.#checkTokens(prompt, 'prompt');
    if (tokens.length === 0) throw new ArgumentError('the prompt has no tokens');
    this.#checkRoom(context, tokens.length, 'the prompt');
    return new Generation(tokens, checked, (owner) => this.#open(context, owner, tokens.length, checked));
  }

  /**
   * Answers a conversation. The part it shares with the previous conversation is not computed
   * again.
   * @param {readonly Message[]} messages
   * @param {GenerateOptions & ChatFormat & ChatLimits} [options]
   * @returns {Promise<Generation>}
   * @throws {import('./errors.js').ModelError} the file has no template, it refuses these messages,
   *   or it exceeds a limit
   * @throws {ContextError} the conversation does not fit the context
   */
  async chat(messages, options = {}) {
    return this.#chat(this.#alive().context, messages, options);
  }

  /**
   * @param {Context} context
   * @param {readonly Message[]} messages
   * @param {GenerateOptions & ChatFormat & ChatLimits} options
   */
  async #chat(context, messages, options) {
    checkNames(options, CHAT_OPTIONS);
    const { metadata, tokenizer } = this.#alive();
    const { chatPrompt } = await import('./chat.js');
    const { tokens, dropped, rest } = await chatPrompt(messages, options, { metadata, tokenizer, context });
    const generation = this.#generate(context, tokens, rest);
    generation.droppedMessages = dropped;
    return generation;
  }

  /**
   * Formats a conversation as the text that the model was trained on, with the chat template of the
   * file. The text does not tell control tokens of the template from the same spelling in a
   * message; `chat` does.
   * @param {readonly Message[]} messages
   * @param {ChatFormat} [format]
   * @returns {Promise<string>}
   * @throws {import('./errors.js').ModelError} the file has no template, it refuses these messages,
   *   or it exceeds a limit
   */
  async formatChat(messages, format = {}) {
    const { tokenizer, metadata } = this.#alive();
    checkNames(format, FORMAT_OPTIONS);
    const { renderChat } = await import('./chat.js');
    return (await renderChat(messages, format, metadata, tokenizer)).text;
  }

  /**
   * Computes the logits after each token, starting from an empty context.
   * @param {ArrayLike<number>} tokens
   * @param {CallOptions} [options]
   * @returns {Promise<Float32Array>} tokens.length x vocabulary, row by row
   * @throws {import('./errors.js').BusyError} another call uses the model
   * @throws {import('./errors.js').NumericError} a computed number is NaN, infinite or too large
   *   for the KV cache
   */
  async logits(tokens, options = {}) {
    const { context, plan, weights } = this.#alive();
    checkNames(options, CALL_OPTIONS);
    if (!weights.byRole.head?.output)
      throw new ModelError(`logits: ${plan.architecture} models have no output matrix; use embed`);
    const ids = this.#checkTokens(tokens, 'tokens');
    if (ids.length === 0) throw new ArgumentError('tokens is empty');
    this.#checkRoom(context, ids.length, 'tokens');
    return this.#fromScratch('logits', options, async (pace, lease) => {
      lease.nTokens = ids.length;
      const { allLogits } = await import('./all-logits.js');
      pace.check();
      return allLogits(this.#alive(), ids, pace);
    });
  }

  /**
   * Computes the embedding of a text, or of each text of a list: its hidden states after the final
   * norm, pooled as the file says (the mean, the first or the last state) and scaled to length 1.
   * BOS and EOS are added where the file says so. Models that were not trained for embeddings give
   * rough ones. Short texts of a list are computed together.
   * @template {string | readonly string[]} T
   * @param {T} texts
   * @param {import('./embedding.js').EmbedOptions} [options]
   * @returns {Promise<T extends string ? Float32Array : Float32Array[]>} embedding_length values, or
   *   as many as the products after the pooling have; with pooling 'none', as many for each token,
   *   row by row
   * @throws {ModelError} the file asks for another kind of pooling, as rerankers do
   * @throws {ContextError} a text has more tokens than the context
   * @throws {import('./errors.js').BusyError} another call uses the model
   * @throws {import('./errors.js').NumericError} a computed number is NaN, infinite or too large
   *   for the KV cache
   */
  async embed(texts, options = {}) {
    checkNames(options, EMBED_OPTIONS);
    const list = asList(texts);
    const vectors = await this.#fromScratch('embed', options, async (pace, lease) => {
      const { embedTexts } = await import('./embedding.js');
      pace.check();
      return embedTexts(this.#alive(), list, options, pace, lease);
    });
    return /** @type {any} */ (Array.isArray(texts) ? vectors : vectors[0]);
  }

  /**
   * Scores how well documents answer a query, with a model that has a ranking head (a reranker).
   * @param {string} query
   * @param {readonly string[]} documents
   * @param {import('./ranking.js').RankOptions} [options]
   * @returns {Promise<number[]>} a score for each document, larger is better; its range depends on
   *   the model
   * @throws {ModelError} the model has no ranking head
   * @throws {ContextError} the query and a document together have more tokens than the context
   * @throws {import('./errors.js').BusyError} another call uses the model
   * @throws {import('./errors.js').NumericError} a computed number is NaN, infinite or too large
   *   for the KV cache
   */
  async rank(query, documents, options = {}) {
    checkNames(options, CALL_OPTIONS);
    return this.#fromScratch('rank', options, async (pace, lease) => {
      const { rankDocuments } = await import('./ranking.js');
      pace.check();
      return rankDocuments(this.#alive(), query, documents, pace, lease);
    });
  }

  /**
   * Turns a text into tokens.
   * @param {string} text
   * @param {import('./tokenizer/tokenizer.js').EncodeOptions} [options]
   * @returns {number[]}
   */
  tokenize(text, options = {}) {
    checkNames(options, ['bos', 'eos', 'special']);
    return this.#alive().tokenizer.encode(text, options);
  }

  /**
   * Turns tokens into a text.
   * @param {ArrayLike<number>} tokens
   * @param {{ special?: boolean }} [options]  special: show control tokens by their spelling
   *   instead of leaving them out; default false
   * @returns {string}
   */
  detokenize(tokens, options = {}) {
    checkNames(options, ['special']);
    return this.#alive().tokenizer.decode(this.#checkTokens(tokens, 'tokens'), options);
  }

  /**
   * Makes a further context: a conversation of its own, with its own KV cache and states of recurrent
   * layers, on the same weights. Its texts do not wait for those of other contexts: on the CPU they
   * share passes over the weights, elsewhere they take turns, token by token.
   * @param {import('./llama-context.js').ContextOptions} [options]
   * @returns {Promise<import('./llama-context.js').LlamaContext>}
   * @throws {import('../errors.js').MemoryError} its cache does not fit the memory; nothing is changed
   * @throws {ArgumentError} an option is unknown, or contextLength exceeds that of the model
   * @throws {ModelError} the model's attention is not causal: it makes embeddings, not text
   */
  async context(options = {}) {
    return (await contextCode()).openContext(this.#host, options);
  }

  /**
   * Makes a context from the bytes that `save()` of a context has returned, of this model or of another
   * one that was loaded from the same file.
   * @param {Uint8Array} bytes
   * @param {import('./llama-context.js').RestoreOptions} [options]
   * @returns {Promise<import('./llama-context.js').LlamaContext>}
   * @throws {import('./errors.js').SavedContextError} the bytes are damaged, or belong to another model,
   *   another kvType or another version; `reason` says which
   * @throws {ContextError} there are more tokens than contextLength
   * @throws {import('../errors.js').MemoryError} its cache does not fit the memory; nothing is changed
   */
  async restoreContext(bytes, options = {}) {
    return (await contextCode()).restoreContext(this.#host, bytes, options);
  }

  /**
   * Stops the generation that has the model's own context, if there is one, as its own `stop()` does:
   * its text stays, and the model is free for the next call. Other calls end by themselves.
   */
  stop() {
    this.#parts.context.line.first?.owner?.stop();
  }

  /**
   * Frees the memory of the model and of its contexts, and its kernels unless they were given.
   * Further calls do nothing.
   */
  dispose() {
    if (this.#disposed) return;
    this.#disposed = true;
    const { context, contexts } = this.#parts;
    for (const one of [context, ...contexts]) {
      one.line.end(disposedError());
      one.keeper = undefined;
    }
    freeParts(this.#parts);
  }

  /** For `using`. */
  [dispose]() {
    this.dispose();
  }

  #alive() {
    if (this.#disposed) throw disposedError();
    return this.#parts;
  }

  /**
   * The means of further contexts.
   * @returns {import('./llama-context.js').Host}
   */
  get #host() {
    return {
      alive: () => this.#alive(),
      generate: (...args) => this.#generate(...args),
      chat: (...args) => this.#chat(...args),
    };
  }

  /**
   * Takes a context for a generation.
   * @param {Context} context
   * @param {Generation} owner
   * @param {number} nTokens  tokens of the prompt
   * @param {import('./generation.js').Options} options
   * @returns {import('./generation.js').Engine}
   */
  #open(context, owner, nTokens, { signal, queue }) {
    const { tokenizer } = this.#alive();
    const lease = new Lease('generate', nTokens, signal, owner);
    context.line.join(lease, queue);
    return {
      context,
      tokenizer,
      bytes: (token, special) => tokenizer.bytes(token, special),
      ends: tokenizer.ends,
      lease,
    };
  }

  /**
   * @template T
   * @param {'logits' | 'embed' | 'rank'} holder
   * @param {CallOptions} options
   * @param {(pace: import('./pause.js').Pace, lease: Lease) => Promise<T>} work  a computation that
   *   counts its tokens, and begins with an empty context
   * @returns {Promise<T>}
   */
  async #fromScratch(holder, options, work) {
    return this.#alive().context.during(holder, options, work);
  }

  /** @param {Context} context @param {number} nTokens @param {string} what */
  #checkRoom({ length }, nTokens, what) {
    if (nTokens <= length) return;
    throw new ContextError(`${what} has ${nTokens} tokens, the context has room for ${length}`, {
      got: nTokens,
      expected: length,
    });
  }

  /** @param {unknown} tokens @param {string} what */
  #checkTokens(tokens, what) {
    const { size } = this.#alive().tokenizer;
    const list = /** @type {ArrayLike<number> | undefined} */ (tokens);
    if (typeof tokens !== 'object' || !Number.isInteger(list?.length))
      throw new ArgumentError(
        `${what} must be ${what === 'prompt' ? 'a text or ' : ''}a list of token ids, got ${show(tokens)}`,
      );
    return Array.from(/** @type {ArrayLike<number>} */ (list), (id, i) => {
      if (Number.isInteger(id) && id >= 0 && id < size) return id;
      throw new ArgumentError(`${what}[${i}] is ${show(id)}, the vocabulary has ${size} tokens`);
    });
  }
}

/** The code of further contexts. */
const contextCode = () => import('./llama-context.js');

const disposedError = () => new HandleError('this model is disposed', 'disposed');
