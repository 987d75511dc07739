/** Talks to worker-main.js: one promise a request, and the events that come before its answer. */

/**
 * @typedef {object} CallOptions
 * @property {AbortSignal} [signal]  asks the worker to stop; its answer then is an AbortError, or what it had so far
 * @property {(event: any) => void} [onEvent]
 */

export class WorkerClient {
  /** @type {Map<number, { resolve: (value: any) => void, reject: (reason: Error) => void, onEvent?: (event: any) => void }>} */
  #pending = new Map();
  #lastId = 0;
  /** @type {Worker | undefined} */
  #worker;

  #start() {
    const worker = new Worker(new URL('./worker.js', import.meta.url), {
      type: 'module',
      name: 'fused-matmul',
    });
    worker.addEventListener('message', ({ data }) => this.#receive(data));
    worker.addEventListener('error', (event) => {
      event.preventDefault();
      worker.terminate();
      this.#worker = undefined;
      const reason = event.message || 'its script could not be loaded';
      for (const { reject } of this.#pending.values())
        reject(new Error(`The worker stopped: ${reason}. Open the file again.`));
      this.#pending.clear();
    });
    return worker;
  }

  /** @param {any} message */
  #receive({ id, event, error, result }) {
    const waiting = this.#pending.get(id);
    if (!waiting) return;
    if (event) {
      waiting.onEvent?.(event);
      return;
    }
    this.#pending.delete(id);
    if (error) waiting.reject(Object.assign(new Error(error.message), error));
    else waiting.resolve(result);
  }

  /**
   * @param {keyof import('./worker-main.js').Operations} op
   * @param {object} [args]
   * @param {CallOptions} [options]
   * @returns {Promise<any>}
   */
  call(op, args = {}, { signal, onEvent } = {}) {
    this.#worker ??= this.#start();
    const worker = this.#worker;
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, onEvent });
      signal?.addEventListener('abort', () => worker.postMessage({ cancel: id }), { once: true });
      worker.postMessage({ id, op, args });
    });
  }
}
