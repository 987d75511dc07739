/* Detects what this engine's WebAssembly supports, by validating modules that are valid only with a feature. Nothing is compiled. */

/** @typedef {import('./loader.js').Features} Features */

/** Whether a module of these sections is valid. Behind "\0asm" and the version. @param {number[]} sections */
const isValid = (...sections) =>
  WebAssembly.validate(Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0, ...sections));

/**
 * Whether a function of these instructions may return a v128: a type section () -> v128, a function section, a code section.
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
    // i8x16.popcnt, which was the last to come.
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
    // Throws where there is no shared memory, and where workers cannot be given any: on a page that is not isolated.
    structuredClone(new SharedArrayBuffer(1));
  } catch {
    return false;
  }
  // A shared memory of one page: flags 3.
  return isValid(5, 4, 1, 3, 1, 1);
}
