/**
 * The workers' end of lab.js. Calls { id, op, args } are served one after the other; answers are { id, value } or { id, error },
 * and before them { kind: 'event', id, event }. { kind: 'abort', id } stops a call at its next breath.
 */
import { packError } from '../js/worker/errors.js';
import { serve } from '../js/worker/scope.js';

/** @typedef {{ signal: AbortSignal, onEvent: (event: any) => void }} Context */
/** @typedef {{ id: number, op: string, args: any }} Call */

/**
 * @param {object} lab  whose methods are called, each with its arguments and a Context
 * @param {readonly string[]} [atOnce]  methods that touch nothing that the others use, and wait for none of them
 */
export function serveCalls(lab, atOnce = []) {
  const methods = /** @type {Record<string, (args: any, context: Context) => Promise<unknown>>} */ (lab);
  serve((post) => {
    /** @type {Map<number, AbortController>} */
    const running = new Map();
    let queue = Promise.resolve();

    /** @param {Call} call @param {AbortSignal} signal */
    async function answer({ id, op, args }, signal) {
      try {
        signal.throwIfAborted();
        const onEvent = (/** @type {any} */ event) => post({ kind: 'event', id, event });
        post({ id, value: await methods[op](args, { signal, onEvent }) });
      } catch (error) {
        post({ id, error: packError(error) });
      } finally {
        running.delete(id);
      }
    }

    return {
      /** @param {Call & { kind?: 'abort' }} message */
      receive(message) {
        const { kind, id, op } = message;
        if (kind === 'abort') {
          running.get(id)?.abort();
          return;
        }
        const controller = new AbortController();
        running.set(id, controller);
        if (atOnce.includes(op)) answer(message, controller.signal);
        else queue = queue.then(() => answer(message, controller.signal));
      },
    };
  });
}
