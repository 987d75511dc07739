/* Pauses of long computations, in which other work runs: aborts, timers, painting. */

/** Milliseconds of computation between two pauses. */
export const LONGEST_STRETCH = 12;

/** Lets other tasks run. @type {() => Promise<void>} */
export const nextTask =
  typeof setImmediate === 'function'
    ? () => new Promise((resolve) => setImmediate(resolve))
    : () =>
        new Promise((resolve) => {
          // setTimeout would wait for 4 ms each time.
          const { port1, port2 } = new MessageChannel();
          port1.onmessage = () => {
            port1.close();
            resolve();
          };
          port2.postMessage(0);
        });

export class Pace {
  #since = performance.now();

  /** @param {import('./lease.js').Lease} lease */
  constructor(lease) {
    /** The computation's right to the model. */
    this.lease = lease;
  }

  /** Whether it is time for a pause. */
  get due() {
    return performance.now() - this.#since > LONGEST_STRETCH;
  }

  /**
   * Throws if the computation has lost the model. Call it after every `await`, before touching
   * anything shared.
   */
  check() {
    this.lease.check();
  }

  /** Lets other tasks run, and throws if the computation has lost the model. */
  async rest() {
    await nextTask();
    this.#since = performance.now();
    this.lease.check();
  }
}
