/* What a model has read so far: the tokens whose keys and values are in the cache. */

/** @typedef {import('./decoder.js').Decoder} Decoder */
/** @typedef {import('./pause.js').Pace} Pace */

export class Context {
  #decoder;
  /** @type {number[]} */
  #past = [];
  #lastRow = 0;

  /**
   * @param {Decoder} decoder
   * @param {number} length  positions
   */
  constructor(decoder, length) {
    this.#decoder = decoder;
    this.length = length;
  }

  /** Positions left. */
  get room() {
    return this.length - this.#past.length;
  }

  /**
   * Goes back to where the context and `tokens` part, at least one token before their end.
   * @param {readonly number[]} tokens
   * @returns {number}  how many of them are in the context
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
   * Reads on, in batches.
   * @param {readonly number[]} tokens
   * @param {Pace} pace
   * @param {(start: number, nTokens: number, pace: Pace) => Promise<void>} [afterBatch]  counted from the first of `tokens`
   */
  async extend(tokens, pace, afterBatch) {
    const { batch } = this.#decoder;
    for (let start = 0; start < tokens.length; start += batch) {
      const some = tokens.slice(start, start + batch);
      await this.#decoder.forward(some, this.#past.length, pace);
      // Another call may have taken over meanwhile.
      pace.check();
      // Only now: a pass that was broken off is repeated.
      for (const token of some) this.#past.push(token);
      this.#lastRow = some.length - 1;
      if (afterBatch) await afterBatch(start, some.length, pace);
      else if (start + batch < tokens.length) await this.#decoder.idle();
      pace.check();
      if (pace.due) await pace.rest();
    }
  }

  /**
   * The logits after the last token.
   * @returns {Promise<Float32Array>}
   */
  logits() {
    return this.#decoder.logits(this.#lastRow, 1);
  }

  /**
   * The next token, as the sampler chooses it. It is no part of the context before extend reads it.
   * @param {import('../backend.js').TokenSampler} sampler
   */
  pick(sampler) {
    return this.#decoder.pick(this.#lastRow, this.#past.length, sampler);
  }
}
