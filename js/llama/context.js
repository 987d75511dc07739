/* The context of a model: the tokens whose keys and values are in the cache, and which the states of
 * recurrent layers have seen.
 *
 * On a device that chooses tokens by itself, some are in flight: the passes of tokens that nobody
 * has read yet are queued behind one another. They belong to the context only when they were read
 * and the next one is asked for. Otherwise they are dropped, and later tokens overwrite their keys
 * and values. States cannot forget a token: `rewind` tells where computing can go on.
 *
 * Where a device is lost, a keeper replaces it. The tokens are here, so they are computed again, and
 * the call that failed goes on. */

/** @typedef {import('./decoder.js').Choice} Choice */
/** @typedef {import('./decoder.js').Decoder} Decoder */
/** @typedef {import('./pause.js').Pace} Pace */

/**
 * Replaces the decoder of a model that owns its devices.
 * @typedef {object} Keeper
 * @property {(error: unknown, decoder: Decoder) => boolean} isLoss  Whether a decoder failed because
 *   its device is lost.
 * @property {(error: unknown, decoder: Decoder, nTokens: number, lease: import('./lease.js').Lease) =>
 *   Promise<Decoder>} replace  Gives another decoder, with an empty cache. nTokens: tokens of the
 *   context.
 */

export class Context {
  #decoder;
  /** @type {number[]} */
  #past = [];
  #lastRow = 0;
  /** The token that next() gave, which is not in the past yet. @type {number | undefined} */
  #given;
  /** Choices of the tokens after it; all but the last one are computed too. @type {Choice[]} */
  #flight = [];
  /** When the last token arrived. */
  #arrived = 0;
  /** Without it a lost device is an error. @type {Keeper | undefined} */
  keeper;

  /**
   * @param {Decoder} decoder
   * @param {number} length  number of positions
   */
  constructor(decoder, length) {
    this.#decoder = decoder;
    this.length = length;
  }

  /** Number of free positions. */
  get room() {
    return this.length - this.#past.length;
  }

  /**
   * Keeps the tokens that the context and `tokens` have in common at their start. At least the last
   * of `tokens` is not kept, as its logits are needed. Where layers have windows, none is kept if the
   * keys and values before the next token were overwritten; where they have states, as many as these
   * or their copies have seen.
   * @param {readonly number[]} tokens
   * @returns {number} how many of `tokens` are in the context
   */
  rewind(tokens) {
    this.#drop();
    const limit = Math.min(tokens.length - 1, this.#past.length);
    let same = 0;
    while (same < limit && this.#past[same] === tokens[same]) same += 1;
    const kept = this.#decoder.keeps(same);
    this.#past.length = kept;
    return kept;
  }

  clear() {
    this.#drop();
    this.#past.length = 0;
  }

  /**
   * Computes more tokens, in batches.
   * @param {readonly number[]} tokens
   * @param {Pace} pace
   * @param {(start: number, nTokens: number, decoder: Decoder) => Promise<void>} [afterBatch]  start:
   *   index of the batch's first token in `tokens`. It may be called again for the same tokens, with
   *   another decoder, if it fails
   */
  async extend(tokens, pace, afterBatch) {
    for (let start = 0; start < tokens.length; ) {
      const decoder = this.#decoder;
      const before = this.#past.length;
      const some = tokens.slice(start, start + decoder.batch);
      const end = start + some.length;
      try {
        await decoder.forward(some, before, pace);
        // Another call may have taken the model during the wait.
        pace.check();
        // The tokens are added after the pass, so that an aborted pass is repeated.
        for (const token of some) this.#past.push(token);
        this.#lastRow = some.length - 1;
        if (afterBatch) await afterBatch(start, some.length, decoder);
        else if (end < tokens.length) await decoder.idle();
      } catch (error) {
        await this.#recover(error, pace, before);
        continue;
      }
      pace.check();
      if (pace.due) await pace.rest();
      start = end;
    }
  }

  /** Whether next() waits for what extend() has only begun. */
  get queues() {
    return this.#decoder.queues;
  }

  /**
   * The next token, chosen by the sampler. The token of the call before joins the context.
   * @param {import('../backend.js').TokenSampler} sampler
   * @param {Pace} pace
   * @param {number} most  tokens that will be asked for, with this one
   * @returns {Promise<{ token: number, ms: number }>}  ms: its time, without pauses of the caller
   *   in which nothing was left to compute
   */
  async next(sampler, pace, most) {
    const since = performance.now();
    const given = this.#given;
    if (given !== undefined) {
      this.#given = undefined;
      if (this.#flight.length === 0) await this.extend([given], pace);
      else this.#past.push(given);
      // Another call may have taken the model during a wait, here and below.
      pace.check();
    }
    const { draws = 0 } = sampler;
    for (;;) {
      try {
        await this.#fill(sampler, pace, Math.min(this.#decoder.ahead(sampler) + 1, most));
        pace.check();
        const choice = /** @type {Choice} */ (this.#flight.shift());
        const { token, arrived } = await this.#decoder.token(choice, pace);
        // Another call may have taken the model during the wait.
        pace.check();
        this.#given = token;
        const start = Math.max(Math.min(since, choice.asked), this.#arrived);
        this.#arrived = arrived;
        return { token, ms: Math.max(0, arrived - start) };
      } catch (error) {
        await this.#recover(error, pace, this.#past.length);
        // The choice that was lost may have drawn a random number.
        sampler.rewind?.(draws);
      }
    }
  }

  /**
   * Computes the tokens again after a loss.
   * @param {unknown} error
   * @param {Pace} pace
   * @param {number} nTokens  that are kept
   * @throws {unknown} the error, if it is another one, or there is no other device
   */
  async #recover(error, pace, nTokens) {
    const { keeper } = this;
    if (!keeper?.isLoss(error, this.#decoder)) throw error;
    // Another call may have taken the model before the loss was noticed.
    pace.check();
    const past = this.#past.slice(0, nTokens);
    this.#drop();
    this.#past = [];
    const decoder = await keeper.replace(error, this.#decoder, nTokens, pace.lease);
    pace.check();
    this.#decoder = decoder;
    await this.extend(past, pace);
  }

  /**
   * Begins choices until there are so many.
   * @param {import('../backend.js').TokenSampler} sampler
   * @param {Pace} pace
   * @param {number} wanted
   */
  async #fill(sampler, pace, wanted) {
    const decoder = this.#decoder;
    const flight = this.#flight;
    if (flight.length === 0) flight.push(decoder.choose(this.#lastRow, this.#past.length, sampler));
    while (flight.length < wanted) {
      const position = this.#past.length + flight.length - 1;
      if (position >= this.length) break;
      await decoder.follow(position, pace);
      pace.check();
      flight.push(decoder.choose(0, position + 1, sampler));
    }
  }

  #drop() {
    this.#given = undefined;
    this.#flight = [];
  }
}
