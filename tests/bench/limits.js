/**
 * The limits of the machine and the engine, measured beside the kernels (limits.h, limits_*.c): the
 * rate of an instruction on registers alone, and the speed of reading memory.
 */
import { race } from './lab.js';
import { benchModule } from './modules.js';

/** @import { Lab, LabCase } from './bench.js' */

const N_CHAINS = 12;
const LOOPS = 50_000;
/** Bytes that no cache can hold. */
export const COLD_BYTES = 160 * 1024 * 1024;

/**
 * Operations of one instruction, where a product and its sum count as two. `_add`: with the
 * addition that takes up the result.
 */
const FLOPS = {
  limit_dot_i16x8: 16,
  limit_dot_i16x8_add: 16,
  limit_f32_mul_add: 8,
  limit_relaxed_i16: 32,
  limit_relaxed_i16_add: 32,
  limit_relaxed_i32: 32,
  limit_relaxed_madd: 8,
};

const LABELS = {
  limit_dot_i16x8: 'limit: i32x4.dot_i16x8',
  limit_dot_i16x8_add: 'limit: i32x4.dot_i16x8 + add',
  limit_f32_mul_add: 'limit: f32x4.mul + add',
  limit_relaxed_i16: 'limit: relaxed dot i16',
  limit_relaxed_i16_add: 'limit: relaxed dot i16 + add',
  limit_relaxed_i32: 'limit: relaxed dot i32',
  limit_relaxed_madd: 'limit: f32x4.relaxed_madd',
};

/** @typedef {keyof typeof FLOPS} LimitName */
/** @typedef {{ name: string, run: () => void, flops: number, bytes: number }} LimitContender */

export const LIMIT_NAMES = /** @type {LimitName[]} */ (Object.keys(FLOPS));

/** @param {LimitName} name @returns {LimitContender[]} none if this engine lacks the instruction */
export function instructionLimit(name) {
  const run = benchModule(name.startsWith('limit_relaxed') ? 'limits' : 'baseline')?.[name];
  if (!run) return [];
  return [{ name: LABELS[name], run: () => run(LOOPS), flops: LOOPS * N_CHAINS * FLOPS[name], bytes: 0 }];
}

/** Memory outside the arena, which is the same for all cases. */
let readAt = 0;

/**
 * Reads memory. Cold: the pieces of 160 MB, which no cache holds, in turns. Not cold: always the
 * same piece.
 * @param {number} pieceBytes  a multiple of 64 @param {boolean} [cold] @returns {LimitContender[]}
 */
export function readLimit(pieceBytes, cold = true) {
  const wasm = benchModule('baseline');
  if (!wasm) return [];
  if (readAt === 0) {
    readAt = wasm.bl_alloc(COLD_BYTES) >>> 0;
    if (readAt === 0) throw new Error(`the baseline module cannot allocate ${COLD_BYTES} bytes`);
    new Uint32Array(wasm.memory.buffer, readAt, COLD_BYTES / 4).fill(1);
    const sum = wasm.limit_read(readAt, COLD_BYTES);
    if (sum !== COLD_BYTES / 16) throw new Error(`the read loop sums to ${sum}, not ${COLD_BYTES / 16}`);
  }
  const pieces = cold ? Math.max(1, Math.floor(COLD_BYTES / pieceBytes)) : 1;
  let turn = 0;
  const run = () => wasm.limit_read(readAt + (turn++ % pieces) * pieceBytes, pieceBytes);
  return [{ name: 'limit: read 160 MB', run, flops: 0, bytes: pieceBytes }];
}

/** @returns {LabCase[]} */
export function limitCases() {
  const run = async (/** @type {Lab} */ { limits, quick }) => {
    const contenders = [...LIMIT_NAMES.flatMap(instructionLimit), ...(quick ? [] : readLimit(COLD_BYTES))];
    const timings = await race(contenders, limits);
    return timings.map(({ name, run: _, ...timing }) => ({
      section: 'limit',
      case: 'limits',
      kernel: name,
      ...timing,
    }));
  };
  return [{ name: 'limits', byDefault: true, run }];
}
