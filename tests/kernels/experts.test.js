/**
 * Mixtures of experts: the choice of experts and the weighted sum compared with float64, products bit
 * for bit with those of each expert alone. Every module and instruction set; refused arguments.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { activations } from '../helpers/activations.js';
import { makeWeights } from '../helpers/blocks.js';
import { ACTIVATION_NAMES } from '../helpers/bounds.js';
import * as fused from '../helpers/fused.js';
import { Prng } from '../helpers/prng.js';
import { openModules, STATUS } from '../helpers/raw.js';
import { referenceByName } from '../helpers/reference.js';
import { routeReference } from '../helpers/reference-experts.js';

/** @import { RouterSettings } from '../../js/llama/plan.js' */
/** @import { ModuleType, RawModule } from '../helpers/raw.js' */
/** @import { ReferenceType } from '../helpers/reference.js' */

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`experts: ${name} module`, { skip: reason }, () => {});

const SEED = 20261127;
/** Unit roundoff of f32. */
const u = 2 ** -24;
const [SOFTMAX, CHOSEN, SIGMOID] = [0, 1, 2];

/**
 * @typedef {object} Routed
 * @property {number} status
 * @property {Uint32Array} rows
 * @property {Uint32Array} ends
 * @property {Float32Array} weights
 */

/** @param {Float32Array} floats */
const words = (floats) => new Uint32Array(floats.buffer, floats.byteOffset, floats.length);

/** @param {RouterSettings} router */
const scoresOf = ({ scores, over }) =>
  scores === 'sigmoid' ? SIGMOID : over === 'chosen' ? CHOSEN : SOFTMAX;

/**
 * @param {RawModule} module @param {Float32Array} logits @param {number} nExperts
 * @param {RouterSettings & { nUsed: number }} router @param {Float32Array} [bias] @returns {Routed}
 */
function route(module, logits, nExperts, router, bias) {
  const nTokens = logits.length / nExperts;
  const nPairs = nTokens * router.nUsed;
  const shape = new DataView(new ArrayBuffer(32));
  [nTokens, nExperts, router.nUsed, router.nGroups, router.nGroupsUsed].forEach((n, i) => {
    shape.setUint32(4 * i, n, true);
  });
  shape.setInt32(20, scoresOf(router), true);
  shape.setInt32(24, router.normalize ? 1 : 0, true);
  shape.setFloat32(28, router.scale, true);
  const parts = [
    { bytes: new Uint8Array(shape.buffer) },
    { bytes: logits },
    { bytes: bias ?? new Float32Array(1) },
    ...[nPairs, nExperts, nPairs, 2 * nPairs].map((n) => ({ outputBytes: 4 * n })),
  ];
  const { status, outputs } = fused.inMemory(module, parts, ([shapeAt, logitsAt, biasAt, ...out]) =>
    module.exports.fm_route(shapeAt, logitsAt, bias ? biasAt : 0, ...out),
  );
  const [rows, ends, weights] = outputs;
  return { status, rows: words(rows), ends: words(ends), weights };
}

/**
 * The experts of each token with their weights, from the grouped lists, which must be in order.
 * @param {Routed} routed @param {number} nTokens @returns {Map<number, number>[]}
 */
function byToken({ rows, ends, weights }, nTokens) {
  const tokens = Array.from({ length: nTokens }, () => new Map());
  let expert = 0;
  for (const [i, row] of rows.entries()) {
    while (i >= ends[expert]) expert++;
    assert.ok(i === 0 || i === ends[expert - 1] || rows[i - 1] < row, 'tokens of an expert in their order');
    tokens[row].set(expert, weights[i]);
  }
  assert.equal(ends.at(-1), rows.length);
  return tokens;
}

/** @type {RouterSettings} */
const ROUTER = { scores: 'softmax', over: 'all', normalize: false, scale: 1, nGroups: 1, nGroupsUsed: 1 };
/** @type {[what: string, nExperts: number, router: RouterSettings & { nUsed: number }, hasBias: boolean][]} */
const ROUTERS = [
  ['softmax', 8, { ...ROUTER, nUsed: 2 }, false],
  ['softmax, normalised and scaled', 128, { ...ROUTER, nUsed: 8, normalize: true, scale: 2.5 }, false],
  ['softmax of the chosen', 32, { ...ROUTER, nUsed: 4, over: 'chosen' }, false],
  ['softmax with a bias', 7, { ...ROUTER, nUsed: 3 }, true],
  ['softmax of the chosen with a bias', 33, { ...ROUTER, nUsed: 5, over: 'chosen' }, true],
  ['sigmoid with a bias', 6, { ...ROUTER, nUsed: 2, scores: 'sigmoid', normalize: true }, true],
  [
    'groups',
    16,
    { ...ROUTER, nUsed: 3, scores: 'sigmoid', normalize: true, nGroups: 4, nGroupsUsed: 2 },
    true,
  ],
  ['groups of one expert', 5, { ...ROUTER, nUsed: 2, nGroups: 5, nGroupsUsed: 3 }, false],
  ['one expert of one', 1, { ...ROUTER, nUsed: 1, normalize: true }, false],
  ['all of 1024', 1024, { ...ROUTER, nUsed: 1024 }, true],
];

/**
 * The choice is exact unless two ranks are nearer than their errors, so the cases keep them apart.
 * Weights: e^x is off by 1 ulp of a logit minus the largest one, the sum and its inverse by one
 * rounding each; normalising adds n_used roundings of a sum, a quotient and a product.
 * @param {RawModule} module
 */
function testRoute(module) {
  const prng = new Prng(SEED);
  for (const [what, nExperts, router, hasBias] of ROUTERS) {
    for (const nTokens of [1, 2, 19]) {
      // Logits are different multiples of 1/64, so that the ranks of no two experts are nearly equal.
      const logits = Float32Array.from({ length: nTokens * nExperts }, () => prng.int(-200, 200) / 64);
      for (let t = 0; t < nTokens; t++) {
        const row = logits.subarray(t * nExperts, (t + 1) * nExperts);
        row.forEach((value, e) => {
          row[e] = value + e * 2 ** -12;
        });
      }
      const bias = hasBias ? Float32Array.from({ length: nExperts }, () => prng.int(-9, 9) / 16) : undefined;
      const routed = route(module, logits, nExperts, router, bias);
      assert.equal(routed.status, STATUS.OK, what);
      for (const [t, got] of byToken(routed, nTokens).entries()) {
        const row = logits.subarray(t * nExperts, (t + 1) * nExperts);
        const { chosen, weights } = routeReference(row, router, bias);
        const same = [...got.keys()].join() === [...chosen].sort((a, b) => a - b).join();
        assert.ok(same, `${what}: token ${t} got ${[...got.keys()]}, expected ${chosen}`);
        for (const [i, e] of chosen.entries()) {
          const error = Math.abs(Number(got.get(e)) - weights[i]);
          const bound = (12 + (router.normalize ? 2 * router.nUsed : 0)) * u * Math.abs(weights[i]);
          assert.ok(error <= bound, `${what}: weight ${got.get(e)}, float64 gives ${weights[i]}`);
        }
      }
    }
  }
}

/** @param {RawModule} module */
function testOddLogits(module) {
  const router = { ...ROUTER, nUsed: 2, scores: /** @type {const} */ ('sigmoid'), normalize: true };
  const ties = route(module, Float32Array.of(1, 2, 2, 2, 0, 0, 0, 0), 4, router);
  assert.deepEqual(
    byToken(ties, 2).map((token) => [...token.keys()]),
    [
      [1, 2],
      [0, 1],
    ],
    'of equal experts the first',
  );
  const zero = route(module, new Float32Array(4).fill(-200), 4, router);
  assert.deepEqual([...zero.weights], [0, 0], 'the divisor of a sum of 0 is not 0');
  const clean = new Float32Array(12).map((_, i) => i);
  const { NaN: nan, POSITIVE_INFINITY: inf, NEGATIVE_INFINITY: least } = Number;
  for (const over of /** @type {const} */ (['all', 'chosen'])) {
    for (const scores of /** @type {const} */ (['softmax', 'sigmoid'])) {
      const one = { ...ROUTER, nUsed: 2, scores, over };
      const expected = byToken(route(module, clean, 4, one), 3);
      for (const values of [
        [nan, 1, 2, 3],
        [0, 1, nan, 2],
        [inf, inf, inf, 1],
        [least, least, least, least],
      ]) {
        const bad = clean.slice();
        bad.set(values, 4);
        const got = byToken(route(module, bad, 4, one), 3);
        assert.deepEqual([got[0], got[2]], [expected[0], expected[2]], `${values}: the tokens beside it`);
        assert.equal(got[1].size, 2);
        const hasNan = [...got[1].values()].some(Number.isNaN);
        if (values.includes(nan)) assert.ok(hasNan, `${values}: ${[...got[1].values()]}`);
      }
    }
  }
}

/** @param {RawModule} module @param {string} name */
function typeNamed(module, name) {
  const reference = /** @type {ReferenceType} */ (referenceByName.get(name));
  const type = module.types.find(({ id }) => id === reference.id);
  assert.ok(type, `the module has no ${name}`);
  return { type, reference };
}

/**
 * @typedef {object} Product
 * @property {{ type: ModuleType, bytes: Uint8Array, nRows: number, bias?: Float32Array }[]} targets
 * @property {Uint32Array | undefined} rows
 * @property {Uint32Array} ends
 * @property {Float32Array} x
 * @property {Float32Array} [up]
 * @property {number} nCols
 * @property {number} act
 * @property {number} activation
 */

/** @param {RawModule} module @param {Product} product */
function multiplyExperts(module, { targets, rows, ends, x, up, nCols, act, activation }) {
  const n = targets.length;
  const nPairs = /** @type {number} */ (ends.at(-1));
  const parts = targets.flatMap(({ type, bytes, nRows, bias }) => [
    { bytes, alignment: type.alignment },
    { bytes: bias ?? new Float32Array(1) },
    { outputBytes: 4 * nPairs * nRows },
  ]);
  const list = (/** @type {number[]} */ at) =>
    new Uint8Array(
      Int32Array.from(
        targets.flatMap(({ type, nRows, bias }, i) => [
          ...[type.id, nRows, at[3 * i], bias ? at[3 * i + 1] : 0, at[3 * i + 2]],
        ]),
      ).buffer,
    );
  const bytesOf = (/** @type {Uint32Array} */ of) => new Uint8Array(of.buffer, of.byteOffset, of.byteLength);
  parts.push(
    /** @type {any} */ ({ bytes: list, size: 20 * n }),
    { bytes: bytesOf(rows ?? new Uint32Array(1)), alignment: 4 },
    { bytes: bytesOf(ends), alignment: 4 },
    { bytes: x },
    { bytes: up ?? new Float32Array(1) },
  );
  return fused.inMemory(module, parts, (at) => {
    const [listAt, rowsAt, endsAt, xAt, upAt] = at.slice(3 * n);
    return module.exports.fm_matmul_experts(
      ...[listAt, n, rows ? rowsAt : 0, endsAt, nPairs, ends.length, xAt, up ? upAt : 0],
      ...[x.length / nCols, nCols, act, activation],
    );
  });
}

/** Pairs of each expert, in order. @param {number[]} counts */
const endsOf = (counts) => {
  let end = 0;
  return Uint32Array.from(counts, (n) => {
    end += n;
    return end;
  });
};

/**
 * A product that starts with a bias adds the same numbers in another order: at most one for every 16
 * columns. Each sum rounds by u times the sizes of all of them.
 * @param {RawModule} module @param {ModuleType} type @param {Uint8Array} w @param {Float32Array} x
 * @param {Float32Array} y  the product alone @param {Float32Array} bias @param {Float32Array} got
 * @param {string} what
 */
function checkBiased(module, type, w, x, y, bias, got, what) {
  const nRows = bias.length;
  const nCols = x.length / (y.length / nRows);
  const values = module.dequantize(type, w, nRows, nCols).y;
  for (const [k, value] of y.entries()) {
    const [t, r] = [Math.floor(k / nRows), k % nRows];
    let size = Math.abs(bias[r]);
    for (let c = 0; c < nCols; c++) size += Math.abs(x[t * nCols + c] * values[r * nCols + c]);
    const bound = 2 * (nCols / 16 + 1) * u * size;
    const error = Math.abs(got[k] - (value + bias[r]));
    assert.ok(error <= bound, `${what}: y[${t}][${r}] is ${got[k]}, ${value} + ${bias[r]} was expected`);
  }
}

/**
 * The products of a mixture, with those of each expert alone.
 * @param {RawModule} module @param {string[]} names @param {number[]} counts  rows of each expert
 * @param {{ nTokens: number, nRows: number, nCols: number, gathered: boolean, biased: boolean, act: number }} shape
 */
function checkProducts(module, names, counts, { nTokens, nRows, nCols, gathered, biased, act }) {
  const prng = new Prng(SEED + nCols + nRows + counts.length);
  const ends = endsOf(counts);
  const nPairs = /** @type {number} */ (ends.at(-1));
  const n = gathered ? nTokens : nPairs;
  const rows = gathered ? Uint32Array.from({ length: nPairs }, () => prng.int(0, nTokens - 1)) : undefined;
  const x = activations.gaussian(n, nCols, prng);
  const up = act >= 0 ? activations.gaussian(n, nCols, prng) : undefined;
  const made = up ? fused.gateValues(module, x, up, act) : x;
  const targets = names.map((name, i) => {
    const { type, reference } = typeNamed(module, name);
    const bytes = makeWeights(reference, 'natural', counts.length * nRows, nCols, prng);
    const bias = biased && i !== 1 ? activations.gaussian(1, counts.length * nRows, prng).slice() : undefined;
    return { type, bytes, nRows, bias };
  });
  for (const activation of [0, 1, 2]) {
    const what = `${names}, ${counts} rows of experts, ${nRows} x ${nCols}, act ${act}, ${ACTIVATION_NAMES[activation]}`;
    const { status, outputs } = multiplyExperts(module, {
      ...{ targets, rows, ends, x, up, nCols, act, activation },
    });
    assert.equal(status, STATUS.OK, what);
    for (const [i, { type, bytes, bias }] of targets.entries()) {
      const expertBytes = bytes.length / counts.length;
      let first = 0;
      for (const [e, nOwn] of counts.entries()) {
        if (nOwn === 0) continue;
        const own = new Float32Array(nOwn * nCols);
        for (let r = 0; r < nOwn; r++) {
          const at = rows ? rows[first + r] : first + r;
          own.set(made.subarray(at * nCols, (at + 1) * nCols), r * nCols);
        }
        const w = bytes.subarray(e * expertBytes, (e + 1) * expertBytes);
        const { y } = module.matmul(type, w, own, nOwn, nRows, nCols, activation);
        const got = outputs[i].subarray(first * nRows, (first + nOwn) * nRows);
        const where = `${what}: target ${i}, expert ${e}`;
        if (bias) checkBiased(module, type, w, own, y, bias.subarray(e * nRows, (e + 1) * nRows), got, where);
        else fused.assertBits(got, y, where);
        first += nOwn;
      }
    }
  }
}

/** @param {RawModule} module */
function testProducts(module) {
  const base = { nTokens: 9, nRows: 11, nCols: 256, gathered: true, biased: false, act: -1 };
  for (const type of ['Q4_K', 'Q6_K', 'MXFP4', 'Q8_0', 'F16', 'F32']) {
    for (const counts of [[1], [0, 3, 0, 1, 2, 9, 0]]) {
      checkProducts(module, [type, 'Q5_0'], counts, base);
      checkProducts(module, [type, 'Q5_0', 'Q4_K'], counts, { ...base, biased: true });
      for (const act of [0, 1, 2, 3])
        checkProducts(module, [type], counts, { ...base, gathered: false, act });
      checkProducts(module, [type], counts, { ...base, gathered: false, act: 0, biased: true });
      checkProducts(module, [type], counts, { ...base, act: 0 });
      checkProducts(module, [type], counts, { ...base, gathered: false });
    }
    // More rows than a token panel has, and columns of several pieces.
    checkProducts(module, [type], [2, 150, 1], { ...base, nTokens: 40 });
    checkProducts(module, [type], [1, 2, 5], { ...base, nCols: 2304, nRows: 3 });
  }
  // One token: its experts are multiplied at once, in several lists.
  const one = { ...base, nTokens: 1 };
  checkProducts(module, ['Q4_K', 'Q6_K'], [1, 0, 1, 1, 0], one);
  checkProducts(
    module,
    ['Q4_K', 'F16', 'Q5_0'],
    Array.from({ length: 25 }, (_, e) => Number(e % 5 !== 1)),
    one,
  );
  checkProducts(module, ['Q4_K'], [1, 2, 1], one);
  checkProducts(module, ['Q4_0'], [3, 0, 1], { ...base, nCols: 32, biased: true });
}

/** @param {RawModule} module */
function testMix(module) {
  const prng = new Prng(SEED);
  for (const [nPairs, nTokens, nCols] of [
    [1, 1, 1],
    [3, 2, 5],
    [8, 1, 64],
    [40, 9, 67],
    [30, 64, 200],
  ]) {
    const x = activations.gaussian(nPairs, nCols, prng);
    const weights = activations.gaussian(1, nPairs, prng);
    const rows = Uint32Array.from({ length: nPairs }, () => prng.int(0, nTokens - 1));
    const parts = [
      { bytes: x },
      { bytes: new Uint8Array(rows.buffer) },
      { bytes: weights },
      { outputBytes: 4 * nTokens * nCols },
    ];
    const { status, outputs } = fused.inMemory(module, parts, ([xAt, rowsAt, weightsAt, y]) =>
      module.exports.fm_mix_rows(xAt, rowsAt, weightsAt, y, nPairs, nTokens, nCols),
    );
    assert.equal(status, STATUS.OK);
    const sums = new Float64Array(nTokens * nCols);
    const sizes = new Float64Array(nTokens * nCols);
    rows.forEach((t, i) => {
      for (let c = 0; c < nCols; c++) {
        sums[t * nCols + c] += weights[i] * x[i * nCols + c];
        sizes[t * nCols + c] += Math.abs(weights[i] * x[i * nCols + c]);
      }
    });
    // Each of at most nPairs products and sums is rounded once.
    outputs[0].forEach((value, k) => {
      const bound = (nPairs + 1) * u * sizes[k];
      assert.ok(Math.abs(value - sums[k]) <= bound, `y[${k}] is ${value}, float64 gives ${sums[k]}`);
    });
  }
}

for (const module of modules) {
  for (const variant of module.variants) {
    test(`experts: ${variant.label}`, async (t) => {
      module.select(variant);
      await t.test('choice and weights', () => testRoute(module));
      await t.test('ties, NaN and infinity', () => testOddLogits(module));
      await t.test('products', () => testProducts(module));
      await t.test('sums', () => testMix(module));
    });
  }
}
