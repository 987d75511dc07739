import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { matmulInt8 } from '../../js/gpu/wgsl/matmul-int8.js';
import { WGSL_TYPES } from '../../js/gpu/wgsl/types.js';
import { ReferenceProduct } from '../helpers/bounds.js';
import { TestGpu } from '../helpers/gpu.js';
import { featureSkip, randomWeight, runProduct } from '../helpers/gpu-products.js';
import { gaussian } from '../helpers/layer.js';
import { Prng } from '../helpers/prng.js';

/** @import { ProductCase } from '../helpers/gpu-products.js' */

const u = 2 ** -24;
const SMALL = { tileRows: 32, tileTokens: 16 };
const CODED = Object.keys(WGSL_TYPES).filter((type) => WGSL_TYPES[type].coded);

describe('integer products for many tokens', {
  skip: await featureSkip('dot4I8Packed'),
  concurrency: 4,
}, () => {
  /** @type {TestGpu} */
  let gpu;
  before(async () => {
    gpu = await TestGpu.open();
  });
  after(() => gpu.dispose());

  /**
   * Against the activations as they were quantised. Integer sums are exact, and cover 8 columns at
   * least before they meet f32, with at most 8 roundings each and two terms: that is within the
   * bound of f32 products.
   * @param {Omit<ProductCase, 'int8'>} given @param {string} what
   */
  async function check(given, what) {
    const { got, quantized } = await runProduct(gpu, { ...given, int8: true });
    const x = /** @type {Float32Array} */ (/** @type {unknown} */ (quantized));
    const reference = new ReferenceProduct(given.weight.reference, x, x.length / given.weight.unit.nCols);
    reference.check(got, { activation: 0, what });
    return got;
  }

  for (const type of CODED) {
    test(`${type} weights`, async () => {
      const weight = randomWeight(type, 37, 512, new Prng(type.length), 3);
      const dense = gaussian(35 * 512, new Prng(2));
      await check({ weight, dense, options: SMALL, start: 3 }, type);
    });
  }

  test('tiles of 64 x 64, any number of tokens', async () => {
    const weight = randomWeight('Q4_K', 70, 256, new Prng(3));
    for (const [nTokens, start] of [
      [1, 0],
      [9, 5],
      [65, 7],
    ]) {
      const dense = gaussian(nTokens * 256, new Prng(nTokens));
      await check({ weight, dense, options: {}, start }, `${nTokens} tokens from ${start}`);
    }
  });

  test('tiles of 128 x 64', async () => {
    const weight = randomWeight('Q8_0', 133, 96, new Prng(4));
    const dense = gaussian(65 * 96, new Prng(5));
    await check({ weight, dense, options: { tileRows: 128 }, start: 1 }, 'Q8_0');
  });

  test('added to y, columns in parts', async () => {
    // 3 steps of two lanes: of 4 parts, one is empty.
    const weight = randomWeight('Q8_0', 37, 96, new Prng(4), 1);
    const dense = gaussian(19 * 96, new Prng(6));
    const options = { ...SMALL, epilogue: /** @type {const} */ ('add'), splitK: 4 };
    const { got, quantized, before } = await runProduct(gpu, {
      weight,
      dense,
      options,
      start: 2,
      int8: true,
    });
    const x = /** @type {Float32Array} */ (/** @type {unknown} */ (quantized));
    const reference = new ReferenceProduct(weight.reference, x, 19);
    got.forEach((value, i) => {
      const [t, r] = [Math.floor(i / 37), i % 37];
      const expected = before(t, r) + reference.y[i];
      const bound = reference.bound(t, r, 0) + 2 * u * (Math.abs(before(t, r)) + Math.abs(reference.y[i]));
      assert.ok(Math.abs(value - expected) <= bound, `y[${t}][${r}] is ${value}, not ${expected}`);
    });
  });

  test('large, small and one-sided activations, and the same bits again', async () => {
    const weight = randomWeight('Q4_K', 37, 512, new Prng(4), 3);
    const dense = gaussian(35 * 512, new Prng(8));
    for (let i = 0; i < dense.length; i++) {
      const t = Math.floor(i / 512) % 4;
      if (t === 0) dense[i] *= 2e5;
      if (t === 1) dense[i] *= 1e-6;
      if (t === 2) dense[i] = 2e5 + Math.abs(dense[i]);
    }
    const given = { weight, dense, options: SMALL, start: 3 };
    const got = await check(given, 'extremes');
    assert.deepEqual(await check(given, 'again'), got);
  });

  test('weights without codes are refused', () => {
    const { unit } = randomWeight('F16', 16, 16, new Prng(1));
    assert.throws(() => matmulInt8({ unit }), /F16 has no codes/);
  });
});
