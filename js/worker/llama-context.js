/* The calling side of a further context of a model in a worker. */

import { checkNames } from '../checks.js';
import { dispose } from '../dispose.js';
import { HandleError } from '../errors.js';
import { CALL_OPTIONS } from '../llama/options.js';

/** @typedef {import('../llama/llama-context.js').LlamaContext} LlamaContext */
/** @typedef {import('../llama/options.js').CallOptions} CallOptions */
/** @typedef {import('./llama-generation.js').WorkerGeneration} WorkerGeneration */

/** A context of the worker. @typedef {{ context: number, contextLength: number, tokens: number[] }} Made */

/**
 * The model that contexts belong to.
 * @typedef {object} Host
 * @property {(method: 'clear' | 'save' | 'fork' | 'dispose', context: number, args: unknown[]) =>
 *   Promise<{ value: any, tokens: number[] }>} call
 * @property {(at: WorkerLlamaContext, context: number, ...args: Parameters<LlamaContext['generate']>) =>
 *   WorkerGeneration} generate
 * @property {(at: WorkerLlamaContext, context: number, ...args: Parameters<LlamaContext['chat']>) =>
 *   Promise<WorkerGeneration>} chat
 * @property {(context: number) => void} stop
 * @property {() => Error | undefined} ended
 */

/** Tells a context its tokens. @type {(context: WorkerLlamaContext, tokens: number[]) => void} */
let setTokens;

export { setTokens };

/**
 * A conversation of its own on the weights of a model in a worker, with its own KV cache and states of
 * recurrent layers. `model.context()` makes it. One call at a time can use it.
 */
export class WorkerLlamaContext {
  #host;
  #number;
  #length;
  #tokens;
  #disposed = false;

  static {
    setTokens = (context, tokens) => {
      context.#tokens = tokens;
    };
  }

  /** @hideconstructor @param {Host} host @param {Made} made */
  constructor(host, { context, contextLength, tokens }) {
    this.#host = host;
    this.#number = context;
    this.#length = contextLength;
    this.#tokens = tokens;
  }

  /** Most tokens of prompt and answer together. */
  get contextLength() {
    return this.#length;
  }

  /**
   * The tokens whose keys and values were in the cache at the end of the last call that did not fail.
   * @returns {number[]} a copy
   */
  get tokens() {
    this.#alive();
    return [...this.#tokens];
  }

  /** True after dispose() of the context or of its model, and once the worker has ended by itself. */
  get disposed() {
    return this.#disposed || this.#host.ended() !== undefined;
  }

  /**
   * Continues a prompt, like `LlamaContext.generate`. Errors about the tokens of the prompt come with
   * the first piece.
   * @param {string | readonly number[]} prompt  a text, or tokens
   * @param {import('../llama/options.js').GenerateOptions} [options]
   * @returns {WorkerGeneration}
   * @throws {import('../errors.js').ArgumentError} an option is unknown or out of range
   */
  generate(prompt, options) {
    return this.#host.generate(this, this.#alive(), prompt, options);
  }

  /**
   * Answers a conversation, like `LlamaContext.chat`.
   * @param {Parameters<LlamaContext['chat']>[0]} messages
   * @param {Parameters<LlamaContext['chat']>[1]} [options]
   * @returns {Promise<WorkerGeneration>}
   */
  async chat(messages, options) {
    return this.#host.chat(this, this.#alive(), messages, options);
  }

  /** Stops the generation that has the context, if there is one, like `LlamaContext.stop`. */
  stop() {
    if (!this.disposed) this.#host.stop(this.#number);
  }

  /**
   * Forgets all tokens, like `LlamaContext.clear`.
   * @returns {Promise<void>}
   */
  async clear() {
    await this.#call('clear', []);
  }

  /**
   * Makes bytes of the context, like `LlamaContext.save`.
   * @param {CallOptions} [options]
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   */
  async save(options = {}) {
    checkNames(options, CALL_OPTIONS);
    return this.#call('save', [options]);
  }

  /**
   * Makes a copy of the context, like `LlamaContext.fork`.
   * @param {CallOptions} [options]
   * @returns {Promise<WorkerLlamaContext>}
   */
  async fork(options = {}) {
    checkNames(options, CALL_OPTIONS);
    return new WorkerLlamaContext(this.#host, await this.#call('fork', [options]));
  }

  /**
   * Frees the memory of the context, and ends a generation in it with an error. Further calls do
   * nothing.
   * @returns {Promise<void>} resolves when it is freed
   */
  async dispose() {
    if (this.disposed) return;
    this.#disposed = true;
    await this.#host.call('dispose', this.#number, []).catch((error) => {
      // A worker that has ended has freed everything.
      if (!this.#host.ended()) throw error;
    });
  }

  /** For `using`. */
  [dispose]() {
    void this.dispose();
  }

  /** For `await using`. */
  [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    return this.dispose();
  }

  /** @param {'clear' | 'save' | 'fork'} method @param {unknown[]} args */
  async #call(method, args) {
    const { value, tokens } = await this.#host.call(method, this.#alive(), args);
    this.#tokens = tokens;
    return value;
  }

  #alive() {
    const error = this.#host.ended();
    if (error) throw error;
    if (this.#disposed) throw new HandleError('this context is disposed', 'disposed');
    return this.#number;
  }
}
