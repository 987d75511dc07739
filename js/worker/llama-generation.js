/* A generation that runs in a worker: an async iterator of pieces of text, as Generation is in this thread. */

/** @typedef {import('../llama/generation.js').GenerationStats} GenerationStats */

/**
 * What a generation needs of its connection.
 * @typedef {object} Link
 * @property {() => Promise<number>} open  the number of the generation in the worker
 * @property {(generation: number, onEvent: (message: any) => void) => Promise<void>} run  settles when it has ended
 * @property {(generation: number, count: number) => void} more  asks for so many more pieces
 * @property {(generation: number) => void} stop  ends it; what was written stays
 */

/** Pieces that are asked for at a time: the worker waits for a reader that is slower. */
const PIECES = 64;

/** @implements {AsyncIterableIterator<string, GenerationStats, void>} */
export class WorkerGeneration {
  /** The tokens generated so far. @type {number[]} */
  tokens = [];
  /** How many of the oldest messages of a conversation were left out to make room, with `overflow: 'drop-oldest'`. */
  droppedMessages = 0;
  #link;
  /** @type {GenerationStats} */
  #stats;
  /** Pieces that have come and were not read yet. @type {string[]} */
  #pieces = [];
  #written = '';
  #toCome = 0;
  #generation = 0;
  /** @type {Promise<void> | undefined} */
  #running;
  #ended = false;
  /** @type {{ reason: unknown } | undefined} */
  #failure;
  /** Wakes the reader. @type {() => void} */
  #wake = () => {};

  /**
   * @hideconstructor
   * @param {Link} link
   * @param {number} seed
   */
  constructor(link, seed) {
    this.#link = link;
    this.#stats = {
      promptTokens: 0,
      reusedTokens: 0,
      promptMs: 0,
      promptTokensPerSecond: 0,
      timeToFirstToken: 0,
      tokens: 0,
      decodeMs: 0,
      decodeTokensPerSecond: 0,
      seed,
      finishReason: undefined,
    };
  }

  /** The numbers so far; complete at the end. @returns {GenerationStats} */
  get stats() {
    return { ...this.#stats };
  }

  /** Returns itself: the pieces of text. */
  [Symbol.asyncIterator]() {
    return this;
  }

  /** Reads the next piece of text. @returns {Promise<IteratorResult<string, GenerationStats>>} */
  async next() {
    this.#running ??= this.#run();
    while (this.#pieces.length === 0 && !this.#ended) {
      await new Promise((resolve) => {
        this.#wake = () => resolve(undefined);
      });
    }
    const piece = this.#pieces.shift();
    if (piece === undefined) {
      if (this.#failure) throw this.#failure.reason;
      return { done: true, value: this.stats };
    }
    if (!this.#ended && --this.#toCome <= PIECES / 2) this.#ask(PIECES / 2);
    return { done: false, value: piece };
  }

  /** Ends the generation. @returns {Promise<IteratorResult<string, GenerationStats>>} */
  async return() {
    if (this.#running && !this.#ended) {
      this.#link.stop(this.#generation);
      await this.#running;
    }
    this.#running ??= Promise.resolve();
    this.#ended = true;
    this.#pieces = [];
    return { done: true, value: this.stats };
  }

  /** Ends the generation with an error of the reader. @param {unknown} error @returns {Promise<IteratorResult<string, GenerationStats>>} */
  async throw(error) {
    await this.return();
    throw error;
  }

  /** Ends the generation, for callers that do not wait. */
  cancel() {
    void this.return();
  }

  /** The text so far, in whole pieces that have come from the worker. It stays after an error or an abort, as `tokens` and `stats` do. */
  get written() {
    return this.#written;
  }

  /**
   * Reads to the end and gives the whole text, including pieces that were read before; may be called again. After an error or an abort
   * it rejects, and the text until then is in `written`.
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
      this.#generation = await this.#link.open();
      const ended = this.#link.run(this.#generation, (message) => this.#receive(message));
      this.#ask(PIECES);
      await ended;
    } catch (reason) {
      this.#failure = { reason };
    } finally {
      this.#ended = true;
      this.#wake();
    }
  }

  /** @param {number} count */
  #ask(count) {
    this.#toCome += count;
    this.#link.more(this.#generation, count);
  }

  /** @param {{ piece?: string, tokens?: number[], stats?: GenerationStats }} message */
  #receive({ piece, tokens = [], stats }) {
    for (const token of tokens) this.tokens.push(token);
    if (stats) this.#stats = stats;
    if (piece === undefined) return;
    this.#pieces.push(piece);
    this.#written += piece;
    this.#wake();
  }
}
