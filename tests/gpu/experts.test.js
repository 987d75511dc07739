/**
 * Mixtures of experts on the GPU: the choice of experts, and whole blocks against float64 JavaScript.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { GpuBackend } from '../../js/gpu/backend.js';
import { loadBlocks } from '../../js/gpu/blocks.js';
import { Pipelines } from '../../js/gpu/pipelines.js';
import { toGpu } from '../../js/gpu/selftest-model.js';
import { logitStride, MOST_EXPERTS, routeWords } from '../../js/gpu/wgsl/expert-layout.js';
import { route, routeGroups } from '../../js/gpu/wgsl/route.js';
import { N_EMBD, planOf, SETTINGS, tensorsOf } from '../helpers/expert-blocks.js';
import { countCalls, gpuSkip, openTestDevice, SEED, sampled, TestGpu } from '../helpers/gpu.js';
import { peakOf } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { routeReference } from '../helpers/reference-experts.js';
import { Matrix } from '../helpers/reference-rows.js';

/** @import { RouteOptions } from '../../js/gpu/wgsl/route.js' */
/** @import { Change } from '../helpers/expert-blocks.js' */

/** As in tests/llama/backend.test.js. */
const RELATIVE = 3e-5;
/** Rows of the hidden states, and the steps that compute them: every number of tokens has its kernels. */
const N_ROWS = 15;
const STEPS = [
  [{ start: 2, nTokens: 12 }],
  [
    { start: 0, nTokens: 1 },
    { start: 1, nTokens: 5 },
    { start: 6, nTokens: 8 },
  ],
];

/** @typedef {Omit<RouteOptions, 'bias' | 'selectBias'> & { biased?: boolean }} RouteCase */

/** @type {import('../../js/llama/plan.js').RouterSettings} */
const ROUTER = {
  scores: 'softmax',
  over: 'all',
  normalize: false,
  scale: 1,
  nGroups: 1,
  nGroupsUsed: 1,
};
/** @type {[string, RouteCase][]} */
const ROUTES = [
  ['softmax of all', { nExperts: 60, nUsed: 4, router: ROUTER, gatedShared: true }],
  ['weights that sum to 2.5', { nExperts: 8, nUsed: 3, router: { ...ROUTER, normalize: true, scale: 2.5 } }],
  [
    'softmax of the chosen',
    { nExperts: 32, nUsed: 4, router: { ...ROUTER, over: 'chosen' }, biased: true, logitScale: 0.5 },
  ],
  [
    'groups',
    {
      ...{ nExperts: 256, nUsed: 8, biased: true },
      router: { ...ROUTER, scores: 'sigmoid', normalize: true, nGroups: 8, nGroupsUsed: 4 },
    },
  ],
  [
    'groups of one',
    { nExperts: 7, nUsed: 2, router: { ...ROUTER, scores: 'sigmoid', nGroups: 7, nGroupsUsed: 3 } },
  ],
  ['all that there may be', { nExperts: MOST_EXPERTS, nUsed: 2, router: { ...ROUTER, over: 'chosen' } }],
];

describe('experts on the GPU', { skip: await gpuSkip() }, () => {
  /** @type {TestGpu} */
  let gpu;
  /** @type {Pipelines} */
  let pipelines;
  before(async () => {
    gpu = new TestGpu(await openTestDevice());
    pipelines = new Pipelines(gpu.device);
    await loadBlocks([{ feed: { kind: 'experts' } }]);
  });
  after(() => gpu.dispose());

  /**
   * The states after a block, for each list of steps.
   * @param {any} backend @param {ReturnType<typeof planOf>} plan @param {Record<string, any>} weights
   * @param {Float32Array} states
   * @param {() => void} [again]  called before everything is done a second time
   */
  async function run(backend, plan, weights, states, again) {
    const x = backend.hidden(plan, { batch: N_ROWS, part: N_ROWS });
    const block = { settings: plan.layers[0].feed, weights, layer: 0 };
    /** @type {Float32Array[]} */
    const results = [];
    for (const pass of again ? [0, 1] : [0]) {
      if (pass > 0) again?.();
      for (const [i, steps] of STEPS.entries()) {
        backend.write(x, 0, states);
        for (const step of steps) backend.feed(x, block, { ...step, position: 0, seen: N_ROWS });
        const got = await backend.read(x);
        if (pass > 0) assert.deepEqual(got, results[i], 'the same bits again');
        results[i] = got;
      }
    }
    x.free();
    return results;
  }

  /** @param {Change} change @param {number} [bindingBytes]  tensors that are larger are cut */
  async function compare(change, bindingBytes) {
    const plan = planOf(change);
    const tensors = tensorsOf(plan, change, new Prng(20261127));
    const states = Float32Array.from({ length: N_ROWS * N_EMBD }, (_, i) => new Prng(i).gaussian());
    /** @type {Record<string, any>} */
    const ofReference = {};
    /** @type {Record<string, any>} */
    const tree = {};
    for (const [role, { nRows, nCols, isMatrix, data }] of Object.entries(tensors)) {
      ofReference[role] = new Matrix(nRows, nCols, Float64Array.from(data));
      const bytes = new Uint8Array(data.buffer);
      tree[role] = isMatrix ? { type: 'F32', nRows, nCols, data: bytes } : { nRows, nCols, values: data };
    }
    const { device } = gpu;
    const { limits } = device;
    const most = limits.bindingBytes;
    limits.bindingBytes = bindingBytes ?? most;
    const { trees, owned } = await toGpu({ gpu: device, pipelines }, [tree]);
    limits.bindingBytes = most;
    const backend = new GpuBackend(device, {
      ...{ kvType: 'F32', pipelines },
      variants: { subgroups: false, int8: false },
    });
    const calls = countCalls(device);
    const made = () => calls.createBuffer + calls.createBindGroup;
    let before = 0;
    const got = await run(backend, plan, trees[0], states, () => {
      before = made();
    });
    assert.equal(made(), before, 'buffers and bind groups of a second pass');
    const expected = await run(new ReferenceBackend(), plan, ofReference, states);
    for (const one of owned) one.free();
    backend.dispose();
    const parts = trees[0].gate.parts.length;
    for (const [i, values] of got.entries()) {
      const limit = RELATIVE * peakOf(expected[i]);
      const worst = values.reduce((most, value, k) => Math.max(most, Math.abs(value - expected[i][k])), 0);
      assert.ok(worst <= limit, `${i === 0 ? 'at once' : 'in steps'}: off by ${worst}, limit ${limit}`);
    }
    return { expected: expected[0], parts };
  }

  for (const [what, change] of sampled(Object.entries(SETTINGS), 2))
    test(`a block, seed ${SEED}: ${what}`, async () => {
      await compare(change);
    });

  test('a block whose tensors are larger than a binding', async () => {
    const change = SETTINGS['biases of the experts'];
    // A part ends within an expert, and has other rows of gate and up than of down.
    const { parts } = await compare({ ...change, experts: { shared: { nFf: 96, gated: false } } }, 15_000);
    assert.equal(parts, 5);
  });

  for (const [what, options] of sampled(ROUTES, 2))
    test(`the choice of experts, seed ${SEED}: ${what}`, async () => {
      await checkRoute(options);
    });

  /** Compares the choice for some tokens with float64. @param {RouteCase} given */
  async function checkRoute({ biased = false, ...options }) {
    const { nExperts, nUsed, gatedShared, logitScale = 1 } = options;
    const [start, nTokens] = [2, 7];
    const [stride, words] = [logitStride(nExperts), routeWords(options)];
    const prng = new Prng(nExperts);
    // Few different values: there are ties of all kinds.
    const some = () => Math.round(4 * prng.gaussian()) / 2;
    const logits = Float32Array.from({ length: (start + nTokens) * stride }, some);
    const row = (/** @type {number} */ t) =>
      logits.subarray((start + t) * stride, (start + t) * stride + nExperts);
    row(1).fill(0.25);
    row(2).fill(0).fill(-0, 0, 1);
    row(3)[nExperts - 1] = Number.NaN;
    const vectors = Float32Array.from({ length: 2 * stride }, some);
    const bias = biased ? { bias: 0, selectBias: stride } : {};
    const shader = route({ ...options, ...bias });
    const routes = new Uint32Array((start + nTokens + 1) * words).fill(77);
    const data = { logits, ...(biased && { vectors }), routes };
    const step = { position: 0, start, nTokens, seen: 0 };
    const got = new Uint32Array(await gpu.run(shader, data, routeGroups(nTokens), 'routes', step));
    const numbers = new Float32Array(got.buffer);
    for (let t = 0; t < nTokens; t++) {
      const at = (start + t) * words;
      const given = row(t).map((logit, e) => logitScale * logit + (biased ? vectors[e] : 0));
      const weights = numbers.subarray(at + nUsed, at + 2 * nUsed);
      if (t === 3) {
        assert.ok(weights.some(Number.isNaN), 'NaN stays');
        continue;
      }
      const select = biased ? vectors.subarray(stride) : undefined;
      const expected = routeReference(given, { ...options.router, nUsed }, select);
      assert.deepEqual([...got.subarray(at, at + nUsed)], expected.chosen, `token ${t}`);
      for (const [i, weight] of expected.weights.entries()) {
        // exp errs by some units, more for large arguments; then there are a sum and some roundings.
        const bound = (nExperts + 64) * 2 ** -24 * weight + 1e-37;
        assert.ok(Math.abs(weights[i] - weight) <= bound, `token ${t}: ${weights[i]}, not ${weight}`);
      }
      const factor = gatedShared ? 1 / (1 + Math.exp(-logits[(start + t) * stride + nExperts])) : 1;
      assert.ok(Math.abs(numbers[at + 2 * nUsed] - factor) <= 32 * 2 ** -24 * factor);
    }
    const outside = [...got.subarray(0, start * words), ...got.subarray((start + nTokens) * words)];
    assert.ok(outside.every((word) => word === 77));
  }
});
