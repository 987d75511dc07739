/* Work in order. Blocks of a model are called and return at once. Here they wait for what is not there
 * yet, such as a kernel that is being compiled or states of another device, and are done in order. */

/**
 * A piece of work: does it, or returns what it must wait for and is called again then.
 * @typedef {() => Promise<unknown> | undefined} Work
 */

export class Queue {
  /** @type {Work[]} */
  #waiting = [];
  /** @type {Promise<void> | undefined} */
  #draining;
  /** @type {unknown} */
  #failure;
  #ended = false;

  /** @param {Work} work */
  add(work) {
    this.#waiting.push(work);
    if (!this.#draining) this.#drain();
  }

  /**
   * Resolves when everything that was added is done; on a GPU, recorded.
   * @throws the first error of the work; what was added before it is seen is dropped
   */
  async drained() {
    while (this.#draining) await this.#draining;
    const failure = this.#failure;
    if (!this.#ended) this.#failure = undefined;
    if (failure !== undefined) throw failure;
  }

  /**
   * Drops what waits, and everything that is added from now on.
   * @param {unknown} reason  for whoever waits
   */
  end(reason) {
    this.#ended = true;
    this.#failure ??= reason;
    this.#waiting.length = 0;
  }

  /** Does what can be done without waiting. */
  #drain() {
    if (this.#ended) this.#waiting.length = 0;
    while (this.#waiting.length > 0) {
      if (this.#failure !== undefined) {
        this.#waiting.length = 0;
        return;
      }
      let pending;
      try {
        pending = this.#waiting[0]();
      } catch (error) {
        this.#failure = error;
        continue;
      }
      if (pending) {
        this.#draining = pending.then(
          () => this.#go(),
          (error) => {
            // Whoever waits hears why the queue was ended.
            if (!this.#ended) this.#failure = error;
            this.#go();
          },
        );
        return;
      }
      this.#waiting.shift();
    }
  }

  #go() {
    this.#draining = undefined;
    this.#drain();
  }
}
