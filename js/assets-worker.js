/* The start of workers, shared by the files that name a script: assets-thread.js, assets-kernels.js and assets-llama.js. They are
 * separate because bundlers copy the script of every address they meet into a build, used or not. As in assets.js, each
 * address is written out where a browser's worker is made, and not where Node's is. */

import { NO_ADDRESS } from './assets.js';
import { LoadError } from './errors.js';

/**
 * @param {string} path  from this file
 * @param {string} what  for messages
 * @param {string} instead  what helps
 * @returns {URL}
 * @throws {LoadError}
 */
export function scriptUrl(path, what, instead) {
  const here = import.meta.url;
  try {
    return new URL(path, here);
  } catch (cause) {
    throw new LoadError(`${what} cannot be found: ${NO_ADDRESS}; ${instead}`, { cause });
  }
}

/**
 * The script of a worker: its address, and how a browser starts it.
 * @typedef {{ url: () => URL, start: () => Worker }} Script
 */

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
