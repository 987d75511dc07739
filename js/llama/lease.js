/* The right to use the one context of a model. One call at a time has it; others may wait in a line. A
 * call may lose it at any moment, also while it waits for something. The call checks it after each
 * wait, and so does any other call that wants the model. */

import { BusyError } from './errors.js';

/** Reason of a lease that ended without an error. */
export const GIVEN_BACK = Symbol('given back');

/** @typedef {import('./errors.js').BusyError['holder']} Holder */

/**
 * Ends leases whose owner is garbage-collected.
 * @type {FinalizationRegistry<Lease>}
 */
const owners = new FinalizationRegistry((lease) => lease.end());

export class Lease {
  /** Undefined while the lease is held. @type {{ reason: unknown } | undefined} */
  #end;
  #signal;
  #owner;
  /** Told when the lease ends. @type {(() => void)[]} */
  #tell = [];
  /** @type {() => void} */
  #begin = () => {};
  /** Ends the lease with the signal's reason. */
  #abort = () => this.end(this.#signal?.reason);
  /**
   * While the call waits for other calls: resolves when it has the model, or has lost its place.
   * @type {Promise<void> | undefined}
   */
  turn;

  /**
   * @param {Holder} holder
   * @param {number} nTokens
   * @param {AbortSignal | undefined} signal  ends the lease, with its reason
   * @param {import('./generation.js').Generation} [owner]  a generation without which nobody can
   *   continue the call; the lease ends when it is garbage-collected
   */
  constructor(holder, nTokens, signal, owner) {
    /** The call that has the lease. */
    this.holder = holder;
    /** Number of tokens that the call computes, or begins with. */
    this.nTokens = nTokens;
    this.#signal = signal;
    this.#owner = owner && new WeakRef(owner);
    signal?.addEventListener('abort', this.#abort);
    if (owner) owners.register(owner, this, this);
  }

  /** The generation that has the lease. */
  get owner() {
    return this.#owner?.deref();
  }

  /** Whether the lease is still held. */
  get held() {
    if (this.#signal?.aborted) this.#abort();
    if (this.#owner && !this.#owner.deref()) this.end();
    return !this.#end;
  }

  /** @throws {unknown} the reason why it ended */
  check() {
    if (!this.held) throw this.#end?.reason;
  }

  /**
   * Ends the lease. A running computation notices it at its next check.
   * @param {unknown} [reason]
   */
  end(reason = GIVEN_BACK) {
    if (this.#end) return;
    this.#end = { reason };
    this.#signal?.removeEventListener('abort', this.#abort);
    owners.unregister(this);
    this.#begin();
    for (const tell of this.#tell.splice(0)) tell();
  }

  /** Makes the call wait. */
  wait() {
    this.turn = new Promise((resolve) => {
      this.#begin = () => resolve();
    });
  }

  /** Ends the wait. */
  begin() {
    this.#begin();
  }

  /** @param {() => void} tell  called when the lease ends */
  onEnd(tell) {
    this.#tell.push(tell);
  }

  /**
   * Does work with a signal that is aborted when the lease ends.
   * @template T
   * @param {(signal: AbortSignal) => Promise<T>} work
   * @returns {Promise<T>}
   */
  async during(work) {
    const ending = new AbortController();
    const tell = () => ending.abort(this.#end?.reason);
    this.onEnd(tell);
    try {
      return await work(ending.signal);
    } finally {
      this.#tell = this.#tell.filter((one) => one !== tell);
    }
  }
}

/** The call that has the model, and those that wait for it. */
export class Line {
  /** Leases that have not ended; the first one has the model. @type {Lease[]} */
  #leases = [];

  /** The lease of the call that has the model. */
  get first() {
    this.#advance();
    return this.#leases.at(0);
  }

  /**
   * Gives a call the model, or a place in the line.
   * @param {Lease} lease
   * @param {boolean} queue  whether the call may wait
   * @throws {BusyError} another call has the model, and this one may not wait
   */
  join(lease, queue) {
    const { first } = this;
    if (first && !queue) {
      lease.end();
      throw busy(lease, first);
    }
    if (first) lease.wait();
    this.#leases.push(lease);
    lease.onEnd(() => this.#advance());
  }

  /** Ends all leases. @param {unknown} reason */
  end(reason) {
    const leases = this.#leases;
    this.#leases = [];
    for (const lease of leases) lease.end(reason);
  }

  #advance() {
    this.#leases = this.#leases.filter(({ held }) => held);
    this.#leases.at(0)?.begin();
  }
}

/**
 * @param {Lease} lease
 * @param {Lease} first
 */
function busy({ holder }, first) {
  const free =
    first.holder === 'generate'
      ? 'read that generation to its end, or call its stop() or cancel(), or stop() of the model'
      : 'wait for its result, or abort its signal';
  return new BusyError(
    `${holder}: the model is busy with ${first.holder} (${first.nTokens} tokens), and has one context. To wait in a line, pass queue: true; to free the model, ${free}`,
    first.holder,
  );
}
