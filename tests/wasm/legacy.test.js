/**
 * The flat 4-bit layout from before Q4_K, compared with a float64 reference, on the C ABI and
 * through the library.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import * as library from '../../js/index.js';
import { Prng } from '../helpers/prng.js';
import { openModules, STATUS } from '../helpers/raw.js';
import { projectRoot } from '../helpers/test-data.js';

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`legacy: ${name} module`, { skip: reason }, () => {});

const BLOCK_VALUES = 256;
const BLOCK_BYTES = 140;
const SKIPPED_BYTES = 12;

/** @typedef {{ data: Uint8Array, scales: Float32Array, nRows: number, nCols: number }} Flat */

/** @param {Prng} prng @param {number} nRows @param {number} nCols @returns {Flat} */
function randomFlat(prng, nRows, nCols) {
  const nBlocks = (nRows * nCols) / BLOCK_VALUES;
  const data = new Uint8Array(nBlocks * BLOCK_BYTES);
  prng.fill(data);
  return { data, scales: Float32Array.from({ length: nBlocks }, () => prng.gaussian()), nRows, nCols };
}

/** @param {Flat} w @returns {Float64Array} [nRows][nCols] */
function values({ data, scales, nRows, nCols }) {
  const out = new Float64Array(nRows * nCols);
  for (let i = 0; i < out.length; i++) {
    const block = Math.floor(i / BLOCK_VALUES);
    const byte = data[block * BLOCK_BYTES + SKIPPED_BYTES + ((i % BLOCK_VALUES) >> 1)];
    out[i] = ((i % 2 ? byte >> 4 : byte & 15) - 8) * scales[block];
  }
  return out;
}

/**
 * Y in float64, and the error bound of f32: each of nCols products is rounded at most three times
 * (code * x, the scale, the sum of blocks), and added in some order, which gives (nCols + 3) *
 * 2^-24 of the sum of magnitudes.
 * @param {Flat} w @param {Float32Array} x @param {number} nTokens
 */
function reference(w, x, nTokens) {
  const { nRows, nCols } = w;
  const real = values(w);
  const y = new Float64Array(nTokens * nRows);
  const bounds = new Float64Array(nTokens * nRows);
  for (let t = 0; t < nTokens; t++) {
    for (let r = 0; r < nRows; r++) {
      let magnitude = 0;
      for (let c = 0; c < nCols; c++) {
        const product = real[r * nCols + c] * x[t * nCols + c];
        y[t * nRows + r] += product;
        magnitude += Math.abs(product);
      }
      bounds[t * nRows + r] = (nCols + 3) * 2 ** -24 * magnitude;
    }
  }
  return { y, bounds };
}

/**
 * @param {Float32Array} got @param {{ y: Float64Array, bounds: Float64Array }} expected
 * @param {string} what
 */
function check(got, { y, bounds }, what) {
  assert.equal(got.length, y.length);
  y.forEach((want, i) => {
    assert.ok(
      Math.abs(got[i] - want) <= bounds[i],
      `${what}: y[${i}] is ${got[i]}, expected ${want} +- ${bounds[i]}`,
    );
  });
}

const SHAPES = [
  [1, 1, 1],
  [1, 3, 2],
  [2, 1, 5],
  [5, 7, 3],
  [3, 2, 9],
];

/** @param {Float32Array} floats */
const bytesOf = (floats) => new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);

for (const module of modules) {
  test(`legacy: ${module.name} module against float64`, () => {
    const prng = new Prng(140);
    for (const [nTokens, nRows, rowBlocks] of SHAPES) {
      const nCols = rowBlocks * BLOCK_VALUES;
      const w = randomFlat(prng, nRows, nCols);
      const x = Float32Array.from({ length: nTokens * nCols }, () => prng.gaussian());
      const { status, y } = module.guarded(
        [
          { bytes: w.data, alignment: 1 },
          { bytes: bytesOf(w.scales), alignment: 4 },
          { bytes: bytesOf(x), alignment: 4 },
        ],
        nTokens * nRows,
        ([atW, atScales, atX], atY) =>
          module.exports.fused_dequant_matmul_q4k_legacy(atW, atScales, atX, atY, nTokens, nRows, nCols),
      );
      assert.equal(status, STATUS.OK);
      check(y, reference(w, x, nTokens), `${nTokens} x ${nRows} x ${nCols}`);
    }
  });

  test(`legacy: ${module.name} module, every nibble where the layout has it`, () => {
    /* One activation at a time. Codes and scales are integers, so every result is exact. */
    const prng = new Prng(8);
    const nCols = 2 * BLOCK_VALUES;
    const w = randomFlat(prng, 1, nCols);
    w.scales.set([3, -5]);
    const x = new Float32Array(nCols * nCols);
    for (let c = 0; c < nCols; c++) x[c * nCols + c] = 1;
    const { y } = module.guarded(
      [
        { bytes: w.data, alignment: 1 },
        { bytes: bytesOf(w.scales), alignment: 4 },
        { bytes: bytesOf(x), alignment: 4 },
      ],
      nCols,
      ([atW, atScales, atX], atY) =>
        module.exports.fused_dequant_matmul_q4k_legacy(atW, atScales, atX, atY, nCols, 1, nCols),
    );
    const real = values(w);
    assert.ok(new Set(real).size > 20);
    y.forEach((got, c) => {
      assert.equal(got + 0, real[c] + 0, `value ${c}`);
    });
  });

  test(`legacy: ${module.name} module refuses`, () => {
    const base = module.alloc(16384);
    const args = {
      w: base,
      scales: base + 1024,
      x: base + 2048,
      y: base + 8192,
      nTokens: 2,
      nRows: 3,
      nCols: 512,
    };
    module.u8.fill(0x5a, base, base + 16384);
    const before = module.u8.slice(base, base + 16384);
    const call = (/** @type {Partial<typeof args>} */ changes) => {
      const a = { ...args, ...changes };
      const { fused_dequant_matmul_q4k_legacy: matmul } = module.exports;
      return matmul(a.w, a.scales, a.x, a.y, a.nTokens, a.nRows, a.nCols);
    };
    const refuses = (/** @type {Partial<typeof args>} */ changes, /** @type {number} */ status) => {
      assert.equal(call(changes), status, JSON.stringify(changes));
      assert.deepEqual(
        module.u8.slice(base, base + 16384),
        before,
        `${JSON.stringify(changes)}: memory changed`,
      );
    };
    for (const zero of ['nTokens', 'nRows', 'nCols']) refuses({ [zero]: 0 }, STATUS.SHAPE);
    for (const nCols of [1, 255, 257, 384]) refuses({ nCols }, STATUS.SHAPE);
    refuses({ nRows: 2 ** 32 - 1 }, STATUS.SHAPE);
    refuses({ nTokens: 2 ** 31 }, STATUS.SHAPE);
    refuses({ nRows: 2 ** 16, nTokens: 2 ** 16, nCols: 256 }, STATUS.SHAPE);
    for (const pointer of ['scales', 'x', 'y']) refuses({ [pointer]: base + 4097 }, STATUS.ALIGN);
    const end = module.exports.memory.buffer.byteLength;
    for (const pointer of ['w', 'scales', 'x', 'y']) {
      for (const outside of [0, 1024, end, end - 8, 2 ** 32 - 64])
        refuses({ [pointer]: outside }, STATUS.RANGE);
    }
    refuses({ y: args.w + 836 }, STATUS.OVERLAP);
    refuses({ y: args.scales + 20 }, STATUS.OVERLAP);
    refuses({ y: args.x + 4092 }, STATUS.OVERLAP);
    refuses({ y: args.x - 20 }, STATUS.OVERLAP);
    assert.equal(call({ w: base + 1 }), STATUS.OK, 'w needs no alignment');
    assert.equal(call({ y: args.x + 4096 }), STATUS.OK, 'y may start where x ends');
    module.free(base);
  });
}

const fm = await library.createKernels();

test('fm.fusedDequantMatmulQ4KLegacy: against float64, and nothing is left behind', () => {
  const prng = new Prng(9);
  const before = fm.memory();
  for (const [nTokens, nRows, rowBlocks] of SHAPES) {
    const w = randomFlat(prng, nRows, rowBlocks * BLOCK_VALUES);
    const x = Float32Array.from({ length: nTokens * w.nCols }, () => prng.gaussian());
    const expected = reference(w, x, nTokens);
    check(fm.fusedDequantMatmulQ4KLegacy(w, x), expected, `${nTokens} x ${nRows} x ${w.nCols}`);
    const shifted = new Uint8Array(w.data.length + 1);
    shifted.set(w.data, 1);
    check(
      fm.fusedDequantMatmulQ4KLegacy({ ...w, data: shifted.subarray(1) }, x),
      expected,
      'a view at an odd offset',
    );
    check(
      fm.fusedDequantMatmulQ4KLegacy({ ...w, data: w.data.slice().buffer }, x),
      expected,
      'an ArrayBuffer',
    );
  }
  assert.equal(fm.memory().inUse, before.inUse);
  assert.equal(fm.memory().handles, before.handles);
});

test('fm.fusedDequantMatmulQ4KLegacy: errors, with both numbers', () => {
  const w = randomFlat(new Prng(1), 2, 512);
  const x = new Float32Array(512);
  const { data, scales } = w;
  /** @type {[any, any, Function, RegExp][]} */
  const cases = [
    [{ ...w, data: data.subarray(1) }, x, library.ShapeError, /\b559\b.*\b560\b/],
    [{ ...w, data: new Uint8Array(576) }, x, library.ShapeError, /\b576\b.*\b560\b/],
    [{ ...w, scales: scales.subarray(1) }, x, library.ShapeError, /\b3\b.*\b4\b/],
    [{ ...w, nCols: 300 }, x, library.ShapeError, /\b300\b.*\b256\b/],
    [{ ...w, nRows: 0 }, x, library.ShapeError, /nRows.*\b0\b/],
    [w, x.subarray(1), library.ShapeError, /\b511\b.*\b512\b/],
    [w, new Float32Array(0), library.ShapeError, /\b0\b.*\b512\b/],
    [{ ...w, data: [1] }, x, library.ArgumentError, /data/],
    [{ ...w, scales: [1, 2, 3, 4] }, x, library.ArgumentError, /scales/],
    [w, [1], library.ArgumentError, /x must be/],
  ];
  for (const [weight, input, kind, message] of cases) {
    assert.throws(
      () => fm.fusedDequantMatmulQ4KLegacy(weight, input),
      (error) =>
        error instanceof /** @type {any} */ (kind) && message.test(/** @type {Error} */ (error).message),
      String(message),
    );
  }
  assert.equal(fm.fusedDequantMatmulQ4KLegacy(w, x).length, 2, 'usable after errors');
});

/**
 * The warnings of a program with two calls on each of two Kernels.
 * @param {string} prelude
 */
function warningsOf(prelude) {
  const program = `
    ${prelude}
    import { createKernels } from ${JSON.stringify(pathToFileURL(`${projectRoot}/js/index.js`).href)};
    const w = { data: new Uint8Array(140), scales: new Float32Array(1), nRows: 1, nCols: 256 };
    for (const fm of [await createKernels(), await createKernels()]) {
      for (let i = 0; i < 2; i++) fm.fusedDequantMatmulQ4KLegacy(w, new Float32Array(256));
      fm.quantize('Q8_0', new Float32Array(32), 1, 32);
    }`;
  const { status, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
  });
  assert.equal(status, 0, stderr);
  return stderr.match(/fusedDequantMatmulQ4KLegacy is deprecated/g)?.length ?? 0;
}

test('the legacy entry warns once a process, by process.emitWarning or else by console.warn', () => {
  assert.equal(warningsOf(''), 1);
  assert.equal(warningsOf('process.emitWarning = undefined;'), 1);
  assert.equal(warningsOf('console.warn = () => {};'), 1, 'process.emitWarning comes first');
  assert.equal(warningsOf('process.emitWarning = () => {};'), 0);
});

test('the legacy entry is marked deprecated in C and in the types', () => {
  const header = readFileSync(new URL('../../src/fused.h', import.meta.url), 'utf8');
  assert.match(header, /fused_dequant_matmul_q4k_legacy\([^;]*FM_DEPRECATED\("[^"]+"\);/);
  assert.match(header, /#define FM_DEPRECATED\(message\) __attribute__\(\(deprecated\(message\)\)\)/);
  const source = readFileSync(new URL('../../js/wasm/kernels.js', import.meta.url), 'utf8');
  const [comment] = source
    .slice(0, source.indexOf('\n  fusedDequantMatmulQ4KLegacy('))
    .split('/**')
    .slice(-1);
  assert.match(comment, /@deprecated \S/);
});
