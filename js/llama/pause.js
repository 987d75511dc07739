/* Long computations let other work run in between: aborts, timers, painting. */

/** Milliseconds of computation, after which others get their turn. */
const LONGEST_STRETCH = 12;

/** Lets other tasks run. @type {() => Promise<void>} */
export const nextTask =
  typeof setImmediate === 'function'
    ? () => new Promise((resolve) => setImmediate(resolve))
    : () =>
        new Promise((resolve) => {
          // setTimeout would wait 4 ms each time.
          const { port1, port2 } = new MessageChannel();
          port1.onmessage = () => {
            port1.close();
            resolve();
          };
          port2.postMessage(0);
        });

export class Pace {
  #since = performance.now();
  #lease;

  /** @param {import('./lease.js').Lease} lease  of the computation */
  constructor(lease) {
    this.#lease = lease;
  }

  /** Whether it is time for a rest. */
  get due() {
    return performance.now() - this.#since > LONGEST_STRETCH;
  }

  /** Throws when the computation has lost the model. To be called after every `await`, before anything shared is touched. */
  check() {
    this.#lease.check();
  }

  /** Lets other tasks run; throws when the computation has lost the model. */
  async rest() {
    await nextTask();
    this.#since = performance.now();
    this.#lease.check();
  }
}
