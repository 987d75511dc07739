/* Detects what this engine's WebAssembly supports, by validating small modules that are valid only
 * with a feature. Nothing is compiled. */

/** @typedef {import('./loader.js').Features} Features */

/**
 * Tells whether a module with these sections is valid. The sections follow "\0asm" and the version.
 * @param {number[]} sections
 */
const isValid = (...sections) =>
  WebAssembly.validate(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, ...sections));

/**
 * Tells whether a function with these instructions may return a v128. The module has a type section
 * () -> v128, a function section and a code section.
 * @param {number[]} code
 */
const isVector = (...code) =>
  isValid(
    ...[1, 5, 1, 96, 0, 1, 123],
    ...[3, 2, 1, 0],
    ...[10, code.length + 4, 1, code.length + 2, 0, ...code, 11],
  );

/** (i8x16.splat (i32.const 0)) */
const ZEROS = [65, 0, 253, 15];

/** @type {Features | undefined} */
let features;

/** @returns {Features} */
export function detectFeatures() {
  features ??= {
    // i8x16.popcnt, the last instruction that engines added.
    simd: isVector(...ZEROS, 253, 98),
    // i8x16.relaxed_swizzle.
    relaxedSimd: isVector(...ZEROS, ...ZEROS, 253, 128, 2),
    threads: hasThreads(),
    // A memory of one page with 64-bit addresses.
    memory64: isValid(5, 3, 1, 4, 1),
  };
  return features;
}

function hasThreads() {
  try {
    // Throws without shared memory, and on pages that are not isolated, which cannot send it to
    // workers.
    structuredClone(new SharedArrayBuffer(1));
  } catch {
    return false;
  }
  // A shared memory of one page: flags 3.
  return isValid(5, 4, 1, 3, 1, 1);
}
