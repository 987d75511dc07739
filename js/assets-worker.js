/* The scripts that are started at run time: of the threads, and of the worker. As in assets.js, each address is written out where
 * a browser's worker is made, and not where Node's is: bundlers make bundles of the former. */

import { NO_ADDRESS } from './assets.js';
import { LoadError } from './errors.js';
import { isNode, nodeModule } from './node.js';

/**
 * @param {string} path  from this file
 * @param {string} what  for messages
 * @param {string} instead  what helps
 * @returns {URL}
 * @throws {LoadError}
 */
function scriptUrl(path, what, instead) {
  const here = import.meta.url;
  try {
    return new URL(path, here);
  } catch (cause) {
    throw new LoadError(`${what} cannot be found: ${NO_ADDRESS}; ${instead}`, { cause });
  }
}

/**
 * A function that starts a thread of the pool.
 * @returns {Promise<() => any>}
 * @throws {LoadError}
 */
export async function threadFactory() {
  const url = scriptUrl(
    '../js/thread.js',
    "the threads' script js/thread.js",
    'bundle as ES modules, or use createWorkerKernels({ worker }), whose script has it beside it',
  );
  if (!isNode) return () => new Worker(new URL('../js/thread.js', import.meta.url), { type: 'module' });
  const { Worker: NodeWorker } = await nodeModule('worker_threads');
  return () => new NodeWorker(url, { execArgv: [], name: 'fused-matmul' });
}

/**
 * The script of a worker: its address, and how a browser starts it.
 * @typedef {{ url: () => URL, start: () => Worker }} Script
 */

/** The worker of createWorkerKernels. @type {Script} */
export const KERNELS_SCRIPT = {
  url: () =>
    scriptUrl(
      '../dist/worker-host.js',
      "the worker's script dist/worker-host.js",
      'pass createWorkerKernels({ worker }): a Worker that runs fused-matmul/worker-host, or the address of that file',
    ),
  start: () =>
    new Worker(new URL('../dist/worker-host.js', import.meta.url), {
      type: 'module',
      name: 'fused-matmul',
    }),
};

/** The worker of createWorkerLlama. @type {Script} */
export const LLAMA_SCRIPT = {
  url: () =>
    scriptUrl(
      '../dist/llama-host.js',
      "the worker's script dist/llama-host.js",
      'pass createWorkerLlama(source, { worker }): a Worker that runs fused-matmul/llama-host, or the address of that file',
    ),
  start: () =>
    new Worker(new URL('../dist/llama-host.js', import.meta.url), {
      type: 'module',
      name: 'fused-matmul',
    }),
};

/**
 * Starts a script of the package in a browser.
 * @param {Script} script
 * @returns {Worker}
 * @throws {LoadError}
 */
export function startWorker({ url: address, start }) {
  const url = address();
  try {
    return start();
  } catch (error) {
    // A script of another origin (a CDN) cannot be a worker, but one of ours can import it.
    if (url.origin === globalThis.location?.origin) throw error;
    const code = new Blob([`import ${JSON.stringify(url.href)};`], { type: 'text/javascript' });
    const blob = URL.createObjectURL(code);
    const worker = new Worker(blob, { type: 'module', name: 'fused-matmul' });
    worker.addEventListener('message', () => URL.revokeObjectURL(blob), { once: true });
    return worker;
  }
}
