/* The wasm modules of the package, by address. The scripts of threads and workers: assets-worker.js, loaded with them.
 *
 * Bundlers find such files by the pattern `new URL('...', import.meta.url)`, so each address is written out. The paths hold from
 * dist/ too, where dist/worker-host.js contains this file. Nothing is evaluated on import: a bundle that is no ES module has no
 * import.meta.url, and in a worker from a blob: URL it is no base of other addresses. */

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

/** Why files beside this code cannot be found. */
export const NO_ADDRESS = 'this code has no address (a script or CommonJS bundle, a blob: or data: URL)';

/**
 * The address of a module of the package.
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
