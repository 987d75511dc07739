/* A context of a model: the tokens whose keys and values are in the cache, and which the states of
 * recurrent layers have seen.
 *
 * On a device that chooses tokens by itself, some are in flight: the passes of tokens that nobody
 * has read yet are queued behind one another. They belong to the context only when they were read
 * and the next one is asked for. Otherwise they are dropped, and later tokens overwrite their keys
 * and values. States cannot forget a token: `rewind` tells where computing can go on.
 *
 * Where a device is lost, a keeper replaces it. The tokens are here, so they are computed again, and
 * the call that failed goes on.
 *
 * Several contexts of a model take turns: for a batch, or for a pass and the choices after it, which
 * need its hidden states. Where the device can, they compute single tokens together. */

import { Lease, Line } from './lease.js';
import { checkSignal, checkSwitch } from './options.js';
import { Pace } from './pause.js';

/** @typedef {import('./decoder.js').Choice} Choice */
/** @typedef {import('./decoder.js').Decoder} Decoder */

/**
 * Replaces the decoder of a model that owns its devices.
 * @typedef {object} Keeper
 * @property {(error: unknown, decoder: Decoder) => boolean} isLoss  Whether a decoder failed because
 *   its device is lost.
 * @property {(error: unknown, decoder: Decoder, nTokens: number, lease: import('./lease.js').Lease) =>
 *   Promise<Decoder>} replace  Gives the decoder of the model's first context on another device, with
 *   an empty cache. nTokens: tokens of the context.
 */

export class Context {
  #decoder;
  #remake;
  /** @type {number[]} */
  #past = [];
  /** Tokens to be computed before the next choice. @type {number[]} */
  #due = [];
  #lastRow = 0;
  /** The token that next() gave, which is not in the past yet. @type {number | undefined} */
  #given;
  /** Choices of the tokens after it; all but the last one are computed too. @type {Choice[]} */
  #flight = [];
  /** When the last token arrived. */
  #arrived = 0;
  /** Without it a lost device is an error. @type {Keeper | undefined} */
  keeper;
  /** The call that has the context, and those that wait for it. */
  line = new Line();

  /**
   * @param {Decoder} decoder
   * @param {number} length  number of positions
   * @param {(first: Decoder) => Decoder} [remake]  makes a decoder for this context from the one of
   *   the model's first context
   */
  constructor(decoder, length, remake = (first) => first) {
    this.#decoder = decoder;
    this.#remake = remake;
    this.length = length;
  }

  /** The decoder, which changes when a device is replaced. */
  get decoder() {
    return this.#decoder;
  }

  /** The tokens. @returns {readonly number[]} */
  get past() {
    return this.#past;
  }

  /** Number of free positions. */
  get room() {
    return this.length - this.#past.length;
  }

  /**
   * Has the context during a call.
   * @template T
   * @param {import('./lease.js').Holder} holder
   * @param {import('./options.js').CallOptions} options
   * @param {(pace: Pace, lease: Lease) => Promise<T>} work
   * @returns {Promise<T>}
   */
  async during(holder, { signal, queue = false }, work) {
    checkSwitch(queue, 'queue');
    checkSignal(signal);
    signal?.throwIfAborted();
    const lease = new Lease(holder, 0, signal);
    this.line.join(lease, queue);
    try {
      if (lease.turn) await lease.turn;
      lease.check();
      return await work(new Pace(lease), lease);
    } finally {
      lease.end();
    }
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
   * Takes over tokens whose keys, values and states were put into the decoder.
   * @param {readonly number[]} tokens
   */
  adopt(tokens) {
    this.#drop();
    this.#past = [...tokens];
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
        await decoder.turns.take(pace.lease, async () => {
          await this.#compute(some, pace);
          if (afterBatch) await afterBatch(start, some.length, decoder);
          else if (end < tokens.length) await decoder.idle(pace);
        });
      } catch (error) {
        await this.extend(await this.#recover(error, pace, before), pace);
        continue;
      }
      pace.check();
      if (pace.due) await pace.rest();
      start = end;
    }
  }

  /**
   * Computes a prompt. Its last batch is left to next(), which needs the hidden states.
   * @param {readonly number[]} tokens
   * @param {Pace} pace
   * @param {(nTokens: number) => void} report  called with the number of tokens that are computed
   */
  async begin(tokens, pace, report) {
    const { batch } = this.#decoder;
    const nFirst = batch * Math.floor((tokens.length - 1) / batch);
    await this.extend(tokens.slice(0, nFirst), pace, async (start, n, decoder) => {
      await decoder.idle(pace);
      report(start + n);
    });
    this.#due = tokens.slice(nFirst);
  }

  /**
   * The next token, chosen by the sampler. The token of the call before joins the context.
   * @param {import('../backend.js').TokenSampler} sampler
   * @param {Pace} pace
   * @param {number} most  tokens that will be asked for, with this one
   * @param {import('./speculation.js').Speculation} [speculation]  of this text
   * @returns {Promise<{ token: number, ms: number }>}  ms: its time, without pauses of the caller
   *   in which nothing was left to compute
   */
  async next(sampler, pace, most, speculation) {
    const since = performance.now();
    const drafts = speculation?.serves(this.#decoder) ? speculation : undefined;
    const given = this.#given;
    if (given !== undefined) {
      this.#given = undefined;
      const isThere = drafts ? drafts.take(given) : this.#flight.length > 0;
      if (isThere) this.#past.push(given);
      else this.#due = [given];
    }
    const { draws = 0 } = sampler;
    for (;;) {
      try {
        const decoder = this.#decoder;
        const { joined } = decoder.turns;
        const isSingle = this.#due.length === 1 && this.#flight.length === 0;
        if (drafts?.isAhead) this.#flight.push(drafts.choose(sampler, this.#past));
        else if (isSingle && joined?.wants(decoder, sampler)) await this.#join(joined, sampler, pace);
        else
          await decoder.turns.take(pace.lease, async () => {
            if (isSingle) joined?.alone(decoder, pace);
            if (drafts && isSingle) return this.#speculate(drafts, sampler, pace, most);
            while (this.#due.length > 0) {
              await this.#compute(this.#due.slice(0, decoder.batch), pace);
              this.#due = this.#due.slice(decoder.batch);
            }
            await this.#fill(sampler, pace, Math.min(decoder.ahead(sampler) + 1, most));
          });
        pace.check();
        const choice = /** @type {Choice} */ (this.#flight.shift());
        const { token, arrived } = await decoder.token(choice, pace);
        // Another call may have taken the context during the wait.
        pace.check();
        this.#given = token;
        const start = Math.max(Math.min(since, choice.asked), this.#arrived);
        this.#arrived = arrived;
        return { token, ms: Math.max(0, arrived - start) };
      } catch (error) {
        const due = this.#due;
        this.#due = [...(await this.#recover(error, pace, this.#past.length)), ...due];
        // The choice that was lost may have drawn a random number.
        sampler.rewind?.(draws);
      }
    }
  }

  /**
   * Computes the token that is due together with those of other contexts, and begins the choice after
   * it.
   * @param {import('./joined-steps.js').JoinedSteps} joined
   * @param {import('../backend.js').TokenSampler} sampler
   * @param {Pace} pace
   */
  async #join(joined, sampler, pace) {
    const [token] = this.#due;
    const position = this.#past.length;
    const choice = await joined.next({ decoder: this.#decoder, pace, token, position, sampler });
    pace.check();
    this.#past.push(token);
    this.#due = [];
    this.#flight.push(choice);
  }

  /**
   * Computes the token that is due, perhaps with drafts of the next ones, and begins the choice after
   * it.
   * @param {import('./speculation.js').Speculation} drafts
   * @param {import('../backend.js').TokenSampler} sampler
   * @param {Pace} pace
   * @param {number} most  tokens that will be asked for
   */
  async #speculate(drafts, sampler, pace, most) {
    const decoder = this.#decoder;
    const due = this.#due;
    const place = { decoder, position: this.#past.length, most: Math.min(most, this.room), pace };
    if (await drafts.compute(due[0], place)) {
      this.#past.push(due[0]);
      this.#due = [];
      this.#flight.push(drafts.choose(sampler, this.#past));
      return;
    }
    const since = performance.now();
    await this.#compute(due, pace);
    this.#due = [];
    // The time of choices is not counted: each token of a pass with drafts needs one too.
    let choosing = 0;
    /** @type {typeof sampler.next} */
    const next = (row, past) => {
      const asked = performance.now();
      const token = sampler.next(row, past);
      choosing = performance.now() - asked;
      return token;
    };
    await this.#fill({ options: sampler.options, next }, pace, 1);
    drafts.noteSingle(performance.now() - since - choosing);
  }

  /**
   * Computes tokens of one batch, and adds them to the past.
   * @param {readonly number[]} some
   * @param {Pace} pace
   */
  async #compute(some, pace) {
    await this.#decoder.forward(some, this.#past.length, pace);
    // Another call may have taken the context during the wait.
    pace.check();
    // The tokens are added after the pass, so that an aborted pass is repeated.
    for (const token of some) this.#past.push(token);
    this.#lastRow = some.length - 1;
  }

  /**
   * Computes the tokens again on another device, if an error is the loss of this one.
   * @param {unknown} error
   * @param {Pace} pace
   */
  async renew(error, pace) {
    await this.extend(await this.#recover(error, pace, this.#past.length), pace);
  }

  /**
   * Does work on the device that needs no tokens; again where the device is lost. The past is empty
   * then.
   * @template T
   * @param {() => Promise<T>} work
   * @param {Pace} pace
   * @returns {Promise<T>}
   */
  async retried(work, pace) {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        await this.#recover(error, pace, 0);
      }
    }
  }

  /**
   * Takes another decoder after a loss. The past is empty then.
   * @param {unknown} error
   * @param {Pace} pace
   * @param {number} nTokens  that are kept
   * @returns {Promise<number[]>} these tokens, which must be computed again
   * @throws {unknown} the error, if it is another one, or there is no other device
   */
  async #recover(error, pace, nTokens) {
    const { keeper } = this;
    if (!keeper?.isLoss(error, this.#decoder)) throw error;
    // Another call may have taken the context before the loss was noticed.
    pace.check();
    const past = this.#past.slice(0, nTokens);
    this.clear();
    const first = await keeper.replace(error, this.#decoder, nTokens, pace.lease);
    pace.check();
    this.#decoder = this.#remake(first);
    return past;
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
    this.#due = [];
  }
}
