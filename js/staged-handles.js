/* The handles of a staged backend. A handle holds one handle of each stage that needs it. */

/** @typedef {import('./backend.js').Resource} Resource */

/** Handles of one or several stages, which are freed together. @implements {Resource} */
export class Parts {
  /** @param {any[]} all */
  constructor(all) {
    this.all = all;
  }

  get freed() {
    return this.all.every(({ freed }) => freed);
  }

  free() {
    for (const one of this.all) if (!one.freed) one.free();
  }
}

/** Hidden states, of every stage. */
export class StagedHidden extends Parts {
  /** The stage of the last block. */
  at = 0;

  /** @param {any[]} all */
  constructor(all) {
    super(all);
    const [{ nRows, nCols }] = all;
    this.nRows = nRows;
    this.nCols = nCols;
  }
}

/** Logits, of the last stage. */
export class StagedTensor extends Parts {
  /** @param {any} one */
  constructor(one) {
    super([one]);
    this.nRows = one.nRows;
    this.nCols = one.nCols;
  }
}

/** A handle of one stage whose calls are queued. */
class Waiting extends Parts {
  /** Calls that were queued, and the last one that was done. */
  #asked = 0;
  #done = 0;

  /** @param {any} one @param {import('./backend.js').Backend} backend  of the stage */
  constructor(one, backend) {
    super([one]);
    this.backend = backend;
  }

  /** Whether no call waits. */
  get isDone() {
    return this.#asked === this.#done;
  }

  /** Counts a call that is queued. @returns {() => void} to be called when it is done */
  ask() {
    const call = ++this.#asked;
    return () => {
      this.#done = call;
    };
  }
}

/** Keys and values of a layer, of its stage. */
export class StagedCache extends Waiting {
  #isWindow;

  /**
   * @param {any} one
   * @param {import('./backend.js').Backend} backend
   * @param {boolean} isWindow  it may keep only the latest positions
   */
  constructor(one, backend, isWindow) {
    super(one, backend);
    this.#isWindow = isWindow;
  }

  /** Infinity while calls wait: then no position counts as kept. */
  get first() {
    if (!this.#isWindow) return 0;
    return this.isDone ? (this.all[0].first ?? 0) : Number.POSITIVE_INFINITY;
  }
}

/** The state of a layer, of its stage. */
export class StagedState extends Waiting {
  get position() {
    return this.#whenDone('position');
  }

  get savedAt() {
    return this.#whenDone('savedAt');
  }

  /** While calls wait, no position is there. @param {'position' | 'savedAt'} what */
  #whenDone(what) {
    return this.isDone ? this.all[0][what] : -1;
  }
}

/** Tokens, of the first stage for the embedding, and of the last one for the choice. */
export class StagedTokens extends Parts {
  /** Positions whose token only the last stage has. @type {Set<number>} */
  picked = new Set();

  /** @param {any} first @param {any} last @param {number} length */
  constructor(first, last, length) {
    super([first, last]);
    this.length = length;
  }
}
