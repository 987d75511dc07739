/**
 * The operations of a layer that are not products, on raw modules: fm_rms_norm, fm_layer_norm,
 * fm_softmax, fm_add, fm_add_row, fm_add_scaled, fm_scale, fm_gated. Each is compared with float64 in every
 * instruction set, and all sets must give the same bits. The bounds are derived beside the tests.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { everywhere, gaussian, LENGTHS, TINY, u, within } from '../helpers/layer.js';
import { Prng } from '../helpers/prng.js';
import { openModules } from '../helpers/raw.js';

const { Infinity: INF, NaN: NAN } = globalThis;
const { abs, exp, fround } = Math;

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`layer: ${name} module`, { skip: reason }, () => {});

/** Special values for both arguments of f(a, b), in all combinations. */
const CLAMPED = 3;
const SIGMOID = 4;
const SPECIAL = Float32Array.of(
  0,
  -0,
  1,
  -1,
  INF,
  -INF,
  NAN,
  3.4e38,
  -3.4e38,
  1e-45,
  -1e-45,
  88.8,
  -88.8,
  -104,
  1e-30,
  20,
);

for (const module of modules) {
  const { exports } = module;
  const prng = new Prng(41);

  test(`layer: ${module.name} module, rms_norm`, () => {
    for (const nCols of LENGTHS) {
      for (const [nRows, scale, eps, weighted] of /** @type {[number, number, number, boolean][]} */ ([
        [1, 1, 1e-5, true],
        [3, 1e-3, 1e-6, false],
        [2, 1e30, 0, true],
        [1, 1e-30, 1e-5, true],
      ])) {
        const x = gaussian(nRows * nCols, prng, scale);
        const weight = gaussian(nCols, prng);
        const y = everywhere(
          module,
          weighted ? [x, weight] : [x],
          x.length,
          ([atX, atW = 0], atY) => exports.fm_rms_norm(atX, atW, atY, nRows, nCols, eps),
          [0],
        );
        /* The factor, x * factor and the product with the weight are rounded once each. The
         * error of the f64 sum is n 2^-53. */
        within(
          y,
          (i) => {
            const row = x.subarray(i - (i % nCols), i - (i % nCols) + nCols);
            const squares = row.reduce((sum, v) => sum + v * v, 0);
            return (x[i] / Math.sqrt(squares / nCols + fround(eps))) * (weighted ? weight[i % nCols] : 1);
          },
          (i, value) => 3.01 * u * value + TINY * (2 + abs(weight[i % nCols])),
          `${nRows} x ${nCols}, scale ${scale}`,
        );
      }
    }
    const rows = (/** @type {number[]} */ x, eps = 0) => [
      ...everywhere(module, [Float32Array.from(x)], x.length, ([atX], atY) =>
        exports.fm_rms_norm(atX, 0, atY, 1, x.length, eps),
      ),
    ];
    assert.deepEqual(rows([0, 0, 0, 0, 0]), [0, 0, 0, 0, 0], 'zeros stay zeros without an eps');
    assert.deepEqual(rows([-7]), [-1]);
    assert.deepEqual(rows([NAN, 1, 2, 3, 4]), Array(5).fill(NAN));
    assert.deepEqual(rows([1, 2, 3, 4, INF]), [0, 0, 0, 0, NAN], 'Inf: the others vanish beside it');
  });

  test(`layer: ${module.name} module, layer_norm`, () => {
    for (const nCols of LENGTHS) {
      for (const [nRows, scale, offset, given] of /** @type {[number, number, number, number][]} */ ([
        [3, 1, 0, 2],
        [2, 1, 1000, 1],
        [1, 1e30, 0, 0],
        [2, 1e-3, -5, 2],
      ])) {
        const eps = 1e-5;
        const x = gaussian(nRows * nCols, prng, scale).map((value) => value + offset);
        const [weight, bias] = [gaussian(nCols, prng), gaussian(nCols, prng)];
        const y = everywhere(
          module,
          [x, weight, bias].slice(0, 1 + given),
          x.length,
          ([atX, atW = 0, atB = 0], atY) => exports.fm_layer_norm(atX, atW, atB, atY, nRows, nCols, eps),
          [0],
        );
        const row = (/** @type {number} */ i) => {
          const values = x.subarray(i - (i % nCols), i - (i % nCols) + nCols);
          const mean = values.reduce((sum, v) => sum + v, 0) / nCols;
          const variance = values.reduce((sum, v) => sum + (v - mean) ** 2, 0) / nCols;
          const mass = values.reduce((sum, v) => sum + abs(v), 0) / nCols;
          return { mean, factor: 1 / Math.sqrt(variance + fround(eps)), mass };
        };
        const scaled = (/** @type {number} */ i) => {
          const { mean, factor } = row(i);
          return (x[i] - mean) * factor * (given > 0 ? weight[i % nCols] : 1);
        };
        /* x - mean, the factor and two products are rounded once each, the last sum once. The
         * error of the f64 mean is n 2^-53 of the mean magnitude, and so is that of the factor,
         * relative to itself. */
        within(
          y,
          (i) => scaled(i) + (given > 1 ? bias[i % nCols] : 0),
          (i, value) => {
            const { factor, mass } = row(i);
            const w = given > 0 ? abs(weight[i % nCols]) : 1;
            return (
              (4.01 * u + 4 * nCols * 2 ** -53) * abs(scaled(i)) +
              u * value +
              2 * nCols * 2 ** -53 * mass * factor * w +
              3 * TINY * (1 + w)
            );
          },
          `${nRows} x ${nCols}, scale ${scale}, offset ${offset}`,
        );
      }
    }
    const row = (/** @type {number[]} */ x, eps = 0) => [
      ...everywhere(module, [Float32Array.from(x)], x.length, ([atX], atY) =>
        exports.fm_layer_norm(atX, 0, 0, atY, 1, x.length, eps),
      ),
    ];
    assert.deepEqual(row([5]), [0], 'one value is its own mean');
    assert.deepEqual(row([3, 3, 3, 3, 3, 3]), Array(6).fill(0), 'no variance, no eps');
    assert.deepEqual(row([NAN, 1, 2, 3, 4]), Array(5).fill(NAN));
    assert.deepEqual(row([1, 2, 3, 4, INF], 1), Array(5).fill(NAN));
  });

  test(`layer: ${module.name} module, softmax`, () => {
    for (const nCols of [...LENGTHS, 4099]) {
      for (const scale of [1, 30, 1e4, 3e38, 1e-40]) {
        const nRows = nCols > 300 ? 1 : 3;
        const x = gaussian(nRows * nCols, prng, scale / 6);
        const y = everywhere(
          module,
          [x],
          x.length,
          ([atX], atY) => exports.fm_softmax(atX, atY, nRows, nCols),
          [0],
        );
        for (let r = 0; r < nRows; r++) {
          const row = x.subarray(r * nCols, (r + 1) * nCols);
          const max = row.reduce((m, v) => Math.max(m, v), -INF);
          const e = Array.from(row, (v) => exp(v - max));
          const sum = e.reduce((s, v) => s + v, 0);
          /* x - max has an error of u relative to itself, which is a relative error of the
           * exponential. That of e^x is an ulp, which is 2u; that of the sum is the mean of
           * these; the quotient and the product round once each. The effect of t is at most 1 -
           * e^-t. */
          const each = e.map((_, i) => Math.min(1, u * abs(row[i] - max)) + 2 * u);
          const mean = each.reduce((s, v, i) => s + (v * e[i]) / sum, 0);
          within(
            y.subarray(r * nCols, (r + 1) * nCols),
            (i) => e[i] / sum,
            (i, value) => 1.01 * (each[i] + mean + 2 * u) * value + 3 * TINY,
            `${nCols} columns, scale ${scale}`,
          );
          const total = y.subarray(r * nCols, (r + 1) * nCols).reduce((s, v) => s + v, 0);
          assert.ok(abs(total - 1) <= 3 * u + nCols * 2 * TINY, `${nCols} columns sum to ${total}`);
        }
      }
    }
    const row = (/** @type {number[]} */ x) => [
      ...everywhere(
        module,
        [Float32Array.from(x)],
        x.length,
        ([atX], atY) => exports.fm_softmax(atX, atY, 1, x.length),
        [0],
      ),
    ];
    assert.deepEqual(row([-1e38]), [1]);
    assert.deepEqual(row([3e38, 3e38]), [0.5, 0.5]);
    assert.deepEqual(row([3e38, -3e38, 3e38, 0, -INF]), [0.5, 0, 0.5, 0, 0]);
    for (const n of [1, 2, 3, 4, 5, 9]) {
      assert.deepEqual(row(Array(n).fill(-INF)), Array(n).fill(0), 'a row of only -Inf');
      for (let at = 0; at < n; at++) {
        const masked = Array(n).fill(-INF);
        assert.deepEqual(row(masked.with(at, -2)), Array(n).fill(0).with(at, 1));
        for (const bad of [NAN, INF]) {
          assert.deepEqual(row(masked.with(at, bad)), Array(n).fill(NAN), `${bad} at ${at} beside -Inf`);
          assert.deepEqual(
            row(Array(n).fill(1).with(at, bad)),
            Array(n).fill(NAN),
            `${bad} at ${at} of ${n}`,
          );
        }
      }
    }
  });

  test(`layer: ${module.name} module, add and gated`, () => {
    for (const n of LENGTHS) {
      const [a, b] = [gaussian(n, prng, 4), gaussian(n, prng)];
      a.set(SPECIAL.subarray(0, n));
      const sum = everywhere(
        module,
        [a, b],
        n,
        ([atA, atB], atY) => exports.fm_add(atA, atB, atY, n),
        [0, 1],
      );
      sum.forEach((value, i) => {
        assert.ok(Object.is(value, fround(a[i] + b[i])), `${a[i]} + ${b[i]} = ${value}`);
      });
      for (const act of [0, 1, 2, CLAMPED, SIGMOID]) {
        const y = everywhere(
          module,
          [a, b],
          n,
          ([atA, atB], atY) => exports.fm_gated(atA, atB, atY, n, act),
          [0, 1],
        );
        gatedWithin(y, a, b, act);
      }
    }
    const gate = Float32Array.from({ length: 20001 }, (_, i) => (i - 10000) / 80);
    const ones = new Float32Array(gate.length).fill(1);
    // Factors beyond the limits on both sides, in another order than the gates.
    const wide = gate.map((_, i) => (((7 * i) % gate.length) - 10000) / 800);
    wide.set(SPECIAL.subarray(0, 20), 9990);
    for (const [act, up] of /** @type {[number, Float32Array][]} */ ([
      [0, ones],
      [1, ones],
      [2, ones],
      [CLAMPED, wide],
      [SIGMOID, ones],
    ])) {
      gatedWithin(
        everywhere(module, [gate, up], gate.length, ([atA, atB], atY) =>
          exports.fm_gated(atA, atB, atY, gate.length, act),
        ),
        gate,
        up,
        act,
      );
    }
  });

  test(`layer: ${module.name} module, a row added to every row`, () => {
    for (const nCols of [...LENGTHS, 1100]) {
      for (const nRows of [1, 3, 70]) {
        const [x, row] = [gaussian(nRows * nCols, prng, 4), gaussian(nCols, prng)];
        row.set(SPECIAL.subarray(0, nCols));
        const y = everywhere(
          module,
          [x, row],
          x.length,
          ([atX, atRow], atY) => exports.fm_add_row(atX, atRow, atY, nRows, nCols),
          [0],
        );
        y.forEach((value, i) => {
          const expected = fround(x[i] + row[i % nCols]);
          assert.ok(Object.is(value, expected), `${nRows}x${nCols}: [${i}] is ${value}, not ${expected}`);
        });
      }
    }
  });

  test(`layer: ${module.name} module, scaled add and scale`, () => {
    const lengths = [...LENGTHS, 2500]; /* more than one item of 1024 values */
    for (const [i, n] of lengths.entries()) {
      const [a, b] = [gaussian(n, prng, 4), gaussian(n, prng)];
      if (i % 2) a.set(SPECIAL.subarray(0, n));
      else b.set(SPECIAL.subarray(0, n));
      for (const asked of [1, -0.3, 62.2, 0, -0, 1e-42, 3e38, INF, NAN]) {
        const scale = fround(asked);
        const scaled = everywhere(module, [b], n, ([atB], atY) => exports.fm_scale(atB, atY, n, scale), [0]);
        const sum = everywhere(
          module,
          [a, b],
          n,
          ([atA, atB], atY) => exports.fm_add_scaled(atA, atB, atY, n, scale),
          [0, 1],
        );
        for (let at = 0; at < n; at++) {
          const product = fround(b[at] * scale);
          assert.ok(Object.is(scaled[at], product), `${b[at]} * ${scale} = ${scaled[at]}`);
          const expected = fround(a[at] + product);
          assert.ok(Object.is(sum[at], expected), `${a[at]} + ${scale} * ${b[at]} = ${sum[at]}`);
        }
      }
    }
  });
}

/**
 * silu: e^-x has an error of an ulp, which is 2u; its sum with 1, the quotient and the product with
 * up round once each: 5u. gelu: z takes 5 roundings as well, which the exponential turns into 5 |z|
 * u. Below -88.72 both are -0, at most 2.7e-37 off. relu: only the product rounds, and NaN stays. The
 * clamped gate: as silu, with one rounding of z and one of the factor. sigmoid: as silu; below -88.72
 * it is 0, at most 3e-39 off.
 * @param {Float32Array} y @param {Float32Array} gate @param {Float32Array} up @param {number} act
 */
function gatedWithin(y, gate, up, act) {
  if (act === 2) {
    y.forEach((value, i) => {
      const relu = gate[i] < 0 ? 0 : gate[i];
      assert.ok(Object.is(value, fround(relu * up[i])), `relu of ${gate[i]}, times ${up[i]}, is ${value}`);
    });
    return;
  }
  if (act === CLAMPED) {
    const slope = fround(1.702);
    const clamped = (/** @type {number} */ x) => Math.max(Math.min(x, 7), -3.4e38);
    const factor = (/** @type {number} */ x) => Math.min(Math.max(x, -7), 7) + 1;
    within(
      y,
      (i) => (clamped(gate[i]) / (1 + exp(-slope * clamped(gate[i])))) * factor(up[i]),
      (i, value) => {
        const steep = slope * clamped(gate[i]);
        const lost = steep < -88 ? 2.8e-37 : 0;
        return (
          (6.01 + 1.01 * Math.min(abs(steep), 200)) * u * value + (lost + 2 * TINY) * (1 + abs(factor(up[i])))
        );
      },
      'clamped',
    );
    return;
  }
  const z = (/** @type {number} */ x) =>
    act !== 1 ? x : 2 * Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3);
  within(
    y,
    (i) => {
      const x = Math.max(gate[i], -3.4e38);
      return ((act === SIGMOID ? 1 : x) / (1 + exp(-z(x)))) * up[i];
    },
    (i, value) => {
      const lost = z(gate[i]) < -88 ? (act === SIGMOID ? 3e-39 : 2.8e-37) : 0;
      return (
        (5.01 + (act !== 1 ? 0 : 5 * Math.min(abs(z(gate[i])), 200))) * u * value +
        (lost + 2 * TINY) * (1 + abs(up[i]))
      );
    },
    ['silu', 'gelu', 'relu', 'clamped', 'sigmoid'][act],
  );
}
