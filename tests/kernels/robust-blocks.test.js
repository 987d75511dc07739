/**
 * Random bytes as blocks of every type, and activations with every kind of float, in every
 * instruction set and activation mode. This is what a hostile or broken file does to the kernels.
 * Canaries surround every call. Every output is
 *
 *   within the bound of its float64 reference, if its row and token are finite and no sum
 *     overflows f32;
 *   NaN or Inf, if the row or the token contains NaN or Inf; no other output changes by it;
 *   in any case the same bits when the call is repeated.
 *
 * FM_FUZZ_ROUNDS repeats all tests with other numbers. Messages name the seed.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { attend, KV, makeShape } from '../helpers/attention.js';
import { ACTIVATION_NAMES, LARGEST_CODE, ReferenceProduct, ReferenceWeight } from '../helpers/bounds.js';
import { gateValues, multiplyGated, multiplyMany, normRows } from '../helpers/fused.js';
import { Prng } from '../helpers/prng.js';
import { openModules, STATUS } from '../helpers/raw.js';
import { referenceById } from '../helpers/reference.js';

/** @import { ModuleType, RawModule, Variant } from '../helpers/raw.js' */

const ROUNDS = Number(process.env.FM_FUZZ_ROUNDS ?? 1);
const FIRST_SEED = 20261124;
/** Values below this cannot make a sum of a few hundred products overflow f32. */
const SAFE_MASS = 1e34;
/**
 * Numbers of tokens and rows: one each, the tail of a tile, more than a strip of 8 rows and a tile
 * of 4 tokens.
 */
const SHAPES = [
  [1, 3],
  [6, 10],
];

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`random blocks: ${name} module`, { skip: reason }, () => {});

const bitsOf = (/** @type {Float32Array} */ y) => new Uint32Array(y.buffer, y.byteOffset, y.length);

/**
 * Floats of every kind, including those for which integer modes find no good scale.
 * @param {number} n @param {Prng} prng
 */
function anyFloats(n, prng) {
  const x = new Float32Array(n);
  const bits = bitsOf(x);
  for (let i = 0; i < n; i++) {
    const kind = prng.int(0, 11);
    if (kind === 0) x[i] = prng.pick([Number.NaN, Infinity, -Infinity]);
    else if (kind === 1) x[i] = prng.gaussian() * 1e-40;
    else if (kind === 2) x[i] = prng.pick([0, -0, 3.4e38, -3.4e38, 1e-45]);
    else if (kind === 3) bits[i] = prng.u32();
    else x[i] = prng.gaussian();
  }
  return x;
}

/**
 * Tokens with one kind of values each: ordinary, denormal, with NaN or Inf, any bits.
 * @param {number} nTokens @param {number} nCols @param {Prng} prng
 */
function tokensOfEachKind(nTokens, nCols, prng) {
  const x = new Float32Array(nTokens * nCols);
  for (let t = 0; t < nTokens; t++) {
    const row = x.subarray(t * nCols, (t + 1) * nCols);
    const scale = t % 4 === 1 ? 1e-40 : 1;
    for (let c = 0; c < nCols; c++) row[c] = scale * prng.gaussian();
    if (t % 4 === 2) row[prng.int(0, nCols - 1)] = prng.pick([Number.NaN, Infinity, -Infinity]);
    if (t % 4 === 3) row.set(anyFloats(nCols, prng));
  }
  return x;
}

/** A few blocks: two of 256 values, three of other types. @param {number} blockValues */
const columnsOf = (blockValues) => (blockValues === 256 ? 512 : 3 * Math.max(32, blockValues));

/** @param {ArrayLike<number>} list @param {number} row @param {number} nCols */
function isFiniteRow(list, row, nCols) {
  for (let c = 0; c < nCols; c++) if (!Number.isFinite(list[row * nCols + c])) return false;
  return true;
}

/**
 * The largest sums of codes times the weight's scale, before the scale of the activations is
 * applied.
 * @param {ReferenceWeight} w @param {number} row @param {number} activation
 */
function codeMass(w, row, activation) {
  const { n, mass } = w.groups(256);
  return LARGEST_CODE[activation] * Math.max(...mass.subarray(row * n, (row + 1) * n));
}

/**
 * Checks that both have the same bits, NaN for NaN.
 * @param {Float32Array} got @param {Float32Array} expected @param {string} what
 */
function assertSame(got, expected, what) {
  const [a, b] = [bitsOf(got), bitsOf(expected)];
  for (let i = 0; i < a.length; i++) {
    if (a[i] === b[i] || (Number.isNaN(got[i]) && Number.isNaN(expected[i]))) continue;
    assert.fail(`${what}: output ${i} is ${got[i]}, not ${expected[i]}`);
  }
}

/**
 * @param {RawModule} module @param {Variant} variant @param {ModuleType} type @param {Prng} prng
 * @param {[number, number]} shape @param {string} what
 */
function checkProducts(module, variant, type, prng, [nTokens, nRows], what) {
  const reference = referenceById.get(type.id);
  assert.ok(reference, `type ${type.id} has no reference`);
  const nCols = columnsOf(type.blockValues);
  const bytes = new Uint8Array(((nRows * nCols) / type.blockValues) * type.blockBytes);
  prng.fill(bytes);
  const x = tokensOfEachKind(nTokens, nCols, prng);
  const w = new ReferenceWeight(reference, bytes, nRows, nCols);
  const product = new ReferenceProduct(w, x, nTokens);
  const values = module.dequantize(type, bytes, nRows, nCols);
  assert.equal(values.status, STATUS.OK);
  assertSame(values.y, w.exactF32, `${what}, ${variant.label}: dequantised`);
  ACTIVATION_NAMES.forEach((name, activation) => {
    const told = `${what}, ${variant.label}, ${nTokens} x ${nRows} x ${nCols}, ${name}`;
    const served = module.servedBy(type.id, activation).activation;
    const { status, y } = module.matmul(type, bytes, x, nTokens, nRows, nCols, activation);
    assert.equal(status, STATUS.OK, told);
    assertSame(module.matmul(type, bytes, x, nTokens, nRows, nCols, activation).y, y, `${told}, again`);
    for (let t = 0; t < nTokens; t++) {
      const isFiniteToken = isFiniteRow(x, t, nCols);
      for (let r = 0; r < nRows; r++) {
        const i = t * nRows + r;
        if (!isFiniteToken || !isFiniteRow(w.exactF32, r, nCols)) {
          assert.ok(!Number.isFinite(y[i]), `${told}: y[${t}][${r}] is ${y[i]}, its operands are not finite`);
        } else if (product.mass[i] < SAFE_MASS && codeMass(w, r, served) < SAFE_MASS) {
          const bound = product.bound(t, r, served);
          const error = Math.abs(y[i] - product.y[i]);
          assert.ok(error <= bound, `${told}: y[${t}][${r}] is ${y[i]}, not ${product.y[i]} +- ${bound}`);
        }
      }
    }
  });
}

/**
 * Fused products of random blocks, which must have the bits of the single steps.
 * @param {RawModule} module @param {Prng} prng @param {string} what
 */
function checkFused(module, prng, what) {
  const [nTokens, nRows, nCols] = [prng.int(1, 5), prng.int(1, 9), 512];
  const type = prng.pick(module.types);
  const bytes = new Uint8Array(((nRows * nCols) / type.blockValues) * type.blockBytes);
  prng.fill(bytes);
  const x = anyFloats(nTokens * nCols, prng);
  const up = anyFloats(nTokens * nCols, prng);
  const weight = prng.int(0, 1) ? anyFloats(nCols, prng) : null;
  const activation = prng.int(0, 2);
  const act = prng.int(0, 1);
  const steps = (/** @type {Float32Array} */ made) =>
    module.matmul(type, bytes, made, nTokens, nRows, nCols, activation).y;
  const many = multiplyMany(module, [{ type, bytes, nRows }], x, nTokens, nCols, activation);
  assertSame(many.outputs[0], steps(x), `${what}: fused_matmul_many`);
  const norm = { weight, eps: prng.pick([0, 1e-5, 1e30]) };
  const normed = multiplyMany(module, [{ type, bytes, nRows }], x, nTokens, nCols, activation, norm);
  assertSame(
    normed.outputs[0],
    steps(normRows(module, x, nTokens, nCols, norm)),
    `${what}: rmsnorm, type ${type.id}`,
  );
  const gated = multiplyGated(module, { type, bytes, nRows }, x, up, nTokens, nCols, act, activation);
  assertSame(gated.outputs[0], steps(gateValues(module, x, up, act)), `${what}: swiglu, type ${type.id}`);
  // Without a second factor the result is that of ones.
  const ones = new Float32Array(x.length).fill(1);
  const alone = multiplyGated(module, { type, bytes, nRows }, x, null, nTokens, nCols, act, activation);
  assertSame(alone.outputs[0], steps(gateValues(module, x, ones, act)), `${what}: no gate, type ${type.id}`);
}

/** Random bytes as a KV cache. @param {RawModule} module @param {Prng} prng @param {string} what */
function checkAttention(module, prng, what) {
  const kvType = prng.pick([KV.F32, KV.F16, KV.Q8_0]);
  const nKvHeads = prng.int(1, 3);
  const shape = makeShape({
    nTokens: prng.int(1, 4),
    nKvHeads,
    nHeads: nKvHeads * prng.int(1, 4),
    headSize: 32 * prng.int(1, 2),
    nPositions: prng.int(1, 40),
    firstPosition: prng.int(0, 40),
    kvType,
    causal: prng.int(0, 1),
    window: prng.int(0, 9),
    softcap: prng.pick([0, 20]),
  });
  const nValues = shape.nPositions * nKvHeads * shape.headSize;
  const nBytes = { [KV.F32]: 4 * nValues, [KV.F16]: 2 * nValues, [KV.Q8_0]: (34 * nValues) / 32 }[kvType];
  const cache = () => {
    const bytes = new Uint8Array(nBytes);
    prng.fill(bytes);
    return { bytes, values: new Float64Array(0) };
  };
  const made = {
    shape,
    q: anyFloats(shape.nTokens * shape.nHeads * shape.headSize, prng),
    k: cache(),
    v: cache(),
  };
  const first = attend(module, made);
  assert.equal(first.status, STATUS.OK, what);
  assertSame(attend(module, made).y, first.y, `${what}: attention again`);
}

for (const module of modules) {
  for (const variant of module.variants) {
    test(`random blocks: ${variant.label}`, () => {
      module.select(variant);
      for (let round = 0; round < ROUNDS; round++) {
        const seed = FIRST_SEED + round;
        for (const type of module.types) {
          const prng = new Prng(seed + 1000 * type.id);
          const what = `seed ${seed}, ${referenceById.get(type.id)?.name}`;
          for (const shape of SHAPES)
            checkProducts(module, variant, type, prng, /** @type {[number, number]} */ (shape), what);
        }
        const prng = new Prng(seed);
        for (let i = 0; i < 25; i++) {
          checkFused(module, prng, `seed ${seed}, ${variant.label}, case ${i}`);
          checkAttention(module, prng, `seed ${seed}, ${variant.label}, case ${i}`);
        }
      }
    });
  }
}

test('random floats quantise to the same finite blocks in every instruction set', () => {
  const prng = new Prng(FIRST_SEED);
  for (const { id, blockValues, blockBytes } of modules[0].types) {
    const [nRows, nCols] = [3, columnsOf(blockValues)];
    const x = anyFloats(nRows * nCols, prng);
    const inputs = [{ bytes: new Uint8Array(x.buffer), alignment: 4 }];
    const nBytes = ((nRows * nCols) / blockValues) * blockBytes;
    /** @type {Uint8Array | undefined} */
    let first;
    for (const module of modules) {
      const type = /** @type {ModuleType} */ (module.types.find((candidate) => candidate.id === id));
      for (const variant of module.variants) {
        module.select(variant);
        const { status, output } = module.guardedBytes(
          inputs,
          { bytes: nBytes, alignment: type.alignment },
          ([xAt], wAt) => module.exports.fm_quantize_rows(id, xAt, wAt, nRows, nCols),
        );
        if (status === STATUS.TYPE) continue;
        assert.equal(status, STATUS.OK, variant.label);
        first ??= output;
        assert.equal(Buffer.compare(output, first), 0, `type ${id}, ${variant.label}`);
        const { y } = module.dequantize(type, output, nRows, nCols);
        assert.ok(y.every(Number.isFinite), `type ${id}, ${variant.label}: not finite`);
      }
    }
  }
});
