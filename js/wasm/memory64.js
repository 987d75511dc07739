/* Modules with 64-bit addresses: why they cannot be used. This file is fetched only if 64-bit
 * addresses are asked for. */

/**
 * The reason why this engine cannot run such a module.
 * @param {import('./loader.js').Features} features
 * @returns {string | undefined}
 */
export function lacking64({ memory64, relaxedSimd }) {
  if (!memory64) return 'this engine has no 64-bit memories';
  return relaxedSimd ? undefined : 'the 64-bit module needs relaxed SIMD, which this engine lacks';
}

/**
 * Says whether addresses have 64 bits, and why not.
 * @param {boolean} is64
 * @param {string | undefined} failure  failure of the 64-bit module
 * @param {boolean} isOne  whether the caller gave one module for everything
 */
export function explain64(is64, failure, isOne) {
  if (is64) return 'asked for';
  return `32 bits: ${failure ?? (isOne ? 'the given module has 32 bits' : 'wasm has no relaxed-mt-64')}`;
}
