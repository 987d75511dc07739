/**
 * Products with activations that several weights share, or that are normalised or gated first.
 * Every module and instruction set is compared with float64 (bounds derived in helpers/fused.js),
 * and bit for bit with the same steps one by one.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { activations } from '../helpers/activations.js';
import { makeWeights } from '../helpers/blocks.js';
import { ACTIVATION_NAMES, LARGEST_CODE, normError, ReferenceWeight, scaleCols } from '../helpers/bounds.js';
import { SEED as DRAWN_BY, sampled } from '../helpers/drawn.js';
import * as fused from '../helpers/fused.js';
import { Prng } from '../helpers/prng.js';
import { openModules, STATUS } from '../helpers/raw.js';
import { referenceById } from '../helpers/reference.js';

/** @import { RawModule } from '../helpers/raw.js' */
/** @import { ReferenceType } from '../helpers/reference.js' */

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`fused: ${name} module`, { skip: reason }, () => {});

const ACTIVATIONS = [0, 1, 2];
const ACTS = [0, 1, 2, 3];
const CLAMPED = 3;
const EPS = 1e-5;
const SEED = 20251123;
/**
 * Columns of a panel, and of f32 activations that fit into the scratch memory at once
 * (src/ops/matmul.c).
 */
const PANEL = 2048;
const SCRATCH_FLOATS = 163840;
/**
 * Weight types that are drawn: what is fused does not depend on them, and tests/kernels/kernels has
 * all of them.
 */
const DRAWN = 8;
/** Norm-wise bound. */
const PROMISED = 1e-4;

/** @param {ReferenceType} type @param {number} nCols */
const wholeBlocks = (type, nCols) => Math.ceil(nCols / type.blockValues) * type.blockValues;

/** @param {number} length @param {Prng} prng */
const normWeight = (length, prng) => Float32Array.from({ length }, () => 1 + 0.5 * prng.gaussian());

/** @param {RawModule} module @param {string} name */
function typeNamed(module, name) {
  const type = module.types.find(({ id }) => referenceById.get(id)?.name === name);
  assert.ok(type, `the module has no ${name}`);
  return type;
}

/**
 * One set of inputs with its references, for every module, instruction set and mode.
 * @param {ReferenceType} type @param {string} kind  kind of the weights' blocks
 * @param {string} activation  generator's name @param {number} nTokens @param {number} nRows
 * @param {number} nCols @param {number} [eps]
 */
function makeCase(type, kind, activation, nTokens, nRows, nCols, eps = EPS) {
  const prng = new Prng(SEED + type.id * 7919 + nCols * 31 + nTokens);
  const w = new ReferenceWeight(type, makeWeights(type, kind, nRows, nCols, prng), nRows, nCols);
  const x = activations[activation](nTokens, nCols, prng);
  const other = activations.gaussian(nTokens, nCols, prng);
  const norm = { weight: prng.int(0, 3) ? normWeight(nCols, prng) : null, eps };
  const made = [
    fused.normReference(x, nTokens, nCols, norm),
    ...ACTS.map((act) => fused.gateReference(x, other, act)),
  ];
  const [normed, ...gated] = made.map((values) => new fused.MadeProduct(w, values, nTokens));
  const label = `${type.name}, ${kind} weights, ${activation} activations, ${nTokens} x ${nRows} x ${nCols}`;
  return { label, type, w, x, other, norm, nTokens, nRows, nCols, normed, gated };
}

/** @typedef {ReturnType<typeof makeCase>} Case */
/** @type {Map<string, Case>} */
const known = new Map();

/** @param {Parameters<typeof makeCase>} facts @returns {Case} */
function caseOf(...facts) {
  const key = JSON.stringify([facts[0].id, ...facts.slice(1)]);
  const made = known.get(key) ?? makeCase(...facts);
  known.set(key, made);
  return made;
}

/**
 * Runs a case through fused_rmsnorm_matmul and fused_swiglu_matmul in all activation modes.
 * @param {RawModule} module @param {Case} made
 * @param {{ bits?: boolean }} [options]  bits: compare with the single steps
 */
function checkCase(module, made, { bits = true } = {}) {
  const { w, x, other, norm, nTokens, nRows, nCols } = made;
  const type = typeNamed(module, made.type.name);
  const target = { type, bytes: w.bytes, nRows };
  const steps = [
    fused.normRows(module, x, nTokens, nCols, norm),
    ...ACTS.map((act) => fused.gateValues(module, x, other, act)),
  ];
  for (const activation of ACTIVATIONS) {
    const served = module.servedBy(type.id, activation).activation;
    const results = [
      fused.multiplyMany(module, [target], x, nTokens, nCols, activation, norm),
      ...ACTS.map((act) => fused.multiplyGated(module, target, x, other, nTokens, nCols, act, activation)),
    ];
    results.forEach(({ status, outputs }, i) => {
      const what = `${['rms norm', ...fused.GATES][i]}, ${ACTIVATION_NAMES[activation]}: ${made.label}`;
      assert.equal(status, STATUS.OK, what);
      [made.normed, ...made.gated][i].check(outputs[0], served, what);
      if (!bits) return;
      const unfused = module.matmul(type, w.bytes, steps[i], nTokens, nRows, nCols, activation);
      fused.assertBits(outputs[0], unfused.y, `${what}, against the steps one by one`);
    });
    if (!bits) continue;
    // Without a second factor the result is that of a factor of 1.
    for (const act of ACTS) {
      const ones = new Float32Array(x.length).fill(act === CLAMPED ? 0 : 1);
      const alone = fused.multiplyGated(module, target, x, null, nTokens, nCols, act, activation);
      const values = fused.gateValues(module, x, ones, act);
      const unfused = module.matmul(type, w.bytes, values, nTokens, nRows, nCols, activation);
      const what = `${fused.GATES[act]} alone, ${ACTIVATION_NAMES[activation]}: ${made.label}`;
      fused.assertBits(alone.outputs[0], unfused.y, what);
    }
  }
}

/**
 * Compares fused_matmul_many with fused_matmul for each target.
 * @param {RawModule} module @param {string[]} names @param {number} nTokens
 * @param {number[]} nRows  taken in turn @param {number} nCols
 */
function checkMany(module, names, nTokens, nRows, nCols) {
  const prng = new Prng(SEED + nTokens + nCols);
  const x = activations.outliers(nTokens, nCols, prng);
  const norm = { weight: normWeight(nCols, prng), eps: EPS };
  const normed = fused.normRows(module, x, nTokens, nCols, norm);
  const targets = names.map((name, i) => {
    const type = typeNamed(module, name);
    const rows = nRows[i % nRows.length];
    const reference = /** @type {ReferenceType} */ (referenceById.get(type.id));
    return { type, nRows: rows, bytes: makeWeights(reference, 'natural', rows, nCols, prng) };
  });
  for (const activation of ACTIVATIONS) {
    for (const given of [undefined, norm]) {
      const { status, outputs } = fused.multiplyMany(module, targets, x, nTokens, nCols, activation, given);
      assert.equal(status, STATUS.OK);
      targets.forEach(({ type, bytes, nRows: rows }, i) => {
        const alone = module.matmul(type, bytes, given ? normed : x, nTokens, rows, nCols, activation);
        const what = `${names[i]} of ${names.length}, ${nTokens} x ${rows} x ${nCols}`;
        fused.assertBits(outputs[i], alone.y, `${ACTIVATION_NAMES[activation]}, norm ${!!given}: ${what}`);
      });
    }
  }
}

/**
 * Norm-wise error of quantising values. Rounding to a step d has an error of d / sqrt(12) in the
 * root mean square.
 * @param {Float64Array} values @param {ReferenceWeight} w @param {number} served
 */
function stepNoise(values, w, served) {
  const cols = scaleCols(w.type, served);
  let noise = 0;
  for (let first = 0; first < values.length; first += cols) {
    assert.equal(w.nCols % cols, 0);
    const largest = values.subarray(first, first + cols).reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    noise += (cols * (largest / LARGEST_CODE[served]) ** 2) / 12;
  }
  return Math.sqrt(noise) / Math.hypot(...values);
}

/**
 * Checks that results are finite, and norm-wise within 1e-4. Gated values have long tails, and the
 * largest value of a group sets the step of all, so integer modes may have twice the noise of their
 * steps if that is more.
 * @param {Float32Array} got @param {fused.MadeProduct} reference @param {number} served
 */
function checkPromise(got, { product, made, w }, served) {
  const mode = ACTIVATION_NAMES[served];
  assert.ok(got.every(Number.isFinite), mode);
  const error = normError(got, product.y);
  const noise = served === 0 ? 0 : stepNoise(made.values, w, served);
  const promised = Math.max(PROMISED, 2 * noise);
  assert.ok(error <= promised, `${mode}: norm-wise error ${error}, promised ${promised}`);
}

/** @param {RawModule} module @param {boolean} scalar */
async function testSizes(module, scalar) {
  for (const { id } of sampled(module.types, DRAWN)) {
    const type = /** @type {ReferenceType} */ (referenceById.get(id));
    for (const nCols of [1, 3, 256, 257, PANEL - 1, PANEL + 1, 2 * PANEL + 300]) {
      for (const [nTokens, nRows] of nCols > PANEL
        ? [[3, 2]]
        : [
            [1, 3],
            [2, 1],
            [5, 9],
          ]) {
        checkCase(module, caseOf(type, 'natural', 'gaussian', nTokens, nRows, wholeBlocks(type, nCols)));
      }
    }
  }
  for (const name of ['Q4_K', 'Q8_0', 'F16', 'F32']) {
    const type = /** @type {ReferenceType} */ (referenceById.get(typeNamed(module, name).id));
    for (let nTokens = 1; nTokens <= 9; nTokens++) {
      for (const nRows of [1, 2, 7, 9]) {
        checkCase(module, caseOf(type, 'natural', 'gaussian', nTokens, nRows, wholeBlocks(type, 300)));
      }
    }
    /* more than a token panel: 128 tokens, or 80 of f32 activations */
    for (const nTokens of [79, 83, 131]) {
      checkCase(module, caseOf(type, 'natural', 'gaussian', nTokens, 3, wholeBlocks(type, 256)));
    }
    checkCase(module, caseOf(type, 'natural', 'gaussian', 83, 2, PANEL + 256));
    /* more columns than the scratch memory has room for, even for one token: made f32
     * activations are summed in two parts, x itself in one */
    if (scalar) continue;
    const nCols = 2 * SCRATCH_FLOATS + 512;
    checkCase(module, caseOf(type, 'natural', 'gaussian', 1, 2, nCols), { bits: false });
    checkCase(module, caseOf(type, 'natural', 'gaussian', 2, 1, nCols), { bits: false });
  }
}

/** @param {RawModule} module */
async function testPoison(module) {
  for (const { id } of sampled(module.types, DRAWN)) {
    const type = /** @type {ReferenceType} */ (referenceById.get(id));
    const nCols = wholeBlocks(type, 712);
    for (const activation of ['outliers', 'zeros', 'gaps', 'denormals', 'tiny', 'huge']) {
      for (const eps of activation === 'gaps' ? [EPS] : [EPS, 0]) {
        checkCase(module, caseOf(type, 'natural', activation, 3, 3, nCols, eps));
      }
    }
    for (const kind of ['mixed', 'poison', 'zero', 'denormal', 'negative', 'largest'])
      checkCase(module, caseOf(type, kind, 'gaussian', 3, 3, nCols));
  }
}

/** @param {RawModule} module */
function testBadTokens(module) {
  for (const name of ['Q4_K', 'Q8_0', 'F16', 'F32']) {
    const type = typeNamed(module, name);
    const reference = /** @type {ReferenceType} */ (referenceById.get(type.id));
    const [nRows, nCols] = [5, 512];
    const made = caseOf(reference, 'natural', 'gaussian', 9, nRows, nCols);
    const target = { type, bytes: made.w.bytes, nRows };
    for (const activation of ACTIVATIONS) {
      for (const nTokens of [1, 2, 5, 9]) {
        const [x, other] = [made.x, made.other].map((list) => list.slice(0, nTokens * nCols));
        const norm = { weight: null, eps: EPS };
        const runs = [
          (/** @type {Float32Array} */ bad) =>
            fused.multiplyMany(module, [target], bad, nTokens, nCols, activation, norm),
          (/** @type {Float32Array} */ bad) =>
            fused.multiplyGated(module, target, bad, other, nTokens, nCols, 0, activation),
          (/** @type {Float32Array} */ bad) =>
            fused.multiplyGated(module, target, other, bad, nTokens, nCols, 1, activation),
        ];
        for (const run of runs) {
          const clean = run(x).outputs[0];
          for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
            const badToken = nTokens >> 1;
            const bad = x.slice();
            bad[badToken * nCols + nCols - 5] = value;
            const got = run(bad).outputs[0];
            const first = badToken * nRows;
            got.subarray(first, first + nRows).forEach((y) => {
              assert.ok(!Number.isFinite(y), `${name}: ${value} gave ${y}`);
            });
            got.set(clean.subarray(first, first + nRows), first);
            fused.assertBits(got, clean, `${name}, ${nTokens} tokens: ${value} in token ${badToken}`);
          }
        }
      }
    }
  }
}

/** @type {Map<string, ReferenceWeight[]>} */
const knownFfn = new Map();

/**
 * The weights of a feed-forward block, for every module and instruction set.
 * @param {number[]} types  ids @param {number} nEmbd @param {number} nFf
 */
function ffnWeights(types, nEmbd, nFf) {
  const key = `${[types, nEmbd, nFf]}`;
  const prng = new Prng(SEED + nEmbd + nFf);
  const shapes = [
    [nFf, nEmbd],
    [nFf, nEmbd],
    [nEmbd, nFf],
  ];
  const made =
    knownFfn.get(key) ??
    types.map((id, i) => {
      const [nRows, nCols] = shapes[i];
      const type = /** @type {ReferenceType} */ (referenceById.get(id));
      return new ReferenceWeight(type, makeWeights(type, 'natural', nRows, nCols, prng), nRows, nCols);
    });
  knownFfn.set(key, made);
  return made;
}

/**
 * Checks a feed-forward block. The products for gate and up, left in the workspace, must be those
 * of fused_rmsnorm_matmul. y must be the gated product, plus x if `residual`, within the bound of
 * that sum.
 * @param {RawModule} module @param {[string, string, string]} names @param {number} nTokens
 * @param {number} nEmbd @param {number} nFf @param {number} activation
 * @param {{ act: number, residual: number, normed: boolean, inPlace: boolean }} how
 */
function checkFfn(module, names, nTokens, nEmbd, nFf, activation, { act, residual, normed, inPlace }) {
  const prng = new Prng(SEED + nTokens + nEmbd + nFf);
  const types = names.map((name) => typeNamed(module, name));
  const weights = ffnWeights(
    types.map(({ id }) => id),
    nEmbd,
    nFf,
  );
  const x = activations.gaussian(nTokens, nEmbd, prng);
  const norm = normed ? { weight: normWeight(nEmbd, prng), eps: EPS } : undefined;
  const parts = [
    ...weights.map(({ bytes }, i) => ({ bytes, alignment: types[i].alignment })),
    {
      bytes: (/** @type {number[]} */ at) =>
        new Uint8Array(Int32Array.from([...types.map(({ id }) => id), ...at.slice(0, 3)]).buffer),
      size: 24,
    },
    { bytes: norm?.weight ?? new Float32Array(1) },
    { outputBytes: x.byteLength },
    { bytes: x },
    { outputBytes: 8 * nTokens * nFf },
  ];
  const { status, outputs } = fused.inMemory(module, parts, (at) => {
    const [list, normAt, y, xAt, workspace] = at.slice(3);
    if (inPlace) module.u8.copyWithin(y, xAt, xAt + x.byteLength);
    return module.exports.fused_ffn(
      list,
      inPlace ? y : xAt,
      norm ? normAt : 0,
      EPS,
      y,
      workspace,
      nTokens,
      nEmbd,
      nFf,
      act,
      residual,
      activation,
    );
  });
  const what = `${names}, ${nTokens} x ${nEmbd} x ${nFf}, ${JSON.stringify({ activation, act, residual, normed, inPlace })}`;
  assert.equal(status, STATUS.OK, what);
  const [y, workspace] = outputs;
  const targets = [0, 1].map((i) => ({ type: types[i], bytes: weights[i].bytes, nRows: nFf }));
  const inner = fused.multiplyMany(module, targets, x, nTokens, nEmbd, activation, norm).outputs;
  const [gate, up] = [workspace.subarray(0, nTokens * nFf), workspace.subarray(nTokens * nFf)];
  fused.assertBits(gate, inner[0], `gate: ${what}`);
  fused.assertBits(up, inner[1], `up: ${what}`);
  const down = { type: types[2], bytes: weights[2].bytes, nRows: nEmbd };
  const served = module.servedBy(types[2].id, activation).activation;
  const reference = new fused.MadeProduct(weights[2], fused.gateReference(gate, up, act), nTokens);
  if (!residual) {
    const alone = fused.multiplyGated(module, down, gate, up, nTokens, nFf, act, activation).outputs[0];
    fused.assertBits(y, alone, `down: ${what}`);
    reference.check(y, served, what);
    return;
  }
  /* x takes part in as many roundings as there are partial sums, at most one for each block of
   * 16 columns */
  for (let i = 0; i < y.length; i++) {
    const [t, r] = [Math.floor(i / nEmbd), i % nEmbd];
    const expected = reference.product.y[i] + x[i];
    const bound =
      reference.bound(t, r, served) +
      (nFf / 16 + 1) * 2 ** -24 * (Math.abs(x[i]) + reference.product.mass[i]);
    assert.ok(
      Math.abs(y[i] - expected) <= bound,
      `${what}: y[${i}] is ${y[i]}, not ${expected}, bound ${bound}`,
    );
  }
}

/** @param {RawModule} module */
function testFfn(module) {
  for (const activation of ACTIVATIONS) {
    for (const nTokens of [1, 2, 3, 9]) {
      for (const [i, inPlace] of [false, true].entries()) {
        const how = { act: nTokens & 1, residual: nTokens === 3 ? 0 : 1, normed: nTokens !== 2, inPlace };
        checkFfn(module, ['Q4_K', 'Q4_K', 'Q6_K'], nTokens, 256, 512 + 2048 * i, activation, how);
        checkFfn(module, ['Q4_0', 'F16', 'Q8_0'], nTokens, 288, 64, activation, how);
        checkFfn(module, ['F32', 'BF16', 'F32'], nTokens, 19, 37, activation, how);
      }
    }
  }
}

for (const module of modules) {
  for (const variant of module.variants) {
    test(`fused: ${variant.label}`, async (t) => {
      const scalar = variant.isa === 0;
      const Q4_K = /** @type {ReferenceType} */ (referenceById.get(typeNamed(module, 'Q4_K').id));
      const target = (/** @type {Case} */ made) => ({
        type: typeNamed(module, 'Q4_K'),
        bytes: made.w.bytes,
        nRows: made.nRows,
      });

      await t.test('test_fused_rmsnorm_linear', () => {
        module.select(variant);
        const made = caseOf(Q4_K, 'natural', 'gaussian', 32, 16, 512);
        checkCase(module, made);
        for (const activation of ACTIVATIONS) {
          const served = module.servedBy(Q4_K.id, activation).activation;
          const { outputs } = fused.multiplyMany(
            module,
            [target(made)],
            made.x,
            32,
            512,
            activation,
            made.norm,
          );
          checkPromise(outputs[0], made.normed, served);
        }
      });

      await t.test('test_fused_swiglu_proj', () => {
        module.select(variant);
        const made = caseOf(Q4_K, 'natural', 'gaussian', 32, 16, 512);
        for (const act of ACTS) {
          for (const activation of ACTIVATIONS) {
            const served = module.servedBy(Q4_K.id, activation).activation;
            const { outputs } = fused.multiplyGated(
              module,
              target(made),
              made.x,
              made.other,
              32,
              512,
              act,
              activation,
            );
            checkPromise(outputs[0], made.gated[act], served);
          }
        }
      });

      await t.test('several weights: the bits of each alone', () => {
        module.select(variant);
        const names = module.types.map(({ id }) => /** @type {ReferenceType} */ (referenceById.get(id)).name);
        for (const nTokens of [1, 2, 3, 9]) checkMany(module, names, nTokens, [5, 1, 9], 512);
        for (const nTokens of [1, 2, 5, 131])
          checkMany(module, ['Q4_K', 'F16', 'Q8_0', 'F32', 'Q4_K'], nTokens, [4, 3], 2304);
        checkMany(module, ['F32', 'F16'], 5, [1, 2], 257);
        checkMany(module, ['Q6_K'], 3, [8], 4608);
        /* more than 32 targets, the most that share the same activations */
        const many = Array.from({ length: 67 }, (_, i) => ['Q4_K', 'F16', 'Q8_0', 'F32'][i % 4]);
        checkMany(module, many, 2, [1, 2], 256);
      });

      await t.test(`sizes, types by seed ${DRAWN_BY}`, () => {
        module.select(variant);
        return testSizes(module, scalar);
      });

      await t.test(`kinds of weights and activations, types by seed ${DRAWN_BY}`, () => {
        module.select(variant);
        return testPoison(module);
      });

      await t.test('NaN and Inf stay in their token', () => {
        module.select(variant);
        testBadTokens(module);
      });

      await t.test('feed-forward block', () => {
        module.select(variant);
        testFfn(module);
      });
    });
  }
}
