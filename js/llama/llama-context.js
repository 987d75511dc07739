/* Further contexts of a model: conversations of their own on the same weights. The code is loaded
 * with the first of them. */

import { checkNames } from '../checks.js';
import { dispose } from '../dispose.js';
import { HandleError, MemoryError } from '../errors.js';
import { Context } from './context.js';
import { ModelError } from './errors.js';
import { JoinedSteps } from './joined-steps.js';
import { Lease } from './lease.js';
import { CALL_OPTIONS, checkRange, checkSignal } from './options.js';
import { Pace } from './pause.js';

/** @typedef {import('./chat.js').ChatFormat} ChatFormat */
/** @typedef {import('./chat/messages.js').Message} Message */
/** @typedef {import('./chat/overflow.js').ChatLimits} ChatLimits */
/** @typedef {import('./generation.js').Generation} Generation */
/** @typedef {import('./model.js').Parts} Parts */
/** @typedef {import('./options.js').CallOptions} CallOptions */
/** @typedef {import('./options.js').GenerateOptions} GenerateOptions */

/**
 * @typedef {object} ContextOptions
 * @property {number | undefined} [contextLength]  The most tokens of prompt and answer together, at
 *   most as many as the model was loaded with. Default: as many.
 */

/**
 * @typedef {object} RestoreOptions
 * @property {number | undefined} [contextLength]  The most tokens of prompt and answer together, at
 *   most as many as the model was loaded with. Default: those of the context that was saved, if the
 *   model has as many.
 * @property {AbortSignal | undefined} [signal]  Aborts the call: it rejects with the signal's reason.
 */

/**
 * The model that contexts belong to.
 * @typedef {object} Host
 * @property {() => Parts} alive  Gives its parts, or throws if it is disposed.
 * @property {(context: Context, prompt: string | readonly number[], options: GenerateOptions) =>
 *   Generation} generate  Continues a prompt in a context.
 * @property {(context: Context, messages: readonly Message[],
 *   options: GenerateOptions & ChatFormat & ChatLimits) => Promise<Generation>} chat  Answers a
 *   conversation in a context.
 */

/**
 * A conversation of its own on the weights of a model, with its own KV cache and states of recurrent
 * layers. `model.context()` makes it. One call at a time can use it.
 */
export class LlamaContext {
  #host;
  #context;
  #disposed = false;

  /** @hideconstructor @param {Host} host @param {Context} context */
  constructor(host, context) {
    this.#host = host;
    this.#context = context;
  }

  /** Most tokens of prompt and answer together. */
  get contextLength() {
    return this.#context.length;
  }

  /**
   * The tokens whose keys and values are in the cache. The last token of an answer joins them with the
   * next call, when it is computed.
   * @returns {number[]} a copy
   */
  get tokens() {
    return [...this.#alive().past];
  }

  /** True after dispose() of the context or of its model. */
  get disposed() {
    if (this.#disposed) return true;
    try {
      this.#host.alive();
      return false;
    } catch {
      return true;
    }
  }

  /**
   * Continues a prompt, like `Llama.generate`. What the prompt and the tokens of this context have in
   * common at their start is not computed again.
   * @param {string | readonly number[]} prompt  a text, or tokens
   * @param {GenerateOptions} [options]
   * @returns {Generation}
   * @throws {import('./errors.js').ContextError} the prompt leaves no room for a token
   * @throws {import('../errors.js').ArgumentError} an option is unknown or out of range
   */
  generate(prompt, options = {}) {
    return this.#host.generate(this.#alive(), prompt, options);
  }

  /**
   * Answers a conversation, like `Llama.chat`.
   * @param {readonly Message[]} messages
   * @param {GenerateOptions & ChatFormat & ChatLimits} [options]
   * @returns {Promise<Generation>}
   * @throws {ModelError} the file has no template, it refuses these messages, or it exceeds a limit
   * @throws {import('./errors.js').ContextError} the conversation does not fit the context
   */
  async chat(messages, options = {}) {
    return this.#host.chat(this.#alive(), messages, options);
  }

  /**
   * Stops the generation that has the context, if there is one, as its own `stop()` does. Other calls
   * end by themselves.
   */
  stop() {
    this.#context.line.first?.owner?.stop();
  }

  /**
   * Forgets all tokens. The memory stays.
   * @throws {import('./errors.js').BusyError} a call uses the context
   */
  clear() {
    const context = this.#alive();
    const lease = new Lease('clear', 0, undefined);
    context.line.join(lease, false);
    context.clear();
    lease.end();
  }

  /**
   * Makes bytes of the context: its tokens, their keys and values, and the states of recurrent layers.
   * `model.restoreContext` makes a context from them that goes on exactly as this one.
   * @param {CallOptions} [options]
   * @returns {Promise<Uint8Array<ArrayBuffer>>}
   * @throws {import('./errors.js').BusyError} another call uses the context
   * @throws {ModelError} the model is on a GPU, which cannot save contexts
   */
  async save(options = {}) {
    checkNames(options, CALL_OPTIONS);
    const context = this.#alive();
    return context.during('save', options, async (pace) => {
      const { saveContext } = await import('./saved-context.js');
      pace.check();
      return saveContext(this.#host.alive(), context, pace);
    });
  }

  /**
   * Makes a copy of the context, which goes on independently: what many conversations begin with is
   * computed once.
   * @param {CallOptions} [options]
   * @returns {Promise<LlamaContext>}
   * @throws {import('./errors.js').BusyError} another call uses the context
   * @throws {MemoryError} its cache does not fit the memory; nothing is changed
   * @throws {ModelError} the model is on a GPU, which cannot copy contexts
   */
  async fork(options = {}) {
    checkNames(options, CALL_OPTIONS);
    const context = this.#alive();
    return context.during('fork', options, async (pace) => {
      const { copyParts } = await import('./saved-context.js');
      pace.check();
      const saved = await copyParts(context, pace);
      return fill(this.#host, context.length, [...context.past], saved, pace);
    });
  }

  /**
   * Frees the memory of the context, and ends a generation in it with an error. Further calls do
   * nothing.
   */
  dispose() {
    if (this.disposed) return;
    this.#disposed = true;
    const context = this.#context;
    context.line.end(disposedError());
    context.keeper = undefined;
    this.#host.alive().contexts.delete(context);
    void free(context);
  }

  /** For `using`. */
  [dispose]() {
    this.dispose();
  }

  #alive() {
    this.#host.alive();
    if (this.#disposed) throw disposedError();
    return this.#context;
  }
}

/**
 * Makes a context without tokens.
 * @param {Host} host
 * @param {ContextOptions} options
 * @returns {Promise<LlamaContext>}
 */
export async function openContext(host, options) {
  checkNames(options, ['contextLength']);
  const { settings } = host.alive();
  const { contextLength = settings.contextLength } = options;
  checkRange(contextLength, 'contextLength', { from: 1, to: settings.contextLength, integer: true });
  return new LlamaContext(host, await makeContext(host, contextLength));
}

/**
 * Makes a context from the bytes of another one.
 * @param {Host} host
 * @param {Uint8Array} bytes
 * @param {RestoreOptions} options
 * @returns {Promise<LlamaContext>}
 */
export async function restoreContext(host, bytes, options) {
  checkNames(options, ['contextLength', 'signal']);
  const { contextLength, signal } = options;
  const parts = host.alive();
  const most = parts.settings.contextLength;
  if (contextLength !== undefined)
    checkRange(contextLength, 'contextLength', { from: 1, to: most, integer: true });
  checkSignal(signal);
  signal?.throwIfAborted();
  const lease = new Lease('clear', 0, signal);
  const pace = new Pace(lease);
  try {
    const { readContext, lengthFor } = await import('./saved-context.js');
    const read = await readContext(parts, bytes, pace);
    pace.check();
    return await fill(host, lengthFor(read, contextLength, most), read.tokens, read.saved, pace);
  } finally {
    lease.end();
  }
}

/**
 * Makes a context of tokens whose caches and states are there.
 * @param {Host} host
 * @param {number} contextLength
 * @param {readonly number[]} tokens
 * @param {readonly import('../backend.js').Saved[]} saved
 * @param {Pace} pace
 */
async function fill(host, contextLength, tokens, saved, pace) {
  const { fillContext } = await import('./saved-context.js');
  const context = await makeContext(host, contextLength);
  const made = new LlamaContext(host, context);
  try {
    pace.check();
    await fillContext(context, tokens, saved, pace);
    host.alive();
    return made;
  } catch (error) {
    made.dispose();
    throw error;
  }
}

/**
 * @param {Host} host
 * @param {number} contextLength
 */
async function makeContext(host, contextLength) {
  const { backend, plan, settings } = host.alive();
  if (!settings.causal)
    throw new ModelError(
      `context: this ${plan.architecture} model embeds texts and writes none, as its attention is not causal; use embed`,
    );
  const own = { ...settings, contextLength };
  const { kvBytes: asked } = backend.sizes(plan, own);
  // Memory that a GPU does not have would be missed only later, by whatever computes then.
  if ((await backend.fits([asked])) < 1) {
    const { memoryBytes: inUse } = backend.info;
    throw new MemoryError(
      `the keys, values and states of another context take ${asked} bytes, for which there is no room beside the ${inUse} bytes in use`,
      { asked, inUse, limit: inUse },
    );
  }
  const { decoder, context: first, contexts } = host.alive();
  const remake = (/** @type {typeof decoder} */ of) => {
    of.turns.joined ??= new JoinedSteps(of);
    return of.another(own);
  };
  const context = new Context(remake(decoder), contextLength, remake);
  context.keeper = first.keeper;
  contexts.add(context);
  return context;
}

/**
 * Frees the memory of a context, on a device that queues its work after what was queued.
 * @param {Context} context
 */
async function free({ decoder }) {
  const { backend } = decoder;
  if (backend.ahead) {
    const lease = new Lease('clear', 0, undefined);
    // Whatever has failed is of no concern to this context any more.
    await decoder.turns.take(lease, () => backend.idle()).catch(() => {});
    lease.end();
  }
  if (!backend.disposed) decoder.free();
}

const disposedError = () => new HandleError('this context is disposed', 'disposed');
