import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { shader } from '../../js/gpu/shader.js';
import { cacheLayout, cacheReader, pairWriter } from '../../js/gpu/wgsl/cache.js';
import { KV, makeCache } from '../helpers/attention.js';
import { numberToF16 } from '../helpers/floats.js';
import { gpuSkip, TestGpu } from '../helpers/gpu.js';
import { gpuCache } from '../helpers/gpu-cache.js';
import { Prng } from '../helpers/prng.js';

/** @import { CacheShape } from '../../js/gpu/wgsl/cache.js' */

const CANARY = 0xdeadbeef;
const NO_STEP = { position: 0, start: 0, nTokens: 0, seen: 0 };

/**
 * Shapes of every type: heads of whole eights and not, an odd number of positions, rows with
 * padding.
 * @type {CacheShape[]}
 */
const SHAPES = [
  { type: 'F32', nPositions: 3, nKvHeads: 3, headSize: 8 },
  { type: 'F32', nPositions: 3, nKvHeads: 3, headSize: 20 },
  { type: 'F16', nPositions: 3, nKvHeads: 3, headSize: 24 },
  { type: 'F16', nPositions: 5, nKvHeads: 1, headSize: 100 },
  { type: 'Q8_0', nPositions: 3, nKvHeads: 3, headSize: 32 },
  { type: 'Q8_0', nPositions: 5, nKvHeads: 1, headSize: 96 },
];

/** @param {CacheShape} shape */
const nameOf = ({ type, nPositions, nKvHeads, headSize }) =>
  `${type}, ${nPositions} x ${nKvHeads} x ${headSize}`;

/** Reads a whole cache: keys, then values, without padding. @param {CacheShape} shape */
function readAll(shape) {
  const { type, width, parts, code } = cacheReader(shape);
  const nCols = shape.nKvHeads * shape.headSize;
  const total = shape.nPositions * nCols;
  const store = (/** @type {string} */ name, /** @type {number} */ first) =>
    parts(name).map((part, j) => `out[(${first}u + i) / 4u + ${j}u] = ${part};`);
  return shader({
    name: 'read a cache',
    bindings: { cache: `read array<${type}>`, out: 'read_write array<vec4f>' },
    size: [64],
    code: `${code}
@compute
fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x * ${width}u;
  if (i >= ${total}u) { return; }
  let k = key(i / ${nCols}u, i % ${nCols}u);
  let v = value(i / ${nCols}u, i % ${nCols}u);
  ${store('k', 0).join(' ')}
  ${store('v', total).join(' ')}
}`,
  });
}

/**
 * Writes the rows `x`, keys, then values, from position step.position on.
 * @param {CacheShape} shape
 */
function writeAll(shape) {
  const nCols = shape.nKvHeads * shape.headSize;
  return shader({
    name: 'write a cache',
    bindings: { x: 'read array<vec2f>', cache: 'read_write array<u32>' },
    step: true,
    size: [64],
    code: `${pairWriter(shape)}
@compute
fn main(@builtin(global_invocation_id) id: vec3u) {
  let n = step.n_tokens * ${nCols / 2}u;
  if (id.x >= n) { return; }
  let position = step.position + id.x / ${nCols / 2}u;
  let column = 2u * (id.x % ${nCols / 2}u);
  write_key2(position, column, x[id.x]);
  write_value2(position, column, x[n + id.x]);
}`,
  });
}

/** Values where rounding to f16 is difficult. */
function roundingCases() {
  const halves = [0, 1, 2, 3, 0x3fe, 0x3ff, 0x400, 0x401, 0x7ff, 0x3bff, 0x3c00, 0x3c01, 0x7bfe, 0x7bff];
  const bits = new DataView(new ArrayBuffer(4));
  const neighbours = (/** @type {number} */ x) => {
    bits.setFloat32(0, x);
    const word = bits.getUint32(0);
    return [-1, 0, 1].map((d) => {
      bits.setUint32(0, Math.max(0, word + d));
      return bits.getFloat32(0);
    });
  };
  const value = (/** @type {number} */ h) =>
    h < 0x400 ? h * 2 ** -24 : (1024 + (h & 1023)) * 2 ** ((h >> 10) - 25);
  const around = halves.flatMap((h) => [value(h), (value(h) + value(h + 1)) / 2].flatMap(neighbours));
  const large = [65504, 65519.99, 65520, 65536, 1e6, 3.4e38, Number.POSITIVE_INFINITY];
  const positive = [...around, ...large, 2 ** -25, 2 ** -26, 1e-8, 1e-20, 2 ** -130, 2 ** -149];
  return positive.flatMap((x) => [x, -x]);
}

describe('the cache of keys and values', { skip: await gpuSkip() }, () => {
  /** @type {TestGpu} */
  let gpu;
  before(async () => {
    gpu = await TestGpu.open();
  });
  after(() => gpu.dispose());

  for (const shape of SHAPES) {
    test(`reads ${nameOf(shape)}`, async () => {
      const prng = new Prng(shape.headSize);
      const n = shape.nPositions * shape.nKvHeads * shape.headSize;
      const rows = () =>
        makeCache(
          KV[shape.type],
          Float32Array.from({ length: n }, () => prng.gaussian()),
        );
      const [k, v] = [rows(), rows()];
      const data = {
        cache: gpuCache(shape, k.bytes, v.bytes, 0x7fc00000),
        out: new Float32Array(2 * n).fill(NaN),
      };
      const got = await gpu.run(readAll(shape), data, [Math.ceil(n / 256), 1, 1], 'out');
      // Codes have no -0.
      const expected = [...k.values, ...v.values].map((x) => x + 0);
      assert.deepEqual(new Float32Array(got), Float32Array.from(expected));
    });
  }

  for (const shape of SHAPES.filter(({ type }) => type !== 'Q8_0')) {
    test(`writes ${nameOf(shape)}, and nothing else`, async () => {
      const prng = new Prng(shape.headSize);
      const nCols = shape.nKvHeads * shape.headSize;
      const x = Float32Array.from({ length: 2 * 2 * nCols }, () => prng.gaussian());
      // Positions 1 and 2 of the shape; everything else and the padding stay.
      const empty = new Uint32Array(cacheLayout(shape).bytes / 4).fill(CANARY);
      const data = { x, cache: empty };
      const step = { ...NO_STEP, position: 1, nTokens: 2 };
      const got = new Uint32Array(
        await gpu.run(writeAll(shape), data, [Math.ceil(nCols / 64), 1, 1], 'cache', step),
      );
      const [k, v] = [x.subarray(0, 2 * nCols), x.subarray(2 * nCols)].map(
        (rows) => makeCache(KV[shape.type], rows).bytes,
      );
      const rowBytes = k.length / 2;
      const behind = (/** @type {Uint8Array} */ rows) => {
        const all = new Uint8Array(3 * rowBytes);
        new Uint32Array(all.buffer).fill(CANARY);
        all.set(rows, rowBytes);
        return all;
      };
      assert.deepEqual(got, gpuCache(shape, behind(k), behind(v), CANARY));
    });
  }

  test('halves are rounded to nearest, ties to even', async () => {
    const cases = roundingCases();
    cases.push(NaN, -NaN);
    const shape = /** @type {CacheShape} */ ({
      type: 'F16',
      nPositions: 1,
      nKvHeads: 1,
      headSize: Math.ceil(cases.length / 4) * 4,
    });
    const x = new Float32Array(2 * shape.headSize);
    x.set(cases);
    const cache = new Uint32Array(cacheLayout(shape).bytes / 4);
    const step = { ...NO_STEP, nTokens: 1 };
    const got = await gpu.run(writeAll(shape), { x, cache }, [64, 1, 1], 'cache', step);
    const halves = new Uint16Array(got);
    cases.forEach((value, i) => {
      if (Number.isNaN(value)) assert.equal(halves[i] & 0x7fff, 0x7e00);
      else assert.equal(halves[i], numberToF16(Math.fround(value)), `${value}`);
    });
  });

  test('every finite half is read', async () => {
    const shape = /** @type {CacheShape} */ ({ type: 'F16', nPositions: 62, nKvHeads: 8, headSize: 128 });
    const halves = Uint16Array.from({ length: 63488 }, (_, i) => (i % 31744) | (i < 31744 ? 0 : 0x8000));
    const bytes = new Uint8Array(halves.buffer);
    const cache = gpuCache(shape, bytes, bytes);
    const out = new Float32Array(2 * 63488);
    const got = new Float32Array(await gpu.run(readAll(shape), { cache, out }, [124, 1, 1], 'out'));
    for (let i = 0; i < 63488; i++)
      if (numberToF16(got[i]) !== halves[i]) assert.fail(`${halves[i].toString(16)} is read as ${got[i]}`);
  });
});
