import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { matmul } from '../../js/gpu/wgsl/matmul.js';
import { WGSL_TYPES } from '../../js/gpu/wgsl/types.js';
import { ReferenceProduct } from '../helpers/bounds.js';
import { gpuSkip, TestGpu } from '../helpers/gpu.js';
import { checkProduct, extremeRows, featureSkip, runProduct } from '../helpers/gpu-products.js';
import { randomWeight } from '../helpers/gpu-weights.js';
import { gaussian } from '../helpers/layer.js';
import { Prng } from '../helpers/prng.js';

/** @import { ProductCase } from '../helpers/gpu-products.js' */

const SMALL = { tileRows: 32, tileTokens: 16, depth: 1 };

const noF16 = await featureSkip('shader-f16');

// Most of the time goes into compiling, which may use all cores.
describe('products for many tokens', { skip: await gpuSkip(), concurrency: 4 }, () => {
  /** @type {TestGpu} */
  let gpu;
  before(async () => {
    gpu = await TestGpu.open();
  });
  after(() => gpu.dispose());

  /** @param {ProductCase} given @param {string} what */
  const check = (given, what) => checkProduct(gpu, given, what);

  // Rows of floats that end within a piece.
  const typeWeight = (/** @type {string} */ type) =>
    randomWeight(type, 37, WGSL_TYPES[type].coded ? 512 : 488, new Prng(type.length), 3);

  for (const type of Object.keys(WGSL_TYPES)) {
    test(`${type} weights`, async () => {
      const weight = typeWeight(type);
      const dense = gaussian(35 * weight.unit.nCols, new Prng(2));
      await check({ weight, dense, options: SMALL, start: 3 }, type);
    });
  }

  test('any number of tokens, with one shader', async () => {
    const weight = randomWeight('Q4_K', 70, 256, new Prng(3));
    for (const [nTokens, start] of [
      [1, 0],
      [9, 5],
      [31, 1],
      [32, 0],
      [33, 2],
      [65, 7],
    ]) {
      const dense = gaussian(nTokens * 256, new Prng(nTokens));
      const options = { tileRows: 32, tileTokens: 32 };
      await check({ weight, dense, options, start }, `${nTokens} tokens from ${start}`);
    }
  });

  // Rows beyond a tile, columns that are no whole steps of two pieces, a token more than a tile.
  for (const [tileRows, tileTokens, depth, type, nCols] of /** @type {const} */ ([
    [64, 64, 2, 'F16', 40],
    [128, 128, 1, 'Q4_K', 256],
  ])) {
    test(`tiles of ${tileRows} x ${tileTokens} x ${16 * depth}, ${type}`, async () => {
      const weight = randomWeight(type, tileRows + 5, nCols, new Prng(tileRows));
      const dense = gaussian((tileTokens + 1) * nCols, new Prng(tileTokens));
      await check({ weight, dense, options: { tileRows, tileTokens, depth }, start: 1 }, type);
    });
  }

  test('tiles that no workgroup can compute are refused', () => {
    const { unit } = randomWeight('F32', 16, 16, new Prng(1));
    assert.throws(() => matmul({ unit, tileRows: 16 }), /tiles of 16 x 64/);
    assert.throws(() => matmul({ unit, depth: 4 }), /bytes of workgroup memory/);
    assert.throws(() => matmul({ unit, tileRows: 256, tileTokens: 128, depth: 1, f16: true }), /invocations/);
  });

  for (const fromZero of [true, false]) {
    const first = fromZero ? 'row 0' : 'the first row of the batch';
    test(`added to y from ${first} on, with a bias, a scale and an offset`, async () => {
      const weight = randomWeight('Q8_0', 37, 96, new Prng(4), 1);
      const dense = gaussian(19 * 96, new Prng(6));
      const options = {
        ...SMALL,
        epilogue: /** @type {const} */ ('add'),
        residualScale: 0.22,
        bias: 3,
        yRowOffset: 5,
        yStride: 64,
        fromZero,
      };
      await check({ weight, dense, options, start: 2 }, `from ${first} on`);
    });
  }

  test('large, small and one-sided activations, and the same bits again', async () => {
    const weight = typeWeight('Q4_K');
    const dense = extremeRows(35, weight.unit.nCols, new Prng(8));
    const given = { weight, dense, options: SMALL, start: 3 };
    const got = await check(given, 'extremes');
    assert.deepEqual((await runProduct(gpu, given)).got, got);
  });

  test('NaN and infinities stay with their tokens', async () => {
    const weight = typeWeight('Q4_K');
    const { nCols, nRows } = weight.unit;
    const dense = gaussian(35 * nCols, new Prng(9));
    dense[4 * nCols + 7] = NaN;
    dense[20 * nCols + 300] = Infinity;
    const { got } = await runProduct(gpu, { weight, dense, options: SMALL, start: 3 });
    got.forEach((value, i) => {
      const t = Math.floor(i / nRows);
      assert.equal(Number.isFinite(value), t !== 4 && t !== 20, `token ${t}`);
    });
  });

  /**
   * f16 in workgroup memory: x / S and w are converted, S a power of two. WGSL lets a conversion
   * round either way (2^-10 of the value) and flush what is below 2^-14, so a product of the two
   * errs by at most
   *   |x w| (2^-9 + 2^-20) + 2^-14 (1 + 2^-10) (S |w| + |x|) + 2^-28 S.
   */
  test('f16 in workgroup memory', { skip: noF16 }, async () => {
    for (const [type, tileRows, tileTokens] of /** @type {const} */ ([
      ['Q4_K', 64, 64],
      ['Q8_0', 128, 128],
      ['F32', 32, 32],
    ])) {
      const [nTokens, nCols] = [35, 256];
      const weight = randomWeight(type, 37, nCols, new Prng(10));
      const dense = gaussian(nTokens * nCols, new Prng(11));
      for (let i = 0; i < dense.length; i++) {
        const t = Math.floor(i / nCols) % 5;
        dense[i] = [dense[i], dense[i] * 2e5, dense[i] * 1e-6, 2e5 + dense[i], dense[i] * 1e30][t];
      }
      const options = { tileRows, tileTokens, f16: true };
      const { got } = await runProduct(gpu, { weight, dense, options, start: 2 });
      const reference = new ReferenceProduct(weight.reference, dense, nTokens);
      for (let t = 0; t < nTokens; t++) {
        const x = dense.subarray(t * nCols, (t + 1) * nCols).map(Math.abs);
        const scale = 2 ** Math.floor(Math.log2(Math.max(...x)));
        const error = { squares: 0, of: 0 };
        for (let r = 0; r < 37; r++) {
          const w = weight.reference.values.subarray(r * nCols, (r + 1) * nCols).map(Math.abs);
          let bound = 1.01 * reference.bound(t, r, 0);
          for (let c = 0; c < nCols; c++)
            bound +=
              x[c] * w[c] * (2 ** -9 + 2 ** -20) +
              2 ** -14 * (1 + 2 ** -10) * (scale * w[c] + x[c]) +
              2 ** -28 * scale;
          const [value, expected] = [got[t * 37 + r], reference.y[t * 37 + r]];
          assert.ok(
            Math.abs(value - expected) <= bound,
            `${type}: y[${t}][${r}] is ${value}, not ${expected}`,
          );
          error.squares += (value - expected) ** 2;
          error.of += expected ** 2;
        }
        // Signs are mixed, so independent roundings of 2^-11 at most are far below this.
        if (t % 5 !== 3) assert.ok(Math.sqrt(error.squares / error.of) < 2 ** -10, `${type}: token ${t}`);
      }
    }
  });
});
