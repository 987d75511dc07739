/* How many tokens are computed ahead of the one that is waited for. The device must have work
 * while a result is on its way to the program, and how long that takes differs: some browsers tell
 * at once, others look for results now and then. So it is measured: the number doubles as long as
 * tokens come faster. */

/** Tokens whose mean time is taken. */
const SAMPLE = 8;
/** The time must fall to this part. */
const FASTER = 0.9;
/** The most tokens ahead. What is ahead is lost at the end of a text. */
export const MOST_AHEAD = 8;

export class Flight {
  #size = 1;
  #best = Number.POSITIVE_INFINITY;
  #sum = 0;
  #count = 0;
  /** Tokens that are left out of the next mean. At first kernels are compiled. */
  #skip = SAMPLE;
  #settled;

  /** @param {number} [fixed]  a number that is not measured, for tests */
  constructor(fixed) {
    this.#settled = fixed !== undefined;
    if (fixed !== undefined) this.#size = fixed;
  }

  /** How many tokens there should be ahead. */
  get size() {
    return this.#size;
  }

  /** Takes the time of a token into account. @param {number} ms */
  took(ms) {
    if (this.#settled) return;
    if (this.#skip > 0) {
      this.#skip -= 1;
      return;
    }
    this.#sum += ms;
    this.#count += 1;
    if (this.#count === SAMPLE) this.#judge();
  }

  #judge() {
    const mean = this.#sum / SAMPLE;
    const isFaster = mean < FASTER * this.#best;
    this.#best = mean;
    this.#settled = !isFaster || this.#size === MOST_AHEAD;
    if (!isFaster) this.#size /= 2;
    else if (!this.#settled) this.#size *= 2;
    this.#sum = 0;
    this.#count = 0;
    // These were asked for before.
    this.#skip = this.#size;
  }
}
