/* One interface to a worker in browsers and in Node: messages, one notice of its end, and a clean
 * shutdown. */

import { startWorker } from '../assets-worker.js';
import { ArgumentError, LoadError, show, WorkerError } from '../errors.js';
import { isNode, nodeModule } from '../node.js';

/**
 * @typedef {object} Port
 * @property {(message: object, transfer?: ArrayBuffer[]) => void} post
 * @property {() => Promise<void>} close  Ends the worker.
 * @property {(busy: boolean) => void} hold  Whether the worker keeps the process alive (Node).
 */

/**
 * @typedef {object} Listeners
 * @property {(message: any) => void} onMessage
 * @property {(error: Error) => void} onEnd  Called at most once, when the worker ends without
 *   close().
 */

/**
 * A Worker, a function that makes one, or the URL of its script.
 * @typedef {Worker | (() => Worker) | URL | string} WorkerSource
 */

/**
 * @param {WorkerSource | undefined} source
 * @param {import('../assets-worker.js').Script} script  the script to start if there is no source
 * @param {Listeners} listeners
 * @returns {Promise<Port>}
 * @throws {LoadError}
 */
export async function openPort(source, script, listeners) {
  let worker;
  try {
    worker = await spawn(source, script);
  } catch (cause) {
    if (cause instanceof ArgumentError || cause instanceof LoadError) throw cause;
    throw startError(/** @type {Error} */ (cause)?.message ?? cause, cause);
  }
  return typeof worker.on === 'function' ? nodePort(worker, listeners) : browserPort(worker, listeners);
}

/** @param {string} why @param {unknown} cause */
export function startError(why, cause) {
  const hint = isNode
    ? ''
    : '. Its script must be there, and a Content-Security-Policy must allow it in worker-src';
  return new LoadError(`the worker cannot be started: ${why}${hint}`, { cause });
}

/**
 * @param {WorkerSource | undefined} source
 * @param {import('../assets-worker.js').Script} script
 * @returns {Promise<any>}
 */
async function spawn(source, script) {
  const given = typeof source === 'function' ? source() : source;
  if (typeof given === 'object' && !(given instanceof URL)) {
    if (typeof given?.postMessage === 'function') return given;
    throw new ArgumentError(
      `worker must be a Worker, a function that makes one, or a URL, got ${show(given)}`,
    );
  }
  if (isNode) {
    const { Worker: NodeWorker } = await nodeModule('worker_threads');
    const url = given ?? script.url();
    // A worker inherits the options of this process; --input-type would break its script.
    const { execArgv } = process;
    const fromCommandLine = execArgv.some((option) => option.startsWith('--input-type'));
    return new NodeWorker(/^[a-z]{2,}:/i.test(String(url)) ? new URL(url) : url, {
      name: 'fused-matmul',
      ...(fromCommandLine && { execArgv: [] }),
    });
  }
  return given === undefined
    ? startWorker(script)
    : new Worker(given, { type: 'module', name: 'fused-matmul' });
}

/**
 * @param {any} worker  a Worker of node:worker_threads
 * @param {Listeners} listeners
 * @returns {Port}
 */
function nodePort(worker, { onMessage, onEnd }) {
  let open = true;
  /** @type {Error | undefined} */
  let failure;
  worker.on('message', onMessage);
  worker.on('error', (/** @type {Error} */ error) => {
    failure = error;
  });
  worker.on('messageerror', (/** @type {Error} */ error) => {
    failure = error;
    worker.terminate();
  });
  worker.on('exit', (/** @type {number} */ code) => {
    if (!open) return;
    open = false;
    onEnd(ended(failure ? failure.message : `exit code ${code}`, failure));
  });
  return {
    post: (message, transfer) => worker.postMessage(message, transfer),
    hold: (busy) => (busy ? worker.ref() : worker.unref()),
    close: async () => {
      open = false;
      await worker.terminate();
    },
  };
}

/**
 * @param {Worker} worker
 * @param {Listeners} listeners
 * @returns {Port}
 */
function browserPort(worker, { onMessage, onEnd }) {
  const watch = new AbortController();
  const terminate = worker.terminate.bind(worker);
  let open = true;
  const close = async () => {
    open = false;
    watch.abort();
    terminate();
  };
  /** @param {string} why @param {unknown} [cause] */
  const end = (why, cause) => {
    if (!open) return;
    close();
    onEnd(ended(why, cause));
  };
  // No event tells that a worker has ended.
  worker.terminate = () => {
    terminate();
    end('it was terminated');
  };
  worker.addEventListener('message', ({ data }) => {
    if (!open) return;
    if (data.kind === 'alive') awaitLock(data.lock);
    else onMessage(data);
  });
  worker.addEventListener('error', (event) => {
    event.preventDefault?.();
    end(
      event.message ||
        'its script could not be loaded; where a build moved it, give { worker } the address of fused-matmul/worker-host or, for a model, fused-matmul/llama-host',
      event.error ?? undefined,
    );
  });
  worker.addEventListener('messageerror', () => end('a message could not be read'));
  // The worker holds a lock as long as it lives, so getting the lock means that it has ended.
  const awaitLock = (/** @type {string} */ name) =>
    navigator.locks.request(name, { signal: watch.signal }, () => end('it was closed')).catch(() => {});
  return { post: (message, transfer = []) => worker.postMessage(message, transfer), hold: () => {}, close };
}

/**
 * @param {string} why
 * @param {unknown} cause
 */
function ended(why, cause) {
  return new WorkerError(`the worker ended: ${why}`, cause === undefined ? undefined : { cause });
}
