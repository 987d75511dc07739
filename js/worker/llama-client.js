/* The calling side of a model in a worker: the methods of Llama, each with a promise, and
 * generations that are read as usual. */

import { LLAMA_GPU_SCRIPT, LLAMA_SCRIPT } from '../assets-llama.js';
import { checkNames } from '../checks.js';
import { ArgumentError, HandleError, show, WorkerError } from '../errors.js';
import { sourceOf } from '../gguf/file.js';
import { GgufFile, openGguf } from '../gguf/index.js';
import * as llamaErrors from '../llama/errors.js';
import {
  asksForDevices,
  checkGenerateOptions,
  checkProgress,
  checkSignal,
  LOAD_OPTIONS,
} from '../llama/options.js';
import { Calls } from './calls.js';
import { knowErrors } from './errors.js';
import { setTokens, WorkerLlamaContext } from './llama-context.js';
import { WorkerGeneration } from './llama-generation.js';
import { openPort, startError } from './port.js';
import { Relay } from './relay.js';
import { sendable } from './sendable.js';

knowErrors(llamaErrors);

/** All options of Llama.load but `kernels`: the worker makes its own. */
const WORKER_LLAMA_OPTIONS = [...LOAD_OPTIONS.filter((name) => name !== 'kernels'), 'worker'];

/** @typedef {import('../llama/model.js').Llama} Llama */
/** @typedef {import('../llama/options.js').GenerateOptions} GenerateOptions */

/**
 * @typedef {object} WorkerOnlyOptions
 * @property {Omit<import('../gpu/index.js').GpuOptions, 'gpu'>} [gpu]  Options of the worker's GPU
 *   kernels, as createGpuKernels takes them. WebGPU comes from the worker's own navigator.gpu.
 * @property {import('./port.js').WorkerSource} [worker]  A Worker that runs
 *   `fused-matmul/llama-host`, or for a model that may run on a GPU `fused-matmul/llama-host-gpu`, a
 *   function that makes one, or the URL of its script. dispose() terminates it. Default: a worker of
 *   the library.
 */

/**
 * Options of Llama.load without `kernels`, as the worker makes its own.
 * @typedef {Omit<import('../llama/model.js').LlamaOptions, 'kernels' | 'gpu'>
 *   & WorkerOnlyOptions} WorkerLlamaOptions
 */

/**
 * The call that made a generation: its number, the signal that ends both, what is told of the prompt,
 * and the context, if it is a further one.
 * @typedef {{ id: number, at?: WorkerLlamaContext } & Pick<GenerateOptions, 'signal' | 'onProgress'>} Opening
 */

/**
 * Type of a method of Llama in a worker.
 * @template {keyof Llama} M
 * @typedef {Llama[M] extends (...args: infer A) => infer R
 *   ? (...args: A) => Promise<Awaited<R>> : never} Remote
 */

const symbols = {
  dispose: Symbol.dispose ?? Symbol.for('Symbol.dispose'),
  asyncDispose: Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose'),
};

/** A model in a worker of its own. createWorkerLlama makes it. */
export class WorkerLlama {
  #calls = new Calls();
  /** @type {import('./port.js').Port | undefined} */
  #port;
  #relay = new Relay((message, transfer) => this.#port?.post(message, transfer));
  /** @type {import('../llama/info.js').ModelInfo} */
  #info = /** @type {any} */ (undefined);
  /** @type {Promise<void> | undefined} */
  #closed;

  /**
   * @param {import('../gguf/source.js').GgufSource | GgufFile} source
   * @param {WorkerLlamaOptions} allOptions
   * @returns {Promise<WorkerLlama>}
   */
  static async create(source, allOptions) {
    checkNames(allOptions, WORKER_LLAMA_OPTIONS);
    checkGpu(allOptions);
    const { worker, signal, onProgress, fetch, adapters, ...given } = allOptions;
    if (adapters !== undefined) (await import('../llama/adapters.js')).checkAdapters(adapters);
    const { headers, retries, retryDelay, timeout, cache, ...options } = given;
    const opening = { headers: headers && [...new Headers(headers)], retries, retryDelay, timeout, cache };
    const model = new WorkerLlama();
    signal?.throwIfAborted();
    const isOnGpu = asksForDevices(options);
    if (isOnGpu) knowErrors(await import('../gpu/errors.js'));
    /** @type {number[]} */
    const relays = [];
    try {
      model.#port = await openPort(worker, isOnGpu ? LLAMA_GPU_SCRIPT : LLAMA_SCRIPT, {
        onMessage: (message) => model.#receive(message),
        onEnd: (error) => model.#calls.finish(error),
      });
      model.#calls.start(model.#port);
      const send = async (/** @type {import('../gguf/source.js').GgufSource | GgufFile} */ one) => {
        const file = await openHere(one, { ...opening, fetch, signal });
        if (!file) return { source: sendable(one) };
        const bytes = sourceOf(file);
        const { name, size } = bytes;
        const recipe = bytes.recipe?.();
        const relay = recipe ? undefined : model.#relay.offer(bytes);
        if (relay !== undefined) relays.push(relay);
        return { opened: { recipe, relay, name, size, header: headerOf(file), parts: file.parts } };
      };
      const message = {
        kind: 'create',
        ...(await send(source)),
        ...(adapters && {
          adapters: await Promise.all(
            adapters.map(async ({ source: file, scale }) => ({ ...(await send(file)), scale })),
          ),
        }),
        options: { ...options, ...(fetch === undefined && opening), wasm: sendable(options.wasm) },
        progress: onProgress !== undefined,
      };
      const onEvent = (/** @type {any} */ { progress }) => progress && onProgress?.(progress);
      model.#info = await model.#calls.request(message, { signal, onEvent });
      return model;
    } catch (error) {
      const reason =
        error instanceof WorkerError
          ? startError(error.message.replace('the worker ended: ', ''), error.cause ?? error)
          : error;
      await model.#stop(/** @type {Error} */ (reason));
      throw reason;
    } finally {
      for (const relay of relays) model.#relay.withdraw(relay);
    }
  }

  /**
   * Facts about the model; `memory` is that of the end of the last generation, or of the last call of a
   * context.
   */
  get info() {
    return this.#info;
  }

  /** True after dispose(), and once the worker has ended by itself. */
  get disposed() {
    return this.#calls.ended !== undefined;
  }

  /**
   * Continues a prompt, like `Llama.generate`. Errors about the tokens of the prompt come with the
   * first piece.
   * @param {string | readonly number[]} prompt  a text, or tokens
   * @param {GenerateOptions} [options]
   * @returns {WorkerGeneration} pieces of text, as they are generated
   * @throws {import('../errors.js').ArgumentError} an option is unknown or out of range
   */
  generate(prompt, options = {}) {
    return this.#generate(prompt, options);
  }

  /**
   * @param {string | readonly number[]} prompt
   * @param {GenerateOptions} options
   * @param {WorkerLlamaContext} [at]
   * @param {number} [context]  its number
   */
  #generate(prompt, options, at, context) {
    const { seed } = checkGenerateOptions(options);
    checkHook(options);
    const { signal, onProgress, ...rest } = options;
    const given = { ...rest, seed };
    const message = { kind: 'open', method: 'generate', context, input: prompt, options: given };
    const opening = { id: 0, signal, onProgress, ...(at && { at }) };
    const open = async () => (await this.#open(message, opening)).generation;
    return new WorkerGeneration(this.#link(open, opening), seed);
  }

  /**
   * Answers a conversation, like `Llama.chat`.
   * @param {Parameters<Llama['chat']>[0]} messages
   * @param {Parameters<Llama['chat']>[1]} [options]
   * @returns {Promise<WorkerGeneration>}
   */
  async chat(messages, options = {}) {
    return this.#chat(messages, options);
  }

  /**
   * @param {Parameters<Llama['chat']>[0]} messages
   * @param {NonNullable<Parameters<Llama['chat']>[1]>} options
   * @param {WorkerLlamaContext} [at]
   * @param {number} [context]  its number
   */
  async #chat(messages, options, at, context) {
    checkHook(options);
    const { signal, onProgress, ...rest } = options;
    checkSignal(signal);
    checkProgress(onProgress);
    const seed = rest.seed ?? Math.floor(Math.random() * 2 ** 32);
    const given = { ...rest, seed };
    const message = { kind: 'open', method: 'chat', context, input: messages, options: given };
    const opening = { id: 0, signal, onProgress, ...(at && { at }) };
    const { generation, droppedMessages } = await this.#open(message, opening);
    const link = this.#link(() => Promise.resolve(generation), opening);
    const answer = new WorkerGeneration(link, seed, generation);
    answer.droppedMessages = droppedMessages;
    return answer;
  }

  /**
   * Formats a conversation as the text that the model was trained on, like `Llama.formatChat`.
   * @type {Remote<'formatChat'>}
   */
  formatChat(...args) {
    return this.#call('formatChat', args);
  }

  /** Turns a text into tokens, like `Llama.tokenize`. @type {Remote<'tokenize'>} */
  tokenize(...args) {
    return this.#call('tokenize', args);
  }

  /** Turns tokens into a text, like `Llama.detokenize`. @type {Remote<'detokenize'>} */
  detokenize(...args) {
    return this.#call('detokenize', args);
  }

  /**
   * Computes the embedding of a text, or of each text of a list, like `Llama.embed`.
   * @template {string | readonly string[]} T
   * @param {T} texts
   * @param {import('../llama/embedding.js').EmbedOptions} [options]
   * @returns {Promise<T extends string ? Float32Array : Float32Array[]>}
   */
  embed(texts, options = {}) {
    return this.#call('embed', [texts, options]);
  }

  /** Scores documents for a query, like `Llama.rank`. @type {Remote<'rank'>} */
  rank(query, documents, options = {}) {
    return this.#call('rank', [query, documents, options]);
  }

  /** Computes the logits after each token, like `Llama.logits`. @type {Remote<'logits'>} */
  logits(...args) {
    return this.#call('logits', args);
  }

  /**
   * Makes a further context, like `Llama.context`.
   * @param {import('../llama/llama-context.js').ContextOptions} [options]
   * @returns {Promise<WorkerLlamaContext>}
   */
  async context(options = {}) {
    const { value } = await this.#inContext('context', undefined, [options]);
    return new WorkerLlamaContext(this.#contexts, value);
  }

  /**
   * Makes a context from the bytes of another one, like `Llama.restoreContext`.
   * @param {Uint8Array} bytes
   * @param {import('../llama/llama-context.js').RestoreOptions} [options]
   * @returns {Promise<WorkerLlamaContext>}
   */
  async restoreContext(bytes, options = {}) {
    const { value } = await this.#inContext('restoreContext', undefined, [bytes, options]);
    return new WorkerLlamaContext(this.#contexts, value);
  }

  /**
   * Stops the generation that has the model, if there is one, like `Llama.stop`. Its text stays, and
   * the model is free for the next call.
   */
  stop() {
    this.#calls.post({ kind: 'stop' });
  }

  /**
   * Ends the worker and frees its memory, even in the middle of a generation. Pending calls are
   * rejected. Further calls of dispose() do nothing.
   * @returns {Promise<void>} resolves when the worker is gone
   */
  dispose() {
    return this.#stop(new HandleError('this model is disposed', 'disposed'));
  }

  /** For `using`. */
  [symbols.dispose]() {
    this.dispose();
  }

  /** For `await using`. */
  [symbols.asyncDispose]() {
    return this.dispose();
  }

  /**
   * @param {string} method
   * @param {any[]} args  the last argument may be options with a signal
   * @returns {Promise<any>}
   */
  async #call(method, args) {
    const { signal, ...rest } = (args.length > 1 && args.at(-1)) || {};
    checkSignal(signal);
    const sent = args.length > 1 ? [...args.slice(0, -1), rest] : args;
    return this.#calls.request(
      { kind: 'call', method, args: sent, abortable: signal !== undefined },
      { signal },
    );
  }

  /** The means of further contexts. @returns {import('./llama-context.js').Host} */
  get #contexts() {
    return {
      call: (...args) => this.#inContext(...args),
      generate: (at, context, prompt, options = {}) => this.#generate(prompt, options, at, context),
      chat: (at, context, messages, options = {}) => this.#chat(messages, options, at, context),
      stop: (context) => this.#calls.post({ kind: 'stop', context }),
      ended: () => this.#calls.ended,
    };
  }

  /**
   * A call that makes a context, or of a context. The worker hears of an abort and answers, so that a
   * context that it has made by then is freed.
   * @param {string} method
   * @param {number | undefined} context
   * @param {any[]} args  the last argument may be options with a signal
   * @returns {Promise<{ value: any, tokens: number[] }>}
   */
  async #inContext(method, context, args) {
    const { signal, ...options } = args.at(-1) ?? {};
    checkSignal(signal);
    signal?.throwIfAborted();
    const isPlain = signal === undefined;
    const sent = isPlain ? args : [...args.slice(0, -1), options];
    let id = 0;
    const abort = () => this.#calls.post({ kind: 'abort', id });
    const onId = (/** @type {number} */ given) => {
      id = given;
    };
    signal?.addEventListener('abort', abort);
    try {
      const message = { kind: 'context', method, context, args: sent, abortable: !isPlain };
      const answer = await this.#calls.request(message, { onId });
      this.#info = answer.info;
      if (!signal?.aborted) return answer;
      // The abort came too late for the worker.
      const { context: made } = answer.value;
      if (made) await this.#inContext('dispose', made, []);
      throw signal.reason;
    } catch (error) {
      throw signal?.aborted && !this.disposed ? signal.reason : error;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /**
   * Makes a generation in the worker.
   * @param {object} message
   * @param {Opening} opening
   * @returns {Promise<{ generation: number, droppedMessages: number }>}
   */
  #open(message, opening) {
    const onId = (/** @type {number} */ id) => {
      opening.id = id;
    };
    const progress = opening.onProgress !== undefined;
    return this.#calls.request({ ...message, progress }, { signal: opening.signal, onId });
  }

  /**
   * @param {() => Promise<number>} open
   * @param {Opening} opening
   * @returns {import('./llama-generation.js').Link}
   */
  #link(open, opening) {
    const { signal, onProgress, at } = opening;
    return {
      open,
      run: async (generation, onPieces) => {
        const abort = () => this.#calls.post({ kind: 'abort', id: opening.id });
        signal?.addEventListener('abort', abort);
        if (signal?.aborted) abort();
        try {
          const onEvent = (/** @type {any} */ message) => {
            if (!message.progress) return onPieces(message);
            try {
              onProgress?.(message.progress);
            } catch (error) {
              this.#calls.post({ kind: 'cancel', generation });
              throw error;
            }
          };
          const { info, tokens } = await this.#calls.request({ kind: 'run', generation }, { onEvent });
          this.#info = info;
          if (at && tokens) setTokens(at, tokens);
        } catch (error) {
          throw signal?.aborted && !this.disposed ? signal.reason : error;
        } finally {
          signal?.removeEventListener('abort', abort);
        }
      },
      more: (generation, count) => this.#calls.post({ kind: 'more', generation, count }),
      stop: (generation) => this.#calls.post({ kind: 'stop', generation }),
      cancel: (generation) => this.#calls.post({ kind: 'cancel', generation }),
      isAborted: () => signal?.aborted ?? false,
    };
  }

  /** @param {any} message */
  #receive(message) {
    if (message.kind === 'read' || message.kind === 'leave') this.#relay.receive(message);
    else this.#calls.receive(message);
  }

  /** @param {Error} error */
  #stop(error) {
    this.#calls.finish(error);
    this.#relay.end();
    this.#closed ??= this.#port?.close() ?? Promise.resolve();
    return this.#closed;
  }
}

/**
 * Refuses a function on logits, which no message can carry.
 * @param {{ logits?: unknown }} options
 * @throws {ArgumentError} there is one
 */
function checkHook({ logits }) {
  if (logits === undefined) return;
  throw new ArgumentError(
    `logits cannot be sent to a worker, as it is a function; load the model with Llama.load in this thread, or in a worker script of your own; got ${show(logits)}`,
  );
}

/**
 * Refuses WebGPU objects, which no message can carry.
 * @param {{ backend?: unknown, gpu?: unknown }} options
 * @throws {ArgumentError} one is given; the message names it
 */
function checkGpu({ backend, gpu }) {
  const parts = Array.isArray(backend) ? backend : [];
  const all = [['gpu', gpu], ...parts.map((part, i) => [`backend[${i}].gpu`, part?.gpu])];
  for (const [name, options] of all) {
    if (options?.gpu === undefined) continue;
    throw new ArgumentError(
      `${name}.gpu cannot be sent to a worker, which takes its own navigator.gpu; got ${show(options.gpu)}`,
    );
  }
}

/**
 * The file, if it is open already, or if this thread must open it because the caller's fetch reads
 * it.
 * @param {import('../gguf/source.js').GgufSource | GgufFile} source
 * @param {Record<string, unknown>} options  options of openGguf
 * @returns {Promise<GgufFile | undefined>} undefined if the worker opens the file
 */
async function openHere(source, options) {
  if (source instanceof GgufFile) return source;
  return options.fetch === undefined ? undefined : openGguf(source, options);
}

/** @param {GgufFile} file @returns {import('../gguf/file.js').Header} */
const headerOf = ({ version, alignment, metadata, tensors }) => ({ version, alignment, metadata, tensors });
