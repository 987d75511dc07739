/**
 * Blocks of experts of the CPU backend compared with float64 JavaScript: every setting of a router, of
 * the experts and of a shared one, for one token and several. Each setting must have an effect.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createKernels, Llama } from '../../js/llama/index.js';
import { planModel } from '../../js/llama/plan.js';
import { WasmBackend } from '../../js/wasm/backend.js';
import { changedGguf, floats } from '../helpers/changed-gguf.js';
import { distance, peakOf } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { Matrix } from '../helpers/reference-rows.js';
import { dataPath, skipWithout } from '../helpers/test-data.js';
import { libraryVariants } from '../helpers/variants.js';

/** @import { Kernels } from '../../js/layer-index.js' */
/** @import { ExpertSettings, FeedSettings, Plan, RouterSettings } from '../../js/llama/plan.js' */

const [N_EMBD, N_FF, N_EXPERTS, N_TOKENS] = [64, 32, 8, 7];
const FACTORS = ['gateFactor', 'upFactor', 'downFactor'];
const NORMS = ['routerNorm', 'expertsNorm', 'sharedNorm', 'sharedPostNorm'];
/** As in backend.test.js. */
const RELATIVE = 3e-5;

/**
 * @typedef {object} Change
 * @property {Partial<ExpertSettings>} [experts]
 * @property {Partial<RouterSettings>} [router]
 * @property {Partial<FeedSettings>} [feed]
 * @property {readonly string[]} [biases]  roles
 * @property {readonly string[]} [factors]  roles
 */

/** @type {Record<string, Change>} */
const SETTINGS = {
  'softmax of all': {},
  'one expert': { experts: { nUsed: 1 } },
  'weights with the sum 1, scaled': { router: { normalize: true, scale: 2.5 } },
  'softmax of the chosen': { router: { over: 'chosen' } },
  'sigmoid with a bias for the choice': { router: { scores: 'sigmoid' }, biases: ['selectBias'] },
  'groups of experts': { router: { nGroups: 4, nGroupsUsed: 2 }, experts: { nUsed: 3 } },
  'a shared expert': { experts: { shared: { nFf: 96, gated: false } } },
  'a shared expert with a factor': { experts: { shared: { nFf: 16, gated: true } } },
  'GELU gates': { feed: { activation: 'gelu' } },
  'clamped gates': { feed: { activation: 'clamped' } },
  'residual scale': { feed: { residualScale: 0.4 } },
  'no norm': { feed: { norm: undefined } },
  'norm after the block': { feed: { postNorm: { kind: 'rms', eps: 1e-3 } } },
  'biases of the experts': { biases: ['gateBias', 'upBias', 'downBias'] },
  'a bias of the router': { biases: ['routerBias'] },
  'a norm of the router': { experts: { routerNorm: { eps: 0.2, scale: 0.5 } }, biases: ['routerBias'] },
  'norms of the experts': { experts: { norms: { eps: 0.2 } } },
  'norms of the experts and of a shared one': {
    experts: { norms: { eps: 0.2 }, shared: { nFf: 48, gated: false } },
    feed: { norm: undefined },
  },
  'factors of the experts': { factors: ['gateFactor', 'downFactor'] },
  'factors and biases of the experts': {
    ...{ factors: ['gateFactor', 'upFactor', 'downFactor'], biases: ['gateBias', 'upBias', 'downBias'] },
  },
};

/** @param {Change} change */
function planOf({ experts, router, feed }) {
  const plan = planModel({
    'general.architecture': 'llama',
    'tokenizer.ggml.tokens': ['a', 'b'],
    'llama.context_length': 64,
    'llama.embedding_length': N_EMBD,
    'llama.block_count': 1,
    'llama.feed_forward_length': N_FF,
    'llama.attention.head_count': 2,
    'llama.attention.layer_norm_rms_epsilon': 1e-5,
    'llama.expert_count': N_EXPERTS,
    'llama.expert_used_count': 2,
  });
  const [layer] = plan.layers;
  const mixture = /** @type {ExpertSettings} */ (layer.feed.experts);
  Object.assign(mixture, experts);
  Object.assign(mixture.router, { normalize: false }, router);
  Object.assign(layer.feed, feed);
  return plan;
}

/** Shapes of all tensors that a block may have, and whether they are matrices. @param {Plan} plan */
function shapesOf(plan) {
  const { shared } = /** @type {ExpertSettings} */ (plan.layers[0].feed.experts);
  const sharedFf = shared?.nFf ?? 1;
  return /** @type {Record<string, [nRows: number, nCols: number, isMatrix: boolean]>} */ ({
    norm: [1, N_EMBD, false],
    postNorm: [1, N_EMBD, false],
    router: [N_EXPERTS, N_EMBD, true],
    routerBias: [1, N_EXPERTS, false],
    selectBias: [1, N_EXPERTS, false],
    gate: [N_EXPERTS * N_FF, N_EMBD, true],
    up: [N_EXPERTS * N_FF, N_EMBD, true],
    down: [N_EXPERTS * N_EMBD, N_FF, true],
    gateBias: [N_EXPERTS, N_FF, false],
    upBias: [N_EXPERTS, N_FF, false],
    downBias: [N_EXPERTS, N_EMBD, false],
    sharedGate: [sharedFf, N_EMBD, true],
    sharedUp: [sharedFf, N_EMBD, true],
    sharedDown: [N_EMBD, sharedFf, true],
    sharedRouter: [1, N_EMBD, true],
    ...Object.fromEntries(FACTORS.map((role) => [role, [1, N_EXPERTS, false]])),
    ...Object.fromEntries(NORMS.map((role) => [role, [1, N_EMBD, false]])),
  });
}

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
  const chosen = [...(change.biases ?? []), ...(change.factors ?? [])];
  /** @type {Record<string, any>} */
  const ofWasm = {};
  /** @type {Record<string, any>} */
  const ofReference = {};
  for (const [role, [nRows, nCols, isMatrix]] of Object.entries(shapesOf(plan))) {
    const size = isMatrix ? 0.2 : 1;
    const data = Float32Array.from({ length: nRows * nCols }, () => size * prng.gaussian());
    if (/(Bias|Factor)$/.test(role) && !chosen.includes(role)) continue;
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
