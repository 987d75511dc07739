/* Requests to a worker: each has a promise, and events may come before its answer. */

import { ArgumentError } from '../errors.js';
import { unpackError } from './errors.js';

/** @typedef {import('./port.js').Port} Port */

/**
 * @typedef {object} Pending
 * @property {(value: any) => void} resolve
 * @property {(reason: unknown) => void} reject
 * @property {((message: any) => void) | undefined} onEvent
 * @property {(reason: unknown) => void} breakOff  Asks the worker to stop. The call is rejected
 *   with this reason, whatever the worker answers.
 * @property {() => void} [done]  Removes the listener from the signal.
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

  /** The error of the worker's end. Once it is set, every call is rejected with it. */
  get ended() {
    return this.#end;
  }

  /** @param {object} message @param {ArrayBuffer[]} [transfer] */
  post(message, transfer) {
    if (!this.#end) this.#port?.post(message, transfer);
  }

  /**
   * Posts a request. The promise settles when the worker answers.
   * @param {object} message
   * @param {object} [options]
   * @param {AbortSignal | undefined} [options.signal]  an abort is passed on to the worker
   * @param {ArrayBuffer[]} [options.transfer]
   * @param {(message: any) => void} [options.onEvent]  called with each message about this call
   *   before its answer
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

  /**
   * Handles an answer or an event. If onEvent throws, the call ends with that error.
   * @param {any} message
   */
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

  /** Rejects all pending and future calls. @param {Error} error */
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
