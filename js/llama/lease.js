/* The right to use a context of a model. One call at a time has it; others may wait in a line. A
 * call may lose it at any moment, also while it waits for something. The call checks it after each
 * wait, and so does any other call that wants the context. Calls of several contexts take turns, or
 * share them. */

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
  /** Told when the lease ends, and why. @type {Set<(reason: unknown) => void>} */
  #tell = new Set();
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
    for (const tell of this.#tell) tell(reason);
    this.#tell.clear();
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

  /**
   * @param {(reason: unknown) => void} tell  called when the lease ends
   * @returns {() => void} forgets it
   */
  onEnd(tell) {
    this.#tell.add(tell);
    return () => void this.#tell.delete(tell);
  }
}

/**
 * Contexts of a model share its hidden states and logits, so that one of them computes at a time, or one
 * step of several.
 */
export class Turns {
  /** Settles when nobody computes. @type {Promise<unknown>} */
  #free = Promise.resolve();
  /**
   * Steps of several contexts, once there are several.
   * @type {import('./joined-steps.js').JoinedSteps | undefined}
   */
  joined;

  /**
   * Does work while no other context computes. The turn ends with the work, and with the lease: work
   * that has lost it checks that after each wait.
   * @template T
   * @param {Lease} lease
   * @param {() => Promise<T>} work  it takes no turn itself
   * @returns {Promise<T>}
   */
  async take(lease, work) {
    lease.check();
    const before = this.#free;
    let end = () => {};
    const over = new Promise((resolve) => {
      end = () => resolve(undefined);
    });
    this.#free = before.then(() => over);
    const forget = lease.onEnd(end);
    try {
      await before;
      lease.check();
      return await work();
    } finally {
      forget();
      end();
    }
  }
}

/** The call that has a context, and those that wait for it. */
export class Line {
  /** Leases that have not ended; the first one has the context. @type {Lease[]} */
  #leases = [];
  /** @type {{ reason: unknown } | undefined} */
  #end;

  /** The lease of the call that has the context. */
  get first() {
    this.#advance();
    return this.#leases.at(0);
  }

  /**
   * Gives a call the context, or a place in the line.
   * @param {Lease} lease
   * @param {boolean} queue  whether the call may wait
   * @throws {BusyError} another call has the context, and this one may not wait
   */
  join(lease, queue) {
    if (this.#end) throw this.#end.reason;
    const { first } = this;
    if (first && !queue) {
      lease.end();
      throw busy(lease, first);
    }
    if (first) lease.wait();
    this.#leases.push(lease);
    lease.onEnd(() => this.#advance());
  }

  /** Ends all leases, and refuses others. @param {unknown} reason */
  end(reason) {
    this.#end ??= { reason };
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
      ? 'read that generation to its end, or call its stop() or cancel(), or stop() of the model or the context'
      : 'wait for its result, or abort its signal';
  return new BusyError(
    `${holder}: the model is busy with ${first.holder} (${first.nTokens} tokens) in this context. To wait in a line, pass queue: true; to free it, ${free}; or take another one: model.context()`,
    first.holder,
  );
}
