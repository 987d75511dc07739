import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { up16 } from '../../js/gpu/shader.js';
import { MAX_CANDIDATES, samplingPasses } from '../../js/gpu/wgsl/sample.js';
import { gpuSkip, TestGpu } from '../helpers/gpu.js';
import { Prng } from '../helpers/prng.js';

describe('the largest logits', { skip: await gpuSkip() }, () => {
  /** @type {TestGpu} */
  let gpu;
  before(async () => {
    gpu = await TestGpu.open();
  });
  after(() => gpu.dispose());

  /**
   * @param {Float32Array} logits  one row
   * @param {number} k
   * @returns {Promise<[number, number][]>}  value and index, as the GPU gives them
   */
  async function largest(logits, k) {
    const { device, commands, pipelines } = gpu;
    const stride = up16(logits.length);
    // The row is the third one; those before it have larger numbers.
    const all = new Float32Array(3 * stride).fill(1e30);
    all.set(logits, 2 * stride);
    let values = device.bufferOf(all);
    const step = { position: 0, start: 2, nTokens: 1, seen: 0 };
    for (const { shader, groups, nLeft } of samplingPasses(logits.length, k)) {
      const best = device.bufferOf(new Uint32Array(2 * nLeft + 2).fill(7));
      commands.dispatch((await pipelines.compile(shader)).bind({ values, best }), groups, step);
      values = best;
    }
    const [out] = await commands.read([{ buffer: values, offset: 0, bytes: 8 * k + 8 }]);
    assert.deepEqual([...new Uint32Array(out, 8 * k)], [7, 7], 'nothing is written after the last candidate');
    const numbers = new Float32Array(out);
    const indices = new Uint32Array(out);
    return Array.from({ length: k }, (_, i) => [numbers[2 * i], indices[2 * i + 1]]);
  }

  /** @param {Float32Array} logits @param {number} k @returns {[number, number][]} */
  function expected(logits, k) {
    const order = [...logits.keys()].sort(
      (a, b) =>
        (Number.isNaN(logits[a]) ? 1 : 0) - (Number.isNaN(logits[b]) ? 1 : 0) ||
        logits[b] - logits[a] ||
        a - b,
    );
    // -0 counts as 0, and is given as 0.
    return order.slice(0, k).map((i) => [logits[i] + 0, i]);
  }

  const prng = new Prng(5);
  const gaussian = (/** @type {number} */ n) => Float32Array.from({ length: n }, () => 10 * prng.gaussian());

  // A sorting kernel takes software drivers seconds to compile, so there are few shapes.
  for (const [k, sizes] of /** @type {[number, number[]][]} */ ([
    [1, [200, 4097, 131_101]],
    [40, [4097]],
    [MAX_CANDIDATES, [2048]],
  ])) {
    test(`top ${k}`, async () => {
      for (const n of sizes) {
        const logits = gaussian(n);
        assert.deepEqual(await largest(logits, k), expected(logits, k), `${n} logits`);
      }
    });

    test(`top ${k} of equal, negative, infinite and missing numbers`, async () => {
      const n = sizes[0] === 200 ? 4097 : sizes[0];
      const equal = Float32Array.from({ length: n }, (_, i) => Math.floor(i / 3) % 7);
      const negative = Float32Array.from({ length: n }, (_, i) => -1e30 - 1e27 * (i % 50));
      const zeros = Float32Array.from({ length: n }, (_, i) => (i % 4 === 1 ? 0 : i % 4 === 3 ? -0 : -1));
      const odd = gaussian(n);
      for (let i = 0; i < n; i += 5) odd[i] = Number.NaN;
      [odd[17], odd[1900], odd[33]] = [Infinity, Infinity, -Infinity];
      const NAN_BITS = 0xffffffff;
      const mostly = new Float32Array(n).fill(Number.NaN);
      new Uint32Array(mostly.buffer).fill(NAN_BITS, 0, 100);
      for (let i = 0; i < 150; i++) mostly[12 * i + 3] = -i;
      for (const logits of [equal, negative, zeros, odd, mostly])
        assert.deepEqual(await largest(logits, k), expected(logits, k));
    });
  }
});
