/* The context of a model: the tokens whose keys and values are in the cache. */

/** @typedef {import('./decoder.js').Decoder} Decoder */
/** @typedef {import('./pause.js').Pace} Pace */

export class Context {
  #decoder;
  /** @type {number[]} */
  #past = [];
  #lastRow = 0;

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
   * of `tokens` is not kept, as its logits are needed.
   * @param {readonly number[]} tokens
   * @returns {number} how many of `tokens` are in the context
   */
  rewind(tokens) {
    const limit = Math.min(tokens.length - 1, this.#past.length);
    let same = 0;
    while (same < limit && this.#past[same] === tokens[same]) same += 1;
    this.#past.length = same;
    return same;
  }

  clear() {
    this.#past.length = 0;
  }

  /**
   * Computes more tokens, in batches.
   * @param {readonly number[]} tokens
   * @param {Pace} pace
   * @param {(start: number, nTokens: number, pace: Pace) => Promise<void>} [afterBatch]  start:
   *   index of the batch's first token in `tokens`
   */
  async extend(tokens, pace, afterBatch) {
    const { batch } = this.#decoder;
    for (let start = 0; start < tokens.length; start += batch) {
      const some = tokens.slice(start, start + batch);
      await this.#decoder.forward(some, this.#past.length, pace);
      // Another call may have taken the model during the wait.
      pace.check();
      // The tokens are added after the pass, so that an aborted pass is repeated.
      for (const token of some) this.#past.push(token);
      this.#lastRow = some.length - 1;
      if (afterBatch) await afterBatch(start, some.length, pace);
      else if (start + batch < tokens.length) await this.#decoder.idle();
      pace.check();
      if (pace.due) await pace.rest();
    }
  }

  /**
   * Reads the logits after the last token.
   * @returns {Promise<Float32Array>}
   */
  logits() {
    return this.#decoder.logits(this.#lastRow, 1);
  }

  /**
   * Chooses the next token with the sampler. It joins the context only when extend computes it.
   * @param {import('../backend.js').TokenSampler} sampler
   */
  pick(sampler) {
    return this.#decoder.pick(this.#lastRow, this.#past.length, sampler);
  }
}
