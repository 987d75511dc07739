/**
 * Who competes: every way our modules serve a product, the naive pipeline (dequantise, then multiply, both SIMD), and the
 * baseline kernel of baseline.c. All work on wasm memory; nothing is copied while the clock runs.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeWeights } from '../helpers/blocks.js';
import { ACTIVATION_NAMES, normError, ReferenceProduct, ReferenceWeight } from '../helpers/bounds.js';
import { Prng } from '../helpers/prng.js';
import { ISA_NAMES, STATUS } from '../helpers/raw.js';
import { referenceById } from '../helpers/reference.js';
import { projectRoot } from '../helpers/test-data.js';

/** @import { ModuleType, RawModule } from '../helpers/raw.js' */
/** @import { ReferenceType } from '../helpers/reference.js' */

/** @typedef {{ type: ReferenceType, nRows: number, nCols: number, nTokens: number }} Case */
/** @typedef {{ name: string, run: () => void, result: () => Float32Array }} BenchContender */

const F32 = 0;
const Q4_K = 12;
const COLD_BYTES = 160 * 1024 * 1024;
/** Rows whose results are checked against float64 before anything is timed; their blocks repeat down the matrix. */
const PATTERN_ROWS = 16;

/** The baseline's exports and its one arena for all cases: it has no free. @type {{ exports?: any, p: number, bytes: number }} */
const baseline = { p: 0, bytes: 0 };

/** @returns {boolean} whether the baseline is built */
function openBaseline() {
  const path = join(projectRoot, 'build/wasm/bench-baseline.wasm');
  if (baseline.exports || !existsSync(path)) return Boolean(baseline.exports);
  const imports = { env: { emscripten_notify_memory_growth() {} } };
  baseline.exports = new WebAssembly.Instance(new WebAssembly.Module(readFileSync(path)), imports).exports;
  baseline.exports._initialize?.();
  return true;
}

/** @param {Case} made  @returns what all contenders of a case share */
function makeData({ type, nRows, nCols, nTokens }) {
  const prng = new Prng(type.id + 1);
  const pattern = makeWeights(type, 'natural', Math.min(nRows, PATTERN_ROWS), nCols, prng);
  const w = new Uint8Array((nRows * nCols * type.blockBytes) / type.blockValues);
  for (let at = 0; at < w.length; at += pattern.length) {
    w.set(pattern.subarray(0, Math.min(pattern.length, w.length - at)), at);
  }
  const x = Float32Array.from({ length: nTokens * nCols }, () => prng.gaussian());
  const rows = Math.min(nRows, PATTERN_ROWS);
  const tokens = Math.min(nTokens, 4);
  const reference = new ReferenceProduct(
    new ReferenceWeight(type, pattern, rows, nCols),
    x.subarray(0, tokens * nCols),
    tokens,
  );
  return { w, x, reference, rows, tokens };
}

/**
 * Norm-wise error of the first rows and tokens of a result.
 * @param {Case} made @param {ReturnType<typeof makeData>} data @param {Float32Array} y
 */
function errorOf(made, { reference, rows, tokens }, y) {
  const got = Float32Array.from(
    { length: tokens * rows },
    (_, i) => y[Math.floor(i / rows) * made.nRows + (i % rows)],
  );
  return normError(got, reference.y);
}

/**
 * @param {RawModule} module @param {Case} made @param {{ kernels: RegExp, cold: boolean, all: boolean }} options
 * @returns {{ contenders: BenchContender[], errors: Map<string, number>, weightBytes: number, free: () => void }}
 */
export function enter(module, made, { kernels, cold, all }) {
  const { type, nRows, nCols, nTokens } = made;
  const moduleType = /** @type {ModuleType} */ (module.types.find(({ id }) => id === type.id));
  const data = makeData(made);
  const { fused_matmul, fm_select, fm_dequantize_rows } = module.exports;
  /** @type {BenchContender[]} */
  const contenders = [];
  /** @type {number[]} */
  const owned = [];
  const alloc = (/** @type {number} */ bytes) => {
    const p = module.alloc(bytes);
    owned.push(p);
    return p;
  };
  const wanted = (/** @type {string} */ name) => kernels.test(name);

  const copies = cold ? Math.ceil(COLD_BYTES / data.w.length) : 1;
  const ws = Array.from({ length: copies }, () => alloc(data.w.length));
  for (const p of ws) module.u8.set(data.w, p);
  const x = alloc(4 * data.x.length);
  const y = alloc(4 * nTokens * nRows);
  new Float32Array(module.exports.memory.buffer, x, data.x.length).set(data.x);
  let turn = 0;
  const nextW = () => ws[turn++ % copies];
  const read = () => new Float32Array(module.exports.memory.buffer, y, nTokens * nRows).slice();
  const checked = (/** @type {number} */ status) => {
    if (status !== STATUS.OK) throw new Error(`status ${status}`);
  };

  /* Q4_K of the same shape takes its turns in every case: ratios to it come from one run. */
  if (type.name !== 'Q4_K' && type.blockValues > 1) {
    const q4 = /** @type {ReferenceType} */ (referenceById.get(Q4_K));
    const pattern = makeWeights(q4, 'natural', PATTERN_ROWS, nCols, new Prng(1));
    const bytes = (nRows * nCols * q4.blockBytes) / q4.blockValues;
    const w = alloc(bytes);
    for (let at = 0; at < bytes; at += pattern.length)
      module.u8.set(pattern.subarray(0, Math.min(pattern.length, bytes - at)), w + at);
    for (const { isa, dot } of module.variants.filter((variant) => variant.isa > 0)) {
      const name = isa === 2 ? `Q4_K int8 relaxed ${['i16', 'i32'][dot]}` : 'Q4_K int16 simd128';
      if (!wanted(name)) continue;
      const run = () => {
        fm_select(isa, dot);
        checked(fused_matmul(Q4_K, w, x, y, nTokens, nRows, nCols, isa === 2 ? 2 : 1));
      };
      contenders.push({ name, run, result: read });
    }
  }

  const seen = new Set();
  for (const { isa, dot } of module.variants) {
    for (const activation of [2, 1, 0]) {
      fm_select(isa, dot);
      const served = module.servedBy(moduleType.id, activation);
      if (served.activation !== activation && type.blockValues > 1) continue;
      const dotName = served.isa === 2 ? ` ${['i16', 'i32'][dot]}` : '';
      const name = `${ACTIVATION_NAMES[served.activation]} ${ISA_NAMES[served.isa]}${dotName}`;
      if (seen.has(name) || !wanted(name)) continue;
      seen.add(name);
      if (served.isa === 0 && nTokens > 1 && !all) continue;
      contenders.push({
        name,
        run: () => {
          fm_select(isa, dot);
          checked(fused_matmul(moduleType.id, nextW(), x, y, nTokens, nRows, nCols, activation));
        },
        result: read,
      });
    }
  }

  const simd = module.variants.find(({ isa }) => isa === 1);
  if (simd && wanted('naive') && type.name !== 'F32') {
    const dense = alloc(4 * nRows * nCols);
    contenders.push({
      name: 'naive',
      run: () => {
        fm_select(simd.isa, simd.dot);
        checked(fm_dequantize_rows(moduleType.id, nextW(), dense, nRows, nCols));
        checked(fused_matmul(F32, dense, x, y, nTokens, nRows, nCols, 0));
      },
      result: read,
    });
  }

  if (type.name === 'Q4_K' && wanted('baseline') && openBaseline()) {
    contenders.push(enterBaseline(made, data, copies));
  }

  const errors = new Map();
  for (const { name, run, result } of contenders) {
    run();
    if (!name.startsWith('Q4_K ')) errors.set(name, errorOf(made, data, result()));
  }
  const free = () => {
    for (const p of owned) module.free(p);
  };
  return { contenders, errors, weightBytes: data.w.length, free };
}

/**
 * @param {Case} made @param {ReturnType<typeof makeData>} data @param {number} copies
 * @returns {BenchContender}
 */
function enterBaseline({ nRows, nCols, nTokens }, data, copies) {
  const { memory, bl_alloc, bl_act_bytes, bl_quantize, bl_matmul_q4_k } = baseline.exports;
  const sizes = [
    data.w.length * copies,
    4 * data.x.length,
    bl_act_bytes(nTokens, nCols),
    4 * nTokens * nRows,
  ];
  const need = sizes.reduce((sum, bytes) => sum + Math.ceil(bytes / 64) * 64, 0);
  if (baseline.bytes < need) {
    baseline.p = bl_alloc(need) >>> 0;
    baseline.bytes = need;
    if (baseline.p === 0) throw new Error(`the baseline cannot allocate ${need} bytes`);
  }
  let end = baseline.p;
  const [w, x, act, y] = sizes.map((bytes) => {
    const start = end;
    end += Math.ceil(bytes / 64) * 64;
    return start;
  });
  for (let i = 0; i < copies; i++) new Uint8Array(memory.buffer).set(data.w, w + i * data.w.length);
  new Float32Array(memory.buffer).set(data.x, x / 4);
  let turn = 0;
  return {
    name: 'baseline',
    run: () => {
      bl_quantize(x, act, nTokens, nCols);
      bl_matmul_q4_k(w + (turn++ % copies) * data.w.length, act, y, nTokens, nRows, nCols);
    },
    result: () => new Float32Array(memory.buffer).slice(y / 4, y / 4 + nTokens * nRows),
  };
}
