import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { matmulInt8 } from '../../js/gpu/wgsl/matmul-int8.js';
import { WGSL_TYPES } from '../../js/gpu/wgsl/types.js';
import { TestGpu } from '../helpers/gpu.js';
import { checkProduct, extremeRows, featureSkip } from '../helpers/gpu-products.js';
import { randomWeight } from '../helpers/gpu-weights.js';
import { gaussian } from '../helpers/layer.js';
import { Prng } from '../helpers/prng.js';

/** @import { ProductCase } from '../helpers/gpu-products.js' */

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

  /** @param {Omit<ProductCase, 'int8'>} given @param {string} what */
  const check = (given, what) => checkProduct(gpu, { ...given, int8: true }, what);

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

  test('added to y', async () => {
    // 3 steps of two lanes.
    const weight = randomWeight('Q8_0', 37, 96, new Prng(4), 1);
    const dense = gaussian(19 * 96, new Prng(6));
    const options = { ...SMALL, epilogue: /** @type {const} */ ('add') };
    await check({ weight, dense, options, start: 2 }, 'added');
  });

  test('large, small and one-sided activations, and the same bits again', async () => {
    const weight = randomWeight('Q4_K', 37, 512, new Prng(4), 3);
    const dense = extremeRows(35, 512, new Prng(8));
    const given = { weight, dense, options: SMALL, start: 3 };
    const got = await check(given, 'extremes');
    assert.deepEqual(await check(given, 'again'), got);
  });

  test('weights without codes are refused', () => {
    const { unit } = randomWeight('F16', 16, 16, new Prng(1));
    assert.throws(() => matmulInt8({ unit }), /F16 has no codes/);
  });
});
