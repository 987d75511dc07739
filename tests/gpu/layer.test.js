import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { up16 } from '../../js/gpu/shader.js';
import { addTo, gate, norm, rowGroups, scaleAndCap, softmax } from '../../js/gpu/wgsl/layer.js';
import { gpuSkip, TestGpu } from '../helpers/gpu.js';
import { u, within } from '../helpers/layer.js';
import { Prng } from '../helpers/prng.js';

const { abs, exp, sqrt, tanh } = Math;

const START = 2;
const N_TOKENS = 3;
/** Rows of the buffers: two before the step's, one after. */
const N_ROWS = START + N_TOKENS + 1;
const step = { position: 9, start: START, nTokens: N_TOKENS, seen: 0 };

/**
 * Rows with a padding of zeros.
 * @param {number} nCols
 * @param {(row: number, col: number) => number} value
 */
function rowsOf(nCols, value) {
  const stride = up16(nCols);
  const rows = new Float32Array(N_ROWS * stride);
  for (let r = 0; r < N_ROWS; r++) for (let c = 0; c < nCols; c++) rows[r * stride + c] = value(r, c);
  return rows;
}

describe('row by row operations', { skip: await gpuSkip() }, () => {
  /** @type {TestGpu} */
  let gpu;
  before(async () => {
    gpu = await TestGpu.open();
  });
  after(() => gpu.dispose());

  /**
   * Runs a kernel over three of six rows, twice, and compares.
   * @param {import('../../js/gpu/shader.js').Shader} shader
   * @param {number} nCols
   * @param {Record<string, Float32Array>} data
   * @param {string} result
   * @param {(row: number, col: number) => { value: number, bound: number }} expected row: counted
   *   in the buffer
   * @param {number} [shift] rows that the result lies before its input
   */
  async function check(shader, nCols, data, result, expected, shift = 0) {
    const got = new Float32Array(await gpu.run(shader, data, rowGroups(N_TOKENS), result, step));
    const again = new Float32Array(await gpu.run(shader, data, rowGroups(N_TOKENS), result, step));
    assert.deepEqual(again, got, 'the same bits again');
    const stride = up16(nCols);
    for (let r = 0; r < N_ROWS; r++) {
      const row = got.subarray(r * stride, (r + 1) * stride);
      const source = r + shift;
      if (source < START || source >= START + N_TOKENS) {
        assert.deepEqual(row, data[result].subarray(r * stride, (r + 1) * stride), `row ${r} is left alone`);
        continue;
      }
      within(
        row.subarray(0, nCols),
        (c) => expected(source, c).value,
        (c) => expected(source, c).bound,
        `${shader.name}, row ${r}`,
      );
      assert.ok(
        row.subarray(nCols).every((value) => value === 0),
        'the padding stays zero',
      );
    }
  }

  const prng = new Prng(77);
  const SIZES = [1, 5, 64, 1000, 1032];
  const poison = (/** @type {number} */ nCols) => rowsOf(nCols, (r) => (r < 5 ? Number.NaN : 4));

  for (const nCols of SIZES) {
    const x = rowsOf(nCols, (r, c) =>
      r === 3 ? 300 + prng.gaussian() : (c % 11 === 5 ? 2e5 : 1) * prng.gaussian(),
    );
    const stride = up16(nCols);
    const weight = rowsOf(nCols, () => 1 + prng.gaussian());
    const bias = rowsOf(nCols, () => prng.gaussian());
    const row = (/** @type {number} */ r) => x.subarray(r * stride, r * stride + nCols);
    const [w, b] = [weight, bias].map((rows) => rows.slice(0, stride));
    const meanOf = (/** @type {number} */ r) => row(r).reduce((sum, v) => sum + v, 0) / nCols;

    test(`rms norm of ${nCols}`, async () => {
      const eps = 1e-5;
      const scale = (/** @type {number} */ r) =>
        1 / sqrt(row(r).reduce((sum, v) => sum + v * v, 0) / nCols + eps);
      // Sums of squares err relatively by their length, halved by the root; a few roundings for the
      // rest.
      const expected = (/** @type {number} */ r, /** @type {number} */ c) => {
        const value = x[r * stride + c] * scale(r) * w[c];
        return { value, bound: (nCols / 2 + 12) * u * abs(value) + 1e-37 };
      };
      await check(norm({ nCols, eps }), nCols, { x, weight: w, y: zeroPadded(nCols) }, 'y', expected);
      await check(
        norm({ nCols, eps, toZero: true }),
        nCols,
        { x, weight: w, y: zeroPadded(nCols) },
        'y',
        expected,
        START,
      );
      const y = rowsOf(nCols, () => prng.gaussian());
      const add = addTo({ nCols, scale: 0.375, norm: { kind: 'rms', eps } });
      await check(add, nCols, { x, weight: w, y }, 'y', (r, c) => {
        const { value, bound } = expected(r, c);
        return {
          value: y[r * stride + c] + 0.375 * value,
          bound: bound + 2 * u * (abs(y[r * stride + c]) + abs(value)),
        };
      });
    });

    test(`layer norm of ${nCols}`, async () => {
      const eps = 1e-3;
      /** @param {number} r @param {number} c @param {boolean} withBias */
      const expected = (r, c, withBias) => {
        const mean = meanOf(r);
        const size = row(r).reduce((most, v) => Math.max(most, abs(v)), 0);
        const variance = row(r).reduce((sum, v) => sum + (v - mean) ** 2, 0) / nCols;
        const scale = 1 / sqrt(variance + eps);
        const value = (x[r * stride + c] - mean) * scale * w[c];
        // The mean errs by its length times the largest number; that error scales like the
        // difference, in variance and in value.
        const meanError = (nCols + 2) * u * size;
        const relative = (meanError * sqrt(variance) + meanError ** 2) * scale ** 2 + (nCols / 2 + 12) * u;
        const bound =
          relative * abs(value) + meanError * scale * abs(w[c]) + 4 * u * (abs(value) + abs(b[c]));
        return { value: value + (withBias ? b[c] : 0), bound };
      };
      const options = { kind: /** @type {const} */ ('layer'), nCols, eps };
      const data = { x, weight: w, y: zeroPadded(nCols) };
      await check(norm(options), nCols, data, 'y', (r, c) => expected(r, c, false));
      await check(norm({ ...options, bias: true }), nCols, { ...data, bias: b }, 'y', (r, c) =>
        expected(r, c, true),
      );
      const inPlace = norm({ ...options, bias: true, inPlace: true });
      await check(inPlace, nCols, { x, weight: w, bias: b }, 'x', (r, c) => expected(r, c, true));
    });

    test(`gates of ${nCols}`, async () => {
      const g = rowsOf(nCols, (_, c) => (c % 9 === 4 ? 90 : 3) * prng.gaussian());
      const y = rowsOf(nCols, () => prng.gaussian());
      for (const activation of /** @type {const} */ (['silu', 'gelu'])) {
        await check(gate({ nCols, activation }), nCols, { x: g, y }, 'x', (r, c) => {
          const [a, up] = [g[r * stride + c], y[r * stride + c]];
          const t = sqrt(2 / Math.PI) * (a + 0.044715 * a ** 3);
          const act = activation === 'silu' ? a / (1 + exp(-a)) : 0.5 * a * (1 + tanh(t));
          // exp of WGSL errs by 3 + 2|x| units; tanh is made of it, and what is left of 1 + tanh(t)
          // for negative t is absolute.
          const bound =
            activation === 'silu' ? (16 + 4 * abs(a)) * u * abs(act) : 2 ** -18 * abs(a) + 16 * u * abs(act);
          return { value: act * up, bound: bound * abs(up) + 1e-36 };
        });
      }
    });

    test(`scales, caps and sums of ${nCols}`, async () => {
      const scale = 0.0123;
      await check(scaleAndCap({ nCols, scale, softcap: 0 }), nCols, { x }, 'x', (r, c) => {
        const value = x[r * stride + c] * scale;
        return { value, bound: 2 * u * abs(value) };
      });
      await check(scaleAndCap({ nCols, scale, softcap: 30 }), nCols, { x }, 'x', (r, c) => {
        const t = (x[r * stride + c] * scale) / 30;
        return { value: 30 * tanh(t), bound: 30 * 2 ** -18 + 4 * u * abs(t) };
      });
      const y = rowsOf(nCols, () => prng.gaussian());
      await check(addTo({ nCols, scale: -2.5 }), nCols, { x, y }, 'y', (r, c) => {
        const [a, by] = [y[r * stride + c], -2.5 * x[r * stride + c]];
        return { value: a + by, bound: 2 * u * (abs(a) + abs(by)) };
      });
    });

    test(`softmax of ${nCols}`, async () => {
      const s = rowsOf(nCols, (r) => (r === 3 ? 800 : -5) + 4 * prng.gaussian());
      await check(softmax({ nCols }), nCols, { x: s }, 'x', (r, c) => {
        const values = s.subarray(r * stride, r * stride + nCols);
        const peak = Math.max(...values);
        const total = values.reduce((sum, v) => sum + exp(v - peak), 0);
        const value = exp(values[c] - peak) / total;
        return { value, bound: (nCols + 16 + 4 * abs(values[c] - peak)) * u * value + 1e-38 };
      });
    });
  }

  /** Rows of NaN whose padding is zero, as it always is. @param {number} nCols */
  const zeroPadded = (nCols) => {
    const rows = poison(nCols);
    const stride = up16(nCols);
    return rows.map((value, i) => (i % stride < nCols ? value : 0));
  };

  test('a kernel with a row each does more rows than one dimension has workgroups', async () => {
    const { device, commands, pipelines } = gpu;
    const nRows = 70_000;
    const x = device.bufferOf(new Float32Array(16 * nRows).map((_, i) => i % 1000));
    const bound = (await pipelines.compile(scaleAndCap({ nCols: 16, scale: 2, softcap: 0 }))).bind({ x });
    commands.dispatch(bound, rowGroups(nRows), { position: 0, start: 0, nTokens: nRows, seen: 0 });
    const [bytes] = await commands.read([{ buffer: x, offset: 0, bytes: 64 * nRows }]);
    const got = new Float32Array(bytes);
    const wrong = got.findIndex((value, i) => value !== 2 * (i % 1000));
    assert.equal(wrong, -1);
    x.free();
  });
});
