/* One generation: an async iterator of pieces of text, and what there is to know about it. */

import { Pace } from './pause.js';
import { Sampler } from './sampler.js';
import { TextStream } from './text-stream.js';

/**
 * @typedef {object} GenerationStats  times in milliseconds
 * @property {number} promptTokens  of the whole prompt
 * @property {number} reusedTokens  of the prompt, whose keys and values were still there
 * @property {number} promptMs  until the prompt's last token had its logits
 * @property {number} promptTokensPerSecond  of the tokens that were computed
 * @property {number} timeToFirstToken  from the call to the first token
 * @property {number} tokens  generated
 * @property {number} decodeMs  for all but the first of them
 * @property {number} decodeTokensPerSecond  of the tokens after the first
 * @property {number} seed  of its random numbers: gives the same text again
 * @property {'stop' | 'end' | 'length' | 'context' | undefined} finishReason  a stop string, an end token, maxTokens, a full
 *   context; undefined before the end, and where it was broken off
 */

/**
 * What a generation needs of its model.
 * @typedef {object} Engine
 * @property {import('./context.js').Context} context
 * @property {(token: number, special?: boolean) => Uint8Array} bytes  of a control token none, unless special is true
 * @property {ReadonlySet<number>} ends  tokens
 * @property {() => void} done
 */

/** @typedef {ReturnType<typeof import('./options.js').checkGenerateOptions>} Options */

/** @implements {AsyncIterableIterator<string, GenerationStats, void>} */
export class Generation {
  /** The tokens generated so far. @type {number[]} */
  tokens = [];
  #promptTokens;
  #steps;
  #stats = { reused: 0, promptMs: 0, first: 0, decodeMs: 0 };
  /** @type {GenerationStats['finishReason']} */
  #finish;
  #options;

  /**
   * @hideconstructor
   * @param {readonly number[]} prompt
   * @param {Options} options
   * @param {() => Engine} open  called when the first piece is asked for
   */
  constructor(prompt, options, open) {
    this.#promptTokens = prompt.length;
    this.#options = options;
    this.#steps = this.#run(prompt, open);
  }

  /** So far; complete at the end. @returns {GenerationStats} */
  get stats() {
    const { reused, promptMs, first, decodeMs } = this.#stats;
    const perSecond = (/** @type {number} */ n, /** @type {number} */ ms) => (ms > 0 ? (1000 * n) / ms : 0);
    const nTokens = this.tokens.length;
    return {
      promptTokens: this.#promptTokens,
      reusedTokens: reused,
      promptMs,
      promptTokensPerSecond: perSecond(this.#promptTokens - reused, promptMs),
      timeToFirstToken: first,
      tokens: nTokens,
      decodeMs,
      decodeTokensPerSecond: perSecond(nTokens - 1, decodeMs),
      seed: this.#options.seed,
      finishReason: this.#finish,
    };
  }

  /** Itself: pieces of text. */
  [Symbol.asyncIterator]() {
    return this;
  }

  /** The next piece of text. @returns {Promise<IteratorResult<string, GenerationStats>>} */
  next() {
    return this.#steps.next();
  }

  /** Ends the generation. @returns {Promise<IteratorResult<string, GenerationStats>>} */
  async return() {
    return this.#steps.return(this.stats);
  }

  /** @param {unknown} error @returns {Promise<IteratorResult<string, GenerationStats>>} */
  throw(error) {
    return this.#steps.throw(error);
  }

  /** The whole text, once it is there. @returns {Promise<string>} */
  async text() {
    let text = '';
    for await (const piece of this) text += piece;
    return text;
  }

  /**
   * @param {readonly number[]} prompt
   * @param {() => Engine} open
   * @returns {AsyncGenerator<string, GenerationStats, void>}
   */
  async *#run(prompt, open) {
    const { maxTokens, stops, ignoreEnd, signal } = this.#options;
    signal?.throwIfAborted();
    const { context, bytes, ends, done } = open();
    try {
      const pace = new Pace(signal);
      const sampler = new Sampler(this.#options);
      const stream = new TextStream(stops);
      const stats = this.#stats;
      const start = performance.now();
      stats.reused = context.rewind(prompt);
      await context.extend(prompt.slice(stats.reused), pace);
      stats.promptMs = performance.now() - start;
      const history = [...prompt];
      // The time of whoever takes the pieces is not counted.
      for (let since = start; ; ) {
        signal?.throwIfAborted();
        const token = sampler.next(context.logits(), history);
        const took = performance.now() - since;
        if (this.tokens.length === 0) stats.first = took;
        else stats.decodeMs += took;
        const isEnd = !ignoreEnd && ends.has(token);
        if (!isEnd) {
          this.tokens.push(token);
          history.push(token);
        }
        const hidden = isEnd || bytes(token).length === 0;
        const piece = stream.push(bytes(token, hidden), hidden);
        if (piece) yield piece;
        if (isEnd) this.#finish = 'end';
        else if (stream.stopped) this.#finish = 'stop';
        else if (this.tokens.length >= maxTokens) this.#finish = 'length';
        else if (context.room < 1) this.#finish = 'context';
        if (this.#finish) break;
        since = performance.now();
        await context.extend([token], pace);
      }
      const rest = stream.end();
      if (rest) yield rest;
      return this.stats;
    } finally {
      done();
    }
  }
}
