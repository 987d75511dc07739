/* The files of the package that are loaded at run time by address: the modules, the thread, the worker.
 *
 * Bundlers find such files by the pattern `new URL('...', import.meta.url)`, so each address is written out. The paths hold from
 * dist/ too, where dist/worker-host.js contains this file. Nothing is evaluated on import: bundles of other formats than ES
 * modules have no import.meta.url. */

import { isNode, nodeModule } from './node.js';

const WASM = {
  'relaxed-mt-64': () => new URL('../dist/fused-relaxed-mt-64.wasm', import.meta.url),
  'relaxed-mt': () => new URL('../dist/fused-relaxed-mt.wasm', import.meta.url),
  'simd128-mt': () => new URL('../dist/fused-simd128-mt.wasm', import.meta.url),
  relaxed: () => new URL('../dist/fused-relaxed.wasm', import.meta.url),
  simd128: () => new URL('../dist/fused-simd128.wasm', import.meta.url),
  scalar: () => new URL('../dist/fused-scalar.wasm', import.meta.url),
};

export const MODULE_NAMES = /** @type {import('./wasm/loader.js').ModuleName[]} */ (Object.keys(WASM));

/**
 * The address of a module of the package.
 * @param {import('./wasm/loader.js').ModuleName} name
 */
export const wasmUrl = (name) => WASM[name]();

/** A function that starts a thread of the pool. @returns {Promise<() => any>} */
export async function threadFactory() {
  if (!isNode) return () => new Worker(new URL('../js/thread.js', import.meta.url), { type: 'module' });
  const { Worker: NodeWorker } = await nodeModule('worker_threads');
  // Not the pattern above, by which bundlers find workers for browsers.
  const here = import.meta.url;
  return () => new NodeWorker(new URL('../js/thread.js', here), { execArgv: [], name: 'fused-matmul' });
}

/** The address of the worker's script, for Node. */
export function workerUrl() {
  const base = import.meta.url;
  return new URL('../dist/worker-host.js', base);
}

/** Starts the worker of createWorkerKernels in a browser. @returns {Worker} */
export function startWorker() {
  try {
    // Written out like this, bundlers find the script.
    return new Worker(new URL('../dist/worker-host.js', import.meta.url), {
      type: 'module',
      name: 'fused-matmul',
    });
  } catch (error) {
    // A script of another origin (a CDN) cannot be a worker, but one of ours can import it.
    const url = workerUrl();
    if (url.origin === globalThis.location?.origin) throw error;
    const code = new Blob([`import ${JSON.stringify(url.href)};`], { type: 'text/javascript' });
    const address = URL.createObjectURL(code);
    const worker = new Worker(address, { type: 'module', name: 'fused-matmul' });
    worker.addEventListener('message', () => URL.revokeObjectURL(address), { once: true });
    return worker;
  }
}
