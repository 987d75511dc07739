import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { up16 } from '../../js/gpu/shader.js';
import {
  quantizeActivations,
  quantizeGroups,
  rowScales,
  scaleActivations,
  scaleGroups,
} from '../../js/gpu/wgsl/quantize.js';
import { gpuSkip, TestGpu } from '../helpers/gpu.js';
import { Prng } from '../helpers/prng.js';

const u = 2 ** -24;
const CANARY = 0x5a5a5a5a;

/**
 * WGSL allows a division 2.5 units in the last place: so the scale is off by 5 u of itself, and the
 * number that is rounded to a code by 5 u for the division and u for the product, of at most 127.
 */
const SCALE_ERROR = 5 * u;
const CODE_ERROR = 0.5 + 127 * 6 * u;

describe('activations as int8', { skip: await gpuSkip() }, () => {
  /** @type {TestGpu} */
  let gpu;
  before(async () => {
    gpu = await TestGpu.open();
  });
  after(() => gpu.dispose());

  for (const nCols of [512, 80]) {
    test(`${nCols} columns: codes, scales, and nothing else`, async () => {
      const [start, nTokens, nRows] = [2, 7, 11];
      const [stride, nScales] = [up16(nCols), rowScales(nCols)];
      const prng = new Prng(nCols);
      const x = new Float32Array(nRows * stride);
      for (let t = 0; t < nRows; t++)
        for (let c = 0; c < nCols; c++)
          x[t * stride + c] = prng.gaussian() * [1, 2e5, 1e-6, 1e-33, 1e30, -0, 1][t % 7];
      // A group of one value and zeros; halves between codes, with a scale of 1.
      const at = start * stride;
      x.fill(0, at, at + 32);
      x[at + 5] = -3;
      for (let c = 0; c < 16; c++) x[at + 32 + c] = c === 0 ? 127 : c - 7.5;
      const shape = { nCols };
      const data = {
        x,
        codes: new Uint32Array((nRows * stride) / 4).fill(CANARY),
        scales: new Float32Array(nRows * nScales).fill(NaN),
      };
      const step = { position: 0, start, nTokens, seen: 0 };
      const run = async (/** @type {string} */ name) =>
        gpu.run(quantizeActivations(shape), data, quantizeGroups(shape, nTokens), name, step);
      const words = new Uint32Array(await run('codes'));
      const codes = new Int8Array(words.buffer);
      const scales = new Float32Array(await run('scales'));
      for (let t = 0; t < nRows; t++) {
        if (t < start || t >= start + nTokens) {
          for (let i = 0; i < stride / 4; i++) assert.equal(words[(t * stride) / 4 + i], CANARY);
          for (let i = 0; i < nScales; i++) assert.ok(Number.isNaN(scales[t * nScales + i]));
          continue;
        }
        for (let g = 0; g < nScales; g++) {
          const [first, end] = [t * stride + 32 * g, t * stride + Math.min(stride, 32 * g + 32)];
          const largest = x.subarray(first, end).reduce((m, v) => Math.max(m, Math.abs(v)), 0);
          const scale = largest < 2 ** -100 ? 0 : largest / 127;
          const got = scales[t * nScales + g];
          assert.ok(Math.abs(got - scale) <= SCALE_ERROR * scale, `scale ${got}, not ${scale}`);
          for (let i = first; i < end; i++) {
            const exact = scale === 0 ? 0 : x[i] / scale;
            assert.ok(Math.abs(codes[i] - exact) <= CODE_ERROR, `code ${codes[i]} of ${exact}`);
            assert.ok(codes[i] >= -127, 'codes are symmetric');
          }
        }
      }
      assert.equal(codes[at + 5], -127);
      const halves = [-6, -6, -4, -4, -2, -2, 0, 0, 2, 2, 4, 4, 6, 6, 8];
      assert.deepEqual([...codes.subarray(at + 33, at + 48)], halves, 'half to even');
    });
  }

  test('NaN and infinities reach the scales', async () => {
    const x = new Float32Array(64).fill(1);
    x[3] = NaN;
    x[40] = -Infinity;
    const data = { x, codes: new Uint32Array(16), scales: new Float32Array(2) };
    const step = { position: 0, start: 0, nTokens: 1, seen: 0 };
    const shape = { nCols: 64 };
    const bytes = await gpu.run(quantizeActivations(shape), data, quantizeGroups(shape, 1), 'scales', step);
    assert.deepEqual([...new Float32Array(bytes)].map(Number.isFinite), [false, false]);
  });

  test('scales of rows are powers of two below their largest magnitude', async () => {
    const [nCols, start, nTokens] = [80, 1, 8];
    const factors = [1, 2e5, 1e-6, 1e30, 0, 1e-40, -3, Infinity];
    const x = new Float32Array((start + nTokens + 1) * nCols).fill(NaN);
    const prng = new Prng(1);
    factors.forEach((factor, t) => {
      for (let c = 0; c < nCols; c++) x[(start + t) * nCols + c] = factor * (0.1 + prng.unit());
    });
    // The largest is the last value that an invocation reads.
    x[(start + 1) * nCols + 79] = -(2 ** 20);
    const scales = new Float32Array(start + nTokens + 1).fill(-1);
    const step = { position: 0, start, nTokens, seen: 0 };
    const bytes = await gpu.run(
      scaleActivations({ nCols }),
      { x, scales },
      scaleGroups(nTokens),
      'scales',
      step,
    );
    const expected = factors.map((_, t) => {
      const row = x.subarray((start + t) * nCols, (start + t + 1) * nCols);
      const exponent = Math.floor(Math.log2(row.reduce((m, v) => Math.max(m, Math.abs(v)), 0)));
      return 2 ** Math.min(126, Math.max(-126, exponent));
    });
    assert.deepEqual([...new Float32Array(bytes)], [-1, ...expected, -1]);
  });
});
