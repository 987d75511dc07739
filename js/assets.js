/* URLs of the wasm modules of the package. The scripts of threads and workers are in
 * assets-worker.js, which is loaded with them.
 *
 * Bundlers find files by the pattern `new URL('...', import.meta.url)`, so each path is written
 * out. The paths are also right from dist/, as dist/worker-host.js contains this file. Importing
 * evaluates none of them: a bundle that is no ES module has no import.meta.url, and in a worker
 * from a blob: URL it is no base for other URLs. */

import { LoadError } from './errors.js';

const WASM = {
  'relaxed-mt-64': () => new URL('../dist/fused-relaxed-mt-64.wasm', import.meta.url),
  'relaxed-mt': () => new URL('../dist/fused-relaxed-mt.wasm', import.meta.url),
  'simd128-mt': () => new URL('../dist/fused-simd128-mt.wasm', import.meta.url),
  relaxed: () => new URL('../dist/fused-relaxed.wasm', import.meta.url),
  simd128: () => new URL('../dist/fused-simd128.wasm', import.meta.url),
  scalar: () => new URL('../dist/fused-scalar.wasm', import.meta.url),
};

export const MODULE_NAMES = /** @type {import('./wasm/loader.js').ModuleName[]} */ (Object.keys(WASM));

/** The reason why files next to this code cannot be found. */
export const NO_ADDRESS = 'this code has no address (a script or CommonJS bundle, a blob: or data: URL)';

/**
 * The URL of a module of the package.
 * @param {import('./wasm/loader.js').ModuleName} name
 * @throws {LoadError}
 */
export function wasmUrl(name) {
  try {
    return WASM[name]();
  } catch (cause) {
    throw new LoadError(`${NO_ADDRESS}; pass createKernels({ wasm }): see the README, Bundlers`, { cause });
  }
}
