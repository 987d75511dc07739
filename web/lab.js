/** The page's end of lab-worker.js: one promise a call, and the events that come before its answer. */
import { Calls } from '../js/worker/calls.js';
import { openPort } from '../js/worker/port.js';

/** Its address is only asked for its origin, which is the page's. @type {import('../js/assets-worker.js').Script} */
const SCRIPT = {
  url: () => new URL(document.baseURI),
  start: () =>
    new Worker(new URL('./lab-worker.js', import.meta.url), { type: 'module', name: 'fused-matmul lab' }),
};

export class Lab {
  /** @type {Promise<Calls> | undefined} */
  #calls;

  /** After the worker's end, the next call starts another. */
  async #start() {
    const calls = new Calls();
    /** @param {Error} error */
    const onEnd = (error) => {
      this.#calls = undefined;
      calls.finish(error);
    };
    const onMessage = (/** @type {any} */ message) => calls.receive(message);
    const opening = openPort(undefined, SCRIPT, { onMessage, onEnd });
    opening.catch(onEnd);
    calls.start(await opening);
    return calls;
  }

  /**
   * @param {import('./lab-worker.js').Call['op']} op
   * @param {object} [args]
   * @param {{ signal?: AbortSignal, onEvent?: (event: any) => void }} [options]  signal: asks the worker to stop
   * @returns {Promise<any>}
   */
  async call(op, args = {}, { signal, onEvent } = {}) {
    this.#calls ??= this.#start();
    const calls = await this.#calls;
    return calls.request({ op, args }, { signal, onEvent: ({ event }) => onEvent?.(event) });
  }
}
