/* Long computations let other work run in between: aborts, timers, painting. */

/** Milliseconds of computation, after which others get their turn. */
const LONGEST_STRETCH = 12;

/** @type {() => Promise<void>} */
const nextTask =
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

  /** @param {AbortSignal} [signal] */
  constructor(signal) {
    this.signal = signal;
  }

  /** Whether it is time for a rest. */
  get due() {
    return performance.now() - this.#since > LONGEST_STRETCH;
  }

  /** Lets other tasks run; throws when the signal was aborted meanwhile. */
  async rest() {
    await nextTask();
    this.#since = performance.now();
    this.signal?.throwIfAborted();
  }
}
