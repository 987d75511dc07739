/* Steps of several contexts at a time: one pass over the weights computes a token of each context that
 * waits for its next one. Each has a row of the hidden states, at its own position, with its own caches
 * and states, and chooses from its own row of logits.
 *
 * A step begins with the contexts that wait when the device is free. It waits a little for those of the
 * step before, whose readers may be about to ask for more. A context that is alone does not come here.
 *
 * A context leaves a step in the middle when its call has ended, or when one of its numbers is NaN. The
 * others go on: its row is set to zeros, is computed with the rest, and leaves nothing in a cache. */

import { MemoryError } from '../errors.js';
import { NumericError } from './errors.js';
import { Lease } from './lease.js';
import { movedTo } from './numeric.js';
import { nextTask, Pace } from './pause.js';

/** @typedef {import('../backend.js').Step} Step */
/** @typedef {import('../backend.js').TokenSampler} TokenSampler */
/** @typedef {import('./decoder.js').Choice} Choice */
/** @typedef {import('./decoder.js').Decoder} Decoder */

/** Most contexts of a step. */
const MOST = 16;
/** How long a step waits for the contexts of the one before, as a share of the time of that one. */
const WAIT = 0.1;

/**
 * A context that waits for the token after another one.
 * @typedef {object} Member
 * @property {Decoder} decoder
 * @property {Pace} pace
 * @property {number} token
 * @property {number} position  of that token
 * @property {TokenSampler} sampler
 */

/** @typedef {(choice: Choice | { error: unknown }) => void} Settle */
/** @typedef {Member & { asked: number, settle: Settle }} Waiting */
/** A member of a step, and its row. @typedef {Waiting & { row: number }} Placed */

export class JoinedSteps {
  #first;
  /** @type {Waiting[]} */
  #waiting = [];
  #isRunning = false;
  /** The contexts of the last step. @type {Pick<Member, 'decoder' | 'pace'>[]} */
  #last = [];
  /** Milliseconds of the last step of several contexts. */
  #ms = 0;
  /**
   * Made with the first step of several contexts, as the logits are.
   * @type {import('../backend.js').TokenList | undefined}
   */
  #tokens;
  /** @type {import('../backend.js').DeviceTensor | undefined} */
  #logits;

  /** @param {Decoder} first  the decoder of the model's first context */
  constructor(first) {
    this.#first = first;
  }

  /**
   * Whether a context should compute its next token with others. Otherwise it computes alone, and says
   * so with `alone`.
   * @param {Decoder} decoder
   * @param {TokenSampler} sampler
   */
  wants(decoder, sampler) {
    if (!decoder.backend.packs || decoder.ahead(sampler) > 0) return false;
    return this.#isRunning || this.#last.some((one) => one.decoder !== decoder && one.pace.lease.held);
  }

  /** Notes that a context computes a token alone. @param {Decoder} decoder @param {Pace} pace */
  alone(decoder, pace) {
    this.#last = [{ decoder, pace }];
  }

  /**
   * Computes a token of a context, and chooses the one after it.
   * @param {Member} member
   * @returns {Promise<Choice>}
   */
  async next(member) {
    const asked = performance.now();
    const result = await new Promise((/** @type {Settle} */ settle) => {
      this.#waiting.push({ ...member, asked, settle });
      if (!this.#isRunning) void this.#run();
    });
    if (!('error' in result)) return result;
    const { decoder, pace, position } = member;
    const { error } = result;
    // Its origin is looked for in a pass of its own.
    if (error instanceof NumericError) await decoder.trace(error, { position, nTokens: 1 }, pace);
    throw error;
  }

  /** Computes steps until nobody waits. */
  async #run() {
    this.#isRunning = true;
    const lease = new Lease('generate', 1, undefined);
    while (this.#waiting.length > 0) await this.#first.turns.take(lease, () => this.#turn(new Pace(lease)));
    this.#isRunning = false;
    lease.end();
  }

  /** Computes a step of those that wait. @param {Pace} pace */
  async #turn(pace) {
    await this.#gather();
    this.#waiting = this.#waiting.filter(isHeld);
    /** @type {Placed[]} */
    let members = [];
    try {
      const n = this.#roomFor(Math.min(MOST, this.#first.part, this.#waiting.length));
      members = this.#waiting.splice(0, n).map((one, row) => ({ ...one, row }));
      this.#last = members;
      if (members.length === 1) await computeAlone(members[0]);
      else if (members.length > 1) {
        const since = performance.now();
        await this.#compute(members, pace);
        this.#ms = performance.now() - since;
      }
    } catch (error) {
      // Without members there was no room for a step, and all that wait get the error.
      const all = members.length > 0 ? members : this.#waiting.splice(0);
      for (const { settle, position } of all)
        settle({ error: error instanceof NumericError ? movedTo(error, position) : error });
    }
  }

  /** Waits for the contexts of the last step. */
  async #gather() {
    const until = performance.now() + WAIT * this.#ms;
    const isMissing = (/** @type {Pick<Member, 'decoder' | 'pace'>} */ { decoder, pace }) =>
      pace.lease.held && !this.#waiting.some((one) => one.decoder === decoder);
    while (this.#last.some(isMissing)) {
      await nextTask();
      if (performance.now() >= until) return;
    }
  }

  /**
   * Makes rows of logits, and a list of tokens, for some contexts.
   * @param {number} n
   * @returns {number} how many there is memory for, 1 at least
   */
  #roomFor(n) {
    const has = this.#logits?.nRows ?? 1;
    if (has >= n) return n;
    const { backend, shared } = this.#first;
    try {
      this.#tokens ??= this.#first.own(backend.tokens(MOST));
      const logits = this.#first.own(backend.tensor({ nRows: n, nCols: shared.nVocab }));
      this.#logits?.free();
      this.#logits = logits;
      this.#first.workspaceBytes += 4 * shared.nVocab * (n - (has > 1 ? has : 0));
      return n;
    } catch (error) {
      if (error instanceof MemoryError) return has;
      throw error;
    }
  }

  /**
   * Computes a token of several contexts.
   * @param {Placed[]} members
   * @param {Pace} pace
   */
  async #compute(members, pace) {
    const { backend } = this.#first;
    const { x, layers, embedding, head } = this.#first.shared;
    const logits = /** @type {import('../backend.js').DeviceTensor} */ (this.#logits);
    const tokens = /** @type {import('../backend.js').TokenList} */ (this.#tokens);
    const step = new JoinedStep(members, x);
    backend.writeTokens(
      tokens,
      0,
      members.map(({ token }) => token),
    );
    for (const { decoder, position, token } of members)
      backend.writeTokens(decoder.shared.tokens, position, [token]);
    await step.run((at) => backend.embed(tokens, x, embedding, at));
    for (const [i, { attention, recurrent, feed }] of layers.entries()) {
      if (pace.due) await pace.rest();
      if (attention) await step.run((at) => backend.project(x, attention.block, attention.cache, at), i);
      if (recurrent) await step.run((at) => backend.recur(x, recurrent.block, recurrent.state, at), i);
      if (attention) await step.run((at) => backend.attend(x, attention.block, attention.cache, at), i);
      await step.run((at) => backend.feed(x, feed, at), i);
    }
    const place = /** @type {const} */ ({ part: 'feed-forward', layer: layers.length - 1 });
    await step.run((at) => backend.check(x, at, place));
    const rows = { start: 0, nRows: members.length, position: 0 };
    await step.run(() => backend.head(x, head, logits, rows));
    for (const one of step.present) if (isHeld(one)) await choose(one, logits, one.row);
  }
}

/** A step of several contexts, and those that are still in it. */
class JoinedStep {
  #members;
  #parts;
  #x;
  #backend;

  /** @param {Placed[]} members @param {import('../backend.js').Hidden} x */
  constructor(members, x) {
    this.#members = members;
    this.#parts = members.map(({ decoder }) => decoder.shared.layers);
    this.#x = x;
    this.#backend = members[0].decoder.backend;
    this.present = members;
  }

  /**
   * Computes a block. Contexts whose calls have ended leave before, and one with a wrong number is left
   * out when the block is computed again.
   * @param {(at: Step) => void} block
   * @param {number} [layer]
   */
  async run(block, layer = 0) {
    for (let tries = 0; ; tries++) {
      this.#leave(this.present.filter((one) => !isHeld(one)));
      if (this.present.length === 0) return;
      try {
        block(this.#at(layer));
        await this.#backend.idle();
        return;
      } catch (error) {
        const one = error instanceof NumericError ? this.#members[error.position ?? -1] : undefined;
        // If zeros give wrong numbers too, all contexts have them.
        if (!one || tries > this.#members.length) throw error;
        one.settle({ error: movedTo(/** @type {NumericError} */ (error), one.position) });
        this.#leave([one]);
      }
    }
  }

  /** @param {Placed[]} gone */
  #leave(gone) {
    this.present = this.present.filter((one) => !gone.includes(one));
    // Where nobody stays, the model may be disposed.
    if (this.present.length === 0) return;
    for (const { row } of gone) this.#backend.write(this.#x, row, new Float32Array(this.#x.nCols));
  }

  /** @param {number} layer @returns {Step} */
  #at(layer) {
    const nTokens = this.#members.length;
    const texts = this.present.map(({ row, position }) => {
      const { attention, recurrent } = this.#parts[row][layer];
      const own = { cache: attention?.cache, state: recurrent?.state };
      return { start: row, nRows: 1, position, cached: 0, ...own };
    });
    return { position: 0, start: 0, nTokens, seen: nTokens, texts };
  }
}

/**
 * Whether the call of a member goes on. If not, the member gets the reason.
 * @param {Waiting} one
 */
function isHeld({ pace, settle }) {
  try {
    pace.check();
    return true;
  } catch (error) {
    settle({ error });
    return false;
  }
}

/** Computes a step of one context. @param {Waiting} one */
async function computeAlone(one) {
  const { decoder, token, position, pace, sampler, settle } = one;
  try {
    await decoder.forward([token], position, pace);
    pace.check();
    settle(decoder.choose(0, position + 1, sampler));
  } catch (error) {
    settle({ error });
  }
}

/**
 * Chooses a token from a row of logits.
 * @param {Waiting} one
 * @param {import('../backend.js').DeviceTensor} logits
 * @param {number} row
 */
async function choose({ decoder, position, sampler, asked, settle }, logits, row) {
  const { backend, shared } = decoder;
  const pass = { position, nTokens: 1 };
  try {
    backend.pick(logits, row, shared.tokens, sampler, position + 1);
    const [token] = await backend.readTokens(shared.tokens, position + 1, 1);
    settle({ pass, asked, reading: Promise.resolve({ token, arrived: performance.now() }) });
  } catch (error) {
    settle({ error });
  }
}
