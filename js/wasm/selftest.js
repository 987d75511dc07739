/* The known-answer self-test and the timed choice: does this engine compute what the instructions promise,
 * and which of the two relaxed dot products is the faster one here?
 *
 * The weights are a few blocks of each kind made from a fixed generator. What they dequantise to is known bit
 * by bit (a stored hash); every product is compared with the float64 product of those values. Activations are
 * integers with 127 as the largest of every block, so that int8 holds them exactly. */

import { performance } from '../node.js';
import { findType, weightBytes } from '../types.js';

/** @typedef {import('./memory.js').WasmExports} WasmExports */

/** An instruction set. @typedef {'scalar' | 'simd128' | 'relaxed'} Isa */
/** A variant of the relaxed set: the dot product it is built on. @typedef {'i16' | 'i32'} Dot */
/** What activations become before they meet quantised weights. @typedef {'f32' | 'int16' | 'int8'} Activation */

export const ISA_NAMES = /** @type {const} */ (['scalar', 'simd128', 'relaxed']);
export const DOT_NAMES = /** @type {const} */ (['i16', 'i32']);
export const ACTIVATION_NAMES = /** @type {const} */ (['f32', 'int16', 'int8']);

/** The rows of a strip (8) and one more, so that the matrix-matrix kernels meet a full strip and every remainder. */
export const N_ROWS = 9;
export const N_COLS = 512;
/**
 * Numbers of tokens, one for each path through the kernels: matrix-vector (1, 2), a tile of 4 tokens in part and in full (3, 4), a tile of
 * 8 in part and in full (5, 8), and a tile of 8 with one more (9).
 */
export const TOKENS = [1, 2, 3, 4, 5, 8, 9];
/** The products, as [tokens, rows]: every number of tokens with all rows, then both tiles with every number of rows. @type {[number, number][]} */
export const SHAPES = [
  ...TOKENS.map((nTokens) => /** @type {[number, number]} */ ([nTokens, N_ROWS])),
  ...Array.from({ length: N_ROWS - 1 }, (_, i) => /** @type {[number, number]} */ ([N_ROWS, i + 1])),
];
/** The products of the f32 mode, whose kernels take one row at a time. @type {[number, number][]} */
const F32_SHAPES = TOKENS.map((nTokens) => [nTokens, 2]);
/** Of sum |x*w|: int16 is off by at most 127/32767/2 a value, where the mean |x| is 64: 3e-5. */
const TOLERANCE = 1e-4;

/**
 * hashValues of what the weights dequantise to, from a decoder in JavaScript
 * (tests/wasm/loader.test.js). One type for each way the kernels use the relaxed instructions: unsigned codes, codes
 * that take all 8 bits, codes looked up by a swizzle, no codes.
 */
export const KNOWN_ANSWERS = [
  { type: 'Q4_K', hash: 3863557869 },
  { type: 'Q8_0', hash: 3504145157 },
  { type: 'IQ4_NL', hash: 3632757445 },
  { type: 'F16', hash: 612099525 },
];

/** Random numbers of 32 bits, the same everywhere (xorshift32). @param {number} seed */
function generator(seed) {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/**
 * Rows of 512 columns: blocks of a type with random codes and f16 scales of 2^-6 to 2^-5, either sign.
 * @param {string} typeName
 * @param {number} [nRows]
 */
export function testWeights(typeName, nRows = N_ROWS) {
  const type = /** @type {import('../types.js').GgmlType} */ (findType(typeName));
  const bytes = new Uint8Array(weightBytes(type, nRows, N_COLS));
  const random = generator(0x9e3779b9);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < bytes.length; i += 4) view.setUint32(i, random(), true);
  // Of an f16 the sign and the mantissa stay random, the exponent becomes 9; Q4_K starts with two f16.
  const step = typeName === 'F16' ? 2 : type.blockBytes;
  for (let block = 0; block < bytes.length; block += step) {
    for (let at = block + 1; at < block + Math.min(4, step); at += 2) bytes[at] = 0x24 | (bytes[at] & 0x83);
  }
  return bytes;
}

/** Columns of a token that share a sign. */
const SIGN_COLS = 32;
const N_SIGNS = N_COLS / SIGN_COLS;
/** Token 0 has no signs; of any two tokens some differ in every 256 columns. @param {number} token @param {number} part  of SIGN_COLS columns */
const signOf = (token, part) => ((token * (2 * part + 1)) % 11 > 5 ? -1 : 1);

/**
 * X [9][512]: integers from -127 to 127 with a 127 or -127 in every 256 of them, so that int8 and int16 hold them exactly. Each token is the
 * first one with other signs, a sign for each 32 columns: the right products of all follow from the parts of the first one's.
 */
export function testActivations() {
  const random = generator(0x2545f491);
  const x = new Float32Array(TOKENS[TOKENS.length - 1] * N_COLS);
  for (let c = 0; c < N_COLS; c++) x[c] = c % 256 === 77 ? 127 : (random() % 255) - 127;
  for (let i = N_COLS; i < x.length; i++) {
    const c = i % N_COLS;
    x[i] = signOf(Math.floor(i / N_COLS), Math.floor(c / SIGN_COLS)) * x[c];
  }
  return x;
}

/**
 * FNV-1a of the bits, 32 at a time.
 * @param {Float32Array} values
 */
export function hashValues(values) {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  let hash = 0x811c9dc5;
  for (let i = 0; i < words.length; i++) hash = Math.imul(hash ^ words[i], 0x01000193);
  return hash >>> 0;
}

/**
 * Puts bytes into wasm memory, and room for outputs behind them, for the time of a call.
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

/** Y [9][9] in float64, and sum |x*w| of each row, the same for every token. @typedef {{ sums: Float64Array, scales: Float64Array }} Products */

/** The right products by type, computed once in a process. @type {Map<string, Products>} */
const products = new Map();

/**
 * @param {Float32Array} w
 * @param {Float32Array} x
 * @returns {Products}
 */
function multiply(w, x) {
  const parts = new Float64Array(N_ROWS * N_SIGNS);
  const scales = new Float64Array(N_ROWS);
  for (let i = 0; i < w.length; i++) {
    const product = x[i % N_COLS] * w[i];
    parts[Math.floor(i / SIGN_COLS)] += product;
    scales[Math.floor(i / N_COLS)] += Math.abs(product);
  }
  const sums = new Float64Array(TOKENS[TOKENS.length - 1] * N_ROWS);
  for (let i = 0; i < sums.length; i++) {
    const token = Math.floor(i / N_ROWS);
    for (let part = 0; part < N_SIGNS; part++)
      sums[i] += signOf(token, part) * parts[(i % N_ROWS) * N_SIGNS + part];
  }
  return { sums, scales };
}

/**
 * Runs the weights of one type through the kernels that are selected now.
 * @param {WasmExports} exports
 * @param {{ type: string, hash: number }} known
 * @param {Float32Array} x
 * @returns {string | undefined} what is wrong
 */
function checkType(exports, known, x) {
  const id = /** @type {import('../types.js').GgmlType} */ (findType(known.type)).id;
  return withData(exports, { w: testWeights(known.type), x, nOut: N_ROWS * N_COLS }, (at) => {
    let status = exports.fm_dequantize_rows(id, at.w, at.y, N_ROWS, N_COLS);
    const hash = hashValues(at.out());
    if (status !== 0 || hash !== known.hash) {
      return `${known.type} dequantises wrongly (status ${status}, hash ${hash})`;
    }
    const right = products.get(known.type) ?? multiply(at.out(), x);
    products.set(known.type, right);
    const y = at.out();
    for (const [activation, name] of ACTIVATION_NAMES.entries()) {
      for (const [nTokens, nRows] of name === 'f32' ? F32_SHAPES : SHAPES) {
        y.fill(Number.NaN, 0, nTokens * nRows);
        status = exports.fused_matmul(id, at.w, at.x, at.y, nTokens, nRows, N_COLS, activation);
        const wrong = status === 0 ? firstWrong(y, right, nTokens, nRows) : `, status ${status}`;
        if (wrong) return `${known.type} x ${name}, ${nTokens} token(s) by ${nRows} row(s), is wrong${wrong}`;
      }
    }
    return undefined;
  });
}

/**
 * @param {Float32Array} got
 * @param {Products} right
 * @param {number} nTokens
 * @param {number} nRows
 */
function firstWrong(got, { sums, scales }, nTokens, nRows) {
  for (let i = 0; i < nTokens * nRows; i++) {
    const row = i % nRows;
    const right = sums[Math.floor(i / nRows) * N_ROWS + row];
    // Written so that NaN is wrong.
    if (!(Math.abs(got[i] - right) <= TOLERANCE * scales[row])) return `: ${got[i]} where ${right} is right`;
  }
  return undefined;
}

/**
 * Checks one instruction set (and relaxed variant) of a module, and leaves it selected.
 * @param {WasmExports} exports
 * @param {Isa} isa
 * @param {Dot} dot
 * @returns {string | undefined} why it cannot be used; undefined when it passed
 */
export function selfTest(exports, isa, dot) {
  if (exports.fm_select(ISA_NAMES.indexOf(isa), DOT_NAMES.indexOf(dot)) !== 0)
    return `the module does not hold ${isa}`;
  try {
    const x = testActivations();
    for (const known of KNOWN_ANSWERS) {
      const wrong = checkType(exports, known, x);
      if (wrong) return `self-test failed: ${wrong}`;
    }
  } catch (error) {
    return `self-test failed: ${error instanceof Error ? error.message : error}`;
  }
  return undefined;
}

/** A round of the timed choice, a variant: long enough for a clock of 0.1 ms, short enough for a start-up. */
const ROUND_MS = 0.2;
const ROUNDS = 4;
const MAX_CALLS = 4096;
const CHOICE_ROWS = 16;
const CHOICE_COLS = 1024;

/**
 * Times the relaxed variants on a Q4_K matrix-vector product, interleaved; the smallest time a call counts.
 * @param {WasmExports} exports
 * @param {Dot[]} dots  those that passed the self-test
 * @returns {Record<string, number>} milliseconds a call
 */
export function timeDots(exports, dots) {
  const type = /** @type {import('../types.js').GgmlType} */ (findType('Q4_K'));
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
    // As much warming up for the others, so that the optimiser has seen as much of each.
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
