/* Requests to a worker, each with a promise, and what comes before its answer. */

import { ArgumentError } from '../errors.js';
import { unpackError } from './errors.js';

/** @typedef {import('./port.js').Port} Port */

/**
 * @typedef {object} Pending
 * @property {(value: any) => void} resolve
 * @property {(reason: unknown) => void} reject
 * @property {((message: any) => void) | undefined} onEvent
 * @property {(reason: unknown) => void} breakOff  asks the worker to stop; whatever it answers, the caller gets this reason
 * @property {() => void} [done]  removes the listener from its signal
 */

export class Calls {
  /** @type {Port | undefined} */
  #port;
  /** @type {Map<number, Pending>} */
  #pending = new Map();
  #lastId = 0;
  /** @type {Error | undefined} */
  #end;

  /** @param {Port} port */
  start(port) {
    this.#port = port;
  }

  /** The error that every call is answered with from now on, once the worker has ended. */
  get ended() {
    return this.#end;
  }

  /** @param {object} message @param {ArrayBuffer[]} [transfer] */
  post(message, transfer) {
    if (!this.#end) this.#port?.post(message, transfer);
  }

  /**
   * @param {object} message
   * @param {object} [options]
   * @param {AbortSignal | undefined} [options.signal]  tells the worker; the promise settles by the worker's answer
   * @param {ArrayBuffer[]} [options.transfer]
   * @param {(message: any) => void} [options.onEvent]  called with every message about this call before its answer
   * @param {(id: number) => void} [options.onId]  called at once with the number of the call
   * @returns {Promise<any>}
   */
  request(message, { signal, transfer, onEvent, onId } = {}) {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      if (this.#end) throw this.#end;
      const id = ++this.#lastId;
      onId?.(id);
      /** @type {Pending} */
      const pending = {
        resolve,
        reject,
        onEvent,
        breakOff: (reason) => {
          pending.resolve = pending.reject = () => reject(reason);
          this.post({ kind: 'abort', id });
        },
      };
      try {
        this.#port?.post({ ...message, id }, transfer);
      } catch (cause) {
        const why = cause instanceof Error ? cause.message : String(cause);
        throw Object.assign(new ArgumentError(`an argument cannot be sent to a worker: ${why}`), { cause });
      }
      if (signal) {
        const abort = () => pending.breakOff(signal.reason);
        signal.addEventListener('abort', abort);
        pending.done = () => signal.removeEventListener('abort', abort);
      }
      this.#pending.set(id, pending);
      this.#port?.hold(true);
    });
  }

  /** Takes an answer, or a message before it. An error of onEvent ends the call. @param {any} message */
  receive(message) {
    const pending = this.#pending.get(message.id);
    if (!pending) return;
    if (message.kind !== undefined) {
      try {
        pending.onEvent?.(message);
      } catch (error) {
        pending.onEvent = undefined;
        pending.breakOff(error);
      }
      return;
    }
    this.#pending.delete(message.id);
    pending.done?.();
    if (this.#pending.size === 0) this.#port?.hold(false);
    if (message.error) pending.reject(unpackError(message.error));
    else pending.resolve(message.value);
  }

  /** Answers everything with an error. @param {Error} error */
  finish(error) {
    this.#end ??= error;
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const { reject, done } of pending) {
      done?.();
      reject(this.#end);
    }
  }
}
