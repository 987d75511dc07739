/* A model in a worker, as its page sees it: the methods of Llama, each with a promise, and generations that are iterated as usual. */

import { LLAMA_SCRIPT } from '../assets-llama.js';
import { checkNames } from '../checks.js';
import { HandleError, WorkerError } from '../errors.js';
import { sourceOf } from '../gguf/file.js';
import { GgufFile, openGguf } from '../gguf/index.js';
import * as llamaErrors from '../llama/errors.js';
import { checkGenerateOptions, LOAD_OPTIONS } from '../llama/options.js';
import { Calls } from './calls.js';
import { knowErrors } from './errors.js';
import { WorkerGeneration } from './llama-generation.js';
import { openPort, startError } from './port.js';
import { Relay } from './relay.js';
import { sendable } from './sendable.js';

knowErrors(llamaErrors);

/** The worker makes its own kernels. */
const WORKER_LLAMA_OPTIONS = [...LOAD_OPTIONS.filter((name) => name !== 'kernels'), 'worker'];

/** @typedef {import('../llama/model.js').Llama} Llama */
/** @typedef {import('../llama/options.js').GenerateOptions} GenerateOptions */

/**
 * @typedef {object} WorkerOnlyOptions
 * @property {import('./port.js').WorkerSource} [worker]  A Worker that runs `fused-matmul/llama-host`, a function
 *   that makes one, or the address of that script. By default the library starts its own. dispose() terminates it.
 */

/** The options of Llama.load but for `kernels`, which the worker makes itself. @typedef {Omit<import('../llama/model.js').LlamaOptions, 'kernels'> & WorkerOnlyOptions} WorkerLlamaOptions */

/** The call that makes a generation: its number, and the signal that ends both. @typedef {{ id: number, signal: AbortSignal | undefined }} Opening */

/**
 * A method of Llama as it is called in a worker.
 * @template {keyof Llama} M
 * @typedef {Llama[M] extends (...args: infer A) => infer R ? (...args: A) => Promise<Awaited<R>> : never} Remote
 */

const symbols = {
  dispose: Symbol.dispose ?? Symbol.for('Symbol.dispose'),
  asyncDispose: Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose'),
};

/** A model in a worker of its own. Made by createWorkerLlama. */
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
    const { worker, signal, onProgress, fetch, ...given } = allOptions;
    const { headers, retries, retryDelay, timeout, cache, ...options } = given;
    const opening = { headers: headers && [...new Headers(headers)], retries, retryDelay, timeout, cache };
    const model = new WorkerLlama();
    signal?.throwIfAborted();
    /** @type {number | undefined} */
    let relay;
    try {
      model.#port = await openPort(worker, LLAMA_SCRIPT, {
        onMessage: (message) => model.#receive(message),
        onEnd: (error) => model.#calls.finish(error),
      });
      model.#calls.start(model.#port);
      const file = await openHere(source, { ...opening, fetch, signal });
      const bytes = file && sourceOf(file);
      const recipe = bytes?.recipe?.();
      if (bytes && !recipe) relay = model.#relay.offer(bytes);
      const message = {
        kind: 'create',
        ...(file && bytes
          ? {
              opened: {
                recipe,
                relay,
                name: bytes.name,
                size: bytes.size,
                header: headerOf(file),
                parts: file.parts,
              },
            }
          : { source: sendable(source) }),
        options: { ...options, ...(!file && opening), wasm: sendable(options.wasm) },
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
      if (relay !== undefined) model.#relay.withdraw(relay);
    }
  }

  /** The facts of the model; the memory is that at the end of the last generation. */
  get info() {
    return this.#info;
  }

  /** True after dispose(), and once the worker ended by itself. */
  get disposed() {
    return this.#calls.ended !== undefined;
  }

  /**
   * Writes on from a prompt. The same as `Llama.generate`, but what the prompt's tokens do not allow is an error of the first piece.
   * @param {string | readonly number[]} prompt  a text, or tokens
   * @param {GenerateOptions} [options]
   * @returns {WorkerGeneration}  pieces of text, as they are written
   * @throws {import('../errors.js').ArgumentError} an option is unknown or out of range
   */
  generate(prompt, options = {}) {
    const { seed } = checkGenerateOptions(options);
    const { signal, ...rest } = options;
    const message = { kind: 'open', method: 'generate', input: prompt, options: { ...rest, seed } };
    const opening = { id: 0, signal };
    const open = async () => (await this.#open(message, opening)).generation;
    return new WorkerGeneration(this.#link(open, opening), seed);
  }

  /**
   * Answers a conversation by the file's own template. The same as `Llama.chat`.
   * @param {Parameters<Llama['chat']>[0]} messages
   * @param {Parameters<Llama['chat']>[1]} [options]
   * @returns {Promise<WorkerGeneration>}
   */
  async chat(messages, options = {}) {
    const { signal, ...rest } = options;
    const seed = rest.seed ?? Math.floor(Math.random() * 2 ** 32);
    const message = { kind: 'open', method: 'chat', input: messages, options: { ...rest, seed } };
    const opening = { id: 0, signal };
    const { generation, droppedMessages } = await this.#open(message, opening);
    const link = this.#link(() => Promise.resolve(generation), opening);
    const answer = new WorkerGeneration(link, seed, generation);
    answer.droppedMessages = droppedMessages;
    return answer;
  }

  /** Formats a conversation as the model was trained on it. The same as `Llama.formatChat`. @type {Remote<'formatChat'>} */
  formatChat(...args) {
    return this.#call('formatChat', args);
  }

  /** Turns a text into tokens. The same as `Llama.tokenize`. @type {Remote<'tokenize'>} */
  tokenize(...args) {
    return this.#call('tokenize', args);
  }

  /** Turns tokens into text. The same as `Llama.detokenize`. @type {Remote<'detokenize'>} */
  detokenize(...args) {
    return this.#call('detokenize', args);
  }

  /** Gives the embedding of a text. The same as `Llama.embed`. @type {Remote<'embed'>} */
  embed(...args) {
    return this.#call('embed', args);
  }

  /** Gives the logits after each token. The same as `Llama.logits`. @type {Remote<'logits'>} */
  logits(...args) {
    return this.#call('logits', args);
  }

  /**
   * Ends the worker and gives its memory back, also in the middle of a generation. Pending calls are rejected. Calling it again does nothing.
   * @returns {Promise<void>}  resolves when the worker is gone
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
   * @param {any[]} args  the last may be options with a signal
   * @returns {Promise<any>}
   */
  #call(method, args) {
    const { signal, ...rest } = (args.length > 1 && args.at(-1)) || {};
    const sent = args.length > 1 ? [...args.slice(0, -1), rest] : args;
    return this.#calls.request(
      { kind: 'call', method, args: sent, abortable: signal !== undefined },
      { signal },
    );
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
    return this.#calls.request(message, { signal: opening.signal, onId });
  }

  /**
   * @param {() => Promise<number>} open
   * @param {Opening} opening
   * @returns {import('./llama-generation.js').Link}
   */
  #link(open, opening) {
    const { signal } = opening;
    return {
      open,
      run: async (generation, onEvent) => {
        const abort = () => this.#calls.post({ kind: 'abort', id: opening.id });
        signal?.addEventListener('abort', abort);
        if (signal?.aborted) abort();
        try {
          this.#info = await this.#calls.request({ kind: 'run', generation }, { onEvent });
        } catch (error) {
          throw signal?.aborted && !this.disposed ? signal.reason : error;
        } finally {
          signal?.removeEventListener('abort', abort);
        }
      },
      more: (generation, count) => this.#calls.post({ kind: 'more', generation, count }),
      stop: (generation) => this.#calls.post({ kind: 'stop', generation }),
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
 * The file, where it is open already, or where only this thread can call what reads it.
 * @param {import('../gguf/source.js').GgufSource | GgufFile} source
 * @param {Record<string, unknown>} options  of openGguf
 * @returns {Promise<GgufFile | undefined>}
 */
async function openHere(source, options) {
  if (source instanceof GgufFile) return source;
  return options.fetch === undefined ? undefined : openGguf(source, options);
}

/** @param {GgufFile} file @returns {import('../gguf/file.js').Header} */
const headerOf = ({ version, alignment, metadata, tensors }) => ({ version, alignment, metadata, tensors });
