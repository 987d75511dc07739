/* Modules with 64-bit addresses: where they cannot be, and why. Fetched only when there is to be one. */

/**
 * Why this engine cannot have such a module.
 * @param {import('./loader.js').Features} features
 * @returns {string | undefined}
 */
export function lacking64({ memory64, relaxedSimd }) {
  if (!memory64) return 'this engine has no 64-bit memories';
  return relaxedSimd ? undefined : 'the 64-bit module needs relaxed SIMD, which this engine lacks';
}

/**
 * Whether addresses have 64 bits, as they were to have, and why not.
 * @param {boolean} is64
 * @param {string | undefined} failure  of the module that would have them
 * @param {boolean} isOne  one module was given, for everything
 */
export function explain64(is64, failure, isOne) {
  if (is64) return 'asked for';
  return `32 bits: ${failure ?? (isOne ? 'the given module has 32 bits' : 'wasm has no relaxed-mt-64')}`;
}
