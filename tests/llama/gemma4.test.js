/**
 * Gemma 4: its plan, memory and windows where layers read the keys and values of earlier ones, and
 * what is refused when layers are divided among devices. tests/llama/arch.test.js compares its logits
 * with those of llama.cpp.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lacks as lacksOnGpu } from '../../js/gpu/fit.js';
import { Llama, ModelError } from '../../js/llama/index.js';
import { openStages } from '../../js/llama/stages.js';
import { openWasmBackend } from '../../js/wasm/backend.js';
import { LARGEST_BATCH, lacks } from '../../js/wasm/fit.js';
import { close } from '../helpers/llama.js';
import { planOf, refusal } from '../helpers/plan-of.js';
import { Prng } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { dataPath, skipWithout } from '../helpers/test-data.js';

/** @import { Backend } from '../../js/backend.js' */
/** @import { BackendPart } from '../../js/llama/load-options.js' */

const MIXTURE = { expert_count: 8, expert_used_count: 2 };
const GEMMA4 = {
  block_count: 6,
  'attention.key_length': 64,
  'attention.value_length': 64,
  'attention.key_length_swa': 32,
  'attention.value_length_swa': 32,
  'rope.freq_base': 1e6,
  'attention.sliding_window': 512,
  'attention.sliding_window_pattern': [true, true, false, true, true, false],
};

test('plans: gemma4 has two shapes of layers, and normalised values', () => {
  const { plan, attention, windows, bases, feed } = planOf('gemma4', GEMMA4);
  assert.deepEqual(windows, [512, 512, 0, 512, 512, 0]);
  assert.deepEqual(bases, [1e4, 1e4, 1e6, 1e4, 1e4, 1e6]);
  const shapes = attention.map(({ headSize, scale, rope, kvBack }) => [headSize, scale, rope?.nDims, kvBack]);
  assert.deepEqual(shapes.slice(1, 3), [
    [32, 1, 32, undefined],
    [64, 1, 64, undefined],
  ]);
  assert.deepEqual(attention[0].valueNorm, { eps: 1e-5 });
  assert.deepEqual(attention[0].qkNorm, { kind: 'rms', eps: 1e-5, span: 'head', afterRope: false });
  assert.deepEqual([plan.embedding.scale, plan.head.softcap, feed.activation], [16, 30, 'gelu']);
  assert.deepEqual(
    [plan.embedding.layerInputs, feed.layerInput, feed.experts],
    [undefined, undefined, undefined],
  );
  assert.deepEqual(
    [1, 2].map((i) => plan.shared[`layers.${i}.attention.ropeFactors`]),
    [undefined, { of: 'rope.factors' }],
  );
  const of = (/** @type {string} */ role) => plan.tensors.find((one) => one.role === role);
  assert.deepEqual([of('rope.factors')?.nCols, of('rope.factors')?.optional], [32, false]);
  assert.deepEqual([of('layers.1.attention.q')?.nRows, of('layers.2.attention.q')?.nRows], [128, 256]);
  assert.deepEqual(plan.shared['layers.2.attention.v'], { of: 'layers.2.attention.k' });
  assert.deepEqual(
    [of('layers.2.attention.v')?.optional, of('layers.2.attention.k')?.optional],
    [true, false],
  );
  const given = planOf('gemma4', { ...GEMMA4, 'rope.freq_base_swa': 700, final_logit_softcapping: 20 });
  assert.deepEqual([given.bases[0], given.plan.head.softcap], [700, 20]);
  // Linear scaling applies to layers without a window.
  const stretched = planOf('gemma4', { ...GEMMA4, 'rope.scaling.factor': 8 });
  assert.deepEqual(
    stretched.attention.slice(1, 3).map(({ rope }) => rope?.linearScale),
    [1, 8],
  );
  const lists = {
    'attention.head_count_kv': [4, 4, 1, 4, 4, 1],
    feed_forward_length: [64, 64, 64, 64, 96, 96],
  };
  const listed = planOf('gemma4', { ...GEMMA4, ...lists });
  assert.deepEqual(
    listed.plan.layers.map(({ attention: { nKvHeads }, feed: { nFf } }) => [nKvHeads, nFf]).slice(3),
    [
      [4, 64],
      [4, 96],
      [1, 96],
    ],
  );
  assert.throws(
    () => planOf('gemma4', { ...GEMMA4, feed_forward_length: [64] }),
    refusal(/gemma4.feed_forward_length" has 1 values for 6 layers/),
  );
  assert.throws(
    () => planOf('gemma4', { ...GEMMA4, 'attention.sliding_window_pattern': undefined }),
    refusal(/sliding_window_pattern" must be an integer over 0, got undefined/),
  );
  const numbers = { 'attention.sliding_window_pattern': [1, 1, 0, 1, 1, 0] };
  assert.throws(
    () => planOf('gemma4', { ...GEMMA4, ...numbers }),
    refusal(/sliding_window_pattern" must have true or false for every layer/),
  );
  assert.throws(
    () => planOf('gemma4', { ...GEMMA4, 'attention.sliding_window': undefined }),
    refusal(/sliding_window" must be an integer over 0, got undefined/),
  );
});

test('plans: the last layers of gemma4 may read earlier keys and values, and all may have inputs', () => {
  const shared = planOf('gemma4', { ...GEMMA4, 'attention.shared_kv_layers': 3 });
  assert.deepEqual(
    shared.attention.map(({ kvBack }) => kvBack),
    [undefined, undefined, undefined, 2, 3, 3],
  );
  const of = (/** @type {string} */ role) => shared.plan.tensors.find((one) => one.role === role);
  for (const part of ['k', 'v', 'kNorm'])
    assert.deepEqual(
      [of(`layers.3.attention.${part}`)?.use, of(`layers.3.attention.${part}`)?.optional],
      ['none', true],
    );
  assert.throws(
    () => planOf('gemma4', { ...GEMMA4, 'attention.shared_kv_layers': 4 }),
    refusal(
      /shared_kv_layers" is 4: before layer 2 there is no layer with a window of 0 positions.* layer 2/,
    ),
  );
  const { plan, feed } = planOf('gemma4', { ...GEMMA4, embedding_length_per_layer_input: 16 });
  assert.deepEqual(plan.embedding.layerInputs, {
    ...{ size: 16, tableScale: 4, projectionScale: 1 / 16, eps: 1e-5, scale: Math.SQRT1_2 },
  });
  assert.deepEqual(feed.layerInput, { activation: 'gelu', eps: 1e-5 });
  assert.equal(plan.tensors.find(({ role }) => role === 'embedding.layerTable')?.nCols, 96);
});

test('plans: gemma4 may have experts beside the dense block', () => {
  const { plan, feed } = planOf('gemma4', { ...GEMMA4, ...MIXTURE, expert_feed_forward_length: 32 });
  const { experts } = feed;
  assert.deepEqual([feed.kind, feed.nFf, experts?.shared], ['experts', 32, { nFf: 128, gated: false }]);
  assert.deepEqual([experts?.norms, experts?.routerNorm], [{ eps: 1e-5 }, { eps: 1e-5, scale: 1 / 16 }]);
  assert.deepEqual([experts?.router.normalize, experts?.router.scores], [true, 'softmax']);
  const of = (/** @type {string} */ role) => plan.tensors.find((one) => one.role === `layers.1.feed.${role}`);
  assert.deepEqual(
    ['norm', 'sharedNorm', 'sharedGate', 'routerNorm', 'downFactor'].map((role) => of(role)?.name),
    [
      'pre_ffw_norm_2.weight',
      'ffn_norm.weight',
      'ffn_gate.weight',
      'ffn_gate_inp.scale',
      'ffn_down_exps.scale',
    ].map((name) => `blk.1.${name}`),
  );
  assert.deepEqual(
    [of('gateUp')?.nRows, of('gateUp')?.alternating, of('routerFactor')],
    [512, 32, undefined],
  );
  assert.deepEqual([of('downFactor')?.nCols, of('downFactor')?.use], [8, 'vector']);
  assert.deepEqual(plan.shared['layers.1.feed.up'], { of: 'layers.1.feed.gateUp', start: 256, nRows: 256 });
});

test('plans: the GPU names what gemma4 needs', () => {
  const keys = { ...GEMMA4, embedding_length_per_layer_input: 16, 'attention.shared_kv_layers': 2 };
  const { plan } = planOf('gemma4', keys);
  const run = /** @type {const} */ ({ contextLength: 64, kvType: 'F16' });
  const scale = /** @type {any} */ ({
    name: 'blk.0.layer_output_scale.weight',
    type: 'F32',
    supported: true,
  });
  assert.deepEqual(lacksOnGpu(plan, [scale], run, { bindingBytes: 2 ** 27 }), [
    'norms of values are not supported on the GPU',
    'keys and values of earlier layers are not supported on the GPU',
    'inputs of layers beside the hidden states are not supported on the GPU',
    'factors of hidden states are not supported on the GPU',
  ]);
  assert.deepEqual(lacks(plan, []), []);
});

const path = dataPath('arch/models/gemma4-A.gguf');
const absent = skipWithout('arch/models/gemma4-A.gguf');

test('layers that read the keys and values of others, over a text that is longer than the caches', async (t) => {
  const settings = /** @type {const} */ ({ activation: 'f32', kvType: 'F32' });
  const made = makeModel({ nLayers: 3, context: 800, nEmbd: 32, nFf: 32, nHeads: 2 });
  /** @param {Backend} backend */
  const load = async (backend) => {
    const { lacks: own } = backend;
    backend.lacks = (plan, ...more) => {
      for (const i of [0, 2]) Object.assign(plan.layers[i].attention ?? {}, { window: 8 });
      Object.assign(plan.layers[2].attention ?? {}, { kvBack: 2 });
      return own.call(backend, plan, ...more);
    };
    const model = await Llama.loadTo(async () => backend, made.bytes.buffer, settings);
    t.after(() => model.dispose());
    return model;
  };
  const wasm = await load(await openWasmBackend(undefined, { threads: 1 }, settings));
  const reference = await load(new ReferenceBackend());
  const prng = new Prng(4);
  const tokens = Array.from({ length: LARGEST_BATCH + 88 }, () => prng.int(3, 39));
  close(await wasm.logits(tokens), await reference.logits(tokens), 1e-5, 'logits');
  const [run, expected] = [wasm, reference].map((model) =>
    model.generate(tokens.slice(0, 300), { temperature: 0, maxTokens: 8, ignoreEnd: true }),
  );
  await run.text();
  await expected.text();
  assert.deepEqual(run.tokens, expected.tokens);
});

test('gemma4: layers that read the keys and values of others have no cache', { skip: absent }, async () => {
  const model = await Llama.load(path, { contextLength: 2048, threads: 1, kvType: 'F16' });
  // Two layers with a window of 8 and heads of 32, two without and heads of 64; keys and values.
  assert.equal(model.info.memory.kvCache, 2 * 2 * 2 * (32 * (8 + LARGEST_BATCH) + 64 * 2048));
  model.dispose();
});

test('gemma4: its layers stay on one device', { skip: absent }, async () => {
  const list = [{ backend: 'cpu', layers: 2 }, { backend: 'cpu' }];
  await assert.rejects(
    Llama.load(path, { threads: 1, backend: /** @type {any} */ (list) }),
    (error) =>
      error instanceof ModelError &&
      /each layer reads inputs that are computed with the embedding: layer 2 must be/.test(error.message),
  );
  // On a GPU that computes none of its layers, all go to the CPU.
  const open = async (/** @type {BackendPart} */ part) => {
    const backend = new ReferenceBackend();
    if (part.backend === 'gpu') backend.lacks = () => ['it is of another kind'];
    return backend;
  };
  const model = await Llama.loadTo(
    (_, facts) => openStages([{ backend: 'gpu', layers: 6 }], facts, open, true),
    path,
    { contextLength: 32 },
  );
  assert.equal(model.info.backend.name, 'cpu');
  model.dispose();
});

test('layers that share keys and values may be divided, but not from each other', async () => {
  const source = /** @type {ArrayBuffer} */ (makeModel({ nLayers: 4 }).bytes.buffer);
  /** @param {readonly number[]} counts */
  const load = (counts) =>
    Llama.loadTo(
      (_, facts) => {
        for (const layer of [2, 3])
          Object.assign(facts.plan.layers[layer].attention ?? {}, { kvBack: layer - 1 });
        const parts = counts.map((layers) => ({ backend: /** @type {const} */ ('cpu'), layers }));
        return openStages(parts, facts, async () => new ReferenceBackend(), true);
      },
      source,
      { kvType: 'F32', activation: 'f32' },
    );
  const tokens = [1, 17, 5, 30, 9, 9, 22, 3];
  const one = await load([4]);
  const expected = await one.logits(tokens);
  one.dispose();
  const two = await load([1, 3]);
  close(await two.logits(tokens), expected, 1e-6, 'logits');
  two.dispose();
  await assert.rejects(
    load([3, 1]),
    (error) =>
      error instanceof ModelError &&
      error.message === 'layer 3 reads the keys and values of layer 1: both must be on the same device',
  );
});
