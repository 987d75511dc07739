/** The page's end of lab-worker.js and gpu-worker.js: one promise a call, and the events that come before its answer. */
import { Calls } from '../js/worker/calls.js';
import { openPort } from '../js/worker/port.js';

/** The address is only asked for its origin, which is the page's. */
const url = () => new URL(document.baseURI);

/** @type {import('../js/assets-worker.js').Script} */
export const LAB = {
  url,
  start: () =>
    new Worker(new URL('./lab-worker.js', import.meta.url), { type: 'module', name: 'fused-matmul lab' }),
};

/** @type {import('../js/assets-worker.js').Script} */
export const GPU_LAB = {
  url,
  start: () =>
    new Worker(new URL('./gpu-worker.js', import.meta.url), { type: 'module', name: 'fused-matmul GPU lab' }),
};

export class Lab {
  #script;
  /** @type {Promise<Calls> | undefined} */
  #calls;
  /** @type {import('../js/worker/port.js').Port | undefined} */
  #port;

  /** @param {import('../js/assets-worker.js').Script} script */
  constructor(script) {
    this.#script = script;
  }

  /** After the worker's end, the next call starts another. */
  async #start() {
    const calls = new Calls();
    /** @param {Error} error */
    const onEnd = (error) => {
      this.#calls = undefined;
      calls.finish(error);
    };
    const onMessage = (/** @type {any} */ message) => calls.receive(message);
    const opening = openPort(undefined, this.#script, { onMessage, onEnd });
    opening.catch(onEnd);
    this.#port = await opening;
    calls.start(this.#port);
    return calls;
  }

  /**
   * @param {string} op
   * @param {object} [args]
   * @param {{ signal?: AbortSignal, onEvent?: (event: any) => void }} [options]  signal: asks the worker to stop
   * @returns {Promise<any>}
   */
  async call(op, args = {}, { signal, onEvent } = {}) {
    this.#calls ??= this.#start();
    const calls = await this.#calls;
    return calls.request({ op, args }, { signal, onEvent: ({ event }) => onEvent?.(event) });
  }

  /** Ends the worker, where no call is pending. */
  async close() {
    this.#calls = undefined;
    await this.#port?.close();
  }
}
