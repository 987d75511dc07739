/* The right to use the one context of a model. One call at a time has it, and may lose it at any
 * moment, also while it waits. The call checks it after each wait, and so does any other call that
 * wants the model. */

/** Reason of a lease that ended without an error. */
export const GIVEN_BACK = Symbol('given back');

/** @typedef {import('./errors.js').BusyError['holder']} Holder */

export class Lease {
  /** Undefined while the lease is held. @type {{ reason: unknown } | undefined} */
  #end;
  #signal;
  #owner;
  /** Told when the lease ends. @type {(() => void) | undefined} */
  #tell;

  /**
   * @param {Holder} holder
   * @param {number} nTokens
   * @param {AbortSignal | undefined} signal  ends the lease, with its reason
   * @param {object} [owner]  an object without which nobody can continue the call; the lease ends
   *   when it is garbage-collected
   */
  constructor(holder, nTokens, signal, owner) {
    /** The call that has the lease. */
    this.holder = holder;
    /** Number of tokens that the call computes, or begins with. */
    this.nTokens = nTokens;
    this.#signal = signal;
    this.#owner = owner && new WeakRef(owner);
  }

  /** Whether the lease is still held. */
  get held() {
    if (this.#signal?.aborted) this.end(this.#signal.reason);
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
    this.#tell?.();
  }

  /**
   * Does work with a signal that is aborted when the lease ends.
   * @template T
   * @param {(signal: AbortSignal) => Promise<T>} work
   * @returns {Promise<T>}
   */
  async during(work) {
    const ending = new AbortController();
    const tell = () => {
      if (!this.held) ending.abort(this.#end?.reason);
    };
    this.#tell = tell;
    this.#signal?.addEventListener('abort', tell);
    try {
      return await work(ending.signal);
    } finally {
      this.#tell = undefined;
      this.#signal?.removeEventListener('abort', tell);
    }
  }
}
