/**
 * Products for few tokens against float64. Bounds, with u = 2^-24:
 *
 * A sum of n products errs by at most E = (n + 8) u mass, in any order (bounds.js); x * g of a norm
 * is a rounding more for each. The sum of squares has positive terms: it errs by (n + 1) u of
 * itself, its inverse root by half of that, and by 2 ulp that WGSL allows inverseSqrt; f denotes
 * the factor. Bias, residual and gate then add roundings of results. A gate a / (1 + e^-z) errs,
 * beside the error of a times the largest slope (below 1.13 for both), by (3 + 2 |z|) 2^-23 for
 * e^-z, 2.5 ulp for the quotient, and 5 |z| u for z.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { up16 } from '../../js/gpu/shader.js';
import { matvec, matvecChoice, matvecGroups, planMatvec } from '../../js/gpu/wgsl/matvec.js';
import { partValues, sumSplits, sumSplitsGroups } from '../../js/gpu/wgsl/split.js';
import { WGSL_TYPES } from '../../js/gpu/wgsl/types.js';
import { ReferenceProduct } from '../helpers/bounds.js';
import { gpuSkip, TestGpu } from '../helpers/gpu.js';
import { paddedRows } from '../helpers/gpu-products.js';
import { randomWeight } from '../helpers/gpu-weights.js';
import { Prng } from '../helpers/prng.js';

/** @import { MatvecOptions } from '../../js/gpu/wgsl/matvec.js' */

const u = 2 ** -24;
/** What must stay as it was. */
const CANARY = 12345;
const EPS = 1e-5;

/** Values of all sizes, from 1e-6 to 2e5, in one row. @param {number} n @param {Prng} prng */
const wide = (n, prng) =>
  Float32Array.from({ length: n }, () =>
    Math.min(2e5, Math.max(-2e5, prng.gaussian() * 10 ** (5.3 - 11.3 * prng.unit()))),
  );

/** @param {number} n @param {Prng} prng */
const ordinary = (n, prng) => Float32Array.from({ length: n }, () => prng.gaussian());

/** @param {'silu' | 'gelu'} activation @param {number} a */
const exponentOf = (activation, a) =>
  activation === 'silu' ? a : 2 * Math.sqrt(2 / Math.PI) * (a + 0.044715 * a ** 3);

/**
 * @typedef {object} Case
 * @property {(readonly [string, number])[]} weights  type and rows
 * @property {number} nCols
 * @property {Omit<MatvecOptions, 'units'> & { bias?: boolean }} [options]
 * @property {number} [n]  tokens that there are
 * @property {number} [start]
 * @property {(n: number, prng: Prng) => Float32Array} [values]
 */

describe('products for few tokens', { skip: await gpuSkip() }, () => {
  /** @type {TestGpu} */
  let gpu;
  before(async () => {
    gpu = await TestGpu.open();
  });
  after(() => gpu.dispose());

  /** Runs a product twice: the same bits, and within bounds of float64. @param {Case} given */
  async function check({
    weights: shapes,
    nCols,
    options: { bias, ...rest } = {},
    n = 1,
    start = 0,
    values = wide,
  }) {
    const prng = new Prng(nCols + shapes.length + n);
    const weights = shapes.map(([type, nRows]) => randomWeight(type, nRows, nCols, prng));
    const vectors = ordinary(
      up16(up16(nCols) + weights.reduce((sum, { unit }) => sum + unit.nRows + 2, 21)),
      prng,
    );
    /** @type {MatvecOptions} */
    const options = { units: weights.map(({ unit }) => unit), ...rest };
    if (bias) {
      let at = up16(nCols) + 21;
      options.biases = weights.map(({ unit }) => {
        at += unit.nRows + 2;
        return at - unit.nRows - 2;
      });
    }
    const plan = planMatvec(options);
    const what = `${plan.name} ${JSON.stringify({ ...rest, bias, n, start })}`;
    const step = { position: 0, start, nTokens: n, seen: 0 };

    const rowsX = values(n * nCols, prng);
    const x = paddedRows(rowsX, nCols, start);
    const { yRowOffset: first, yStride: strideY, fromZero } = plan;
    const at = (/** @type {number} */ t, /** @type {number} */ r) =>
      ((fromZero ? 0 : start) + t) * strideY + first + r;
    const y = new Float32Array(at(n, plan.nRows)).fill(CANARY);
    const before = ordinary(n * plan.nRows, prng);
    for (let t = 0; t < n; t++)
      for (let r = 0; r < plan.nRows; r++)
        y[at(t, r)] = plan.epilogue === 'add' ? before[t * plan.nRows + r] : Number.NaN;

    const run = async () => {
      /** @type {Record<string, ArrayBufferView>} */
      const data = { x, y, vectors, parts: new Float32Array(partValues(options)).fill(Number.NaN) };
      weights.forEach(({ words }, i) => {
        data[`w${i}`] = words;
      });
      const used = (/** @type {import('../../js/gpu/shader.js').Shader} */ { bindings }) =>
        Object.fromEntries(bindings.map(({ name }) => [name, data[name]]));
      const shader = matvec(options);
      const result = plan.splitK > 1 ? 'parts' : 'y';
      let out = new Float32Array(await gpu.run(shader, used(shader), matvecGroups(options), result, step));
      if (plan.splitK > 1) {
        data.parts = out;
        const second = sumSplits(options);
        out = new Float32Array(await gpu.run(second, used(second), sumSplitsGroups(options, n), 'y', step));
      }
      return out;
    };
    const seen = Float64Array.from(rowsX);
    const out = await run();
    const again = await run();
    const bits = new Uint32Array(out.buffer);
    const other = new Uint32Array(again.buffer).findIndex((word, i) => word !== bits[i]);
    assert.equal(other, -1, `${what}: two runs differ`);

    const gain = plan.norm?.at ?? 0;
    const inputs = plan.norm ? seen.map((v, i) => v * vectors[gain + (i % nCols)]) : seen;
    const products = weights.map((w) => new ReferenceProduct(w.reference, /** @type {any} */ (inputs), n));
    /** The row of a unit: its value with norm and bias, and how much it may be off. */
    const sum = (/** @type {number} */ unit, /** @type {number} */ t, /** @type {number} */ r) => {
      const product = products[unit];
      let value = product.y[t * product.w.nRows + r];
      let error = product.bound(t, r, 0);
      if (plan.norm) {
        const squares = seen.subarray(t * nCols, (t + 1) * nCols).reduce((s, v) => s + v * v, 0);
        const f = Math.min(1e19, 1 / Math.sqrt(squares / nCols + plan.norm.eps));
        value *= f;
        error =
          f * (error + u * product.mass[t * product.w.nRows + r]) * (1 + nCols * u) +
          Math.abs(value) * ((nCols + 3) / 2 + 6) * u;
      }
      if (plan.biases) {
        value += vectors[plan.biases[unit] + r];
        error += u * (Math.abs(value) + error);
      }
      return { value, error };
    };
    const expected = (/** @type {number} */ t, /** @type {number} */ row) => {
      if (plan.epilogue === 'gated') {
        const [a, b] = [sum(0, t, row), sum(1, t, row)];
        const z = exponentOf(plan.activation, a.value);
        const gate = a.value / (1 + Math.exp(-z));
        const error =
          1.13 * a.error +
          Math.abs(gate) *
            ((3 + 2 * Math.min(80, Math.abs(z))) * 2 + 5 + 5 * Math.min(80, Math.abs(z)) + 1) *
            u +
          1e-32;
        const value = gate * b.value;
        return {
          value,
          error: error * (Math.abs(b.value) + b.error) + Math.abs(gate) * b.error + u * Math.abs(value),
        };
      }
      const unit = plan.firsts.findLastIndex((begin) => row >= begin);
      const { value, error } = sum(unit, t, row - plan.firsts[unit]);
      if (plan.epilogue === 'store') return { value, error };
      const scale = plan.residualScale;
      const total = before[t * plan.nRows + row] + scale * value;
      return {
        value: total,
        error: scale * error * (1 + 2 * u) + 2 * u * Math.abs(scale * value) + u * Math.abs(total),
      };
    };
    for (let t = 0; t < n; t++) {
      for (let r = 0; r < plan.nRows; r++) {
        const i = at(t, r);
        const { value, error } = expected(t, r);
        assert.ok(
          Math.abs(out[i] - value) <= error,
          `${what}: y[${t}][${r}] is ${out[i]}, float64 gives ${value}: error ${Math.abs(out[i] - value)}, bound ${error}`,
        );
        out[i] = CANARY;
      }
    }
    assert.ok(
      out.every((v) => v === CANARY),
      `${what}: wrote beside its outputs`,
    );
  }

  for (const [type, { blockValues, coded }] of Object.entries(WGSL_TYPES)) {
    test(`${type}: a block, odd rows`, async () => {
      const shape = { weights: [/** @type {const} */ ([type, 3])], nCols: coded ? blockValues : 35 };
      await check({ ...shape, options: { rows: 2 } });
    });
  }

  for (const [type, nRows, nCols] of /** @type {const} */ ([
    ['Q4_K', 37, 1280],
    ['Q8_0', 4, 1248],
    ['F32', 5, 1003],
    ['BF16', 1, 16],
  ]))
    test(`${type} ${nRows}x${nCols}`, () => check({ weights: [[type, nRows]], nCols }));

  test('1 to 8 tokens, from a row on', async () => {
    const options = { nTokens: 8, rows: 1 };
    for (const n of [1, 3, 5, 8])
      await check({ weights: [['Q4_K', 5]], nCols: 512, options, n, start: n === 5 ? 0 : 2 });
    for (const n of [2, 4])
      await check({ weights: [['Q8_0', 5]], nCols: 320, options: { nTokens: 4 }, n, start: 1 });
    await check({ weights: [['F16', 3]], nCols: 90, options: { nTokens: 2, rows: 1 }, n: 2, start: 5 });
  });

  test('three units of three types, with norm and biases', async () => {
    /** @type {Case} */
    const three = {
      weights: [
        ['Q4_K', 5],
        ['Q8_0', 1],
        ['F16', 37],
      ],
      nCols: 512,
      options: { norm: { eps: EPS, at: 16 }, bias: true },
    };
    await check(three);
    await check({ ...three, options: { ...three.options, nTokens: 2, rows: 2 }, n: 2, start: 3 });
    // Types that share functions, each with what follows its own blocks.
    /** @type {Case['weights']} */
    const rare = [
      ['IQ2_S', 3],
      ['Q5_0', 2],
      ['IQ3_XXS', 5],
    ];
    await check({ ...three, weights: rare });
    await check({
      weights: [['F32', 3]],
      nCols: 64,
      values: (n) => new Float32Array(n),
      options: { norm: { eps: 0 } },
    });
  });

  test('what is added, with a scale; rows and strides that are given', async () => {
    await check({
      weights: [['Q8_0', 5]],
      nCols: 96,
      options: { epilogue: 'add', residualScale: 0.22, bias: true, yRowOffset: 19, yStride: 60 },
      start: 2,
    });
    await check({
      weights: [['F32', 4]],
      nCols: 256,
      options: { epilogue: 'add', nTokens: 2 },
      n: 2,
      start: 2,
    });
    await check({ weights: [['F32', 3]], nCols: 64, options: { fromZero: true }, start: 2 });
  });

  test('gates', async () => {
    await check({
      weights: [
        ['Q4_K', 5],
        ['Q4_K', 5],
      ],
      nCols: 512,
      options: { epilogue: 'gated', norm: { eps: EPS } },
    });
    await check({
      weights: [
        ['Q8_0', 3],
        ['F16', 3],
      ],
      nCols: 64,
      options: { epilogue: 'gated', activation: 'gelu', bias: true, nTokens: 2, norm: { eps: EPS, at: 4 } },
      n: 2,
      start: 1,
    });
    // Results of some units, and of some thousand, where e^-z leaves f32; both signs.
    for (const size of [20, 20_000]) {
      for (const activation of /** @type {const} */ (['silu', 'gelu'])) {
        await check({
          weights: [
            ['F32', 37],
            ['F32', 37],
          ],
          nCols: 16,
          values: (n, prng) => ordinary(n, prng).map((v) => v * size),
          options: { epilogue: 'gated', activation },
        });
      }
    }
  });

  test('columns in parts', async () => {
    await check({ weights: [['Q8_0', 8]], nCols: 16_384, options: { splitK: 7 } });
    await check({
      weights: [
        ['Q4_K', 5],
        ['F16', 3],
      ],
      nCols: 768,
      options: { splitK: 3, norm: { eps: EPS, at: 8 }, bias: true, nTokens: 2, rows: 2 },
      n: 2,
      start: 1,
    });
    await check({
      weights: [
        ['Q8_0', 70],
        ['Q8_0', 70],
      ],
      nCols: 480,
      options: { splitK: 4, norm: { eps: EPS }, epilogue: 'gated', bias: true },
    });
    await check({
      weights: [['Q4_K', 3]],
      nCols: 512,
      options: { splitK: 2, epilogue: 'add', residualScale: 0.5, nTokens: 2, yRowOffset: 16 },
      n: 1,
      start: 1,
    });
    // More parts than there are pieces.
    await check({ weights: [['F32', 2]], nCols: 40, options: { splitK: 5 } });
  });

  test('rows and invocations of a workgroup', async () => {
    await check({ weights: [['Q4_K', 11]], nCols: 1024, options: { rows: 1, invocations: 32 } });
    // More sums than are added up at a time.
    await check({
      weights: [['F32', 11]],
      nCols: 1024,
      options: { rows: 8, invocations: 256, norm: { eps: EPS } },
    });
  });

  test('sums by subgroups', async (t) => {
    if (!gpu.device.features.has('subgroups')) return t.skip('this driver has no subgroups');
    const norm = { eps: EPS };
    await check({ weights: [['Q4_K', 11]], nCols: 1024, options: { subgroups: true, norm } });
    await check({
      weights: [['F32', 9]],
      nCols: 640,
      options: { subgroups: true, invocations: 256, rows: 8, nTokens: 4, norm },
      n: 3,
    });
  });

  test('more workgroups than a dimension takes', () =>
    check({
      weights: [['F16', 66_000]],
      nCols: 16,
      options: { rows: 1, invocations: 8 },
      values: ordinary,
    }));

  test('a weight in parts of rows', async () => {
    const prng = new Prng(5);
    const [nRows, nCols] = [20, 128];
    const { unit, words, reference } = randomWeight('Q8_0', nRows, nCols, prng);
    const x = ordinary(nCols, prng);
    const step = { position: 0, start: 0, nTokens: 1, seen: 0 };
    let y = new Float32Array(48).fill(CANARY);
    for (const [first, n] of [
      [0, 13],
      [13, 7],
    ]) {
      const part = { ...unit, nRows: n, firstBlock: (first * nCols) / 32 };
      const options = { units: [part], yRowOffset: 16 + first, yStride: 32 };
      const data = { w0: words, x, y };
      y = new Float32Array(await gpu.run(matvec(options), data, matvecGroups(options), 'y', step));
    }
    new ReferenceProduct(reference, x, 1).check(y.slice(16, 16 + nRows), {
      activation: 0,
      what: 'parts of rows',
    });
    assert.ok([...y.slice(0, 16), ...y.slice(16 + nRows)].every((v) => v === CANARY));
  });
});

test('a product is cut where its rows do not fill the device', () => {
  const by = { rows: 4, groups: 1024, invocations: 64 };
  assert.deepEqual(matvecChoice(4096, 4096, by), { invocations: 64, splitK: 1 });
  assert.deepEqual(matvecChoice(1024, 4096, by), { invocations: 64, splitK: 4 });
  assert.deepEqual(matvecChoice(8, 16_384, by), { invocations: 64, splitK: 16 });
  assert.deepEqual(matvecChoice(256, 256, by), { invocations: 32, splitK: 1 });
  assert.deepEqual(matvecChoice(1024, 4096, { ...by, groups: 256 }), { invocations: 64, splitK: 1 });
  assert.deepEqual(matvecChoice(1024, 4096, { ...by, groups: 1 }), { invocations: 64, splitK: 1 });
  assert.deepEqual(matvecChoice(64, 16_384, { ...by, rows: 1 }), { invocations: 64, splitK: 16 });
  assert.deepEqual(matvecChoice(64, 16_384, { ...by, invocations: 256 }), { invocations: 256, splitK: 4 });
  assert.deepEqual(matvecChoice(64, 2048, { ...by, invocations: 256 }), { invocations: 128, splitK: 1 });
});
