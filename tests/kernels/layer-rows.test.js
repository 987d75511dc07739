/**
 * fm_rope compared with float64, fm_embed and fm_kv_write compared bit for bit, on raw modules in
 * every instruction set.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeWeights } from '../helpers/blocks.js';
import { numberToF16 } from '../helpers/floats.js';
import { bytesOf, everywhere, gaussian, input, LENGTHS, u, within } from '../helpers/layer.js';
import { Prng } from '../helpers/prng.js';
import { openModules, STATUS } from '../helpers/raw.js';
import { referenceById } from '../helpers/reference.js';

const { Infinity: INF, NaN: NAN } = globalThis;
const { abs, fround } = Math;

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`layer: ${name} module`, { skip: reason }, () => {});

/** pairing, nTokens, nHeads, headSize, nDims, position, base, linear scale, factors, magnitude */
const ROPES = /** @type {const} */ ([
  [0, 1, 1, 2, 2, 1, 10000, 1, false, 1],
  [1, 1, 1, 2, 2, 1, 10000, 1, false, 1],
  [0, 3, 2, 64, 64, 0, 10000, 1, false, 1.25],
  [1, 3, 2, 64, 64, 5, 500000, 1, true, 1],
  [0, 2, 3, 9, 6, 100, 10000, 4, false, 1.1902],
  [1, 2, 3, 11, 10, 32000, 10000, 8, true, -0.7],
  [1, 2, 1, 256, 256, 131071, 1e6, 1, true, 1],
  [0, 1, 2, 300, 262, 77, 1e4, 0.5, true, 3],
  [1, 1, 2, 300, 262, 77, 1e4, 0.5, false, 1],
  [0, 2, 1, 8, 8, 4e6, 1, 1, false, 0],
]);

for (const module of modules) {
  const { exports } = module;
  const prng = new Prng(41);

  test(`layer: ${module.name} module, rope`, () => {
    for (const row of ROPES) {
      const [pairing, nTokens, nHeads, headSize, nDims, position, base, scale, withFactors, magnitude] = row;
      const half = nDims / 2;
      const x = gaussian(nTokens * nHeads * headSize, prng);
      const factors = Float32Array.from({ length: half }, () => 1 + 7 * prng.unit());
      for (const variant of module.variants) {
        module.select(variant);
        const { status, y } = module.guarded(
          withFactors ? [input(factors)] : [],
          x.length,
          ([atF = 0], at) => {
            new Float32Array(exports.memory.buffer, at, x.length).set(x);
            const shape = /** @type {const} */ ([nTokens, nHeads, headSize, nDims]);
            return exports.fm_rope(at, ...shape, position, base, scale, atF, magnitude, pairing);
          },
        );
        assert.equal(status, STATUS.OK);
        /** @param {number} i @returns {{ value: number, bound: number }} */
        const rotated = (i) => {
          const at = i % headSize;
          if (at >= nDims) return { value: x[i], bound: 0 };
          const pair = pairing === 0 ? at >> 1 : at % half;
          const second = pairing === 0 ? at % 2 === 1 : at >= half;
          const other = i + (second ? -1 : 1) * (pairing === 0 ? 1 : half);
          const p = position + Math.floor(i / headSize / nHeads);
          const angle =
            ((p / fround(scale)) * fround(base) ** (-pair / half)) / (withFactors ? factors[pair] : 1);
          const [c, s] = [Math.cos(angle), Math.sin(angle)].map((value) => fround(magnitude) * value);
          /* Cosine times magnitude, product and sum round once each. The error of the angle is some 32 roundings
           * of f64, that of the functions 1e-9. */
          const error = 3 * u + 32 * 2 ** -53 * abs(angle) + 1e-9;
          return {
            value: x[i] * c + (second ? 1 : -1) * x[other] * s,
            bound: abs(magnitude) * error * (abs(x[i]) + abs(x[other])),
          };
        };
        within(
          y,
          (i) => rotated(i).value,
          (i) => rotated(i).bound,
          `${variant.label}, pairing ${pairing}, ${nDims} of ${headSize}`,
        );
      }
    }
    const call = (
      /** @type {Float32Array} */ x,
      /** @type {number[]} */ rest,
      /** @type {Float32Array} */ factors = new Float32Array(0),
    ) =>
      everywhere(module, [x, factors], x.length, ([from, atF], at) => {
        module.u8.copyWithin(at, from, from + 4 * x.length);
        const [position, base, scale] = rest;
        return exports.fm_rope(
          at,
          1,
          1,
          x.length,
          x.length,
          position,
          base,
          scale,
          factors.length ? atF : 0,
          1,
          1,
        );
      });
    const x = gaussian(64, prng);
    assert.deepEqual(call(x, [0, 10000, 1]), x, 'position 0 turns nothing');
    for (const position of [2 ** 31, 2 ** 32 - 1]) {
      const y = call(x, [position, 10000, 1]);
      for (let i = 0; i < 32; i++) {
        const norm = Math.hypot(x[i], x[i + 32]);
        assert.ok(abs(Math.hypot(y[i], y[i + 32]) - norm) <= 4 * u * norm, `length of a pair at ${position}`);
      }
    }
    for (const base of [0, -1, NAN, INF])
      assert.ok(call(x, [3, base, 1]).every(Number.isNaN), `base ${base}`);
    const small = call(x, [3, 10000, 1e-30]);
    assert.ok(Number.isNaN(small[0]) && Number.isNaN(small[63]), 'angles of 2^32 and more');
    const zero = call(Float32Array.of(1, 2, 3, 4), [3, 10000, 1], Float32Array.of(0, 1));
    assert.ok(
      Number.isNaN(zero[0]) && Number.isNaN(zero[2]) && zero[1] !== 2,
      'a factor of 0 spoils its pair only',
    );
  });

  test(`layer: ${module.name} module, embed`, () => {
    for (const type of module.types) {
      const reference = referenceById.get(type.id);
      assert.ok(reference, `type ${type.id}`);
      const [nRows, nCols] = [5, 3 * type.blockValues];
      const table = makeWeights(reference, 'natural', nRows, nCols, prng);
      const ids = Uint32Array.of(4, 0, 4, 2);
      const inputs = [{ bytes: table, alignment: type.alignment }, input(ids)];
      for (const variant of module.variants) {
        module.select(variant);
        const { y: rows } = module.dequantize(type, table, nRows, nCols);
        const { status, y } = module.guarded(inputs, ids.length * nCols, ([atT, atI], atY) =>
          exports.fm_embed(type.id, atT, atI, atY, ids.length, nRows, nCols),
        );
        assert.equal(status, STATUS.OK);
        ids.forEach((id, t) => {
          assert.deepEqual(y.slice(t * nCols, (t + 1) * nCols), rows.slice(id * nCols, (id + 1) * nCols));
        });
        for (const bad of [5, 2 ** 31, 2 ** 32 - 1]) {
          const wrong = [inputs[0], input(Uint32Array.of(0, 1, 2, bad))];
          const { status: refused, y: untouched } = module.guarded(wrong, 4 * nCols, ([atT, atI], atY) =>
            exports.fm_embed(type.id, atT, atI, atY, 4, nRows, nCols),
          );
          assert.equal(refused, STATUS.RANGE, `id ${bad} of ${nRows} rows`);
          assert.ok(bytesOf(untouched).every((byte) => byte === 0xff));
        }
      }
    }
  });

  test(`layer: ${module.name} module, kv_write`, () => {
    const nCols = 128;
    const [nPositions, position, nTokens] = [6, 2, 3];
    const x = gaussian(nTokens * nCols, prng);
    const bits = new Uint32Array(x.buffer);
    for (let i = 0; i < 120; i++) bits[i] = prng.u32();
    /* values between two f16, and halfway, at every exponent */
    for (let i = 120; i < 200; i++)
      bits[i] = (((i - 120 + 95) << 23) | (prng.u32() & 0x7fe000) | prng.pick([0xfff, 0x1000, 0x1001])) >>> 0;
    const f16 = Uint16Array.from(x, (value) => (Number.isNaN(value) ? 0x7e00 : numberToF16(value)));
    x.forEach((value, i) => {
      if (Number.isNaN(value)) f16[i] |= (bits[i] >>> 16) & 0x8000;
    });
    for (const [type, rowBytes, alignment] of [
      [0, 4 * nCols, 4],
      [1, 2 * nCols, 2],
      [8, (nCols / 32) * 34, 2],
    ]) {
      for (const variant of module.variants) {
        module.select(variant);
        const out = { bytes: nPositions * rowBytes, alignment };
        const { status, output } = module.guardedBytes([input(x)], out, ([atX], cache) =>
          exports.fm_kv_write(type, cache, atX, nTokens, nCols, position, nPositions),
        );
        assert.equal(status, STATUS.OK);
        const q8 = module.guardedBytes([input(x)], { bytes: nTokens * rowBytes, alignment }, ([atX], at) =>
          exports.fm_quantize_rows(8, atX, at, nTokens, nCols),
        ).output;
        const expected = type === 0 ? bytesOf(x) : type === 1 ? bytesOf(f16) : q8;
        const written = output.subarray(position * rowBytes, (position + nTokens) * rowBytes);
        assert.deepEqual(written, expected.subarray(0, written.length), `type ${type}, ${variant.label}`);
        const around = [
          ...output.subarray(0, position * rowBytes),
          ...output.subarray((position + nTokens) * rowBytes),
        ];
        assert.ok(
          around.every((byte) => byte === 0xff),
          'the other positions stay',
        );
      }
    }
    for (const n of LENGTHS) {
      for (const variant of module.variants) {
        module.select(variant);
        const { output } = module.guardedBytes(
          [input(x.subarray(0, n))],
          { bytes: 2 * n, alignment: 2 },
          ([atX], at) => exports.fm_kv_write(1, at, atX, 1, n, 0, 1),
        );
        assert.deepEqual(output, bytesOf(f16.slice(0, n)), `${n} values`);
      }
    }
  });
}
