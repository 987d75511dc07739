/* A generation in a worker: an async iterator of pieces of text, like Generation in this thread. */

/** @typedef {import('../llama/generation.js').GenerationStats} GenerationStats */

/**
 * The calls that a generation makes to its worker.
 * @typedef {object} Link
 * @property {() => Promise<number>} open  Makes the generation in the worker and returns its number
 *   there.
 * @property {(generation: number, onPieces: (message: any) => void) => Promise<void>} run  Settles
 *   when the generation has ended.
 * @property {(generation: number, count: number) => void} more  Asks for this many more pieces.
 * @property {(generation: number) => void} stop  Ends the text where it is; its last pieces are sent.
 * @property {(generation: number) => void} cancel  Ends the generation; nothing more is sent.
 * @property {() => boolean} isAborted  Whether the signal of the generation is aborted.
 */

/** Number of pieces that are asked for at a time, so that the worker waits for a slow reader. */
const PIECES = 64;

/** @implements {AsyncIterableIterator<string, GenerationStats, void>} */
export class WorkerGeneration {
  /** Tokens generated so far. @type {number[]} */
  tokens = [];
  /**
   * Log probabilities of the tokens, in the same order; empty without the option `logprobs`.
   * @type {import('../llama/hooked-sampler.js').TokenLogprob[]}
   */
  logprobs = [];
  /**
   * Number of messages left out at the start of the conversation, with `overflow: 'drop-oldest'`.
   */
  droppedMessages = 0;
  #link;
  /** @type {GenerationStats} */
  #stats;
  /** Pieces received and not read yet. @type {string[]} */
  #pieces = [];
  #written = '';
  #toCome = 0;
  /** Number of the generation in the worker; 0 before it is made there. */
  #generation;
  /** @type {Promise<void> | undefined} */
  #running;
  #ended = false;
  /** Whether the reader has left the generation. */
  #left = false;
  #stopped = false;
  /** @type {{ reason: unknown } | undefined} */
  #failure;
  /** Callbacks of readers that wait for a piece or the end. @type {(() => void)[]} */
  #waiting = [];

  /**
   * @hideconstructor
   * @param {Link} link
   * @param {number} seed
   * @param {number} [generation]  its number in the worker, if it is made already
   */
  constructor(link, seed, generation = 0) {
    this.#link = link;
    this.#generation = generation;
    this.#stats = {
      promptTokens: 0,
      reusedTokens: 0,
      promptMs: 0,
      promptTokensPerSecond: 0,
      timeToFirstToken: 0,
      tokens: 0,
      decodeMs: 0,
      decodeTokensPerSecond: 0,
      draftedTokens: 0,
      acceptedTokens: 0,
      notDrafted: undefined,
      seed,
      finishReason: undefined,
    };
  }

  /** Statistics so far; complete at the end. @returns {GenerationStats} */
  get stats() {
    return { ...this.#stats };
  }

  /** Returns the generation itself. */
  [Symbol.asyncIterator]() {
    return this;
  }

  /** Reads the next piece of text. @returns {Promise<IteratorResult<string, GenerationStats>>} */
  async next() {
    this.#running ??= this.#run();
    while (this.#pieces.length === 0 && !this.#ended)
      await new Promise((resolve) => this.#waiting.push(() => resolve(undefined)));
    const piece = this.#pieces.shift();
    if (piece === undefined) {
      if (this.#failure) throw this.#failure.reason;
      return { done: true, value: this.stats };
    }
    if (!this.#ended && --this.#toCome <= PIECES / 2) this.#ask(PIECES / 2);
    return { done: false, value: piece };
  }

  /**
   * Ends the text where it is. It stays, and nothing is rejected: a reading loop ends after the
   * pieces that are written, `text()` resolves with them, and `stats.finishReason` is 'stopped' then.
   * The model is free for the next call. After the end it does nothing.
   */
  stop() {
    if (this.#ended || this.#left || this.#stopped || this.#link.isAborted()) return;
    this.#stopped = true;
    if (this.#running) {
      if (this.#generation) this.#link.stop(this.#generation);
      return;
    }
    if (this.#generation) this.#link.cancel(this.#generation);
    this.#running = Promise.resolve();
    this.#endEarly();
  }

  /** Ends the generation. @returns {Promise<IteratorResult<string, GenerationStats>>} */
  async return() {
    this.#left = true;
    if (this.#generation && !this.#ended) this.#link.cancel(this.#generation);
    await this.#running;
    this.#running = Promise.resolve();
    this.#end();
    this.#pieces = [];
    return { done: true, value: this.stats };
  }

  /**
   * Ends the generation and rejects with the error.
   * @param {unknown} error
   * @returns {Promise<IteratorResult<string, GenerationStats>>}
   */
  async throw(error) {
    await this.return();
    throw error;
  }

  /** Ends the generation like return(), without a promise. */
  cancel() {
    void this.return();
  }

  /**
   * The text so far: all pieces received from the worker. It stays after an error or an abort, as
   * `tokens` and `stats` do.
   */
  get written() {
    return this.#written;
  }

  /**
   * Reads to the end and returns the whole text, including pieces that were read before; may be
   * called again. After an error or an abort the promise is rejected, and the text up to then is in
   * `written`.
   * @returns {Promise<string>}
   */
  async text() {
    for (;;) {
      const { done } = await this.next();
      if (done) return this.#written;
    }
  }

  async #run() {
    try {
      this.#generation ||= await this.#link.open();
      // The reader left or stopped it while it was being made.
      if (this.#left || this.#stopped) {
        this.#link.cancel(this.#generation);
        if (this.#stopped) this.#endEarly();
        return;
      }
      const ended = this.#link.run(this.#generation, (message) => this.#receive(message));
      this.#ask(PIECES);
      await ended;
    } catch (reason) {
      // A generation that was stopped has not failed, whatever becomes of its beginning.
      if (this.#stopped) this.#stats.finishReason = 'stopped';
      else if (!this.#left) this.#failure = { reason };
    } finally {
      this.#end();
    }
  }

  /** Ends a generation that is stopped before it has begun. */
  #endEarly() {
    this.#stats.finishReason = 'stopped';
    this.#end();
  }

  #end() {
    this.#ended = true;
    this.#wake();
  }

  #wake() {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** @param {number} count */
  #ask(count) {
    this.#toCome += count;
    this.#link.more(this.#generation, count);
  }

  /**
   * @param {{ pieces: string[], tokens: number[], stats: GenerationStats,
   *   logprobs: import('../llama/hooked-sampler.js').TokenLogprob[] }} message
   */
  #receive({ pieces, tokens, stats, logprobs }) {
    this.tokens.push(...tokens);
    this.logprobs.push(...logprobs);
    this.#stats = stats;
    this.#pieces.push(...pieces);
    this.#written += pieces.join('');
    this.#wake();
  }
}
