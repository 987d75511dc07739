/**
 * Queries, keys and values against float64, within the bounds of tests/helpers/bounds.js and
 * gpu-heads.js.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { up16 } from '../../js/gpu/shader.js';
import { cacheLayout } from '../../js/gpu/wgsl/cache.js';
import { FAULT_WORDS, readFault } from '../../js/gpu/wgsl/faults.js';
import { heads, headsAfter, headsAfterGroups, headsGroups, ropeTable } from '../../js/gpu/wgsl/heads.js';
import { ReferenceProduct } from '../helpers/bounds.js';
import { f16ToNumber, numberToF16 } from '../helpers/floats.js';
import { gpuSkip, TestGpu } from '../helpers/gpu.js';
import { cacheRow, K, rms, stored, turn, V, within } from '../helpers/gpu-heads.js';
import { randomWeight } from '../helpers/gpu-weights.js';
import { Prng } from '../helpers/prng.js';

/** @import { CacheShape } from '../../js/gpu/wgsl/cache.js' */
/** @import { HeadsAfterOptions } from '../../js/gpu/wgsl/heads.js' */
/** @import { QkNorm, Rope } from '../../js/llama/plan.js' */

/** @import { Parts } from '../helpers/gpu-heads.js' */

const u = 2 ** -24;
const CANARY = 0x4640e400;
const EPS = 1e-6;
const LAYER = 17;

const gaussian = (/** @type {number} */ n, /** @type {Prng} */ prng) =>
  Float32Array.from({ length: n }, () => prng.gaussian());

/** @param {Partial<Rope>} [changes] @returns {Rope} */
const rope = (changes) => ({
  ...{ pairing: 'adjacent', nDims: 32, base: 10_000, linearScale: 1, divisors: undefined, magnitude: 1 },
  ...changes,
});

test('the table of rotations is that of float64', () => {
  const factors = [1, 2, 4, 8];
  const table = ropeTable({ nPositions: 5000, nDims: 8, base: 500_000, linearScale: 4, factors });
  for (const position of [0, 1, 4999]) {
    for (let i = 0; i < 4; i++) {
      const angle = position / 4 / factors[i] / 500_000 ** (i / 4);
      const at = 2 * (4 * position + i);
      assert.ok(Math.abs(table[at] - Math.cos(angle)) < u);
      assert.ok(Math.abs(table[at + 1] - Math.sin(angle)) < u);
    }
  }
});

test('heads without whole quads are refused', () => {
  const cache = { type: /** @type {const} */ ('F32'), nPositions: 4, nKvHeads: 1, headSize: 8 };
  const of = (/** @type {Rope} */ turning) => headsAfter({ nHeads: 1, cache, rope: turning, layer: 0 });
  assert.throws(() => of(rope({ nDims: 6, pairing: 'halves' })), TypeError);
  assert.throws(() => of(rope({ nDims: 12 })), /heads of 8 values, 12 of them turned/);
  assert.ok(of(rope({ nDims: 6 })));
});

describe('queries, keys and values', { skip: await gpuSkip() }, () => {
  /** @type {TestGpu} */
  let gpu;
  before(async () => {
    gpu = await TestGpu.open();
  });
  after(() => gpu.dispose());

  /**
   * Runs a kernel and reads workspace and cache, each of a run of its own: the same bits in both.
   */
  async function run(
    /** @type {import('../../js/gpu/shader.js').Shader} */ shader,
    /** @type {Record<string, ArrayBufferView>} */ data,
    /** @type {[number, number, number]} */ groups,
    /** @type {import('../../js/backend.js').Step} */ step,
  ) {
    const used = Object.fromEntries(shader.bindings.map(({ name }) => [name, data[name]]));
    const y = await gpu.run(shader, used, groups, 'y', step);
    const cache = new Uint32Array(await gpu.run(shader, used, groups, 'cache', step));
    // Faults race to be the first.
    const [words, again] = [y, await gpu.run(shader, used, groups, 'y', step)].map((b) => new Uint32Array(b));
    const other = again.findIndex((word, i) => i >= FAULT_WORDS && word !== words[i]);
    assert.equal(other, -1, 'two runs differ');
    return { fault: readFault(y), values: new Float32Array(y, 4 * FAULT_WORDS), cache };
  }

  /** Checks what was written, and that nothing else was. */
  function check(
    /** @type {Awaited<ReturnType<typeof run>>} */ got,
    /** @type {Parts[]} */ tokens,
    /** @type {CacheShape} */ cache,
    /** @type {{ position: number, start: number, stride: number, rows: Float32Array | undefined,
     *   what: string }} */ at,
  ) {
    const { position, start, stride, rows, what } = at;
    const words = new Uint32Array(got.values.buffer, 4 * FAULT_WORDS);
    const old = rows ? new Uint32Array(rows.buffer) : undefined;
    tokens.forEach(([q, k, v], t) => {
      const first = (start + t) * stride;
      within(got.values.slice(first, first + q.length), q, `${what}: queries of token ${t}`);
      words.fill(CANARY, first, first + q.length);
      if (old) old.fill(CANARY, first, first + q.length);
      within(cacheRow(got.cache, cache, K, position + t), stored(k, cache), `${what}: keys of token ${t}`);
      within(cacheRow(got.cache, cache, V, position + t), stored(v, cache), `${what}: values of token ${t}`);
    });
    assert.ok(
      words.every((word, i) => word === (old ? old[i] : CANARY)),
      `${what}: wrote beside the queries`,
    );
    const layout = cacheLayout(cache);
    const n = cache.nKvHeads * cache.headSize;
    const mayChange = new Set();
    tokens.forEach((_, t) => {
      const [rowAt, scaleAt] = [(position + t) * layout.rowWords, (position + t) * layout.scaleWords];
      for (let i = 0; i < n / (cache.type === 'F32' ? 1 : cache.type === 'F16' ? 2 : 4); i++)
        mayChange.add(rowAt + i).add(layout.values + rowAt + i);
      for (let i = 0; i < (cache.type === 'Q8_0' ? n / 32 : 0); i++)
        mayChange.add(layout.keyScales + scaleAt + i).add(layout.valueScales + scaleAt + i);
    });
    assert.ok(
      got.cache.every((word, i) => mayChange.has(i) || word === CANARY),
      `${what}: wrote beside the cache's rows`,
    );
  }

  /**
   * @param {{ types: [string, string, string], nCols: number, nHeads: number, cache: CacheShape,
   *   turning?: Rope, bias?: boolean, start?: number, position?: number, subgroups?: boolean,
   *   invocations?: number, wrong?: [number, number][] }} given
   *   wrong: biases that are set, by index in all rows
   */
  async function fused({
    types,
    nCols,
    nHeads,
    cache,
    turning,
    bias,
    start = 0,
    position = 3,
    wrong = [],
    ...knobs
  }) {
    const prng = new Prng(nCols + nHeads);
    const { headSize, nKvHeads } = cache;
    const rows = [nHeads * headSize, nKvHeads * headSize, nKvHeads * headSize];
    const weights = types.map((type, i) => randomWeight(type, rows[i], nCols, prng));
    const total = rows[0] + 2 * rows[1];
    const stride = up16(total) + 16;
    const biasAt = up16(nCols) + 5;
    const vectors = gaussian(up16(biasAt + total + 1), prng);
    for (const [i, value] of wrong) vectors[biasAt + i] = value;
    vectors[biasAt + total] = LAYER;
    const x = gaussian((start + 1) * up16(nCols), prng).map((v, i) => (i % 5 ? v : v * 1000));
    x.fill(0, start * up16(nCols) + nCols);
    const options = {
      units: weights.map(({ unit }) => unit),
      norm: { eps: EPS },
      biases: bias ? [biasAt, biasAt + rows[0], biasAt + rows[0] + rows[1]] : undefined,
      rope: turning,
      cache,
      layer: biasAt + total,
      stride,
      ...knobs,
    };
    const data = {
      ...Object.fromEntries(weights.map(({ words }, i) => [`w${i}`, words])),
      x,
      vectors,
      turns: turning ? ropeTable({ nPositions: cache.nPositions, ...turning }) : new Float32Array(4),
      cache: new Uint32Array(cacheLayout(cache).bytes / 4).fill(CANARY),
      y: new Uint32Array(FAULT_WORDS + (start + 1) * stride).fill(CANARY, FAULT_WORDS),
    };
    const step = { position, start, nTokens: 1, seen: position + 1 };
    const got = await run(heads(options), data, headsGroups(options), step);

    const token = x.subarray(start * up16(nCols), start * up16(nCols) + nCols);
    const input = Float64Array.from(token, (v, c) => v * vectors[c]);
    const f = 1 / Math.sqrt(token.reduce((sum, v) => sum + v * v, 0) / nCols + EPS);
    const parts = weights.map(({ reference }, i) => {
      const product = new ReferenceProduct(reference, /** @type {any} */ (input), 1);
      const row = Array.from(product.y, (sum, r) => {
        const value = sum * f;
        const error =
          f * (product.bound(0, r, 0) + u * product.mass[r]) * 1.001 +
          Math.abs(value) * ((nCols + 3) / 2 + 6) * u;
        const b = options.biases ? vectors[options.biases[i] + r] : 0;
        return { value: value + b, error: error + (options.biases ? u * (Math.abs(value + b) + error) : 0) };
      });
      return i < V ? turn(row, headSize, turning, position) : row;
    });
    const at = { position, start, stride, rows: undefined, what: heads(options).name };
    return { got, parts: /** @type {Parts} */ (parts), at };
  }

  test('one dispatch for a token', async () => {
    /** @type {Parameters<typeof fused>[0][]} */
    const cases = [
      {
        types: ['Q4_K', 'Q4_K', 'Q8_0'],
        nCols: 512,
        nHeads: 3,
        cache: { type: 'F16', nPositions: 9, nKvHeads: 1, headSize: 20 },
        turning: rope({ nDims: 20 }),
        bias: true,
        start: 2,
      },
      {
        types: ['F16', 'Q8_0', 'Q8_0'],
        nCols: 96,
        nHeads: 2,
        cache: { type: 'F32', nPositions: 9, nKvHeads: 2, headSize: 32 },
        turning: rope({ nDims: 24, pairing: 'halves', base: 500, linearScale: 2 }),
        position: 8,
        invocations: 32,
      },
      {
        types: ['F32', 'F32', 'F32'],
        nCols: 40,
        nHeads: 1,
        cache: { type: 'F16', nPositions: 2, nKvHeads: 1, headSize: 16 },
        turning: rope({ nDims: 16, pairing: 'halves' }),
        position: 1,
      },
      {
        types: ['Q8_0', 'F32', 'F32'],
        nCols: 32,
        nHeads: 2,
        cache: { type: 'F32', nPositions: 5, nKvHeads: 1, headSize: 12 },
        turning: rope({ nDims: 6 }),
        bias: true,
      },
      {
        types: ['BF16', 'BF16', 'F16'],
        nCols: 21,
        nHeads: 1,
        cache: { type: 'F32', nPositions: 4, nKvHeads: 1, headSize: 4 },
      },
    ];
    for (const given of cases) {
      const { got, parts, at } = await fused(given);
      check(got, [parts], given.cache, at);
      assert.equal(got.fault, undefined);
    }
  });

  test('one dispatch for a token, by subgroups', async (t) => {
    if (!gpu.device.features.has('subgroups')) return t.skip('this driver has no subgroups');
    const cache = { type: /** @type {const} */ ('F16'), nPositions: 5, nKvHeads: 1, headSize: 8 };
    const { got, parts, at } = await fused({
      types: ['Q8_0', 'Q8_0', 'Q8_0'],
      nCols: 320,
      nHeads: 2,
      cache,
      turning: rope({ nDims: 8, pairing: 'halves' }),
      subgroups: true,
    });
    check(got, [parts], cache, at);
  });

  test('faults of one token are noted', async () => {
    const shape = { nPositions: 5, nKvHeads: 1, headSize: 4 };
    const base = {
      types: /** @type {[string, string, string]} */ (['F32', 'F32', 'F32']),
      nCols: 16,
      nHeads: 1,
      bias: true,
    };
    const of = async (/** @type {'F16' | 'F32'} */ type, /** @type {[number, number][]} */ wrong) =>
      (await fused({ ...base, cache: { type, ...shape }, wrong })).got.fault;
    const noted = { layer: LAYER, position: 3 };
    assert.equal(await of('F16', [[1, 1e6]]), undefined);
    const key = await of('F16', [[4, -7e4]]);
    assert.deepEqual(key, { ...noted, part: 'keys', value: key?.value });
    assert.ok(Math.abs(Number(key?.value) + 7e4) < 100);
    assert.equal(await of('F32', [[4, -7e4]]), undefined);
    assert.deepEqual(await of('F32', [[3, Number.NaN]]), { ...noted, part: 'queries', value: Number.NaN });
    assert.deepEqual(await of('F16', [[11, Number.POSITIVE_INFINITY]]), {
      ...noted,
      part: 'values',
      value: Number.POSITIVE_INFINITY,
    });
  });

  /**
   * @param {{ nHeads: number, cache: CacheShape, turning?: Rope, bias?: boolean, qkNorm?: QkNorm,
   *   nTokens?: number, start?: number, position?: number, change?: (rows: Float32Array, stride:
   *   number) => void }} given
   */
  async function later({
    nHeads,
    cache,
    turning,
    bias,
    qkNorm,
    nTokens = 3,
    start = 1,
    position = 2,
    change,
  }) {
    const prng = new Prng(nHeads + cache.headSize);
    const { headSize, nKvHeads } = cache;
    const sizes = [nHeads * headSize, nKvHeads * headSize, nKvHeads * headSize];
    const total = sizes[0] + 2 * sizes[1];
    const gainSizes = qkNorm?.span === 'row' ? sizes : [headSize, headSize];
    const vectors = gaussian(up16(4 + gainSizes[0] + gainSizes[1] + total), prng);
    const gains = [3, 3 + gainSizes[0]];
    const biasAt = 3 + gainSizes[0] + gainSizes[1];
    vectors[biasAt + total] = LAYER;
    const stride = up16(total) + 16;
    const rows = gaussian((start + nTokens + 1) * stride, prng).map((v, i) => (i % 7 ? v : v * 500));
    change?.(rows, stride);
    /** @type {HeadsAfterOptions} */
    const options = {
      nHeads,
      cache,
      rope: turning,
      biases: bias ? [biasAt, biasAt + sizes[0], biasAt + sizes[0] + sizes[1]] : undefined,
      ...(qkNorm ? { qkNorm, gains } : {}),
      layer: biasAt + total,
      stride,
    };
    const y = new Float32Array(FAULT_WORDS + rows.length);
    y.set(rows, FAULT_WORDS);
    const data = {
      vectors,
      turns: turning ? ropeTable({ nPositions: cache.nPositions, ...turning }) : new Float32Array(4),
      cache: new Uint32Array(cacheLayout(cache).bytes / 4).fill(CANARY),
      y,
    };
    const step = { position, start, nTokens, seen: position + nTokens };
    const got = await run(headsAfter(options), data, headsAfterGroups(options, nTokens), step);
    const tokens = Array.from({ length: nTokens }, (_, t) => {
      let at = (start + t) * stride;
      return /** @type {Parts} */ (
        sizes.map((n, part) => {
          let row = Array.from(rows.subarray(at, at + n), (x, i) => {
            const value = options.biases ? x + vectors[options.biases[part] + i] : x;
            return { value, error: options.biases ? u * Math.abs(value) : 0 };
          });
          at += n;
          if (part === V) return row;
          const normed = () => {
            if (!qkNorm) return;
            const size = qkNorm.span === 'row' ? n : headSize;
            row = rms(row, size, vectors.subarray(gains[part], gains[part] + size), qkNorm.eps);
          };
          if (!qkNorm?.afterRope) normed();
          row = turn(row, headSize, turning, position + t);
          if (qkNorm?.afterRope) normed();
          return row;
        })
      );
    });
    return {
      got,
      tokens,
      at: { position, start, stride, rows, what: JSON.stringify({ cache, turning, bias, qkNorm }) },
    };
  }

  test('after products', async () => {
    /** @type {Parameters<typeof later>[0][]} */
    const cases = [
      {
        nHeads: 3,
        cache: { type: 'F32', nPositions: 9, nKvHeads: 1, headSize: 40 },
        turning: rope({ nDims: 32, pairing: 'halves' }),
        qkNorm: { kind: 'rms', eps: EPS, span: 'head', afterRope: false },
      },
      {
        nHeads: 4,
        cache: { type: 'F16', nPositions: 9, nKvHeads: 2, headSize: 36 },
        turning: rope({ nDims: 36 }),
        bias: true,
        qkNorm: { kind: 'rms', eps: EPS, span: 'row', afterRope: true },
      },
      {
        nHeads: 4,
        cache: { type: 'Q8_0', nPositions: 7, nKvHeads: 3, headSize: 64 },
        turning: rope({ nDims: 64, pairing: 'halves', linearScale: 4 }),
        qkNorm: { kind: 'rms', eps: EPS, span: 'row', afterRope: false },
        position: 4,
      },
      {
        nHeads: 1,
        cache: { type: 'Q8_0', nPositions: 7, nKvHeads: 1, headSize: 32 },
        turning: rope(),
        bias: true,
        qkNorm: { kind: 'rms', eps: EPS, span: 'head', afterRope: true },
        start: 0,
      },
      { nHeads: 2, cache: { type: 'F16', nPositions: 5, nKvHeads: 1, headSize: 12 }, bias: true },
      { nHeads: 1, cache: { type: 'Q8_0', nPositions: 5, nKvHeads: 1, headSize: 32 }, nTokens: 1 },
    ];
    for (const given of cases) {
      const { got, tokens, at } = await later(given);
      check(got, tokens, given.cache, at);
      assert.equal(got.fault, undefined);
    }
  });

  test('codes of a Q8_0 cache are rounded half away from zero, by the scale before it is rounded', async () => {
    /** @type {CacheShape} */
    const cache = { type: 'Q8_0', nPositions: 5, nKvHeads: 2, headSize: 64 };
    const prng = new Prng(3);
    // Scales: a power of two, a subnormal of f16, one that f16 rounds up, one that it rounds to
    // zero.
    const scales = [0.25, 2 ** -20 + 2 ** -23, 1 - 2 ** -13, 2 ** -26];
    // The inverse of the third is rounded, so its values are no ties, but would be below them with
    // the rounded scale.
    const input = Float32Array.from({ length: 128 }, (_, i) => {
      const code = i % 32 ? prng.int(-253, 253) / 2 : 127;
      return scales[i >> 5] * (i >> 5 === 2 && i % 32 ? Math.abs(code) + 0.004 : code);
    });
    const { got } = await later({
      nHeads: 1,
      cache,
      nTokens: 1,
      start: 0,
      position: 3,
      change: (rows) => rows.set(input, 64 + 128),
    });
    const layout = cacheLayout(cache);
    const codes = new Int8Array(got.cache.slice(layout.values + 3 * layout.rowWords).buffer, 0, 128);
    const got4 = new Float32Array(got.cache.slice(layout.valueScales + 3 * layout.scaleWords).buffer, 0, 4);
    assert.deepEqual(
      [...got4],
      scales.map((d) => f16ToNumber(numberToF16(d))),
    );
    assert.deepEqual(
      [...codes],
      [...input].map((v, i) => (i < 96 ? Math.sign(v) * Math.floor(Math.abs(v) / scales[i >> 5] + 0.5) : 0)),
    );
  });

  test('faults of many tokens are noted', async () => {
    const shape = { nPositions: 9, nKvHeads: 1, headSize: 32 };
    const of = async (
      /** @type {import('../../js/gpu/wgsl/cache.js').KvType} */ type,
      /** @type {[number, number, number][]} */ wrong,
    ) => {
      const change = (/** @type {Float32Array} */ rows, /** @type {number} */ stride) => {
        for (const [token, column, value] of wrong) rows[(1 + token) * stride + column] = value;
      };
      return (await later({ nHeads: 1, cache: { type, ...shape }, change })).got.fault;
    };
    assert.deepEqual(await of('F16', [[2, 40, 65536]]), {
      part: 'keys',
      layer: LAYER,
      position: 4,
      value: 65536,
    });
    assert.equal(await of('Q8_0', [[2, 40, 65536]]), undefined);
    assert.deepEqual(await of('Q8_0', [[1, 95, -1e7]]), {
      part: 'values',
      layer: LAYER,
      position: 3,
      value: -1e7,
    });
    assert.deepEqual(await of('F32', [[0, 7, Number.NEGATIVE_INFINITY]]), {
      part: 'queries',
      layer: LAYER,
      position: 2,
      value: Number.NEGATIVE_INFINITY,
    });
    // All of them wrong at once: one note, of one piece.
    const all = await of(
      'F16',
      Array.from({ length: 96 }, (_, i) => [i % 3, i, i < 32 ? Number.POSITIVE_INFINITY : 1e5 + i]),
    );
    assert.ok(all);
    const parts = ['queries', 'keys', 'values'];
    const column = all.part === 'queries' ? 0 : all.value - 1e5;
    assert.equal(all.part, parts[column >> 5]);
    if (all.part !== 'queries') assert.equal(all.position, 2 + (column % 3));
  });
});
