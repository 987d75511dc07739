/**
 * Blocks of experts of the CPU backend compared with float64 JavaScript: every setting of a router, of
 * the experts and of a shared one, for one token and several. Each setting must have an effect.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createKernels, Llama } from '../../js/llama/index.js';
import { WasmBackend } from '../../js/wasm/backend.js';
import { changedGguf, floats } from '../helpers/changed-gguf.js';
import { N_EMBD, N_EXPERTS, planOf, SETTINGS, tensorsOf } from '../helpers/expert-blocks.js';
import { distance, peakOf } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { Matrix } from '../helpers/reference-rows.js';
import { dataPath, skipWithout } from '../helpers/test-data.js';
import { libraryVariants } from '../helpers/variants.js';

/** @import { Kernels } from '../../js/layer-index.js' */
/** @import { Plan } from '../../js/llama/plan.js' */
/** @import { Change } from '../helpers/expert-blocks.js' */

const N_TOKENS = 7;
/** As in backend.test.js. */
const RELATIVE = 3e-5;

/**
 * The states after a block, token by token and all at once.
 * @param {any} backend @param {Plan} plan @param {Record<string, any>} weights @param {Float32Array} states
 * @returns {Promise<Float32Array[]>}
 */
async function run(backend, plan, weights, states) {
  const x = backend.hidden(plan, { batch: N_TOKENS, part: N_TOKENS });
  const results = [];
  for (const steps of [[N_TOKENS], [1, 2, 4]]) {
    backend.write(x, 0, states);
    let start = 0;
    for (const nTokens of steps) {
      const at = { position: start, start, nTokens, seen: N_TOKENS };
      backend.feed(x, { settings: plan.layers[0].feed, weights, layer: 0 }, at);
      start += nTokens;
    }
    results.push(await backend.read(x));
  }
  x.free();
  return results;
}

/** @param {Kernels} fm @param {Change} change */
async function compare(fm, change) {
  const plan = planOf(change);
  const prng = new Prng(20261127);
  /** @type {Record<string, any>} */
  const ofWasm = {};
  /** @type {Record<string, any>} */
  const ofReference = {};
  for (const [role, { nRows, nCols, isMatrix, data }] of Object.entries(tensorsOf(plan, change, prng))) {
    ofReference[role] = new Matrix(nRows, nCols, Float64Array.from(data));
    ofWasm[role] = isMatrix
      ? fm.weight({ type: 'F32', nRows, nCols, data })
      : fm.tensor({ nRows, nCols, data });
  }
  const states = Float32Array.from({ length: N_TOKENS * N_EMBD }, () => prng.gaussian());
  const wasm = new WasmBackend(fm, { activation: 'f32', kvType: 'F32', ownsKernels: false });
  const got = await run(wasm, plan, ofWasm, states);
  const expected = await run(new ReferenceBackend(), plan, ofReference, states);
  for (const handle of Object.values(ofWasm)) handle.free();
  for (const [i, values] of got.entries()) {
    const limit = RELATIVE * peakOf(expected[i]);
    const worst = values.reduce((most, value, k) => Math.max(most, Math.abs(value - expected[i][k])), 0);
    assert.ok(worst <= limit, `${i === 0 ? 'at once' : 'in steps'}: off by ${worst}, limit ${limit}`);
  }
  return expected[0];
}

for (const { isa, dot, label, skip } of libraryVariants) {
  test(`experts: every setting of a block, ${label}`, { skip }, async () => {
    const fm = await createKernels({ isa, dot, threads: 1 });
    try {
      const plain = await compare(fm, {});
      for (const [what, change] of Object.entries(SETTINGS)) {
        const states = await compare(fm, change).catch((error) => assert.fail(`${what}: ${error.message}`));
        if (what === 'softmax of all') continue;
        const difference = states.reduce((most, value, k) => Math.max(most, Math.abs(value - plain[k])), 0);
        assert.ok(difference > 1e-2 * peakOf(plain), `${what} has no effect: ${difference}`);
      }
    } finally {
      fm.dispose();
    }
  });
}

const path = dataPath('arch/models/qwen3moe-A.gguf');
const absent = skipWithout('arch/models/qwen3moe-A.gguf');

test('experts: a file may have a factor for each of them', { skip: absent }, async () => {
  const factors = Float32Array.from({ length: N_EXPERTS }, (_, e) => 2 ** (e - 3));
  /** @param {readonly string[]} inverse  matrices with the inverse factors */
  const logits = async (...inverse) => {
    const tensors = [...new Set(['ffn_up_exps', ...inverse])].map((name) =>
      floats(
        `blk.1.${name}.scale`,
        [N_EXPERTS],
        factors.map((factor) => (inverse.includes(name) ? 1 / factor : factor)),
      ),
    );
    const source = inverse.length > 0 ? await changedGguf(path, { tensors }) : path;
    const model = await Llama.load(source, { threads: 1, activation: 'f32', kvType: 'F32' });
    const values = await model.logits([1, 17, 5, 30, 9, 9, 22, 3]);
    model.dispose();
    return values;
  };
  const plain = await logits();
  // Powers of 2 for up, and their inverses for down, change nothing at all.
  assert.deepEqual(await logits('ffn_down_exps'), plain);
  assert.ok(distance(await logits('ffn_up_exps'), plain).max > 0.1);
});
