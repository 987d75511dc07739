/* The right to use a model's one context: one call at a time has it, and may lose it at any moment, also while it waits. Whether it still
 * has it is asked when another call wants it, and by the call itself after each wait. */

/** The reason of a lease that was given back without an error. */
export const GIVEN_BACK = Symbol('given back');

/** @typedef {import('./errors.js').BusyError['holder']} Holder */

export class Lease {
  /** Undefined while it is held. @type {{ reason: unknown } | undefined} */
  #end;
  #signal;
  #owner;

  /**
   * @param {Holder} holder
   * @param {number} nTokens
   * @param {AbortSignal | undefined} signal  ends the lease, with its reason
   * @param {object} [owner]  an object without which nobody can go on: when it is collected, the lease ends
   */
  constructor(holder, nTokens, signal, owner) {
    /** The call that has it. */
    this.holder = holder;
    /** Tokens that it computes, or begins with. */
    this.nTokens = nTokens;
    this.#signal = signal;
    this.#owner = owner && new WeakRef(owner);
  }

  /** Whether it is still held. */
  get held() {
    if (this.#signal?.aborted) this.end(this.#signal.reason);
    if (this.#owner && !this.#owner.deref()) this.end();
    return !this.#end;
  }

  /** @throws {unknown} the reason why it ended */
  check() {
    if (!this.held) throw this.#end?.reason;
  }

  /** Gives it back. Whoever computes with it finds out at the next check. @param {unknown} [reason] */
  end(reason = GIVEN_BACK) {
    this.#end ??= { reason };
  }
}
