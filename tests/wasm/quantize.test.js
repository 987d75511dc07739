/**
 * The quantisers: golden bytes, errors compared with those of ggml, round trips, hostile values,
 * the C ABI, and `fm.quantize`. Results are decoded with the float64 reference, not with the
 * kernels.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as library from '../../js/index.js';
import { QUANTIZABLE } from '../../js/wasm/quantize.js';
import { f16ToNumber } from '../helpers/floats.js';
import { Prng } from '../helpers/prng.js';
import { openModules, STATUS } from '../helpers/raw.js';
import { dequantizeF32, dequantizeF64, referenceByName } from '../helpers/reference.js';
import { readData, skipWithout } from '../helpers/test-data.js';

/** @import { RawModule } from '../helpers/raw.js' */
/** @import { ReferenceType } from '../helpers/reference.js' */

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`quantize: ${name} module`, { skip: reason }, () => {});

const EXACT = ['Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0'];
const SEARCHED = ['Q4_K', 'Q5_K', 'Q6_K'];
const GOLDEN_ROWS = 4;
const GOLDEN_COLS = 512;
/** Largest factor by which the error of a searched type may exceed that of ggml. */
const MOST_ERROR = 1.02;
const F16_MAX = 65504;

/**
 * Limits of a type, from its formula.
 * @type {Record<string, { limit: number, largest: (row: Float32Array) => number }>} limit: the
 *   largest magnitude with finite scales; largest: the largest error of a value in a block
 */
const facts = {
  Q4_0: { limit: 8 * F16_MAX, largest: (x) => (1.01 * maxOf(x)) / 8 },
  Q5_0: { limit: 16 * F16_MAX, largest: (x) => (1.02 * maxOf(x)) / 16 },
  Q8_0: { limit: 127 * F16_MAX, largest: (x) => (0.5 / 127 + 2 ** -11) * 1.01 * maxOf(x) },
  Q4_1: { limit: F16_MAX, largest: (x) => (0.5 / 15 + 2 ** -11) * 1.01 * rangeOf(x) + 2 ** -11 * maxOf(x) },
  Q5_1: { limit: F16_MAX, largest: (x) => (0.5 / 31 + 2 ** -11) * 1.01 * rangeOf(x) + 2 ** -11 * maxOf(x) },
  Q4_K: { limit: 63 * F16_MAX, largest: (x) => maxOf(x) / 7 },
  Q5_K: { limit: 63 * F16_MAX, largest: (x) => maxOf(x) / 14 },
  Q6_K: { limit: 127 * 31 * F16_MAX, largest: (x) => maxOf(x) / 28 },
};

/** @param {Float32Array} x */
const maxOf = (x) => x.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
/** @param {Float32Array} x */
const rangeOf = (x) => Math.max(...x) - Math.min(...x);

/** @param {Float32Array} got @param {Float32Array} want */
const rmse = (got, want) =>
  Math.sqrt(got.reduce((sum, value, i) => sum + (value - want[i]) ** 2, 0) / want.length);

/** @param {string} name @returns {ReferenceType} */
function typeOf(name) {
  const type = referenceByName.get(name);
  assert.ok(type, name);
  return type;
}

/**
 * Quantises on raw memory, with guards around it, at no better alignment than the ABI asks for.
 * @param {RawModule} module @param {ReferenceType} type @param {Float32Array} x
 * @param {number} nRows @returns {Uint8Array}
 */
function quantize(module, type, x, nRows) {
  const nCols = x.length / nRows;
  const nBytes = (x.length / type.blockValues) * type.blockBytes;
  const guard = 64;
  const atX = guard + 4;
  const atW = atX + 4 * x.length + guard + 2;
  const total = atW + nBytes + guard;
  const before = new Uint8Array(total).fill(0xff);
  before.set(new Uint8Array(x.buffer, x.byteOffset, x.byteLength), atX);
  const base = module.alloc(total);
  try {
    module.u8.set(before, base);
    assert.equal(module.exports.fm_quantize_rows(type.id, base + atX, base + atW, nRows, nCols), STATUS.OK);
    const after = module.u8.slice(base, base + total);
    const blocks = after.slice(atW, atW + nBytes);
    after.fill(0xff, atW, atW + nBytes);
    assert.equal(Buffer.compare(before, after), 0, `${type.name}: memory outside the output changed`);
    return blocks;
  } finally {
    module.free(base);
  }
}

/** @param {string} name */
const goldenName = (name) => name.toLowerCase().replace(/_k$/, '_K');
/** @param {string} name */
const withoutGolden = (name) =>
  skipWithout('golden', 'input.f32') || skipWithout('golden', `${goldenName(name)}.q`);
const goldenInput = () => new Float32Array(readData('golden', 'input.f32').buffer);

for (const module of modules) {
  for (const name of EXACT) {
    test(`quantize ${name}: golden bytes, ${module.name} module`, { skip: withoutGolden(name) }, () => {
      const got = quantize(module, typeOf(name), goldenInput(), GOLDEN_ROWS);
      const expected = readData('golden', `${goldenName(name)}.q`);
      assert.equal(got.length, expected.length);
      const at = got.findIndex((byte, i) => byte !== expected[i]);
      assert.equal(at, -1, `byte ${at} is ${got[at]}, ggml's is ${expected[at]}`);
    });
  }

  for (const name of SEARCHED) {
    test(`quantize ${name}: error beside ggml's, ${module.name} module`, {
      skip: withoutGolden(name),
    }, (t) => {
      const type = typeOf(name);
      const x = goldenInput();
      assert.equal(x.length, GOLDEN_ROWS * GOLDEN_COLS);
      const ours = rmse(dequantizeF32(type, quantize(module, type, x, GOLDEN_ROWS)), x);
      const theirs = rmse(dequantizeF32(type, readData('golden', `${goldenName(name)}.q`)), x);
      t.diagnostic(`root-mean-square error ${ours.toExponential(3)}, ggml's ${theirs.toExponential(3)}`);
      assert.ok(ours <= MOST_ERROR * theirs, `${ours} is more than ${MOST_ERROR} times ${theirs}`);
    });
  }
}

/**
 * Inputs that need different kinds of scales and minimums.
 * @type {Record<string, (prng: Prng) => number>}
 */
const shapes = {
  gaussian: (prng) => 0.04 * prng.gaussian(),
  large: (prng) => 1000 * prng.gaussian(),
  positive: (prng) => Math.abs(prng.gaussian()),
  negative: (prng) => -Math.abs(prng.gaussian()),
  outliers: (prng) => prng.gaussian() * (prng.int(0, 40) ? 1 : 30),
  sparse: (prng) => (prng.int(0, 60) ? 0 : prng.gaussian()),
  signs: (prng) => (prng.int(0, 1) ? 0.5 : -0.5),
};

for (const module of modules) {
  for (const name of QUANTIZABLE) {
    const type = typeOf(name);
    test(`quantize ${name}: every value near its input, ${module.name} module`, () => {
      const prng = new Prng(type.id);
      for (const [shape, value] of Object.entries(shapes)) {
        for (const [nRows, nBlocks] of [
          [1, 1],
          [3, 1],
          [2, 5],
        ]) {
          const x = Float32Array.from({ length: nRows * nBlocks * type.blockValues }, () => value(prng));
          const got = dequantizeF64(type, quantize(module, type, x, nRows)).values;
          for (let first = 0; first < x.length; first += type.blockValues) {
            const block = x.subarray(first, first + type.blockValues);
            const most = facts[name].largest(block);
            block.forEach((want, i) => {
              const miss = Math.abs(got[first + i] - want);
              assert.ok(miss <= most, `${shape}: ${want} became ${got[first + i]}, off by ${miss} > ${most}`);
            });
          }
        }
      }
    });

    test(`quantize ${name}: no value of a block changes another block, ${module.name} module`, () => {
      const prng = new Prng(7);
      const x = Float32Array.from({ length: 4 * type.blockValues }, () => prng.gaussian());
      const whole = quantize(module, type, x, 2);
      for (let b = 0; b < 4; b++) {
        const alone = quantize(module, type, x.slice(b * type.blockValues, (b + 1) * type.blockValues), 1);
        assert.deepEqual(whole.subarray(b * type.blockBytes, (b + 1) * type.blockBytes), alone, `block ${b}`);
      }
    });

    test(`quantize ${name}: hostile values, ${module.name} module`, () => {
      const { limit } = facts[name];
      const run = (/** @type {(i: number) => number} */ value) => {
        const x = Float32Array.from({ length: type.blockValues }, (_, i) => value(i));
        const bytes = quantize(module, type, x, 1);
        const { values } = dequantizeF64(type, bytes);
        assert.ok(values.every(Number.isFinite), `not finite: ${values.find((v) => !Number.isFinite(v))}`);
        return { bytes, values };
      };
      const zeros = run(() => 0);
      assert.ok(zeros.values.every((value) => value === 0));
      for (const nothing of [Number.NaN, -0, 1e-45, -1e-40, 2 ** -41]) {
        assert.deepEqual(run(() => nothing).bytes, zeros.bytes, `${nothing} counts as 0`);
      }
      const one = (/** @type {number} */ value) => (/** @type {number} */ i) =>
        i === 5 ? value : (i % 7) - 3;
      assert.deepEqual(run(one(Number.NaN)).bytes, run(one(0)).bytes, 'NaN beside numbers counts as 0');
      for (const sign of [1, -1]) {
        const atLimit = run(one(sign * limit));
        for (const beyond of [Infinity, 3.4e38, 1.001 * limit]) {
          assert.deepEqual(
            run(one(sign * beyond)).bytes,
            atLimit.bytes,
            `${sign * beyond} counts as the limit`,
          );
        }
        assert.ok(
          Math.abs(atLimit.values[5] / (sign * limit) - 1) < 0.01,
          `${sign * limit}: ${atLimit.values[5]}`,
        );
        assert.notDeepEqual(
          run(one(0.9 * sign * limit)).bytes,
          atLimit.bytes,
          '0.9 of the limit is not the limit',
        );
        run(() => sign * Infinity);
      }
      run((i) => (i % 2 ? Infinity : -Infinity));
      run((i) => (i % 3 ? Number.NaN : 3e38));
      run((i) => 10 ** ((i % 77) - 38));
      run((i) => 2 ** -24 * (i % 3));
      run((i) => 1 + 2 ** -23 * (i % 2));
      /* rows whose best scale or minimum is beyond the range of f16 */
      const prng = new Prng(64);
      const clamped = (/** @type {number} */ value) => limit * Math.min(1, Math.max(-1, value));
      for (let round = 0; round < 100; round++) {
        const over = 1 + 0.02 * prng.unit();
        const levels = round % 2 ? 16 : 32;
        run((i) => clamped(-over * (1 - (i % levels) / levels)));
        run((i) => clamped((over * (((i * 37) % 63) - 31)) / 31));
      }
    });
  }

  for (const name of EXACT) {
    test(`quantize ${name}: what is on the grid stays, ${module.name} module`, () => {
      const type = typeOf(name);
      const prng = new Prng(3);
      for (let round = 0; round < 50; round++) {
        const x = dequantizeF32(type, gridBlock(type, prng));
        assert.deepEqual(dequantizeF32(type, quantize(module, type, x, 1)), x);
      }
    });
  }

  for (const [name, levels] of /** @type {const} */ ([
    ['Q4_K', 15],
    ['Q5_K', 31],
    ['Q6_K', 63],
  ])) {
    test(`quantize ${name}: no worse than even steps, ${module.name} module`, (t) => {
      /* Uniform on [-1, 1]: rounding to `levels` even steps has an error of 2 / levels /
       * sqrt(12). Sub-blocks rarely reach the ends, which leaves room for the rounding of scales
       * and minimums. */
      const type = typeOf(name);
      const prng = new Prng(12);
      const x = Float32Array.from({ length: 32 * 256 }, () => 2 * prng.unit() - 1);
      const got = rmse(dequantizeF32(type, quantize(module, type, x, 32)), x);
      const even = 2 / levels / Math.sqrt(12);
      t.diagnostic(`${(got / even).toFixed(3)} of the error of even steps`);
      assert.ok(got <= even, `${got} > ${even}`);
    });
  }

  test(`quantize: f16 scales round to nearest even, ${module.name} module`, () => {
    /* A block with a single value has d = 0 and m = that value. */
    const type = typeOf('Q4_1');
    const prng = new Prng(16);
    const candidates = [F16_MAX, 2 ** -14, 2 ** -24, 1, 1 + 2 ** -11, 1 + 3 * 2 ** -11, 2047.5, 2048.5];
    for (let k = 0; k < 2000; k++) {
      const below = prng.int(0, 0x7bfe);
      const low = f16ToNumber(below);
      const step = f16ToNumber(below + 1) - low;
      for (const part of [0, 0.25, 0.5, 0.5 + 2 ** -9, 0.5 - 2 ** -9]) candidates.push(low + part * step);
    }
    const values = Float32Array.from(candidates).filter((value) => value === 0 || value >= 2 ** -40);
    const x = new Float32Array(values.length * type.blockValues);
    values.forEach((value, i) => {
      x.fill(i % 2 ? -value : value, i * type.blockValues, (i + 1) * type.blockValues);
    });
    const blocks = quantize(module, type, x, 1);
    const view = new DataView(blocks.buffer, blocks.byteOffset);
    values.forEach((value, i) => {
      const bits = view.getUint16(i * type.blockBytes + 2, true) & 0x7fff;
      const miss = Math.abs(f16ToNumber(bits) - value);
      for (const beside of [bits - 1, bits + 1]) {
        if (beside < 0 || beside > 0x7bff) continue;
        const other = Math.abs(f16ToNumber(beside) - value);
        const nearest = miss < other || (miss === other && bits % 2 === 0);
        assert.ok(nearest, `${value} became ${bits.toString(16)}, ${beside.toString(16)} is no farther`);
      }
    });
  });

  test(`quantize: the C ABI refuses, ${module.name} module`, () => {
    const { fm_quantize_rows: call, memory } = module.exports;
    const ids = QUANTIZABLE.map((name) => typeOf(name).id);
    const base = module.alloc(8192);
    const [x, w] = [base, base + 4096];
    for (let id = -1; id < 64; id++) {
      assert.equal(call(id, x, w, 1, 256), ids.includes(id) ? STATUS.OK : STATUS.TYPE, `type ${id}`);
    }
    for (const name of QUANTIZABLE) {
      const type = typeOf(name);
      const args = { x, w, nRows: 2, nCols: 256 };
      module.u8.fill(0xa5, base, base + 8192);
      const before = module.u8.slice(base, base + 8192);
      const refuses = (/** @type {Partial<typeof args>} */ changes, /** @type {number} */ status) => {
        const a = { ...args, ...changes };
        assert.equal(
          call(type.id, a.x, a.w, a.nRows, a.nCols),
          status,
          `${name}: ${JSON.stringify(changes)}`,
        );
        assert.deepEqual(module.u8.slice(base, base + 8192), before, `${name}: memory changed`);
      };
      refuses({ nRows: 0 }, STATUS.SHAPE);
      refuses({ nCols: 0 }, STATUS.SHAPE);
      refuses({ nCols: 256 + 1 }, STATUS.SHAPE);
      refuses({ nCols: type.blockValues / 2 }, STATUS.SHAPE);
      refuses({ nRows: 2 ** 32 - 1, nCols: 2 ** 32 - 256 }, STATUS.SHAPE);
      refuses({ nRows: 2 ** 22, nCols: 256 }, STATUS.SHAPE);
      for (const off of [1, 2, 3]) refuses({ x: x + off }, STATUS.ALIGN);
      const { alignment } = module.types.find(({ id }) => id === type.id) ?? { alignment: 0 };
      assert.ok(alignment > 0);
      for (let off = 1; off < alignment; off++) refuses({ w: w + off }, STATUS.ALIGN);
      const end = memory.buffer.byteLength;
      for (const outside of [0, 1024, end, end - 64, 2 ** 32 - 64]) {
        refuses({ x: outside }, STATUS.RANGE);
        refuses({ w: outside }, STATUS.RANGE);
      }
      refuses({ w: x }, STATUS.OVERLAP);
      refuses({ w: x + 4 * 512 - 4 }, STATUS.OVERLAP);
      assert.equal(call(type.id, x, x + 4 * 512, 2, 256), STATUS.OK, 'w may start where x ends');
    }
    module.free(base);
  });
}

/**
 * A block of random codes that reach both ends of their range, so that scale and minimum follow
 * from the values.
 * @param {ReferenceType} type  with 32 values a block @param {Prng} prng @returns {Uint8Array}
 */
function gridBlock(type, prng) {
  const bytes = new Uint8Array(type.blockBytes);
  prng.fill(bytes);
  const view = new DataView(bytes.buffer);
  for (const { name, kind, offset } of type.fields) {
    if (name === 'd') view.setUint16(offset, 0x2000 + prng.int(0, 1023), true);
    else if (name === 'm') view.setUint16(offset, 0x9000 + prng.int(0, 1023), true);
    else if (type.name === 'Q8_0') {
      for (let i = 0; i < 32; i++) view.setInt8(offset + i, prng.int(-127, 127));
      view.setInt8(offset + prng.int(0, 31), 127);
    } else if (name === 'qh') {
      bytes[offset] &= ~1;
      bytes[offset + 2] |= 1;
    } else if (kind === 'codes') {
      bytes[offset] = 0xf0;
    }
  }
  return bytes;
}

/** The instruction sets that the library can load here, the fastest first. */
const fm = await library.createKernels();

test('fm.quantize: the bytes of the C ABI, for a name and an id, in one call or in steps', () => {
  const prng = new Prng(5);
  for (const name of QUANTIZABLE) {
    const type = typeOf(name);
    for (const [nRows, nCols] of [
      [1, 256],
      [5, 768],
      [3, 512 * 1024],
    ]) {
      const few = nCols < 1000;
      const pool = Float32Array.from({ length: 4096 }, () => prng.gaussian());
      const x = Float32Array.from({ length: nRows * nCols }, (_, i) => pool[(i * 7 + (i >> 12)) & 4095]);
      if (!few && !EXACT.includes(name)) continue;
      const got = fm.quantize(name, x, nRows, nCols);
      assert.equal(got.constructor, Uint8Array);
      assert.equal(got.length, (nRows * nCols * type.blockBytes) / type.blockValues);
      assert.deepEqual(got, quantize(modules[0], type, x, nRows), `${name} ${nRows} x ${nCols}`);
      if (few) assert.deepEqual(fm.quantize(type.id, x, nRows, nCols), got);
    }
  }
});

test('fm.quantize: fm.weight takes what it gives', () => {
  const prng = new Prng(6);
  const [nRows, nCols] = [6, 512];
  const x = Float32Array.from({ length: nRows * nCols }, () => prng.gaussian());
  for (const type of QUANTIZABLE) {
    const data = fm.quantize(type, x, nRows, nCols);
    const w = fm.weight({ type, nRows, nCols, data });
    assert.deepEqual(fm.dequantize(w), dequantizeF32(typeOf(type), data));
    const identity = new Float32Array(nCols);
    identity[3] = 1;
    const column = fm.fusedMatmul(w, identity, { activation: 'f32' });
    for (let r = 0; r < nRows; r++) {
      assert.ok(Math.abs(column[r] - x[r * nCols + 3]) <= facts[type].largest(x), `${type} row ${r}`);
    }
    w.free();
  }
});

test('fm.quantize: the types it takes are those of the module', () => {
  const taken = library.types.filter(({ name }) => {
    try {
      fm.quantize(name, new Float32Array(256), 1, 256);
      return true;
    } catch (error) {
      assert.ok(error instanceof library.ArgumentError, `${error}`);
      assert.match(error.message, /Q4_0, .*Q6_K/);
      return false;
    }
  });
  assert.deepEqual(new Set(taken.map(({ name }) => name)), new Set(QUANTIZABLE));
  for (const { name, id } of library.types) {
    const can = modules[0].exports.fm_quantize_rows(id, 0, 0, 0, 0) !== STATUS.TYPE;
    assert.equal(can, QUANTIZABLE.includes(name), name);
  }
});

test('fm.quantize: errors name what is wrong, with both numbers', () => {
  const x = new Float32Array(512);
  const anything = /** @type {any} */ (fm);
  const before = fm.memory().inUse;
  /** @type {[any[], Function, RegExp][]} */
  const cases = [
    [['Q9_9', x, 2, 256], library.ArgumentError, /"Q9_9"/],
    [['F16', x, 2, 256], library.ArgumentError, /F16 cannot be quantised to/],
    [[undefined, x, 2, 256], library.ArgumentError, /undefined/],
    [['Q8_0', [1, 2], 1, 32], library.ArgumentError, /Float32Array, got Array/],
    [['Q8_0', new Float64Array(32), 1, 32], library.ArgumentError, /Float32Array, got Float64Array/],
    [['Q4_K', x, 4, 128], library.ShapeError, /\b128\b.*\b256\b/],
    [['Q8_0', x, 1, 500], library.ShapeError, /\b500\b.*\b32\b/],
    [['Q8_0', x, 3, 256], library.ShapeError, /\b512\b.*\b768\b/],
    [['Q8_0', x, 0, 256], library.ShapeError, /nRows.*\b0\b/],
    [['Q8_0', x, 2, -256], library.ShapeError, /nCols.*-256/],
    [['Q8_0', x, 1.5, 256], library.ShapeError, /nRows.*1\.5/],
  ];
  for (const [args, kind, message] of cases) {
    assert.throws(
      () => anything.quantize(...args),
      (error) =>
        error instanceof /** @type {any} */ (kind) && message.test(/** @type {Error} */ (error).message),
      `${args[0]} ${args[2]} x ${args[3]}`,
    );
  }
  assert.equal(fm.memory().inUse, before);
  assert.equal(fm.quantize('Q8_0', x, 2, 256).length, 2 * 8 * 34, 'usable after errors');
});

test('fm.quantize: after dispose', async () => {
  const short = await library.createKernels();
  short.dispose();
  assert.throws(() => short.quantize('Q8_0', new Float32Array(32), 1, 32), library.HandleError);
});
