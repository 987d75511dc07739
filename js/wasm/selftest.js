/* The known-answer self-test, which checks that this engine computes what the instructions promise,
 * and the timed choice between the two relaxed dot products.
 *
 * It runs when a module is loaded, in JavaScript and WebAssembly that no engine has optimised yet.
 * So it calls each kernel only as often as its shapes need, and computes no products in JavaScript:
 * the f32 product of a type, whose sums are exact in any order, has known bits (a stored hash), and
 * the other products of that type are compared with it. */

import { performance } from '../node.js';
import { findType, weightBytes } from '../types.js';

/** @typedef {import('../types.js').GgmlType} GgmlType */
/** @typedef {import('./memory.js').WasmExports} WasmExports */

/** Name of an instruction set. @typedef {'scalar' | 'simd128' | 'relaxed'} Isa */
/**
 * Variant of the relaxed instruction set: the dot product that it uses.
 * @typedef {'i16' | 'i32'} Dot
 */
/**
 * Type that activations are converted to for products with quantised weights.
 * @typedef {'f32' | 'int16' | 'int8'} Activation
 */

export const ISA_NAMES = /** @type {const} */ (['scalar', 'simd128', 'relaxed']);
export const DOT_NAMES = /** @type {const} */ (['i16', 'i32']);
export const ACTIVATION_NAMES = /** @type {const} */ (['f32', 'int16', 'int8']);

/** The rows of a strip (8) and one more. */
export const N_ROWS = 9;
export const N_COLS = 512;
/** Two tiles of 4 tokens and one more. */
const N_TOKENS = 9;

/** A product, as [tokens, rows]. @typedef {[number, number]} Shape */

/**
 * Every number of rows, and every number of tokens that takes its own path through the kernels:
 * matrix-vector (1, 2, 3), a tile (4), two tiles in part and in full (5, 8), and one token more,
 * which is a tile in part (9). A matrix-matrix kernel splits them into patches of 8 tokens by 1 to 4
 * rows and of 4 tokens by 1 to 8 rows; all of these occur. Kernels for FM_ALONE are not run here.
 * @type {Shape[]}
 */
export const ALL = [
  [1, 9],
  [2, 9],
  [3, 9],
  [9, 1],
  [9, 2],
  [9, 3],
  [9, 4],
  [9, 5],
  [4, 6],
  [9, 7],
  [4, 8],
  [5, 9],
  [8, 9],
];
/**
 * Matrix-vector, and patches of both kinds in part and in full, for types whose matrix-matrix
 * kernels share the code that stores results with other types.
 * @type {Shape[]}
 */
export const FEW = [
  [1, 9],
  [4, 4],
  [9, 5],
];

/** The f32 kernels take one row at a time. @type {Shape[]} */
export const F32 = [
  [1, 2],
  [2, 2],
  [3, 2],
  [4, 2],
  [5, 2],
  [8, 2],
];

/**
 * The products of a type, and the answers that they are compared with.
 * @typedef {object} KnownAnswer
 * @property {string} type
 * @property {number} hash  Result of hashValues for the f32 product of all tokens and rows.
 * @property {number} tolerance  Largest error of the other products: int16 activations are not
 *   exact.
 * @property {Partial<Record<Activation, Shape[]>>} shapes  Shapes of the other products.
 */

/**
 * One type for each way the kernels use the relaxed instructions: unsigned codes with integer
 * scales, codes that take all 8 bits, codes looked up by a swizzle with f32 scales, no codes.
 * Hashes and tolerances come from a decoder in JavaScript (tests/wasm/selftest.test.js).
 * @type {KnownAnswer[]}
 */
export const KNOWN_ANSWERS = [
  { type: 'Q4_K', hash: 667242927, tolerance: 7.5, shapes: { f32: [[1, 1]], int16: ALL, int8: ALL } },
  { type: 'Q8_0', hash: 2342153567, tolerance: 1.9, shapes: { int16: FEW, int8: FEW } },
  { type: 'MXFP4', hash: 3227498463, tolerance: 0.18, shapes: { int16: FEW, int8: FEW } },
  { type: 'F16', hash: 3942169039, tolerance: 0, shapes: { f32: F32 } },
];

/** 640 random bytes, the same everywhere (xorshift32). */
const RANDOM = (() => {
  const words = new Uint32Array(160);
  let state = 0x9e3779b9;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return new Uint8Array(words.buffer);
})();

/**
 * Columns of a piece. A row of weights is made of two out of three pieces, which gives 9 different
 * rows.
 */
const PIECE_COLS = 256;

/**
 * Makes rows of 512 columns with random codes. The scales have so few bits that sums of products
 * are exact.
 * @param {string} typeName
 * @param {number} [nRows]
 */
export function testWeights(typeName, nRows = N_ROWS) {
  const type = /** @type {GgmlType} */ (findType(typeName));
  const pieceBytes = weightBytes(type, 1, PIECE_COLS);
  const pieces = [0, 64, 128].map((at) => withPlainScales(type, RANDOM.slice(at, at + pieceBytes)));
  const bytes = new Uint8Array(2 * nRows * pieceBytes);
  for (let row = 0; row < nRows; row++) {
    bytes.set(pieces[Math.floor(row / 3) % 3], 2 * row * pieceBytes);
    bytes.set(pieces[row % 3], (2 * row + 1) * pieceBytes);
  }
  return bytes;
}

/** Bytes of f16 scales at the start of a block, where they are not one f16. */
const SCALE_BYTES = /** @type {Record<string, number>} */ ({ Q4_K: 4, MXFP4: 0 });

/**
 * Sets f16 scales to 1 or 1.5 times 2^-6, of either sign. The values of F16 are its scales, and
 * keep 8 fractional bits. The scales of MXFP4 are exponents, and become 2^-6 or 2^-5.
 * @param {GgmlType} type
 * @param {Uint8Array} blocks
 */
function withPlainScales({ name, blockBytes }, blocks) {
  const [low, high] = name === 'F16' ? [0xfc, 0x83] : [0, 0x82];
  const scaleBytes = SCALE_BYTES[name] ?? 2;
  for (let block = 0; block < blocks.length; block += blockBytes) {
    if (name === 'MXFP4') blocks[block] = 122 + (blocks[block] & 1);
    for (let at = block; at < block + scaleBytes; at += 2) {
      blocks[at] &= low;
      blocks[at + 1] = 0x24 | (blocks[at + 1] & high);
    }
  }
  return blocks;
}

/** Columns of a token that share a sign. */
const SIGN_COLS = 64;

/**
 * X [9][512]: integers from -64 to 63 with a 127 or -127 in every 32 of them, so that int8 holds
 * them exactly. Every 256 are the same numbers, with signs that tell tokens and halves apart.
 */
export function testActivations() {
  const plus = new Float32Array(PIECE_COLS);
  const minus = new Float32Array(PIECE_COLS);
  for (let c = 0; c < PIECE_COLS; c++) {
    plus[c] = c % 32 === 13 ? 127 : (RANDOM[c] >> 1) - 64;
    minus[c] = -plus[c];
  }
  const x = new Float32Array(N_TOKENS * N_COLS);
  for (let at = 0; at < x.length; at += SIGN_COLS) {
    const first = at % PIECE_COLS;
    const signs = Math.floor(at / N_COLS) + (at % N_COLS < PIECE_COLS ? 0 : 4);
    const signed = (signs >> (first / SIGN_COLS)) & 1 ? minus : plus;
    x.set(signed.subarray(first, first + SIGN_COLS), at);
  }
  return x;
}

/**
 * FNV-1a hash of the bits, 32 at a time.
 * @param {Float32Array} values
 */
export function hashValues(values) {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  let hash = 0x811c9dc5;
  for (let i = 0; i < words.length; i++) hash = Math.imul(hash ^ words[i], 0x01000193);
  return hash >>> 0;
}

/**
 * Copies bytes into wasm memory, with room for outputs after them, for the duration of a call.
 * @template T
 * @param {WasmExports} exports
 * @param {{ w: Uint8Array, x: Float32Array, nOut: number }} data
 * @param {(at: { w: number, x: number, y: number, out: () => Float32Array }) => T} body
 */
export function withData(exports, { w, x, nOut }, body) {
  const room = [w.byteLength, x.byteLength, nOut * 4].map((bytes) => exports.fm_alloc(bytes));
  try {
    if (room.includes(0)) throw new Error('the memory cannot hold the test');
    const heap = new Uint8Array(exports.memory.buffer);
    heap.set(w, room[0]);
    heap.set(new Uint8Array(x.buffer), room[1]);
    const [atW, atX, atY] = room;
    return body({ w: atW, x: atX, y: atY, out: () => new Float32Array(exports.memory.buffer, atY, nOut) });
  } finally {
    for (const ptr of room) exports.fm_free(ptr);
  }
}

/**
 * Runs the weights of one type through the kernels that are selected now.
 * @param {WasmExports} exports
 * @param {KnownAnswer} known
 * @param {Float32Array} x
 * @param {readonly Activation[]} activations
 * @returns {string | undefined} what is wrong
 */
function checkType(exports, { type, hash, tolerance, shapes }, x, activations) {
  const { id } = /** @type {GgmlType} */ (findType(type));
  return withData(exports, { w: testWeights(type), x, nOut: N_TOKENS * N_ROWS }, (at) => {
    const y = at.out();
    /** @param {number} nTokens @param {number} nRows @param {number} activation */
    const multiply = (nTokens, nRows, activation) => {
      y.fill(Number.NaN);
      const status = exports.fused_matmul(id, at.w, at.x, at.y, nTokens, nRows, N_COLS, activation);
      return status === 0 ? '' : `, status ${status}`;
    };
    let wrong = multiply(N_TOKENS, N_ROWS, ACTIVATION_NAMES.indexOf('f32'));
    const right = y.slice();
    const got = hashValues(right);
    if (got !== hash) wrong ||= `: hash ${got} where ${hash} is right`;
    if (wrong) return `${type} x f32 is wrong${wrong}`;
    for (const [activation, name] of ACTIVATION_NAMES.entries()) {
      // If another mode serves this one for the type, that mode is tested by itself.
      const isServed = exports.fm_served_by(id, activation) >> 8 === activation;
      if (!isServed || !activations.includes(name)) continue;
      for (const [nTokens, nRows] of shapes[name] ?? []) {
        wrong = multiply(nTokens, nRows, activation) || firstWrong(y, right, nTokens, nRows, tolerance);
        if (wrong) return `${type} x ${name}, ${nTokens} token(s) by ${nRows} row(s), is wrong${wrong}`;
      }
    }
    return undefined;
  });
}

/**
 * @param {Float32Array} got  [nTokens][nRows]
 * @param {Float32Array} right  [9][9]
 * @param {number} nTokens
 * @param {number} nRows
 * @param {number} tolerance
 */
function firstWrong(got, right, nTokens, nRows, tolerance) {
  for (let token = 0, i = 0; token < nTokens; token++) {
    for (let row = 0; row < nRows; row++, i++) {
      const wanted = right[token * N_ROWS + row];
      // Written so that NaN counts as wrong.
      if (!(Math.abs(got[i] - wanted) <= tolerance)) return `: ${got[i]} where ${wanted} is right`;
    }
  }
  return '';
}

/**
 * Checks one instruction set (and relaxed variant) of a module, and leaves it selected.
 * @param {WasmExports} exports
 * @param {Isa} isa
 * @param {Dot} dot
 * @param {readonly Activation[]} [activations]  modes whose kernels have not passed yet
 * @returns {string | undefined} the reason why it cannot be used; undefined if it passed
 */
export function selfTest(exports, isa, dot, activations = ACTIVATION_NAMES) {
  if (exports.fm_select(ISA_NAMES.indexOf(isa), DOT_NAMES.indexOf(dot)) !== 0)
    return `the module does not hold ${isa}`;
  try {
    const x = testActivations();
    for (const known of KNOWN_ANSWERS) {
      const wrong = checkType(exports, known, x, activations);
      if (wrong) return `self-test failed: ${wrong}`;
    }
  } catch (error) {
    return `self-test failed: ${error instanceof Error ? error.message : error}`;
  }
  return undefined;
}

/**
 * Milliseconds of a round of the timed choice, for each variant: long enough for a clock of 0.1 ms,
 * short enough for a start-up.
 */
const ROUND_MS = 0.2;
const ROUNDS = 4;
const MAX_CALLS = 4096;
const CHOICE_ROWS = 16;
const CHOICE_COLS = 1024;

/**
 * Times the relaxed variants on a Q4_K matrix-vector product, interleaved; the smallest time per
 * call counts.
 * @param {WasmExports} exports
 * @param {Dot[]} dots  variants that passed the self-test
 * @returns {Record<string, number>} milliseconds per call
 */
export function timeDots(exports, dots) {
  const type = /** @type {GgmlType} */ (findType('Q4_K'));
  const w = testWeights('Q4_K', (CHOICE_ROWS * CHOICE_COLS) / N_COLS);
  const x = testActivations().slice(0, CHOICE_COLS);
  const int8 = ACTIVATION_NAMES.indexOf('int8');
  return withData(exports, { w, x, nOut: CHOICE_ROWS }, (at) => {
    /** @param {number} nCalls */
    const run = (nCalls) => {
      const start = performance.now();
      for (let i = 0; i < nCalls; i++) {
        exports.fused_matmul(type.id, at.w, at.x, at.y, 1, CHOICE_ROWS, CHOICE_COLS, int8);
      }
      return performance.now() - start;
    };
    /** @param {Dot} dot */
    const use = (dot) => exports.fm_select(ISA_NAMES.indexOf('relaxed'), DOT_NAMES.indexOf(dot));
    use(dots[0]);
    let nCalls = 8;
    while (run(nCalls) < ROUND_MS && nCalls < MAX_CALLS) nCalls *= 2;
    // The other variants get the same number of warm-up calls, so that the optimiser has seen as
    // much of each.
    for (const dot of dots.slice(1)) {
      use(dot);
      run(2 * nCalls);
    }
    /** @type {Record<string, number>} */
    const best = {};
    for (let round = 0; round < ROUNDS; round++) {
      for (const dot of dots) {
        use(dot);
        best[dot] = Math.min(best[dot] ?? Number.POSITIVE_INFINITY, run(nCalls) / nCalls);
      }
    }
    return best;
  });
}
