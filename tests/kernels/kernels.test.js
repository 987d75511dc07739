/**
 * Every kernel of every module, compared with the float64 reference: all types, instruction sets
 * and dots of the module, all activation modes, many sizes, poison and extreme values. The type
 * table is read from the module, so a new type is tested as soon as it is added, and fails until
 * reference.js knows it.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { activations, extremeActivations } from '../helpers/activations.js';
import { makeExtremeWeights, makeWeights } from '../helpers/blocks.js';
import { ACTIVATION_NAMES, LARGEST_CODE, ReferenceProduct, ReferenceWeight } from '../helpers/bounds.js';
import { Prng } from '../helpers/prng.js';
import { openModules, STATUS } from '../helpers/raw.js';
import { referenceById } from '../helpers/reference.js';

/** @import { RawModule, ModuleType, Variant } from '../helpers/raw.js' */
/** @import { ReferenceType } from '../helpers/reference.js' */

const { modules, skipped } = openModules();
const ACTIVATIONS = [0, 1, 2];
const SEED = 20251021;

for (const { name, reason } of skipped) test(`kernels: ${name} module`, { skip: reason }, () => {});

/**
 * A weight, activations and their reference. They are computed once and used by every module,
 * instruction set and mode.
 * @typedef {{ label: string, w: ReferenceWeight, x: Float32Array, nTokens: number,
 *   product: ReferenceProduct, lossless?: number }} Case
 */

/** @param {ReferenceType} type @param {number} nCols  rounded up to whole blocks */
const wholeBlocks = (type, nCols) => Math.ceil(nCols / type.blockValues) * type.blockValues;

/**
 * @param {ReferenceType} type @param {string} kind  kind of the blocks
 * @param {string} activation  generator's name @param {number} nTokens @param {number} nRows
 * @param {number} nCols @returns {Case}
 */
function makeCase(type, kind, activation, nTokens, nRows, nCols) {
  const prng = new Prng(SEED + type.id * 7919 + nCols * 31 + nTokens);
  const w = new ReferenceWeight(type, makeWeights(type, kind, nRows, nCols, prng), nRows, nCols);
  const x = activations[activation](nTokens, nCols, prng);
  const label = `${kind} weights, ${activation} activations, ${nTokens} x ${nRows} x ${nCols}`;
  return { label, w, x, nTokens, product: new ReferenceProduct(w, x, nTokens) };
}

/**
 * @param {ReferenceType} type
 * @returns {number[]} 1 block, odd and prime counts, and counts around a panel of 2048 columns
 */
function columnCounts(type) {
  const blocks = [1, 2, 3, 5, 9, 17, 67].map((n) => n * type.blockValues);
  const counts = [
    ...blocks,
    257,
    2048 - type.blockValues,
    2048,
    2048 + type.blockValues,
    4096 + 3 * type.blockValues,
  ];
  return [...new Set(counts.map((n) => wholeBlocks(type, n)))].filter((n) => n <= 5000);
}

/**
 * @type {Map<number, { sizes: Case[], long: Case, manyTokens: Case[], kinds: Case[],
 *   extremes: Case[], gaussian: Case }>}
 */
const casesByType = new Map();

/** @param {ReferenceType} type */
function casesOf(type) {
  const known = casesByType.get(type.id);
  if (known) return known;
  const nCols = wholeBlocks(type, 712);
  /** @type {Case[]} */
  const kinds = [];
  for (const activation of Object.keys(activations)) {
    for (const kind of ['natural', 'mixed', 'largest']) {
      if (activation === 'huge' && kind !== 'natural') continue;
      const made = makeCase(type, kind, activation, 5, 6, nCols);
      const small = type.blockValues < 256 ? 127 : undefined;
      made.lossless = { exactInt8: 127, exactInt8By32: small, exactInt16: 32767 }[activation];
      kinds.push(made);
    }
  }
  for (const kind of ['poison', 'zero', 'denormal', 'negative'])
    kinds.push(makeCase(type, kind, 'gaussian', 5, 6, nCols));
  const extreme = makeExtremeWeights(type, wholeBlocks(type, 512), 1);
  const extremeWeight = new ReferenceWeight(type, extreme.bytes, extreme.nRows, wholeBlocks(type, 512));
  const rowsOf = [0, 1, extreme.nRows >> 1].map((r) =>
    extremeWeight.values.subarray(r * extremeWeight.nCols, (r + 1) * extremeWeight.nCols),
  );
  const extremes = [1000, 127, 32767].map((largest) => {
    const { x, nTokens } = extremeActivations(largest, extremeWeight.nCols, rowsOf);
    const product = new ReferenceProduct(extremeWeight, x, nTokens);
    return {
      label: `extreme codes, activations +-${largest}`,
      w: extremeWeight,
      x,
      nTokens,
      product,
      lossless: largest,
    };
  });
  const made = {
    sizes: columnCounts(type).map((n) => makeCase(type, 'mixed', 'gaussian', 9, 9, n)),
    long: makeCase(type, 'natural', 'gaussian', 2, 2, 2 ** 18 + 3 * Math.max(256, type.blockValues)),
    manyTokens: [
      ...[17, 31, 33, 130].map((nTokens) =>
        makeCase(type, 'natural', 'gaussian', nTokens, 5, wholeBlocks(type, 512)),
      ),
      makeCase(type, 'natural', 'gaussian', 3, 67, wholeBlocks(type, 300)),
      makeCase(type, 'natural', 'gaussian', 6, 31, wholeBlocks(type, 2100)),
      // two panels of this size do not fit into the scratch memory
      makeCase(type, 'natural', 'gaussian', 70, 3, wholeBlocks(type, 4200)),
    ],
    kinds,
    extremes,
    gaussian: makeCase(type, 'natural', 'gaussian', 8, 64, wholeBlocks(type, 1024)),
  };
  casesByType.set(type.id, made);
  return made;
}

/**
 * Multiplies the first rows and tokens of a case, and checks the results.
 * @param {RawModule} module @param {ModuleType} type @param {Case} made @param {number} activation
 * @param {number} [nTokens] @param {number} [nRows] @returns {Float32Array}
 */
function multiply(module, type, made, activation, nTokens = made.nTokens, nRows = made.w.nRows) {
  const { w, x, product } = made;
  const rowBytes = (w.nCols / type.blockValues) * type.blockBytes;
  const wBytes = w.bytes.subarray(0, nRows * rowBytes);
  const tokens = x.subarray(0, nTokens * w.nCols);
  const what = `${made.label}: first ${nTokens} tokens, ${nRows} rows`;
  const { status, y } = module.matmul(type, wBytes, tokens, nTokens, nRows, w.nCols, activation);
  assert.equal(status, STATUS.OK, what);
  const served = module.servedBy(type.id, activation).activation;
  const lossless = made.lossless !== undefined && made.lossless === LARGEST_CODE[served];
  product.check(y, { nTokens, nRows, activation: served, lossless, what });
  return y;
}

/** @param {Float32Array} y @returns {Uint32Array} */
const bitsOf = (y) => new Uint32Array(y.buffer, y.byteOffset, y.length);

/**
 * Checks every f16 pattern (whole numbers, subnormals, Inf; NaN stays NaN), since real blocks never
 * contain all of them.
 */
function checkAllF16(/** @type {RawModule} */ module, /** @type {ModuleType} */ type) {
  const halves = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const { status, y } = module.dequantize(type, new Uint8Array(halves.buffer), 64, 1024);
  assert.equal(status, STATUS.OK);
  const reference = /** @type {ReferenceType} */ (referenceById.get(type.id));
  const view = new DataView(halves.buffer);
  for (let i = 0; i < 65536; i++) {
    reference.decode(view, 2 * i, Math.fround, (_, value) => {
      assert.ok(Object.is(y[i], value), `f16 0x${i.toString(16)} became ${y[i]}, not ${value}`);
    });
  }
}

/**
 * @param {import('node:test').TestContext} t @param {RawModule} module
 * @param {ModuleType} moduleType @param {ReferenceType} type @param {Variant} variant
 */
async function testType(t, module, moduleType, type, variant) {
  const cases = casesOf(type);
  const { blockValues, blockBytes } = moduleType;
  assert.deepEqual(
    { blockValues, blockBytes },
    { blockValues: type.blockValues, blockBytes: type.blockBytes },
  );

  await t.test('dequantize is bit-exact on natural and poison blocks', () => {
    module.select(variant);
    for (const { label, w } of [...cases.sizes, ...cases.kinds, ...cases.extremes]) {
      const { status, y } = module.dequantize(moduleType, w.bytes, w.nRows, w.nCols);
      assert.equal(status, STATUS.OK, label);
      const expected = bitsOf(w.exactF32);
      const got = bitsOf(y);
      for (let i = 0; i < got.length; i++) {
        if (got[i] !== expected[i]) assert.fail(`${label}: value ${i} is ${y[i]}, not ${w.exactF32[i]}`);
      }
    }
    if (type.name === 'F16') checkAllF16(module, moduleType);
  });

  for (const activation of ACTIVATIONS) {
    const mode = ACTIVATION_NAMES[activation];
    await t.test(`${mode}: sizes`, () => {
      module.select(variant);
      for (const [i, made] of cases.sizes.entries()) {
        if (i === 2) {
          for (let nTokens = 1; nTokens <= 9; nTokens++) {
            for (let nRows = 1; nRows <= 9; nRows++)
              multiply(module, moduleType, made, activation, nTokens, nRows);
          }
        } else {
          for (const [nTokens, nRows] of [
            [1, 1],
            [1, 9],
            [3, 5],
            [9, 9],
          ]) {
            multiply(module, moduleType, made, activation, nTokens, nRows);
          }
        }
      }
      for (const made of cases.manyTokens) multiply(module, moduleType, made, activation);
      multiply(module, moduleType, cases.long, activation);
      multiply(module, moduleType, cases.long, activation, 1, 1);
    });

    await t.test(`${mode}: kinds of weights and activations`, () => {
      module.select(variant);
      for (const made of cases.kinds) {
        for (const nTokens of [made.nTokens, 3, 1]) multiply(module, moduleType, made, activation, nTokens);
      }
    });

    await t.test(`${mode}: largest codes, scales and activations`, () => {
      module.select(variant);
      const { activation: served } = module.servedBy(type.id, activation);
      for (const made of cases.extremes) {
        if (made.lossless !== (LARGEST_CODE[served] || 1000)) continue;
        multiply(module, moduleType, made, activation);
        multiply(module, moduleType, made, activation, 1);
      }
    });

    await t.test(`${mode}: norm-wise error on gaussian data, same bits again`, () => {
      module.select(variant);
      const made = cases.gaussian;
      const served = module.servedBy(type.id, activation).activation;
      const y = multiply(module, moduleType, made, activation);
      assert.deepEqual(bitsOf(multiply(module, moduleType, made, activation)), bitsOf(y));
      const error = made.product.normError(y);
      /* int16 and int8: the promises of the README. f32: independent roundings of n terms add up
       * to sqrt(n) u times the mass, norm-wise (Higham and Mary, 2019, with lambda = 2). */
      const mass = Math.hypot(...made.product.mass) / Math.hypot(...made.product.y);
      const promise = [2 * Math.sqrt(made.w.nCols) * 2 ** -24 * mass, 1e-4, 1e-2][served];
      assert.ok(error <= promise, `norm-wise error ${error}, promised ${promise}`);
      const oneByOne = Array.from({ length: made.nTokens }, (_, i) => {
        const x = made.x.subarray(i * made.w.nCols, (i + 1) * made.w.nCols);
        return [...module.matmul(moduleType, made.w.bytes, x, 1, made.w.nRows, made.w.nCols, activation).y];
      }).flat();
      assert.ok(made.product.normError(oneByOne) <= promise, 'token by token');
    });

    await t.test(`${mode}: NaN and Inf stay in their token`, () => {
      module.select(variant);
      const { w } = cases.gaussian;
      const nRows = 7;
      const bytes = w.bytes.subarray(0, nRows * (w.nCols / blockValues) * blockBytes);
      for (const nTokens of [1, 2, 3, 5, 9]) {
        const x = cases.gaussian.x.slice(0, w.nCols * 8);
        const tokens = new Float32Array(nTokens * w.nCols);
        for (let i = 0; i < tokens.length; i++) tokens[i] = x[i % x.length];
        const clean = bitsOf(module.matmul(moduleType, bytes, tokens, nTokens, nRows, w.nCols, activation).y);
        for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
          const badToken = nTokens >> 1;
          const poisoned = tokens.slice();
          poisoned[badToken * w.nCols + w.nCols - 5] = bad;
          const { y } = module.matmul(moduleType, bytes, poisoned, nTokens, nRows, w.nCols, activation);
          for (let i = 0; i < y.length; i++) {
            if (Math.floor(i / nRows) === badToken) assert.ok(!Number.isFinite(y[i]), `${bad} gave ${y[i]}`);
            else assert.equal(bitsOf(y)[i], clean[i], `${bad} in token ${badToken} changed output ${i}`);
          }
        }
      }
    });
  }
}

for (const module of modules) {
  for (const variant of module.variants) {
    test(`kernels: ${variant.label}`, async (t) => {
      t.diagnostic(`ran: ${variant.label}, in Node ${process.versions.node}`);
      for (const moduleType of module.types) {
        const type = referenceById.get(moduleType.id);
        assert.ok(type, `reference.js has no type ${moduleType.id}, which the module serves`);
        await t.test(type.name, (typeTest) => testType(typeTest, module, moduleType, type, variant));
      }
    });
  }
}

test('kernels: every module serves the same types', () => {
  for (const module of modules) assert.deepEqual(module.types, modules[0].types, module.name);
});

test('kernels: SIMD integer results differ from the scalar module by f32 rounding only', async (t) => {
  const [scalar] = modules;
  for (const module of modules) {
    for (const variant of module.variants) {
      await t.test(variant.label, () => {
        module.select(variant);
        for (const type of module.types) {
          const reference = referenceById.get(type.id);
          if (!reference) continue;
          for (const activation of ACTIVATIONS) {
            const served = module.servedBy(type.id, activation).activation;
            for (const made of [casesOf(reference).gaussian, ...casesOf(reference).sizes]) {
              const { w, x, nTokens, product } = made;
              const args = /** @type {const} */ ([w.bytes, x, nTokens, w.nRows, w.nCols, served]);
              const expected = scalar.matmul(type, ...args).y;
              const got = module.matmul(type, ...args).y;
              for (let i = 0; i < got.length; i++) {
                const bound = 2 * product.bound(Math.floor(i / w.nRows), i % w.nRows, served, true);
                const difference = Math.abs(got[i] - expected[i]);
                if (!(difference <= bound)) {
                  assert.fail(
                    `${reference.name} ${ACTIVATION_NAMES[served]}, ${made.label}: y[${i}] is ${got[i]}, ` +
                      `scalar ${expected[i]}, allowed ${bound}`,
                  );
                }
              }
            }
          }
        }
      });
    }
  }
});
