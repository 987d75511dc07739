/**
 * LoRA adapters: a model with adapters computes what the model with merged weights does in float64, for
 * every product of every kind of layer. FM_ADAPTER_SEED sets the seed by which some models are drawn;
 * FM_TEST_DEEP=1 runs all of them.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createKernels, Llama, openGguf, SavedContextError } from '../../js/llama/index.js';
import { openWasmBackend } from '../../js/wasm/backend.js';
import { makeAdapter, mergeAdapters, shapesOf } from '../helpers/adapters.js';
import { changedGguf, floats } from '../helpers/changed-gguf.js';
import { distance } from '../helpers/llama.js';
import { draw } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { dataPath, listData, skipWithout } from '../helpers/test-data.js';

/** @import { TestContext } from 'node:test' */
/** @import { LlamaOptions } from '../../js/llama/load-options.js' */

const SEED = Number(process.env.FM_ADAPTER_SEED ?? 20261128);
const DEEP = process.env.FM_TEST_DEEP === '1';
const EXACT = /** @type {const} */ ({ activation: 'f32', kvType: 'F32', threads: 1, contextLength: 32 });
const TOKENS = [1, 17, 300, 30, 9, 9, 22, 3];
const TEXT = 'the fox is here';
/** The limit of the test data's README for f32 arithmetic; both sides have an exact GELU. */
const LIMIT = 5e-4;
/** Least change by an adapter, so that one that is ignored is found. */
const EFFECT = 0.02;

/**
 * Models with something special, and the type, rank and alpha of their adapter.
 * @type {Record<string, { type?: string, rank?: number, alpha?: number }>}
 */
const SPECIAL = {
  'llama-rope3-A': { type: 'F16', rank: 8, alpha: 16 },
  // Queries, keys and values share a matrix, and gate and up another.
  'phi3-A': { type: 'BF16' },
  // Norms of heads; tied.
  'qwen3-A': { type: 'Q8_0', rank: 32, alpha: 0.6 },
  // Matrices with factors.
  'llama-NVFP4-A': {},
  // Experts with factors; gate and up alternate in a matrix; keys that are values too.
  'gemma4-moe-A': { rank: 1, alpha: 4 },
  // Inputs of layers beside the hidden states.
  'gemma4-A': {},
  // Latent attention, a shared expert.
  'deepseek2-A': {},
  // Recurrent blocks of three kinds.
  'qwen35-A': {},
  'lfm2-A': {},
  'falcon-h1-A': {},
  // Encoders: all tokens see each other; products after the pooling.
  'bert-A': {},
  'gemma-embedding-A': {},
};
/** Layers that the runner does not use. @type {Record<string, RegExp>} */
const UNUSED = { 'qwen35-A': /^blk\.3\./ };

const absent = skipWithout('arch/models');
const all = absent ? [] : listData('arch/models').map((file) => file.replace(/\.gguf$/, ''));
const others = all.filter((name) => !(name in SPECIAL));
const drawn = DEEP ? others : draw(others, 2, SEED);

/** @param {string} name */
const pathOf = (name) => dataPath(`arch/models/${name}.gguf`);

/**
 * An adapter for all matrices of a model, or for some.
 * @param {string} name @param {object} [spec] @param {RegExp} [only]
 */
async function adapterFor(name, spec = {}, only = /^/) {
  const gguf = await openGguf(pathOf(name));
  const architecture = String(gguf.metadata['general.architecture']);
  gguf.close();
  const shapes = Object.fromEntries(
    Object.entries(await shapesOf(pathOf(name))).filter(
      ([tensor]) => only.test(tensor) && !UNUSED[name]?.test(tensor),
    ),
  );
  return makeAdapter({ shapes, architecture, ...spec });
}

/** Logits of a model, or the vector of an encoder. @param {Llama} model */
const resultsOf = (model) => (model.info.causal ? model.logits(TOKENS) : model.embed(TEXT));

/**
 * @param {TestContext} t @param {string | ArrayBuffer} source @param {LlamaOptions} [options]
 * @param {number} [batch]  tokens that are computed at a time
 */
async function load(t, source, options = {}, batch = undefined) {
  const given = { ...EXACT, ...options };
  const { threads, activation, kvType } = given;
  const open = async () => {
    const backend = await openWasmBackend(undefined, { threads }, { activation, kvType });
    const { sizes } = backend;
    if (batch)
      backend.sizes = (plan, settings) => ({ ...sizes.call(backend, plan, settings), batch, part: batch });
    return backend;
  };
  const { threads: _, ...rest } = given;
  const model = batch ? await Llama.loadTo(open, source, rest) : await Llama.load(source, given);
  t.after(() => model.dispose());
  return model;
}

/** @param {TestContext} t @param {string | ArrayBuffer} source */
async function reference(t, source) {
  const model = await Llama.loadTo(async () => new ReferenceBackend(), source, { contextLength: 32 });
  t.after(() => model.dispose());
  return model;
}

for (const name of [...Object.keys(SPECIAL), ...drawn]) {
  test(`adapters: ${name} is like the model with merged weights`, { skip: absent }, async (t) => {
    const adapters = [{ source: await adapterFor(name, SPECIAL[name]) }];
    const merged = await reference(t, await mergeAdapters(pathOf(name), adapters));
    const expected = await resultsOf(merged);
    const effect = distance(await resultsOf(await load(t, pathOf(name))), expected).max;
    assert.ok(effect > EFFECT, `the adapter changes only ${effect}`);
    const { causal } = merged.info;
    for (const batch of causal ? [undefined, 3, 1] : [undefined]) {
      const model = await load(t, pathOf(name), { adapters }, batch);
      const { max } = distance(await resultsOf(model), expected);
      t.diagnostic(`ran: ${name}, ${batch ?? 'all'} at a time, seed ${SEED}: ${max.toExponential(1)}`);
      assert.ok(max <= LIMIT, `${batch ?? 'all'} at a time: largest difference ${max}`);
    }
  });
}

test('adapters: each kind of matrix by itself', { skip: absent }, async (t) => {
  // The same matrix handle must not be taken for another one.
  for (const [name, only] of /** @type {const} */ ([
    ['qwen3-A', /^token_embd/],
    ['phi3-A', /^output\./],
    ['llama-rope3-A', /ffn_down/],
    ['llama-rope3-A', /blk\.0\.ffn_gate/],
    ['phi3-A', /attn_qkv/],
    ['gemma4-moe-A', /attn_k\./],
    ['qwen2moe-A', /ffn_down_exps/],
  ])) {
    const adapters = [{ source: await adapterFor(name, {}, only) }];
    const expected = await resultsOf(await reference(t, await mergeAdapters(pathOf(name), adapters)));
    const model = await load(t, pathOf(name), { adapters });
    const { max } = distance(await resultsOf(model), expected);
    assert.ok(max <= LIMIT, `${name} ${only}: ${max}`);
    const effect = distance(await resultsOf(await load(t, pathOf(name))), expected).max;
    assert.ok(effect > EFFECT, `${name} ${only}: only ${effect}`);
  }
});

test('adapters: several are added, each with its scale and rank', { skip: absent }, async (t) => {
  const name = 'qwen3-A';
  const adapters = [
    { source: await adapterFor(name, { seed: 3, rank: 2 }), scale: 0.5 },
    { source: await adapterFor(name, { seed: 4, rank: 5, metadata: { 'adapter.lora.alpha': undefined } }) },
    { source: await adapterFor(name, { seed: 5, alpha: 0 }, /attn_q|ffn_down/), scale: -1.5 },
  ];
  const model = await load(t, pathOf(name), { adapters });
  const expected = await resultsOf(await reference(t, await mergeAdapters(pathOf(name), adapters)));
  const { max } = distance(await resultsOf(model), expected);
  assert.ok(max <= LIMIT, `${max}`);
  const { adapters: infos, memory, types } = model.info;
  const nMatrices = Object.keys(await shapesOf(pathOf(name))).length;
  assert.deepEqual(
    infos.map(({ bytes: _, ...info }) => info),
    [
      { name: 'adapter 3', rank: 2, alpha: 16, scale: 0.5, tensors: 2 * nMatrices },
      { name: 'adapter 4', rank: 5, alpha: 0, scale: 1, tensors: 2 * nMatrices },
      { name: 'adapter 5', rank: 4, alpha: 0, scale: -1.5, tensors: 8 },
    ],
  );
  const own = Object.values(types).reduce((sum, { bytes }) => sum + bytes, 0);
  const added = infos.reduce((sum, { bytes }) => sum + bytes, 0);
  assert.equal(memory.weights, own + added);
  // a and b of rank 4 in F32, for two layers.
  assert.equal(infos[2].bytes, 2 * 4 * 4 * (256 + 128 + 128 + 256));
  const base = await load(t, pathOf(name));
  assert.deepEqual(
    [base.info.adapters, base.info.types, base.info.parameters],
    [[], types, model.info.parameters],
  );
});

test('adapters: a scale of 0 gives the bits of the base, in every mode', { skip: absent }, async (t) => {
  for (const activation of /** @type {const} */ (['int8', 'f32'])) {
    for (const name of ['phi3-A', 'llama-moe-A']) {
      const base = await resultsOf(await load(t, pathOf(name), { activation }));
      const source = await adapterFor(name);
      for (const adapters of [[], [{ source, scale: 0 }]])
        assert.deepEqual(await resultsOf(await load(t, pathOf(name), { activation, adapters })), base);
    }
  }
});

test('adapters: int8 and int16 are as close as without adapters', { skip: absent }, async (t) => {
  // Additions in F32 have f32 activations, so the rounding is that of the base's own products: its error
  // with other numbers, for which twice as much is allowed.
  for (const name of ['llama-rope3-A', 'phi3-A', 'qwen3-A']) {
    const adapters = [{ source: await adapterFor(name) }];
    const expected = await resultsOf(await reference(t, await mergeAdapters(pathOf(name), adapters)));
    const ofBase = await resultsOf(await reference(t, pathOf(name)));
    for (const activation of /** @type {const} */ (['int8', 'int16'])) {
      const base = await load(t, pathOf(name), { activation });
      const model = await load(t, pathOf(name), { activation, adapters });
      const allowed = 2 * distance(await resultsOf(base), ofBase).rms + 1e-5;
      const { rms } = distance(await resultsOf(model), expected);
      t.diagnostic(`ran: ${name}, ${activation}: rms ${rms.toExponential(1)} of ${allowed.toExponential(1)}`);
      assert.ok(rms <= allowed, `${name}, ${activation}: rms ${rms} of ${allowed}`);
    }
  }
});

test('adapters: long texts, with more additions than the work memory holds at a time', async () => {
  const { bytes } = makeModel({ causal: false, nFf: 1024, context: 640 });
  const shapes = { 'token_embd.weight': [64, 40], 'blk.1.ffn_up.weight': [64, 1024] };
  const text = String.fromCharCode(...Array.from({ length: 600 }, (_, i) => 0x4e03 + ((i * i) % 37)));
  for (const some of [shapes, { 'token_embd.weight': [64, 40] }]) {
    const adapters = [{ source: makeAdapter({ shapes: some }) }];
    const vectors = [];
    for (const [source, options] of /** @type {[ArrayBuffer, LlamaOptions][]} */ ([
      [bytes.buffer, { adapters }],
      [await mergeAdapters(bytes, adapters), {}],
      [bytes.buffer, {}],
    ])) {
      const model = await Llama.load(source, { ...EXACT, contextLength: 640, ...options });
      vectors.push(await model.embed(text, { pooling: 'none' }));
      model.dispose();
    }
    const [got, expected, base] = vectors;
    assert.equal(got.length, 601 * 64);
    assert.ok(distance(got, expected).max < 1e-5, `${distance(got, expected).max}`);
    // The last rows too are changed by the adapter.
    assert.ok(distance(got.slice(-64), base.slice(-64)).max > 1e-3);
  }
});

test('adapters: threads and divided models give the same bits', { skip: absent }, async (t) => {
  const name = 'phi3-A';
  const backend = /** @type {const} */ ([{ backend: 'cpu', layers: 1 }, { backend: 'cpu' }]);
  // The second device counts its layers from 0.
  for (const only of [/^/, /^blk\.1\./]) {
    const adapters = [{ source: await adapterFor(name, {}, only) }];
    const expected = await resultsOf(await load(t, pathOf(name), { adapters }));
    assert.deepEqual(await resultsOf(await load(t, pathOf(name), { adapters, threads: 2 })), expected);
    assert.deepEqual(await resultsOf(await load(t, pathOf(name), { adapters, backend })), expected);
  }
});

test('adapters: a matrix whose factor is 0 takes none', { skip: absent }, async () => {
  const name = 'llama-rope3-A';
  const file = await changedGguf(pathOf(name), { tensors: [floats('blk.0.attn_q.scale', [1], [0])] });
  const only = { ...EXACT, adapters: [{ source: await adapterFor(name, {}, /^blk\.0\.attn_q\./) }] };
  await assert.rejects(Llama.load(file, only), {
    name: 'ModelError',
    message: 'an adapter cannot be added to layers.0.attention.q: its factor is 0',
  });
});

test('adapters: several parts of a divided model on one device', async (t) => {
  const { bytes } = makeModel({ nLayers: 4 });
  const model = /** @type {ArrayBuffer} */ (bytes.buffer);
  const { lacks } = await import('../../js/gpu/fit.js');
  const { openStages } = await import('../../js/llama/stages.js');
  // The CPU computes the layers 0 and 2, since a GPU knows no adapters.
  const shapes = { 'blk.0.attn_q.weight': [64, 64], 'blk.2.ffn_down.weight': [96, 64] };
  const options = { ...EXACT, adapters: [{ source: makeAdapter({ shapes }) }] };
  const open = async (/** @type {{ backend: string }} */ { backend: name }) => {
    const settings = { activation: EXACT.activation, kvType: EXACT.kvType };
    const backend = await openWasmBackend(undefined, { threads: 1 }, settings);
    if (name === 'gpu')
      backend.lacks = (/** @type {any[]} */ ...args) =>
        lacks(.../** @type {[any, any, any]} */ (args), { bindingBytes: 2 ** 27 });
    return backend;
  };
  /** @type {any} */
  const openDivided = (/** @type {any} */ _, /** @type {any} */ facts) =>
    openStages([{ backend: 'gpu' }], facts, open, false);
  const [whole, divided, alone] = [
    await Llama.load(model, options),
    await Llama.loadTo(openDivided, model, options),
    await Llama.load(model, EXACT),
  ];
  for (const one of [whole, divided, alone]) t.after(() => one.dispose());
  assert.deepEqual(
    divided.info.backend.layers?.map(({ backend }) => backend),
    ['cpu', 'gpu', 'cpu', 'gpu'],
  );
  const tokens = TOKENS.filter((token) => token < 40);
  const expected = await whole.logits(tokens);
  assert.deepEqual(await divided.logits(tokens), expected);
  assert.ok(distance(await alone.logits(tokens), expected).max > EFFECT);
});

test('adapters: contexts side by side, embeddings, saved contexts', { skip: absent }, async (t) => {
  const name = 'qwen3-A';
  const source = await adapterFor(name);
  const adapters = [{ source }];
  const model = await load(t, pathOf(name), { adapters });
  const merged = await reference(t, await mergeAdapters(pathOf(name), adapters));
  const [vector, expected] = [await model.embed(TEXT), await merged.embed(TEXT)];
  assert.ok(distance(vector, expected).max < 1e-5);
  const greedy = { temperature: 0, ignoreEnd: true, maxTokens: 8 };
  const alone = model.generate(TOKENS, greedy);
  await alone.text();
  const [a, b] = [await model.context(), await model.context()];
  const runs = [a.generate(TOKENS, greedy), b.generate(TOKENS, greedy)];
  await Promise.all(runs.map((run) => run.text()));
  assert.deepEqual(
    runs.map(({ tokens }) => tokens),
    [alone.tokens, alone.tokens],
  );
  const bytes = await a.save();
  const again = await load(t, pathOf(name), { adapters });
  const restored = await again.restoreContext(bytes);
  const known = restored.tokens;
  const more = [...known, 17];
  const [here, there] = [restored.generate(more, greedy), a.generate(more, greedy)];
  assert.equal(await here.text(), await there.text());
  assert.equal(here.stats.reusedTokens, known.length);

  const other = await adapterFor(name, {
    change: (/** @type {any[]} */ tensors) => {
      const [first] = tensors;
      first.data[0] ^= 1;
      return tensors;
    },
  });
  /** @param {RegExp} message */
  const refused = (message) => (/** @type {unknown} */ error) =>
    error instanceof SavedContextError && error.reason === 'model' && message.test(error.message);
  for (const [options, message] of /** @type {[LlamaOptions, RegExp][]} */ ([
    [{}, /other adapters: "adapter 1" \(scale 1, checksum \d+\); this model has none$/],
    [{ adapters: [{ source, scale: 0.5 }] }, /this model has "adapter 1" \(scale 0\.5, checksum \d+\)$/],
    [{ adapters: [{ source: other }] }, /this model has "adapter 1" \(scale 1, checksum \d+\)$/],
  ])) {
    const foreign = await load(t, pathOf(name), options);
    await assert.rejects(foreign.restoreContext(bytes), refused(message));
  }
  const base = await load(t, pathOf(name));
  const plain = await (await base.context()).save();
  await assert.rejects(
    model.restoreContext(plain),
    refused(/other adapters: none; this model has "adapter 1"/),
  );
  const off = await load(t, pathOf(name), { adapters: [{ source, scale: 0 }] });
  assert.deepEqual((await off.restoreContext(plain)).tokens, []);
});

test('adapters: memory is freed with the model, and by a failure', { skip: absent }, async (t) => {
  const fm = await createKernels({ threads: 1 });
  t.after(() => fm.dispose());
  const source = await adapterFor('phi3-A');
  const options = { kernels: fm, contextLength: 32 };
  const before = fm.memory().inUse;
  const load = async (/** @type {any[]} */ adapters) =>
    Llama.load(pathOf('phi3-A'), { ...options, adapters });
  const model = await load([{ source }]);
  const { memory } = model.info;
  assert.ok(fm.memory().inUse - before >= memory.weights + memory.kvCache);
  assert.ok(fm.memory().inUse - before <= memory.weights + memory.kvCache + memory.workspace + 1e5);
  await model.logits(TOKENS);
  model.dispose();
  // The kernels' own memory has grown by now.
  const kept = fm.memory().inUse;
  const again = await load([{ source }, { source, scale: 2 }]);
  await again.logits(TOKENS);
  again.dispose();
  const stop = new AbortController();
  const failing = { ...options, adapters: [{ source }], signal: stop.signal, onProgress: () => stop.abort() };
  await assert.rejects(Llama.load(pathOf('phi3-A'), failing), { name: 'AbortError' });
  assert.equal(fm.memory().inUse, kept);
});
