/* Speculation: tokens that probably come next are computed together with the one that is due, in one
 * pass over the weights. Each is then chosen by the sampler from its own row of logits, as always; while
 * the choice is the draft, the next row is there already. The rows have the bits of single steps, and
 * the sampler sees them in order, so the text is the same with any drafts.
 *
 * How many are drafted follows from the times of passes of each length and from how often drafts were
 * right, by the length of the match that they come from. What drafts have cost and gained is kept in an
 * account. Where it is overdrawn, nothing is drafted until the text has gone on for a while. */

import { MemoryError } from '../errors.js';
import { NumericError } from './errors.js';
import { Lookup } from './lookup.js';

/** @typedef {import('../backend.js').TokenSampler} TokenSampler */
/** @typedef {import('./decoder.js').Choice} Choice */
/** @typedef {import('./decoder.js').Decoder} Decoder */
/** @typedef {import('./lookup.js').Draft} Draft */
/** @typedef {import('./pause.js').Pace} Pace */

/** Lengths of passes, with the token that is due. */
const LENGTHS = [2, 3, 4, 6, 8, 12, 16];
/** Times of a length that are kept. */
const TIMES = 5;
/** Passes after which a time has to be measured again. */
const OLD = 64;
/** Assumed cost of each further token of a pass before it is measured, in single steps. */
const GUESS = 0.5;
/** The credit that drafts begin with, in single steps; how much each token adds; and the most there is. */
const CREDIT = { first: 2, perToken: 0.01, most: 16 };
/** How much an older pass counts beside the next one, in estimates of right drafts. */
const DECAY = 0.9;
/**
 * Classes of matches: the least tokens of a match, and how many drafts were right and wrong before the
 * first one.
 */
const CLASSES = [
  { from: 10, right: 8, wrong: 1 },
  { from: 6, right: 4, wrong: 1 },
  { from: 4, right: 2, wrong: 1 },
  { from: 3, right: 1, wrong: 1 },
  { from: 2, right: 1, wrong: 2 },
];

/** Times of passes, by length, which all texts of a model share. @type {WeakMap<object, PassTimes>} */
const timesOf = new WeakMap();

/** Milliseconds of passes, by their length. */
class PassTimes {
  /** @type {Map<number, { some: number[], at: number }>} */
  #all = new Map();
  /** Passes so far. */
  #passes = 0;

  /** @param {number} length @param {number} ms */
  note(length, ms) {
    const single = this.measured(1) ?? ms;
    const some = this.#all.get(length)?.some ?? [];
    // A clock may be too coarse for a pass, and other programs may hold it up.
    some.push(Math.max(1e-3, Math.min(ms, length > 1 ? length * single : ms)));
    this.#passes += 1;
    this.#all.set(length, { some: some.slice(-TIMES), at: this.#passes });
  }

  /**
   * The median of the last times; undefined before the first one, or if it was long ago.
   * @param {number} length
   */
  measured(length) {
    const { some = [], at = 0 } = this.#all.get(length) ?? {};
    if (length > 1 && this.#passes - at > OLD) return undefined;
    return some.slice().sort((a, b) => a - b)[some.length >> 1];
  }

  /** The measured time, or a guess from that of the next shorter length. @param {number} length */
  of(length) {
    const ms = this.measured(length);
    if (ms !== undefined) return ms;
    const single = this.measured(1) ?? 0;
    const [shorter = 1, before = 1] = LENGTHS.filter(
      (one) => one < length && this.measured(one) !== undefined,
    ).reverse();
    const known = this.measured(shorter) ?? single;
    const each = (known - (this.measured(before) ?? single)) / (shorter - before || 1);
    const slope = shorter > 1 ? Math.min(each, GUESS * single) : GUESS * single;
    return known + Math.max(0, slope) * (length - shorter);
  }
}

/** How often drafts are right, by the length of the match. */
class Hits {
  #classes = CLASSES.map((one) => ({ ...one }));

  /** @param {number} matched */
  #of(matched) {
    return this.#classes.find(({ from }) => matched >= from) ?? this.#classes[CLASSES.length - 1];
  }

  /** Notes the drafts of a pass up to the first wrong one. @param {number} matched @param {number} right @param {boolean} wrong */
  note(matched, right, wrong) {
    const one = this.#of(matched);
    one.right = DECAY * one.right + right;
    one.wrong = DECAY * one.wrong + (wrong ? 1 : 0);
  }

  /** Tokens that a pass is expected to give. @param {number} matched @param {number} length */
  expected(matched, length) {
    const { right, wrong } = this.#of(matched);
    const share = right / (right + wrong);
    let sum = 0;
    for (let i = 0, chance = 1; i < length; i++, chance *= share) sum += chance;
    return sum;
  }
}

/**
 * Rows of logits of a pass, and the drafts that they belong to.
 * @typedef {object} Checked
 * @property {Draft} draft
 * @property {Float32Array} logits
 * @property {number} row  The row that the next token is chosen from.
 * @property {number} ms
 */

/**
 * Where the next token is computed.
 * @typedef {object} Place
 * @property {Decoder} decoder
 * @property {number} position  Position of the token that is due.
 * @property {number} most  Most tokens of a pass.
 * @property {Pace} pace
 */

export class Speculation {
  #lookup;
  #hits = new Hits();
  #credit = CREDIT.first;
  /** @type {Checked | undefined} */
  #checked;
  /** @type {Decoder | undefined} */
  #decoder;
  /** Drafts that were computed. */
  drafted = 0;
  /** Drafts that were right. */
  accepted = 0;
  /** Why nothing is drafted. @type {'device' | 'recurrent' | 'memory' | undefined} */
  off;

  /** @param {readonly number[]} prompt */
  constructor(prompt) {
    this.#lookup = new Lookup(prompt);
  }

  /** Whether drafts can be computed. If not, `off` says why. @param {Decoder} decoder */
  serves(decoder) {
    this.#decoder = decoder;
    if (!decoder.backend.alone) this.off ??= 'device';
    else if (decoder.checked === 0) this.off ??= 'recurrent';
    return this.off === undefined;
  }

  /**
   * Takes the next token of the text.
   * @param {number} token
   * @returns {boolean} whether it was computed as a draft, so that the logits after it are there
   */
  take(token) {
    this.#lookup.push(token);
    this.#credit = Math.min(CREDIT.most, this.#credit + CREDIT.perToken);
    const checked = this.#checked;
    if (!checked) return false;
    const { tokens } = checked.draft;
    if (tokens[checked.row] === token) {
      checked.row += 1;
      return true;
    }
    this.#settle(checked.row < tokens.length);
    return false;
  }

  /** Whether the next token can be chosen without a pass. */
  get isAhead() {
    return this.#checked !== undefined;
  }

  /**
   * Chooses the next token from the logits that are there.
   * @param {TokenSampler} sampler
   * @param {readonly number[]} past
   * @returns {Choice}
   */
  choose(sampler, past) {
    const { logits, draft, row } = /** @type {Checked} */ (this.#checked);
    const asked = performance.now();
    const nVocab = logits.length / (draft.tokens.length + 1);
    const token = sampler.next(logits.subarray(row * nVocab, (row + 1) * nVocab), past);
    if (token === draft.tokens[row]) this.accepted += 1;
    const pass = { position: past.length - 1, nTokens: 1 };
    return { pass, asked, reading: Promise.resolve({ token, arrived: performance.now() }) };
  }

  /**
   * Computes the token that is due with drafts of the next ones, if that is expected to pay.
   * @param {number} due
   * @param {Place} place
   * @returns {Promise<boolean>} whether it was computed
   */
  async compute(due, place) {
    const { decoder, position, pace } = place;
    const draft = this.#draft(place);
    if (!draft) return false;
    const since = performance.now();
    /** @type {Float32Array} */
    let logits;
    try {
      logits = await decoder.check([due, ...draft.tokens], position, pace);
    } catch (error) {
      if (error instanceof MemoryError) this.off = 'memory';
      // A draft that is wrong anyway may have wrong numbers.
      else if (!(error instanceof NumericError)) throw error;
      this.#credit = Math.min(this.#credit, 0);
      pace.check();
      return false;
    }
    pace.check();
    const ms = performance.now() - since;
    this.drafted += draft.tokens.length;
    this.#times.note(draft.tokens.length + 1, ms);
    this.#checked = { draft, logits, row: 0, ms };
    return true;
  }

  /** Notes the time of a step of one token. @param {number} ms */
  noteSingle(ms) {
    this.#times.note(1, ms);
  }

  get #times() {
    const key = /** @type {Decoder} */ (this.#decoder).backend;
    const times = timesOf.get(key) ?? new PassTimes();
    timesOf.set(key, times);
    return times;
  }

  /**
   * The drafts that are expected to pay most.
   * @param {Place} place
   * @returns {Draft | undefined}
   */
  #draft({ decoder, most }) {
    const times = this.#times;
    const single = times.measured(1);
    const longest = Math.min(decoder.checked, most);
    if (single === undefined || longest < 2 || this.#credit <= 0) return undefined;
    const draft = this.#lookup.find(longest - 1);
    if (!draft) return undefined;
    const { tokens, matched } = draft;
    let [best, speed] = [0, 1 / single];
    for (const length of LENGTHS.filter((one) => one <= longest)) {
      const ms = times.of(length);
      // The pass may give no more than a single step.
      if (ms - single > this.#credit * single) continue;
      const here = this.#hits.expected(matched, length) / ms;
      if (here > speed) [best, speed] = [length, here];
    }
    return best === 0 ? undefined : { tokens: tokens.slice(0, best - 1), matched };
  }

  /** Closes the account of a pass. @param {boolean} wrong  whether its last choice was no draft of it */
  #settle(wrong) {
    const { draft, row, ms } = /** @type {Checked} */ (this.#checked);
    this.#checked = undefined;
    this.#hits.note(draft.matched, row, wrong);
    const single = this.#times.measured(1) ?? ms;
    const cost = Math.min(ms / single, draft.tokens.length + 1);
    this.#credit = Math.min(CREDIT.most, this.#credit + row + 1 - cost);
  }
}
