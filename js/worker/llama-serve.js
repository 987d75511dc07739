/* The worker's side of a model in a worker: one model, its calls, and generations whose pieces are
 * sent as they are generated. */

import { HandleError } from '../errors.js';
import { makeFile } from '../gguf/open.js';
import { reopenSource } from '../gguf/source.js';
import { Llama } from '../llama/model.js';
import { packError, unpackError } from './errors.js';
import { RelayReader } from './relay.js';

/** @typedef {import('./scope.js').Post} Post */
/** @typedef {import('../llama/generation.js').Generation} Generation */

/** Milliseconds between two messages of progress. */
const PROGRESS_STEP = 33;
/**
 * Milliseconds between two messages with pieces: half a frame. A message for each piece would slow
 * a fast model down.
 */
const PIECES_STEP = 8;

/**
 * A running generation: the number of the call that runs it, how many more pieces may be sent, whether
 * its reader has left, and a function that wakes its loop.
 * @typedef {{ id: number, credit: number, left: boolean, wake: () => void }} Running
 */

/**
 * A generation, with the number of the call that made it, whose signal ends it, and of its context, if
 * it is a further one.
 * @typedef {{ generation: Generation, opened: number, context?: number, running?: Running }} Entry
 */

export class LlamaServer {
  #post;
  /** @type {Llama | undefined} */
  #model;
  /** Calls that are not answered yet. @type {Map<number, AbortController>} */
  #active = new Map();
  /** Generations that have not ended. @type {Map<number, Entry>} */
  #generations = new Map();
  #lastGeneration = 0;
  /** Further contexts. @type {Map<number, import('../llama/llama-context.js').LlamaContext>} */
  #contexts = new Map();
  #lastContext = 0;
  #relay;

  /** @param {Post} post */
  constructor(post) {
    this.#post = post;
    this.#relay = new RelayReader((message, transfer) => post(message, transfer));
  }

  /** @param {any} message */
  receive(message) {
    const { kind, id, generation, count } = message;
    const entry = this.#generations.get(generation);
    const running = entry?.running;
    if (kind === 'abort') this.#active.get(id)?.abort();
    else if (kind === 'chunk') this.#relay.receive(message);
    else if (kind === 'cancel' && entry) {
      entry.generation.cancel();
      if (running) running.left = true;
      else this.#drop(generation, entry);
    } else if (kind === 'stop') this.#stop(generation, message.context);
    else if (kind === 'more' && running) running.credit += count;
    else if (id !== undefined) this.#serve(message);
    running?.wake();
  }

  /** @param {any} message */
  async #serve(message) {
    const { kind, id } = message;
    const controller = new AbortController();
    const { signal } = controller;
    this.#active.set(id, controller);
    try {
      if (kind === 'create') await this.#create(message, signal);
      else if (kind === 'open') await this.#open(message, signal);
      else if (kind === 'run') await this.#run(message);
      else if (kind === 'context') await this.#inContext(message, signal);
      else await this.#call(message, signal);
      // The call that opened a generation stays active, so that its abort ends the generation.
      if (kind !== 'open') this.#active.delete(id);
    } catch (error) {
      this.#active.delete(id);
      this.#post({ id, error: packError(error) });
    }
  }

  /**
   * Stops a generation, or the one that has the model or a context. Its last pieces are sent, asked for
   * or not.
   * @param {number | undefined} number
   * @param {number | undefined} context
   */
  #stop(number, context) {
    if (context !== undefined) this.#contexts.get(context)?.stop();
    else if (number === undefined) this.#model?.stop();
    else this.#generations.get(number)?.generation.stop();
    for (const { generation, running } of this.#generations.values()) {
      if (!running || generation.stats.finishReason !== 'stopped') continue;
      running.credit = Number.POSITIVE_INFINITY;
      running.wake();
    }
  }

  /** Forgets a generation that has ended. @param {number} number @param {Entry} entry */
  #drop(number, { opened }) {
    this.#generations.delete(number);
    this.#active.delete(opened);
  }

  /** @param {any} message @param {AbortSignal} signal */
  async #create({ id, adapters, options, progress, ...model }, signal) {
    let last = -Infinity;
    const onProgress = (/** @type {{ loaded: number, total: number }} */ step) => {
      const now = performance.now();
      if (now - last < PROGRESS_STEP && step.loaded < step.total) return;
      last = now;
      this.#post({ kind: 'progress', id, progress: step });
    };
    const sourceIn = async (/** @type {any} */ { opened, source }) =>
      opened ? this.#reopen(opened) : source;
    const file = await sourceIn(model);
    const given = {
      ...{ ...options, signal, ...(progress && { onProgress }) },
      ...(adapters && {
        adapters: await Promise.all(
          adapters.map(async (/** @type {any} */ one) => ({ source: await sourceIn(one), scale: one.scale })),
        ),
      }),
    };
    this.#model = await Llama.load(file, given);
    this.#post({ id, value: this.#model.info });
  }

  /**
   * Opens a file that the caller has opened, or that only the caller can read.
   * @param {any} opened
   */
  async #reopen({ recipe, relay, name, size, header, parts }) {
    const bytes = recipe
      ? await reopenSource(recipe)
      : this.#relay.source(relay, { name, size }, (error) => unpackError(error));
    return makeFile(bytes, header, parts);
  }

  /** @param {any} message @param {AbortSignal} signal */
  async #call({ id, method, args, abortable }, signal) {
    const model = /** @type {any} */ (this.#ready());
    const given = abortable ? [...args.slice(0, -1), { ...args.at(-1), signal }] : args;
    const value = await model[method](...given);
    const views = [value].flat().filter((one) => ArrayBuffer.isView(one));
    this.#post(
      { id, value },
      views.map(({ buffer }) => /** @type {ArrayBuffer} */ (buffer)),
    );
  }

  /**
   * A call that makes a context, or of a context.
   * @param {any} message
   * @param {AbortSignal} signal
   */
  async #inContext({ id, method, context, args, abortable }, signal) {
    const given = abortable ? [...args.slice(0, -1), { ...args.at(-1), signal }] : args;
    let value = await /** @type {any} */ (this.#at(context))[method](...given);
    let tokens;
    if (method === 'dispose') this.#contexts.delete(context);
    else if (context !== undefined) tokens = this.#contexts.get(context)?.tokens;
    if (['context', 'restoreContext', 'fork'].includes(method)) {
      this.#contexts.set(++this.#lastContext, value);
      const { contextLength } = value;
      value = { context: this.#lastContext, contextLength, tokens: value.tokens };
    }
    const transfer = value instanceof Uint8Array ? [/** @type {ArrayBuffer} */ (value.buffer)] : [];
    this.#post({ id, value: { value, tokens, info: this.#ready().info } }, transfer);
  }

  /** The model, or one of its contexts. @param {number | undefined} number */
  #at(number) {
    if (number === undefined) return this.#ready();
    const context = this.#contexts.get(number);
    if (!context) throw new HandleError('this context is disposed', 'disposed');
    return context;
  }

  /** @param {any} message @param {AbortSignal} signal */
  async #open({ id, method, context, input, options, progress }, signal) {
    const model = this.#at(context);
    /** @type {Entry | undefined} */
    let entry;
    if (progress) {
      options.onProgress = (/** @type {object} */ step) =>
        this.#post({ kind: 'progress', id: entry?.running?.id, progress: step });
    }
    const generation = await model[/** @type {'generate' | 'chat'} */ (method)](input, {
      ...options,
      signal,
    });
    entry = { generation, opened: id, context };
    this.#generations.set(++this.#lastGeneration, entry);
    const { droppedMessages } = generation;
    this.#post({ id, value: { generation: this.#lastGeneration, droppedMessages } });
  }

  /** @param {any} message */
  async #run({ id, generation: number }) {
    const entry = this.#generations.get(number);
    if (!entry) throw new Error('this generation has ended');
    const { generation, opened } = entry;
    const { signal } = /** @type {AbortController} */ (this.#active.get(opened));
    /** @type {Running} */
    const running = { id, credit: 0, left: false, wake: () => {} };
    entry.running = running;
    let sent = 0;
    let last = -Infinity;
    /** @type {string[]} */
    let pieces = [];
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const send = () => {
      clearTimeout(timer);
      timer = undefined;
      const [tokens, logprobs] = [generation.tokens.slice(sent), generation.logprobs.slice(sent)];
      this.#post({ kind: 'pieces', id, pieces, tokens, logprobs, stats: generation.stats });
      sent = generation.tokens.length;
      last = performance.now();
      pieces = [];
    };
    try {
      for (;;) {
        while (running.credit === 0 && !running.left && !signal.aborted)
          await new Promise((resolve) => {
            running.wake = () => resolve(undefined);
            signal.addEventListener('abort', running.wake, { once: true });
          });
        const { done, value } = await (running.left ? generation.return() : generation.next());
        if (done) break;
        running.credit--;
        pieces.push(value);
        if (performance.now() - last >= PIECES_STEP) send();
        else timer ??= setTimeout(send, PIECES_STEP);
      }
      send();
      const context = this.#contexts.get(entry.context ?? 0);
      this.#post({ id, value: { info: this.#ready().info, tokens: context?.tokens } });
    } catch (error) {
      send();
      throw error;
    } finally {
      this.#drop(number, entry);
    }
  }

  #ready() {
    if (!this.#model) throw new Error('there is no model yet');
    return this.#model;
  }
}
