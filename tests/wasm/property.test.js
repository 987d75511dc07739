/**
 * Properties of the JavaScript API, with fast-check. Wrong arguments of any kind give typed errors
 * and change nothing. Correct arguments of any shape, type and kind give the results of float64
 * within the bounds. Handles behave like a model of them. A written GGUF file reads back as it was.
 * A failure prints the seed and path that repeat it; FM_FUZZ_RUNS sets the number of runs.
 */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { createKernels, FmError, openGguf, ShapeError, Tensor, Weight } from '../../js/layer-index.js';
import { makeWeights } from '../helpers/blocks.js';
import { ACTIVATION_NAMES, ReferenceProduct, ReferenceWeight } from '../helpers/bounds.js';
import { ggufBytes } from '../helpers/gguf-bytes.js';
import { Prng } from '../helpers/prng.js';
import { referenceByName, referenceTypes } from '../helpers/reference.js';

/** @import { Pair } from '../helpers/gguf-bytes.js' */
/** @import { ReferenceType } from '../helpers/reference.js' */

const RUNS = Number(process.env.FM_FUZZ_RUNS ?? 1);
const SEED = Number(process.env.FM_FUZZ_SEED ?? 20261124);
/** @param {number} numRuns */
const runs = (numRuns) => ({ numRuns: numRuns * RUNS, seed: SEED });

const fm = await createKernels();
const other = await createKernels();
after(() => {
  fm.dispose();
  other.dispose();
});

const ramp = (/** @type {number} */ n) => Float32Array.from({ length: n }, (_, i) => Math.sin(i + 1));

/** @param {typeof fm} owner */
const handlesOf = (owner) => {
  const data = owner.quantize('Q8_0', ramp(64 * 64), 64, 64);
  return {
    w: owner.weight({ type: 'Q8_0', nRows: 64, nCols: 64, data }),
    t: owner.tensor({ nRows: 2, nCols: 64, data: ramp(128) }),
    cache: owner.kvCache({ nPositions: 4, nKvHeads: 2, headSize: 32 }),
    state: owner.tensor({ nRows: 64, nCols: 64 }),
    scanState: owner.tensor({ nRows: 32, nCols: 16 }),
  };
};

const mine = handlesOf(fm);
const foreign = handlesOf(other);
const freed = handlesOf(fm);
for (const handle of Object.values(freed)) handle.free();
const x = ramp(128);
const ones = new Float32Array(64).fill(1);
const q8 = new Uint8Array(64 * 68);
const routing = () => ({
  ...{ nTokens: 2, rows: Uint32Array.of(0, 1), ends: Uint32Array.of(1, 2), weights: Float32Array.of(0.5, 2) },
});

/**
 * Correct arguments of every method. One of them, at any depth of an options object, is replaced.
 * @type {Record<string, () => any[]>}
 */
const rightArguments = {
  weight: () => [{ type: 'Q8_0', nRows: 64, nCols: 64, data: q8, name: 'w' }],
  tensor: () => [{ nRows: 2, nCols: 64, data: x }],
  kvCache: () => [{ type: 'F16', nPositions: 4, nKvHeads: 2, headSize: 32 }],
  servedBy: () => ['Q4_K', 'int8'],
  select: () => [{ isa: fm.isa }],
  fusedMatmul: () => [mine.w, x, { activation: 'int8', out: new Float32Array(128) }],
  dequantize: () => [mine.w, { start: 1, end: 3, out: new Float32Array(128) }],
  quantize: () => ['Q8_0', x, 2, 64],
  fusedDequantMatmulQ4KLegacy: () => [
    { data: new Uint8Array(140), scales: ramp(1), nRows: 1, nCols: 256 },
    ramp(256),
  ],
  rmsNorm: () => [x, ones, { eps: 1e-5, out: new Float32Array(128) }],
  layerNorm: () => [x, ones, ones, { eps: 1e-5, out: new Float32Array(128) }],
  softmax: () => [x, { nCols: 64, out: new Float32Array(128) }],
  rope: () => [
    x,
    {
      headSize: 32,
      nHeads: 2,
      position: 3,
      nDims: 32,
      base: 1e4,
      linearScale: 2,
      factors: ramp(16),
      magnitude: 1.5,
      pairing: 'halves',
      out: new Float32Array(128),
    },
  ],
  embed: () => [mine.w, [1, 2], { out: new Float32Array(128) }],
  add: () => [x, x, { out: new Float32Array(128) }],
  addScaled: () => [x, x, 2, { out: new Float32Array(128) }],
  scale: () => [x, 2, { out: new Float32Array(128) }],
  gated: () => [x, x, { act: 'gelu', out: new Float32Array(128) }],
  multiply: () => [x, x, { out: new Float32Array(128) }],
  causalConv: () => [x, ramp(64 * 3), ramp(64 * 2), { bias: ones, act: 'silu', out: new Float32Array(128) }],
  fusedMatmulMany: () => [
    [mine.w, mine.w],
    x,
    { activation: 'f32', out: [new Float32Array(128), new Float32Array(128)] },
  ],
  fusedRmsNormMatmul: () => [[mine.w], x, ones, { eps: 1e-5, activation: 'f32' }],
  fusedSwigluMatmul: () => [mine.w, x, x, { act: 'silu', activation: 'f32', out: new Float32Array(128) }],
  fusedFfn: () => [
    { gate: mine.w, up: mine.w, down: mine.w, norm: ones },
    x,
    { eps: 1e-5, act: 'silu', residual: true, activation: 'f32', out: new Float32Array(128) },
  ],
  route: () => [
    x,
    {
      ...{ nExperts: 32, nUsed: 3, scores: 'sigmoid', over: 'all', normalize: true, scale: 2 },
      ...{ bias: ramp(32), nGroups: 4, nGroupsUsed: 2 },
    },
  ],
  fusedMatmulExperts: () => [
    [mine.w, mine.w],
    x,
    routing(),
    {
      ...{ act: 'silu', up: x, biases: [undefined, ones], activation: 'f32' },
      out: [new Float32Array(64), new Float32Array(64)],
    },
  ],
  mixRows: () => [x, routing(), { out: new Float32Array(128) }],
  fusedAttentionScore: () => [x, x, { headSize: 64, scale: 1, causal: true, out: new Float32Array(4) }],
  deltaNet: () => [
    ramp(2 * 192),
    { alpha: ramp(2), beta: ramp(2), dtBias: ramp(1), a: ramp(1) },
    mine.state,
    { nKeyHeads: 1, gate: x, normWeight: ones, eps: 1e-3, out: new Float32Array(128) },
  ],
  ssmScan: () => [
    x,
    { dt: ramp(4), dtBias: ramp(2), a: Float32Array.of(-1, -2), d: ramp(2) },
    mine.scanState,
    { nGroups: 1, out: new Float32Array(64) },
  ],
  flashAttention: () => [
    x,
    mine.cache,
    mine.cache,
    {
      nHeads: 2,
      firstPosition: 1,
      nPositions: 3,
      causal: true,
      window: 2,
      scale: 1,
      softcap: 5,
      out: new Float32Array(128),
    },
  ],
};

const methods = /** @type {any} */ (fm);

/** Replacements of an argument. */
const garbage = fc.oneof(
  fc.constantFrom(undefined, null, true, '', 'Q4_K', 'int4', 'constructor', '__proto__', 5n),
  fc.constantFrom(Number.NaN, Infinity, -Infinity, -1, 0, 1.5, 2 ** 31, 2 ** 32, 2 ** 53, -0),
  fc.integer(),
  fc.double(),
  fc.nat(300).map((n) => new Float32Array(n)),
  fc.nat(300).map((n) => new Uint8Array(n)),
  fc.nat(300).map((n) => new Float64Array(n)),
  fc.constantFrom(freed.w, freed.t, freed.cache, foreign.w, foreign.t, foreign.cache, mine.t, mine.w),
  fc.constantFrom({}, [], [mine.t], () => 1, new Date(0), new ArrayBuffer(64), [Number.NaN], ['1'], [1e9]),
);

/** @param {any} value */
const isObject = (value) => Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype;

/** Every argument, and every property of an options object or a list. @param {any[]} args */
function placesIn(args) {
  /** @type {(string | number)[][]} */
  const places = [];
  args.forEach((value, i) => {
    places.push([i]);
    if (isObject(value)) for (const key of Object.keys(value)) places.push([i, key]);
  });
  return places;
}

/** State that must not change. */
const held = () => {
  const { weights, tensors, handles } = fm.memory();
  return { weights, tensors, handles };
};

/** @param {any} result */
function release(result) {
  for (const one of [result].flat()) {
    if (
      (one instanceof Weight || one instanceof Tensor || one?.nKvHeads) &&
      !Object.values(mine).includes(one)
    )
      one.free();
  }
}

for (const [name, makeArguments] of Object.entries(rightArguments)) {
  test(`property: ${name} with an argument of any kind works, or throws a typed error and changes nothing`, () => {
    const places = placesIn(makeArguments());
    fc.assert(
      fc.property(fc.constantFrom(...places), garbage, (place, value) => {
        const args = makeArguments();
        const [i, key] = place;
        const whole = args[Number(i)];
        if (key === undefined) args[Number(i)] = value;
        else whole[key] = value;
        const before = held();
        try {
          release(methods[name](...args));
        } catch (error) {
          if (!(error instanceof FmError)) {
            /* A missing object is a TypeError of JavaScript itself, thrown before anything else
             * happens. */
            const isNothing = key === undefined && (value === undefined || value === null);
            if (error instanceof TypeError && isNothing && isObject(whole)) return;
            throw error;
          }
          if (error instanceof ShapeError && error.got !== undefined && Number.isFinite(error.got)) {
            assert.ok(error.message.includes(String(error.got)), `${error.got} is not in: ${error.message}`);
            assert.ok(
              error.message.includes(String(error.expected)),
              `${error.expected} is not in: ${error.message}`,
            );
          }
          assert.match(/** @type {any} */ (error).code, /^FM_/);
        }
        assert.deepEqual(held(), before);
      }),
      runs(400),
    );
    const again = methods[name](...makeArguments());
    assert.ok(again !== undefined || name === 'select', 'right arguments still work');
    release(again);
  });
}

/**
 * An input or an output as an array, or as a tensor of nRows rows.
 * @param {boolean} isTensor @param {Float32Array} values @param {number} nCols
 */
const asKind = (isTensor, values, nCols) =>
  isTensor ? fm.tensor({ nRows: values.length / nCols, nCols, data: values }) : values;
/** @param {Float32Array | Tensor} y */
const valuesOf = (y) => (y instanceof Tensor ? y.toArray() : y);

const product = fc.record({
  seed: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  nTokens: fc.integer({ min: 1, max: 10 }),
  nRows: fc.integer({ min: 1, max: 12 }),
  nBlocks: fc.integer({ min: 1, max: 4 }),
  kind: fc.constantFrom('natural', 'mixed', 'poison', 'largest', 'negative'),
  activation: fc.constantFrom(...ACTIVATION_NAMES),
  typeIndex: fc.nat(referenceTypes.length - 1),
  xIsTensor: fc.boolean(),
  out: fc.constantFrom('none', 'array', 'tensor'),
});

test('property: a product of any shape, type and blocks, of arrays or tensors, equals float64', () => {
  fc.assert(
    fc.property(product, ({ seed, nTokens, nRows, nBlocks, kind, activation, typeIndex, xIsTensor, out }) => {
      const type = referenceTypes[typeIndex];
      const prng = new Prng(seed);
      const nCols = nBlocks * type.blockValues;
      const data = makeWeights(type, kind, nRows, nCols, prng);
      const values = Float32Array.from({ length: nTokens * nCols }, () => prng.gaussian());
      const before = held();
      const w = fm.weight({ type: type.name, nRows, nCols, data });
      const from = asKind(xIsTensor, values, nCols);
      const into =
        out === 'none' ? undefined : asKind(out === 'tensor', new Float32Array(nTokens * nRows), nRows);
      const y = fm.fusedMatmul(w, from, { activation, out: into });
      assert.equal(y instanceof Tensor, out === 'none' ? xIsTensor : out === 'tensor');
      if (into) assert.equal(y, into);
      const served = ACTIVATION_NAMES.indexOf(fm.servedBy(type.name, activation).activation);
      const reference = new ReferenceProduct(new ReferenceWeight(type, data, nRows, nCols), values, nTokens);
      reference.check(valuesOf(y), { activation: served, what: type.name });
      assert.deepEqual(valuesOf(from), values, 'x is as it was');
      for (const handle of new Set([w, from, y])) if (!(handle instanceof Float32Array)) handle.free();
      assert.deepEqual(held(), before);
    }),
    runs(200),
  );
});

/**
 * Operations on two inputs [nTokens][64], each of which may be an array or a tensor.
 * @type {Record<string, (a: any, b: any, options: any) => any>}
 */
const operations = {
  rmsNorm: (a, _, options) => fm.rmsNorm(a, ones, options),
  layerNorm: (a, _, options) => fm.layerNorm(a, ones, ones, options),
  softmax: (a, _, options) => fm.softmax(a, { nCols: 64, ...options }),
  rope: (a, _, options) => fm.rope(a, { headSize: 32, nHeads: 2, position: 5, ...options }),
  add: (a, b, options) => fm.add(a, b, options),
  addScaled: (a, b, options) => fm.addScaled(a, b, -0.3, options),
  scale: (a, _, options) => fm.scale(a, 62.2, options),
  gated: (a, b, options) => fm.gated(a, b, options),
  multiply: (a, b, options) => fm.multiply(a, b, options),
  causalConv: (a, _, options) => fm.causalConv(a, ramp(64 * 3), ramp(64 * 2), { act: 'silu', ...options }),
  fusedSwigluMatmul: (a, b, options) => fm.fusedSwigluMatmul(mine.w, a, b, options),
  fusedFfn: (a, _, options) =>
    fm.fusedFfn({ gate: mine.w, up: mine.w, down: mine.w, norm: ones }, a, options),
  flashAttention: (a, _, options) =>
    fm.flashAttention(a, mine.cache, mine.cache, { nHeads: 2, nPositions: 4, causal: false, ...options }),
};

test('property: arrays and tensors, in any mix, give the same bits', () => {
  const kinds = fc.tuple(fc.boolean(), fc.boolean(), fc.constantFrom('none', 'array', 'tensor'));
  fc.assert(
    fc.property(
      fc.constantFrom(...Object.keys(operations)),
      fc.integer({ min: 1, max: 9 }),
      fc.integer(),
      kinds,
      (name, nTokens, seed, [aIsTensor, bIsTensor, out]) => {
        const prng = new Prng(seed);
        const [a, b] = [0, 1].map(() => Float32Array.from({ length: 64 * nTokens }, () => prng.gaussian()));
        const expected = operations[name](a, b, {});
        const before = held();
        const given = [asKind(aIsTensor, a, 64), asKind(bIsTensor, b, 64)];
        const into = out === 'none' ? undefined : asKind(out === 'tensor', new Float32Array(a.length), 64);
        const y = operations[name](given[0], given[1], { out: into });
        assert.deepEqual(valuesOf(y), expected, name);
        if (into) assert.equal(y, into);
        assert.deepEqual(given.map(valuesOf), [a, b], `${name}: the inputs are as they were`);
        for (const handle of new Set([...given, y])) if (handle instanceof Tensor) handle.free();
        assert.deepEqual(held(), before);
      },
    ),
    runs(250),
  );
});

/** Steps of a program that uses kernels. Numbers choose among the existing handles. */
const steps = fc.array(
  fc.record({
    action: fc.constantFrom('weight', 'tensor', 'cache', 'free', 'use', 'again', 'foreign', 'fail'),
    which: fc.nat(),
    nRows: fc.integer({ min: 1, max: 50 }),
  }),
  { maxLength: 40 },
);

test('property: handles of any order of making, freeing and disposing are accounted for', async () => {
  const theirs = foreign.w;
  await fc.assert(
    fc.asyncProperty(steps, fc.boolean(), async (list, freeFirst) => {
      const kernels = await createKernels({ threads: 1 });
      /** @type {{ handle: any, account: 'weights' | 'tensors' }[]} */
      const alive = [];
      /** @type {any[]} */
      const gone = [];
      const check = () => {
        const expected = { weights: 0, tensors: 0, handles: alive.length };
        for (const { handle, account } of alive) expected[account] += handle.byteLength;
        const { weights, tensors, handles } = kernels.memory();
        assert.deepEqual({ weights, tensors, handles }, expected);
      };
      for (const { action, which, nRows } of list) {
        const at = which % (alive.length || 1);
        if (action === 'weight')
          alive.push({ handle: kernels.weight({ type: 'F32', nRows, nCols: 32 }), account: 'weights' });
        else if (action === 'tensor')
          alive.push({ handle: kernels.tensor({ nRows, nCols: 32 }), account: 'tensors' });
        else if (action === 'cache')
          alive.push({
            handle: kernels.kvCache({ nPositions: nRows, nKvHeads: 1, headSize: 32 }),
            account: 'tensors',
          });
        else if (action === 'free' && alive.length > 0) {
          const [{ handle }] = alive.splice(at, 1);
          assert.equal(handle.freed, false);
          if (which % 2) handle.free();
          else handle[Symbol.dispose ?? Symbol.for('Symbol.dispose')]();
          assert.equal(handle.freed, true);
          gone.push(handle);
        } else if (action === 'use' && alive[at]?.handle instanceof Weight) {
          assert.equal(
            kernels.fusedMatmul(alive[at].handle, new Float32Array(32)).length,
            alive[at].handle.nRows,
          );
        } else if (action === 'again' && gone.length > 0) {
          const handle = gone[which % gone.length];
          assert.throws(() => handle.free(), { name: 'HandleError', reason: 'freed' });
          assert.throws(() => kernels.fusedMatmul(handle, ones), FmError);
          handle[Symbol.dispose ?? Symbol.for('Symbol.dispose')]();
        } else if (action === 'foreign') {
          assert.throws(() => kernels.fusedMatmul(theirs, x), { name: 'HandleError', reason: 'foreign' });
        } else if (action === 'fail') {
          assert.throws(() => kernels.tensor({ nRows: 2 ** 31, nCols: nRows }), { code: 'FM_MEMORY' });
        }
        check();
      }
      if (freeFirst) for (const { handle } of alive.splice(0)) handle.free();
      check();
      kernels.dispose();
      kernels.dispose();
      for (const { handle } of alive) {
        assert.equal(handle.freed, true);
        assert.throws(() => handle.free(), { name: 'HandleError', reason: 'disposed' });
      }
      assert.throws(() => kernels.tensor({ nRows: 1, nCols: 1 }), {
        name: 'HandleError',
        reason: 'disposed',
      });
    }),
    runs(60),
  );
});

const scalar = {
  u8: fc.integer({ min: 0, max: 255 }),
  i8: fc.integer({ min: -128, max: 127 }),
  u16: fc.integer({ min: 0, max: 65535 }),
  i16: fc.integer({ min: -32768, max: 32767 }),
  u32: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  i32: fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
  f32: fc.float({ noNaN: true }),
  f64: fc.double({ noNaN: true }),
  bool: fc.boolean(),
  string: fc.string({ unit: 'grapheme', maxLength: 40 }),
  u64: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  i64: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
};

/** The value that a reader of the file gets. @param {any} value */
const asRead = (value) =>
  typeof value === 'bigint' && Number.isSafeInteger(Number(value)) ? Number(value) : value;

const pair = fc.oneof(
  ...Object.entries(scalar).map(([kind, values]) =>
    /** @type {fc.Arbitrary<any>} */ (values).map((value) => ({ kind, value, read: asRead(value) })),
  ),
  ...Object.entries(scalar).map(([of, values]) =>
    fc.array(/** @type {fc.Arbitrary<any>} */ (values), { maxLength: 12 }).map((items) => ({
      kind: 'array',
      value: { of, items },
      read: items.map(asRead),
    })),
  ),
);

const fileSpec = fc.record({
  pairs: fc.dictionary(fc.stringMatching(/^[a-z][a-z0-9_.]{0,20}$/), pair, { maxKeys: 10 }),
  alignment: fc.constantFrom(undefined, 8, 32, 64, 4096),
  tensors: fc.uniqueArray(
    fc.record({
      name: fc.string({ minLength: 1, maxLength: 30 }),
      typeIndex: fc.nat(referenceTypes.length - 1),
      nBlocks: fc.integer({ min: 1, max: 3 }),
      dims: fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 3 }),
      seed: fc.integer(),
    }),
    { selector: ({ name }) => name, maxLength: 6 },
  ),
  asBlob: fc.boolean(),
});

test('property: what is written to a GGUF file is what is read from it', async () => {
  await fc.assert(
    fc.asyncProperty(fileSpec, async ({ pairs, alignment, tensors, asBlob }) => {
      const entries = Object.entries(pairs).filter(([key]) => key !== 'general.alignment');
      const written = /** @type {Pair[]} */ (entries.map(([key, { kind, value }]) => [key, kind, value]));
      if (alignment) written.push(['general.alignment', 'u32', alignment]);
      const made = tensors.map(({ name, typeIndex, nBlocks, dims, seed }) => {
        const { id, blockValues, blockBytes, name: typeName } = referenceTypes[typeIndex];
        const nRows = dims.reduce((product, dim) => product * dim, 1);
        const data = new Uint8Array(nRows * nBlocks * blockBytes);
        new Prng(seed).fill(data);
        return { name, typeId: id, typeName, shape: [nBlocks * blockValues, ...dims], data, nRows };
      });
      const { bytes } = ggufBytes({ pairs: written, tensors: made, alignment: alignment ?? 32 });
      const gguf = await openGguf(asBlob ? new Blob([bytes]) : bytes);
      assert.deepEqual(
        [...gguf.tensors.keys()],
        made.map(({ name }) => name),
      );
      for (const { name, typeName, shape, data, nRows } of made) {
        const tensor = gguf.tensor(name);
        assert.deepEqual(
          [tensor.type, tensor.shape, tensor.nRows, tensor.nCols],
          [typeName, shape, nRows, shape[0]],
        );
        assert.deepEqual(await gguf.read(name), data);
        const w = await fm.loadWeight(gguf, name);
        const reference = /** @type {ReferenceType} */ (referenceByName.get(typeName));
        const expected = new ReferenceWeight(reference, data, nRows, shape[0]).exactF32;
        const got = fm.dequantize(w);
        w.free();
        got.forEach((value, i) => {
          assert.ok(
            Object.is(value, expected[i]) || (Number.isNaN(value) && Number.isNaN(expected[i])),
            `${typeName} ${i}`,
          );
        });
      }
      for (const [key, { read }] of entries) assert.deepEqual(gguf.metadata[key], read, key);
    }),
    runs(150),
  );
});
