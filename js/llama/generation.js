/* A generation: an async iterator of pieces of text, with its statistics. */

import { GIVEN_BACK } from './lease.js';
import { Pace } from './pause.js';
import { Sampler } from './sampler.js';
import { TextStream } from './text-stream.js';

/**
 * @typedef {object} GenerationStats  Numbers of a generation; times in milliseconds
 * @property {number} promptTokens  Tokens of the whole prompt.
 * @property {number} reusedTokens  Tokens of the prompt that were in the context already.
 * @property {number} promptMs  Time until the first token was chosen from the logits of the prompt.
 * @property {number} promptTokensPerSecond  Speed of the prompt, counting the tokens that were
 *   computed.
 * @property {number} timeToFirstToken  Time from the first read to the first token, with the wait for
 *   other calls.
 * @property {number} tokens  Tokens generated.
 * @property {number} decodeMs  Time for all generated tokens but the first.
 * @property {number} decodeTokensPerSecond  Speed of the tokens after the first.
 * @property {number} draftedTokens  Tokens that were computed as drafts, with the option `speculate`.
 * @property {number} acceptedTokens  Drafts that were the tokens of the text.
 * @property {'device' | 'recurrent' | 'memory' | undefined} notDrafted  Why there are no drafts although
 *   they were asked for: the device computes none, a recurrent layer cannot forget wrong ones, or there
 *   is no memory for their logits.
 * @property {number} seed  Seed of the random numbers; it gives the same text again.
 * @property {'stop' | 'end' | 'length' | 'context' | 'stopped' | undefined} finishReason  Why it
 *   ended: at a stop string, at an end token, after maxTokens, with a full context, or by `stop()`.
 *   Undefined before the end, and if the generation was aborted, cancelled, left or failed.
 */

/**
 * The parts of a model that a generation uses.
 * @typedef {object} Engine
 * @property {import('./context.js').Context} context
 * @property {import('./tokenizer/tokenizer.js').Tokenizer} tokenizer
 * @property {(token: number, special?: boolean) => Uint8Array} bytes  Bytes of a token. Control
 *   tokens have none unless special is true.
 * @property {ReadonlySet<number>} ends  Tokens that end the text.
 * @property {import('./lease.js').Lease} lease
 */

/** @typedef {ReturnType<typeof import('./options.js').checkGenerateOptions>} Options */

/**
 * Generates a text, piece by piece. It takes the model when the first piece is read. The model is
 * free again at the end of the text, after an error or an abort, when a `for await` loop is left,
 * and after `stop()`, `return()`, `throw()` or `cancel()`: at once, whether or not anybody reads on.
 * @implements {AsyncIterableIterator<string, GenerationStats, void>}
 */
export class Generation {
  /** Tokens generated so far. @type {number[]} */
  tokens = [];
  /**
   * Log probabilities of the tokens, in the same order; empty without the option `logprobs`.
   * @type {import('./hooked-sampler.js').TokenLogprob[]}
   */
  logprobs = [];
  /**
   * Number of messages left out at the start of the conversation, with `overflow: 'drop-oldest'`.
   */
  droppedMessages = 0;
  #prompt;
  #steps;
  #open;
  #written = '';
  /** Undefined before the prompt is computed. @type {TextStream | undefined} */
  #stream;
  #stats = { reused: 0, promptMs: 0, first: 0, decodeMs: 0 };
  /** @type {import('./speculation.js').Speculation | undefined} */
  #speculation;
  /** @type {GenerationStats['finishReason']} */
  #finish;
  #options;
  /** Undefined before the first read. @type {Engine | undefined} */
  #engine;
  #left = false;
  /** The error that ended the generation. @type {{ error: unknown } | undefined} */
  #failure;

  /**
   * @hideconstructor
   * @param {readonly number[]} prompt
   * @param {Options} options
   * @param {(owner: Generation) => Engine} open  takes the model, or throws
   */
  constructor(prompt, options, open) {
    this.#prompt = prompt;
    this.#options = options;
    this.#open = open;
    this.#steps = this.#run();
  }

  /** Statistics so far; complete at the end. @returns {GenerationStats} */
  get stats() {
    const { reused, promptMs, first, decodeMs } = this.#stats;
    const perSecond = (/** @type {number} */ n, /** @type {number} */ ms) => (ms > 0 ? (1000 * n) / ms : 0);
    const nPrompt = this.#prompt.length;
    const nTokens = this.tokens.length;
    return {
      promptTokens: nPrompt,
      reusedTokens: reused,
      promptMs,
      promptTokensPerSecond: perSecond(nPrompt - reused, promptMs),
      timeToFirstToken: first,
      tokens: nTokens,
      decodeMs,
      decodeTokensPerSecond: perSecond(nTokens - 1, decodeMs),
      draftedTokens: this.#speculation?.drafted ?? 0,
      acceptedTokens: this.#speculation?.accepted ?? 0,
      notDrafted: this.#speculation?.off,
      seed: this.#options.seed,
      finishReason: this.#finish,
    };
  }

  /**
   * The text so far: all pieces that were read. It stays after an error or an abort, as `tokens`
   * and `stats` do.
   */
  get written() {
    return this.#written;
  }

  /** Returns the generation itself. */
  [Symbol.asyncIterator]() {
    return this;
  }

  /**
   * Reads the next piece of text. If the model is busy, the read may be repeated later.
   * @returns {Promise<IteratorResult<string, GenerationStats>>}
   * @throws {import('./errors.js').BusyError} another call uses the model
   * @throws {import('./errors.js').NumericError} a computed number is NaN, infinite or too large
   *   for the KV cache
   * @throws {import('../gpu/errors.js').GpuError} the GPU is lost, and its kernels were given or the
   *   model cannot be loaded again
   */
  async next() {
    const isOver = this.#left || this.#finish || this.#options.signal?.aborted;
    if (!this.#engine && !isOver) this.#engine = this.#open(this);
    return this.#steps.next();
  }

  /**
   * Ends the text where it is. It stays, and nothing is rejected: a reading loop ends after the
   * pieces that are written, `text()` resolves with them, and `stats.finishReason` is 'stopped'. The
   * model is free when stop() returns. After the end it does nothing.
   */
  stop() {
    const { signal } = this.#options;
    if (this.#finish || this.#left || this.#failure || signal?.aborted) return;
    if (this.#engine && !this.#engine.lease.held) return;
    this.#finish = 'stopped';
    this.#engine?.lease.end();
  }

  /**
   * Ends the generation and frees the model at once. A pending read finishes without a piece.
   * @returns {Promise<IteratorResult<string, GenerationStats>>}
   */
  async return() {
    this.#leave();
    return this.#steps.return(this.stats);
  }

  /**
   * Ends the generation like return(), but rejects with the error.
   * @param {unknown} error
   * @returns {Promise<IteratorResult<string, GenerationStats>>}
   */
  async throw(error) {
    if (!this.#finish) this.#failure ??= { error };
    this.#leave();
    return this.#steps.throw(error);
  }

  /**
   * Ends the generation like return(), without a promise: the model is free when cancel() returns.
   */
  cancel() {
    void this.return();
  }

  /**
   * Reads to the end and returns the whole text, including pieces that were read before; may be
   * called again. For a generation that was left or cancelled, this is the text up to then. If it
   * failed or was aborted, the promise is rejected with the error, and the text up to then is in
   * `written`.
   * @returns {Promise<string>}
   */
  async text() {
    while (!(await this.next()).done);
    if (this.#failure) throw this.#failure.error;
    return this.#written;
  }

  #leave() {
    this.#left = true;
    this.#engine?.lease.end();
  }

  /** @returns {AsyncGenerator<string, GenerationStats, void>} */
  async *#run() {
    try {
      if (this.#finish !== 'stopped') this.#options.signal?.throwIfAborted();
      if (this.#engine) yield* this.#write(this.#engine);
    } catch (error) {
      // A generation that was left or stopped during a pending read has not failed, whatever becomes
      // of the read.
      if (error !== GIVEN_BACK && this.#finish !== 'stopped') {
        this.#failure ??= { error };
        throw error;
      }
    } finally {
      this.#engine?.lease.end();
    }
    const rest = this.#finish ? (this.#stream?.end() ?? '') : '';
    this.#written += rest;
    if (rest) yield rest;
    return this.stats;
  }

  /**
   * The sampler of this generation; where it sees all logits also the list of all tokens, to which
   * those that are chosen must be added.
   * @param {Engine} engine
   * @returns {Promise<{ sampler: Sampler & Partial<import('./hooked-sampler.js').HookedSampler>,
   *   all?: number[] }>}
   */
  async #sampler({ tokenizer, bytes, lease }) {
    const { logits: hook, logprobs: nTop, responseFormat, grammar } = this.#options;
    const isFormed = responseFormat !== undefined || grammar !== undefined;
    const { suppressed } = tokenizer;
    if (!hook && nTop === undefined && !isFormed && suppressed.length === 0)
      return { sampler: new Sampler(this.#options) };
    const { HookedSampler } = await import('./hooked-sampler.js');
    const structured = isFormed ? await import('./structured/index.js') : undefined;
    const mask = await structured?.followGrammar({ responseFormat, grammar }, tokenizer, lease);
    const all = [...this.#prompt];
    const rule = (/** @type {Float32Array} */ row) => {
      mask?.apply(row, this.tokens);
      for (const id of suppressed) row[id] = Number.NEGATIVE_INFINITY;
    };
    return { sampler: new HookedSampler(this.#options, { hook, rule, tokens: all, nTop, bytes }), all };
  }

  /** @param {Engine} engine @returns {AsyncGenerator<string, void, void>} */
  async *#write(engine) {
    const { context, bytes, ends, lease } = engine;
    const { maxTokens, stops, ignoreEnd, showTokens, onProgress, speculate } = this.#options;
    const total = this.#prompt.length;
    const asked = performance.now();
    if (lease.turn) await lease.turn;
    lease.check();
    const { sampler, all } = await this.#sampler(engine);
    if (speculate) this.#speculation = new (await import('./speculation.js')).Speculation(this.#prompt);
    lease.check();
    const start = performance.now();
    const pace = new Pace(lease);
    const stream = new TextStream(stops);
    this.#stream = stream;
    const stats = this.#stats;
    stats.reused = context.rewind(this.#prompt);
    const report = (/** @type {number} */ nTokens) =>
      onProgress?.({ phase: 'prompt', done: stats.reused + nTokens, total });
    const rest = this.#prompt.slice(stats.reused);
    await context.begin(rest, pace, report);
    lease.check();
    // The reader's time between two pieces is not counted, unless tokens are computed in it.
    for (;;) {
      const left = maxTokens - this.tokens.length;
      const { token, ms } = await context.next(sampler, pace, left, this.#speculation);
      lease.check();
      if (this.tokens.length > 0) stats.decodeMs += ms;
      else {
        const now = performance.now();
        stats.first = now - asked;
        stats.promptMs = now - start;
        report(rest.length);
      }
      const isEnd = !ignoreEnd && ends.has(token);
      if (!isEnd) {
        this.tokens.push(token);
        all?.push(token);
        if (sampler.last) this.logprobs.push(sampler.last);
      }
      let hidden = isEnd || bytes(token).length === 0;
      if (hidden && !isEnd && showTokens.length > 0)
        hidden = !showTokens.includes(new TextDecoder().decode(bytes(token, true)));
      const piece = stream.push(bytes(token, true), hidden);
      this.#written += piece;
      if (isEnd) this.#finish = 'end';
      else if (stream.stopped) this.#finish = 'stop';
      else if (this.tokens.length >= maxTokens) this.#finish = 'length';
      else if (context.room < 1) this.#finish = 'context';
      // The last piece frees the model, even if the reader does not read to the end.
      if (this.#finish) lease.end();
      if (piece) yield piece;
      if (this.#finish) return;
      lease.check();
    }
  }
}
