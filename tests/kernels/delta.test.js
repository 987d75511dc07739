/**
 * fm_delta_net of every module and instruction set, compared with float64: shapes, chunks, tokens
 * one by one, gates, special values.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkWithin } from '../helpers/attention.js';
import { deltaCase, deltaCols, deltaNet, deltaShape, referenceDelta } from '../helpers/delta.js';
import { Prng } from '../helpers/prng.js';
import { openModules } from '../helpers/raw.js';

/** @import { DeltaCase } from '../helpers/delta.js' */
/** @import { RawModule } from '../helpers/raw.js' */

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`delta net: ${name} module`, { skip: reason }, () => {});
/** One variant of each instruction set: the delta net does not use the int8 dot. */
const variants = modules.flatMap((module) =>
  module.variants.filter(({ dot }) => dot === 0).map((variant) => ({ module, variant })),
);

/** @param {string} name @param {(module: RawModule, label: string) => void} body */
function everywhere(name, body) {
  test(`delta net: ${name}`, async (t) => {
    for (const { module, variant } of variants) {
      await t.test(variant.label, () => {
        module.select(variant);
        body(module, variant.label);
      });
    }
  });
}

/** @param {RawModule} module @param {DeltaCase} made @param {string} what */
function check(module, made, what) {
  const got = deltaNet(module, made);
  const reference = referenceDelta(made);
  const worst = checkWithin(got.out, reference.out, `${what}, out`);
  return Math.max(worst, checkWithin(got.state, reference.state, `${what}, state`));
}

/**
 * The tokens first <= t < end of a case, with another state.
 * @param {DeltaCase} made @param {number} first @param {number} end @param {Float32Array} state
 * @returns {DeltaCase}
 */
function tokensOf(made, first, end, state) {
  const { shape } = made;
  const cols = deltaCols(shape);
  const rows = (/** @type {Float32Array} */ x, /** @type {number} */ n) => x.slice(first * n, end * n);
  return {
    ...made,
    shape: { ...shape, nTokens: end - first },
    qkv: rows(made.qkv, cols.qkv),
    alpha: rows(made.alpha, shape.nValueHeads),
    beta: rows(made.beta, shape.nValueHeads),
    gate: made.gate && rows(made.gate, cols.out),
    state,
  };
}

everywhere('every number of tokens', (module, label) => {
  const prng = new Prng(1);
  for (let nTokens = 1; nTokens <= 40; nTokens++)
    check(module, deltaCase(deltaShape({ nTokens }), prng), `${label}, ${nTokens} tokens`);
  for (const nTokens of [63, 64, 65, 67, 68, 100])
    check(
      module,
      deltaCase(deltaShape({ nTokens, nKeyHeads: 1, nValueHeads: 1 }), prng),
      `${nTokens} tokens`,
    );
});

everywhere('sizes of heads', (module, label) => {
  const prng = new Prng(2);
  for (const [keySize, valueSize] of [
    [8, 8],
    [8, 24],
    [24, 8],
    [16, 40],
    [32, 32],
    [64, 128],
    [128, 128],
    [256, 256],
    [248, 256],
  ]) {
    for (const nTokens of [1, 12, 33]) {
      const shape = deltaShape({ nTokens, keySize, valueSize, nKeyHeads: 1, nValueHeads: 2 });
      check(module, deltaCase(shape, prng), `${label}, ${keySize} x ${valueSize}, ${nTokens} tokens`);
    }
  }
});

everywhere('heads that share keys', (module, label) => {
  const prng = new Prng(3);
  for (const [nKeyHeads, nValueHeads] of [
    [1, 1],
    [1, 3],
    [2, 2],
    [2, 6],
    [3, 6],
  ]) {
    for (const nTokens of [1, 9]) {
      const shape = deltaShape({ nTokens, nKeyHeads, nValueHeads, keySize: 8 });
      check(module, deltaCase(shape, prng), `${label}, ${nKeyHeads} and ${nValueHeads} heads`);
    }
  }
});

everywhere('without a gate, without norm weights', (module, label) => {
  const prng = new Prng(4);
  for (const options of [{ gated: false }, { gated: true, normed: false }, { gated: false, normed: true }]) {
    for (const nTokens of [1, 2, 20])
      check(
        module,
        deltaCase(deltaShape({ nTokens }), prng, options),
        `${label}, ${JSON.stringify(options)}`,
      );
  }
});

everywhere('states that forget at once, and states that never do', (module, label) => {
  const prng = new Prng(5);
  for (const memory of [1e-4, 1e-2, 0.3, 1000, 1e9]) {
    for (const nTokens of [1, 3, 70]) {
      const made = deltaCase(deltaShape({ nTokens }), prng, { memory, gated: false });
      check(module, made, `${label}, memory ${memory}, ${nTokens} tokens`);
    }
  }
});

everywhere('tokens without keys, values, or length', (module, label) => {
  const prng = new Prng(6);
  for (const nTokens of [1, 12]) {
    for (const eps of [0, 1e-6, 3]) {
      const made = deltaCase(deltaShape({ nTokens, eps }), prng, { gated: eps > 0 });
      const { qkv } = deltaCols(made.shape);
      for (let t = 0; t < nTokens; t += 2) made.qkv.fill(0, t * qkv, (t + 1) * qkv);
      for (let i = 0; i < 16; i++) made.qkv[(nTokens - 1) * qkv + i] *= 1e-30;
      check(module, made, `${label}, eps ${eps}, ${nTokens} tokens`);
    }
  }
});

everywhere('gates far from 0', (module, label) => {
  const prng = new Prng(7);
  for (const nTokens of [2, 24]) {
    const made = deltaCase(deltaShape({ nTokens }), prng);
    made.alpha.forEach((_, i) => {
      made.alpha[i] = [-200, -30, -8, 0, 8, 30, 200][i % 7];
      made.beta[i] = [200, -200, 20, -20, 0][i % 5];
    });
    check(module, made, `${label}, ${nTokens} tokens`);
  }
});

everywhere('a call for all tokens, and calls for some of them', (module, label) => {
  const prng = new Prng(8);
  const made = deltaCase(deltaShape({ nTokens: 45, keySize: 32 }), prng);
  const reference = referenceDelta(made);
  const n = deltaCols(made.shape).out;
  for (const part of [1, 2, 7, 13, 44]) {
    let { state } = made;
    const out = new Float32Array(45 * n);
    for (let t = 0; t < 45; t += part) {
      const got = deltaNet(module, tokensOf(made, t, Math.min(45, t + part), state));
      out.set(got.out, t * n);
      state = got.state;
    }
    checkWithin(out, reference.out, `${label}, ${part} at a time`);
    checkWithin(state, reference.state, `${label}, ${part} at a time, state`);
  }
});

everywhere('a token that is not finite changes no token before it and no other head', (module, label) => {
  const prng = new Prng(9);
  for (const nTokens of [3, 14]) {
    const made = deltaCase(deltaShape({ nTokens, nKeyHeads: 2, nValueHeads: 2 }), prng);
    const cols = deltaCols(made.shape);
    const expected = deltaNet(module, made);
    const bad = nTokens - 2;
    // Of head 1: a query, a key, a value, and the gates.
    for (const [name, at, special] of /** @type {const} */ ([
      ['qkv', bad * cols.qkv + 16 + 3, NaN],
      ['qkv', bad * cols.qkv + 32 + 16 + 3, NaN],
      ['qkv', bad * cols.qkv + 64 + 16 + 3, Infinity],
      ['alpha', bad * 2 + 1, NaN],
      ['beta', bad * 2 + 1, NaN],
    ])) {
      const changed = { ...made, [name]: made[name].slice() };
      changed[name][at] = special;
      const got = deltaNet(module, changed);
      const what = `${label}, ${nTokens} tokens, ${name}[${at}]`;
      for (let t = 0; t < nTokens; t++) {
        for (let c = 0; c < cols.out; c++) {
          const i = t * cols.out + c;
          if (t < bad || c < 16) assert.equal(got.out[i], expected.out[i], `${what}: out[${t}][${c}]`);
        }
      }
      const [first, later] = [bad, nTokens - 1].map((t) =>
        got.out.subarray((t + 0.5) * cols.out, (t + 1) * cols.out),
      );
      assert.ok(first.some(Number.isNaN), `${what}: the token itself`);
      const isQuery = name === 'qkv' && at < bad * cols.qkv + 32;
      assert.equal(later.some(Number.isNaN), !isQuery, `${what}: the next token`);
      const half = made.state.length / 2;
      assert.deepEqual(
        got.state.subarray(0, half),
        expected.state.subarray(0, half),
        `${what}: state of head 0`,
      );
      assert.equal(got.state.subarray(half).some(Number.isNaN), !isQuery, `${what}: state of head 1`);
    }
  }
});
