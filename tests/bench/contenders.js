/**
 * The contenders in a product: every way in which this package's modules serve it, the naive
 * pipeline (dequantise, then multiply, both with SIMD), the baseline kernel of baseline.c, and the
 * limit that bounds them. All work on wasm memory, and nothing is copied while time is measured.
 */
import { ACTIVATION_NAMES } from '../helpers/bounds.js';
import { ISA_NAMES, STATUS } from '../helpers/raw.js';
import { referenceById } from '../helpers/reference.js';
import { checkResult, makeData } from './data.js';
import { COLD_BYTES, instructionLimit, readLimit } from './limits.js';
import { benchModule, places } from './modules.js';

/** @import { ModuleType, RawModule } from '../helpers/raw.js' */
/** @import { ReferenceType } from '../helpers/reference.js' */
/** @import { Case, Mode } from './data.js' */

/**
 * @typedef {object} BenchContender
 * @property {string} name
 * @property {() => unknown} run
 * @property {number} flops  operations of a call
 * @property {number} bytes  bytes of weights that a call reads
 * @property {number} [error]  norm-wise error against float64
 */
/** @typedef {{ contenders: BenchContender[], free: () => void }} Entered */
/**
 * @typedef {{ kernels: RegExp, all: boolean }} EnterOptions  all: include contenders that are known
 *   to be slow
 */

const F32 = 0;
const Q4_K = 12;

/**
 * The limits of a product: reading for one token, dot instructions for many.
 * @param {Case} made @param {number} weightBytes
 */
const limitsOf = ({ nTokens }, weightBytes) =>
  nTokens < 4
    ? readLimit(Math.ceil(weightBytes / 64) * 64)
    : /** @type {const} */ (['limit_relaxed_i16', 'limit_relaxed_i32', 'limit_dot_i16x8']).flatMap(
        instructionLimit,
      );

/** @param {number} status */
function checked(status) {
  if (status !== STATUS.OK) throw new Error(`status ${status}`);
}

/** Memory of a module that is freed together. @param {RawModule} module */
function lease(module) {
  /** @type {number[]} */
  const owned = [];
  const alloc = (/** @type {number} */ bytes) => {
    owned.push(module.alloc(bytes));
    return owned[owned.length - 1];
  };
  const free = () => {
    for (const p of owned) module.free(p);
  };
  return { alloc, free };
}

/**
 * The ways in which a module serves a type, each once.
 * @param {RawModule} module @param {ModuleType} type
 */
function waysOf(module, type) {
  const ways = new Map();
  for (const { isa, dot } of module.variants) {
    for (const activation of [2, 1, 0]) {
      checked(module.exports.fm_select(isa, dot));
      const served = module.servedBy(type.id, activation);
      if (served.activation !== activation && type.blockValues > 1) continue;
      const dotName = served.isa === 2 ? ` ${['i16', 'i32'][dot]}` : '';
      const mode = ACTIVATION_NAMES[served.activation];
      const name = `${mode} ${ISA_NAMES[served.isa]}${dotName}`;
      if (!ways.has(name)) ways.set(name, { name, mode, isa, dot, activation, servedIsa: served.isa });
    }
  }
  return [...ways.values()];
}

/**
 * The contenders of a case, each compared with float64.
 * @param {RawModule} module @param {Case} made @param {EnterOptions} options @returns {Entered}
 */
export function enter(module, made, { kernels, all }) {
  const { type, nRows, nCols, nTokens } = made;
  const moduleType = /** @type {ModuleType} */ (module.types.find(({ id }) => id === type.id));
  const { w: weight, x: activations, expected } = makeData(made);
  const { fused_matmul, fm_select, fm_dequantize_rows } = module.exports;
  const { alloc, free } = lease(module);
  const work = { flops: 2 * nTokens * nRows * nCols, bytes: weight.length };

  const copies = made.cold ? Math.ceil(COLD_BYTES / weight.length) : 1;
  const ws = Array.from({ length: copies }, () => alloc(weight.length));
  for (const p of ws) module.u8.set(weight, p);
  const x = alloc(4 * activations.length);
  const y = alloc(4 * expected.length);
  const floats = (/** @type {number} */ p, /** @type {number} */ n) =>
    new Float32Array(module.exports.memory.buffer, p, n);
  floats(x, activations.length).set(activations);
  let turn = 0;
  const nextW = () => ws[turn++ % copies];

  /** @type {(BenchContender & { mode: Mode, output: () => Float32Array })[]} */
  const found = [];
  const output = () => floats(y, expected.length);
  for (const { name, mode, isa, dot, activation, servedIsa } of waysOf(module, moduleType)) {
    const isSlow = nTokens > 1 && (servedIsa === 0 || (mode === 'f32' && type.blockValues > 1));
    if (isSlow && !all) continue;
    const run = () => {
      fm_select(isa, dot);
      checked(fused_matmul(type.id, nextW(), x, y, nTokens, nRows, nCols, activation));
    };
    found.push({ name, mode, run, output, ...work });
  }

  const simd = module.variants.find(({ isa }) => isa === 1);
  if (simd && type.id !== F32) {
    const dense = alloc(4 * nRows * nCols);
    const run = () => {
      fm_select(simd.isa, simd.dot);
      checked(fm_dequantize_rows(type.id, nextW(), dense, nRows, nCols));
      checked(fused_matmul(F32, dense, x, y, nTokens, nRows, nCols, 0));
    };
    found.push({ name: 'naive', mode: 'f32', run, output, ...work });
  }
  found.push(...enterBaseline(made, weight, activations, copies));

  const wanted = found.filter(({ name }) => kernels.test(name));
  /** @type {BenchContender[]} */
  const contenders = wanted.map(({ name, mode, run, output: view, flops, bytes }) => {
    view().fill(Number.NaN);
    run();
    return { name, run, flops, bytes, error: checkResult(name, mode, view(), expected) };
  });
  const others = [...sameAsQ4K(module, made, alloc, x, y), ...limitsOf(made, weight.length)];
  return { contenders: [...contenders, ...others.filter(({ name }) => kernels.test(name))], free };
}

/**
 * Q4_K of the same shape runs in turns with the contenders of every case, so that ratios to it come
 * from the same run.
 * @param {RawModule} module @param {Case} made @param {(bytes: number) => number} alloc
 * @param {number} x @param {number} y @returns {BenchContender[]}
 */
function sameAsQ4K(module, { type, nRows, nCols, nTokens, cold }, alloc, x, y) {
  if (type.id === Q4_K || type.blockValues === 1 || cold || nCols % 256 !== 0) return [];
  const q4 = /** @type {ReferenceType} */ (referenceById.get(Q4_K));
  const { w: weight } = makeData({ type: q4, nRows, nCols, nTokens: 1 });
  const w = alloc(weight.length);
  module.u8.set(weight, w);
  const { fused_matmul, fm_select } = module.exports;
  return module.variants
    .filter(({ isa }) => isa > 0)
    .map(({ isa, dot }) => ({
      name: isa === 2 ? `Q4_K int8 relaxed ${['i16', 'i32'][dot]}` : 'Q4_K int16 simd128',
      run: () => {
        fm_select(isa, dot);
        checked(fused_matmul(Q4_K, w, x, y, nTokens, nRows, nCols, isa === 2 ? 2 : 1));
      },
      flops: 2 * nTokens * nRows * nCols,
      bytes: weight.length,
    }));
}

/**
 * @param {Case} made @param {Uint8Array} weight @param {Float32Array} activations
 * @param {number} copies
 * @returns {(BenchContender & { mode: Mode, output: () => Float32Array })[]} none for a type
 *   without a baseline
 */
function enterBaseline({ type, nRows, nCols, nTokens }, weight, activations, copies) {
  const wasm = benchModule('baseline');
  const multiply = wasm?.[`bl_matmul_${type.name.toLowerCase()}`];
  if (!multiply || nCols % 256 !== 0) return [];
  wasm.bl_expand();
  const sizes = [
    weight.length * copies,
    4 * activations.length,
    wasm.bl_act_bytes(nTokens, nCols),
    4 * nTokens * nRows,
  ];
  const [w, x, act, y] = places(sizes);
  for (let i = 0; i < copies; i++) new Uint8Array(wasm.memory.buffer).set(weight, w + i * weight.length);
  new Float32Array(wasm.memory.buffer).set(activations, x / 4);
  let turn = 0;
  return [
    {
      name: 'baseline',
      mode: 'int8',
      run: () => {
        wasm.bl_quantize(x, act, nTokens, nCols);
        multiply(w + (turn++ % copies) * weight.length, act, y, nTokens, nRows, nCols);
      },
      output: () => new Float32Array(wasm.memory.buffer, y, nTokens * nRows),
      flops: 2 * nTokens * nRows * nCols,
      bytes: weight.length,
    },
  ];
}
