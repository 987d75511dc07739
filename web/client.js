/** The page's end of worker.js: one promise per request. */

export class WorkerClient {
  /** @type {Map<number, { resolve: (value: any) => void, reject: (reason: Error) => void, onProgress?: (p: any) => void }>} */
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
  #receive({ id, progress, error, result }) {
    const waiting = this.#pending.get(id);
    if (!waiting) return;
    if (progress) {
      waiting.onProgress?.(progress);
      return;
    }
    this.#pending.delete(id);
    if (error) waiting.reject(Object.assign(new Error(error.message), { name: error.name }));
    else waiting.resolve(result);
  }

  /**
   * @param {'start' | 'open' | 'multiply'} op
   * @param {object} [args]
   * @param {{ signal?: AbortSignal, onProgress?: (progress: { loaded: number, total: number }) => void }} [options]
   * @returns {Promise<any>}
   */
  call(op, args = {}, { signal, onProgress } = {}) {
    this.#worker ??= this.#start();
    const worker = this.#worker;
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { resolve, reject, onProgress });
      signal?.addEventListener('abort', () => worker.postMessage({ cancel: id }), { once: true });
      worker.postMessage({ id, op, args });
    });
  }
}
