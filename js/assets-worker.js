/* Starts workers, for the files that name a script: assets-thread.js, assets-kernels.js and
 * assets-llama.js. These are separate files because bundlers copy the script of every `new URL`
 * they find, used or not. As in assets.js, the URL is written out where a browser's worker is made,
 * but not for Node. */

import { NO_ADDRESS } from './assets.js';
import { LoadError } from './errors.js';

/**
 * @param {string} path  path from this file
 * @param {string} what  name of the file in messages
 * @param {string} instead  advice in messages
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
 * The script of a worker: its URL, and a function that starts it in a browser.
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
    // A script of another origin (a CDN) cannot be a worker, but a local script can import it.
    if (url.origin === globalThis.location?.origin) throw error;
    const code = new Blob([`import ${JSON.stringify(url.href)};`], { type: 'text/javascript' });
    const blob = URL.createObjectURL(code);
    const worker = new Worker(blob, { type: 'module', name: 'fused-matmul' });
    worker.addEventListener('message', () => URL.revokeObjectURL(blob), { once: true });
    return worker;
  }
}
