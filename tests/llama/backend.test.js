/**
 * The interface of js/backend.js: the whole runner on plain float64 JavaScript, where it gives
 * llama.cpp's logits, and the wasm backend compared with it, block by block and as a whole, with
 * every setting of a plan.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Llama, ModelError, NumericError } from '../../js/llama/index.js';
import { Sampler } from '../../js/llama/sampler.js';
import { latentModel } from '../helpers/latent-model.js';
import {
  checkGreedy,
  close,
  distance,
  GREEDY,
  MODELS,
  peakOf,
  readReference,
  SMALL_MODELS,
  TOKENS,
} from '../helpers/llama.js';
import { load, logitsOf, matrix, planned, settings, vector, wasmBackend } from '../helpers/planned.js';
import { Prng } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeModel } from '../helpers/synthetic-llama.js';

/** @import { Backend } from '../../js/backend.js' */
/** @import { AttentionPlan as Plan } from '../../js/llama/plan.js' */
/** @import { Spec } from '../helpers/synthetic-llama.js' */
/** @import { TensorSpec } from '../helpers/gguf-bytes.js' */

/** Both compute in float64. Results are rounded to f32 once, when they are read. */
const SAME = 1e-6;
/**
 * As in architectures.test.js: f32 rounds each of some ten operations of a layer by 2^-24 of values
 * up to a few times the outputs.
 */
const RELATIVE = 3e-5;

/**
 * @param {import('../../js/gguf/source.js').GgufSource} source @param {ReferenceBackend} backend
 * @param {object} [options]
 */
const loadTo = (source, backend, options) => Llama.loadTo(async () => backend, source, options);

for (const [name, spec] of SMALL_MODELS) {
  test(`backend: the whole runner on float64 JavaScript, ${name}`, async () => {
    const made = makeModel(spec);
    const backend = new ReferenceBackend();
    const model = await loadTo(made.bytes.buffer, backend);
    close(await model.logits(TOKENS), made.logits(TOKENS), SAME, 'logits');
    assert.equal(model.info.batch, spec.causal === false ? 64 : 3);
    if (spec.causal !== false) await checkGreedy(model, made, 3);
    const text = model.detokenize(TOKENS.slice(1, 4));
    assert.ok(Math.abs(Math.hypot(...(await model.embed(text))) - 1) < 1e-6);
    model.dispose();
    assert.equal(backend.disposed, true);
    assert.deepEqual(
      backend.made.filter(({ freed }) => !freed),
      [],
      'everything is given back',
    );
  });
}

/** Small models of several types; only the first tokens of their prompts. */
const SAMPLED = /^(stories260K-|tiny-tales)/;
const N_TOKENS = 6;
for (const [name, path, skip] of MODELS.filter(([name]) => SAMPLED.test(name))) {
  test(`backend: llama.cpp's logits on float64 JavaScript, ${name}`, { skip }, async (t) => {
    const model = await loadTo(path, new ReferenceBackend());
    t.after(() => model.dispose());
    const { reference, logits } = readReference(name);
    let largest = 0;
    for (const prompt of reference.prompts) {
      const tokens = prompt.tokens.slice(0, N_TOKENS);
      const expected = logits(prompt).subarray(0, tokens.length * reference.n_vocab);
      const { max } = distance(await model.logits(tokens), expected);
      largest = Math.max(largest, max);
    }
    t.diagnostic(`ran: ${name}: largest difference ${largest.toExponential(1)}`);
    assert.ok(largest <= 2e-4, `largest difference ${largest}`);
    const run = model.generate(reference.prompts[0].text, { temperature: 0, maxTokens: 3 });
    await run.text();
    assert.deepEqual(run.tokens, reference.greedy.tokens.slice(0, 3));
  });
}

/**
 * One matrix with the rows of several matrices of one type.
 * @param {TensorSpec[]} list @param {string[]} names @param {string} name
 */
function fuse(list, names, name) {
  const parts = names.map((one) => list.find((other) => other.name === one) ?? assert.fail(one));
  const data = Buffer.concat(parts.map((part) => /** @type {Uint8Array} */ (part.data)));
  const shape = [parts[0].shape[0], parts.reduce((sum, part) => sum + Number(part.shape[1]), 0)];
  const rest = list.filter((one) => !parts.includes(one));
  return [...rest, { ...parts[0], name, shape, data: new Uint8Array(data) }];
}

/**
 * Every setting of a plan by itself: a spec of the model, and the change of its plan.
 * @type {Record<string, [Spec, (plan: Plan) => void]>}
 */
const SETTINGS = {
  'as it is': [{}, () => {}],
  'a window in one layer': [{}, ({ layers }) => Object.assign(layers[1].attention, { window: 3 })],
  'scale of the scores': [{}, ({ layers }) => Object.assign(layers[0].attention, { scale: 0.7 })],
  'softcap of the scores': [{}, ({ layers }) => Object.assign(layers[0].attention, { softcap: 0.1 })],
  'window, scale and softcap': [
    { architecture: 'qwen3' },
    ({ layers }) => Object.assign(layers[1].attention, { window: 5, scale: 0.3, softcap: 2.5 }),
  ],
  'embedding scale': [{}, (plan) => Object.assign(plan.embedding, { scale: 0.125 })],
  'residual scales': [
    {},
    ({ layers }) => {
      Object.assign(layers[0].attention, { residualScale: 0.35 });
      Object.assign(layers[1].feed, { residualScale: 1.5 });
    },
  ],
  'logit scale and softcap': [{}, ({ head }) => Object.assign(head, { scale: 0.5, softcap: 2 })],
  'a window to both sides': [
    { causal: false },
    ({ layers }) => Object.assign(layers[1].attention, { window: 4 }),
  ],
  'layer norms': [
    {},
    ({ layers, head }) => {
      for (const norm of [layers[0].attention.norm, layers[1].feed.norm, head.norm])
        Object.assign(norm ?? {}, { kind: 'layer' });
    },
  ],
  'norms of the sums': [
    {},
    ({ layers, shared }) => {
      for (const [i, part] of /** @type {const} */ ([
        [0, 'attention'],
        [0, 'feed'],
        [1, 'feed'],
      ])) {
        layers[i][part].sumNorm = { kind: i === 0 ? 'layer' : 'rms', eps: 0.1 };
        shared[`layers.${i}.${part}.sumNorm`] = { of: `layers.${i}.${part}.norm` };
        if (i === 0) shared[`layers.${i}.${part}.sumNormBias`] = { of: 'head.norm' };
      }
      layers[1].feed.residualScale = 0.5;
    },
  ],
  'a norm of the embeddings, and positions': [
    {},
    ({ embedding, shared }) => {
      embedding.norm = { kind: 'layer', eps: 0.01 };
      shared['embedding.norm'] = { of: 'head.norm' };
      shared['embedding.positions'] = { of: 'embedding.table' };
    },
  ],
  'GELU and SiLU without gates': [
    {},
    ({ layers }) => {
      Object.assign(layers[0].feed, { kind: 'plain', activation: 'gelu' });
      Object.assign(layers[1].feed, { kind: 'plain', activation: 'silu', norm: undefined });
    },
  ],
  'a layer without RoPE': [{}, ({ layers }) => Object.assign(layers[1].attention, { rope: undefined })],
  'RoPE of its own in a layer': [
    {},
    ({ layers }) =>
      Object.assign(layers[1].attention, {
        rope: { pairing: 'halves', nDims: 6, base: 300, linearScale: 0.5, magnitude: 1 },
      }),
  ],
  'divided frequencies and a magnitude': [
    {},
    ({ layers }) =>
      Object.assign(layers[1].attention.rope ?? {}, {
        divisors: [1, 1, 1.5, 2.5, 4, 8, 8, 8],
        magnitude: 1.2,
      }),
  ],
  'divided frequencies beside factors of the file': [
    { factors: true, nDims: 8 },
    ({ layers }) => {
      for (const { attention } of layers)
        Object.assign(attention.rope ?? {}, { divisors: [1, 2, 4, 8], magnitude: 0.9 });
    },
  ],
  'queries that grow with the position': [
    {},
    ({ layers }) => Object.assign(layers[0].attention, { temperature: { scale: 0.8, length: 4 } }),
  ],
  'no norm before, one after': [
    {
      change: (list) => [
        ...list,
        vector('blk.0.post_attention_norm.weight', 64, 1),
        vector('blk.1.post_ffw_norm.weight', 64, 2),
      ],
    },
    ({ layers, tensors }) => {
      const row = /** @type {const} */ ({ nRows: 1, nCols: 64, use: 'vector', optional: false });
      tensors.push(
        { role: 'layers.0.attention.postNorm', name: 'blk.0.post_attention_norm.weight', ...row },
        { role: 'layers.1.feed.postNorm', name: 'blk.1.post_ffw_norm.weight', ...row },
      );
      const postNorm = { kind: 'rms', eps: 1e-3 };
      Object.assign(layers[0].attention, { norm: undefined, postNorm });
      Object.assign(layers[1].feed, { norm: undefined, postNorm, residualScale: 0.5 });
    },
  ],
  'norms of heads after RoPE': [
    { architecture: 'qwen3' },
    ({ layers }) => {
      for (const { attention } of layers) Object.assign(attention.qkNorm ?? {}, { afterRope: true });
    },
  ],
  'norms of all heads together': [
    {
      change: (list) => [
        ...list,
        vector('blk.0.attn_q_norm.weight', 64, 3),
        vector('blk.0.attn_k_norm.weight', 32, 4),
      ],
    },
    ({ layers, tensors }) => {
      const row = /** @type {const} */ ({ nRows: 1, use: 'vector', optional: false });
      tensors.push(
        { role: 'layers.0.attention.qNorm', name: 'blk.0.attn_q_norm.weight', nCols: 64, ...row },
        { role: 'layers.0.attention.kNorm', name: 'blk.0.attn_k_norm.weight', nCols: 32, ...row },
      );
      const qkNorm = { kind: 'rms', eps: 0.05, span: 'row', afterRope: false };
      Object.assign(layers[0].attention, { qkNorm });
    },
  ],
  'the gate is GELU': [{}, ({ layers }) => Object.assign(layers[0].feed, { activation: 'gelu' })],
  'the gate is ReLU': [{}, ({ layers }) => Object.assign(layers[0].feed, { activation: 'relu' })],
  'no gate, squared ReLU': [
    { change: (list) => list.filter(({ name }) => !/ffn_gate/.test(name)) },
    (plan) => {
      plan.tensors = plan.tensors.filter(({ name }) => !/ffn_gate/.test(name));
      for (const { feed } of plan.layers) Object.assign(feed, { kind: 'plain', activation: 'relu2' });
      Object.assign(plan.layers[1].feed, { residualScale: 0.5 });
    },
  ],
  'no gate and no norm': [
    { change: (list) => list.filter(({ name }) => name !== 'blk.1.ffn_gate.weight') },
    (plan) => {
      plan.tensors = plan.tensors.filter(({ name }) => name !== 'blk.1.ffn_gate.weight');
      Object.assign(plan.layers[1].feed, { kind: 'plain', activation: 'relu2', norm: undefined });
    },
  ],
  'a bias of the output': [
    { headSize: 8, change: (list) => [...list, vector('blk.0.attn_output.bias', 64, 5)] },
    () => {},
  ],
  'queries, keys and values in one matrix': [
    {
      type: 'Q8_0',
      qkType: 'Q8_0',
      change: (list) =>
        fuse(
          list,
          ['q', 'k', 'v'].map((name) => `blk.1.attn_${name}.weight`),
          'blk.1.attn_qkv.weight',
        ),
    },
    (plan) => {
      plan.tensors = plan.tensors.filter(({ name }) => !/^blk.1.attn_[qkv].weight$/.test(name));
      const row = /** @type {const} */ ({ nRows: 128, nCols: 64, use: 'matrix', optional: false });
      plan.tensors.push({ role: 'layers.1.attention.qkv', name: 'blk.1.attn_qkv.weight', ...row });
      const of = 'layers.1.attention.qkv';
      plan.shared['layers.1.attention.q'] = { of, start: 0, nRows: 64 };
      plan.shared['layers.1.attention.k'] = { of, start: 64, nRows: 32 };
      plan.shared['layers.1.attention.v'] = { of, start: 96, nRows: 32 };
    },
  ],
  'values that are normalised': [
    {},
    ({ layers }) => Object.assign(layers[1].attention, { valueNorm: { eps: 0.1 } }),
  ],
  'values that are the product of the keys': [
    { change: (list) => list.filter(({ name }) => name !== 'blk.1.attn_v.weight') },
    (plan) => {
      plan.tensors = plan.tensors.filter(({ name }) => name !== 'blk.1.attn_v.weight');
      plan.shared['layers.1.attention.v'] = { of: 'layers.1.attention.k' };
    },
  ],
  'keys and values of an earlier layer': [
    { nLayers: 3 },
    ({ layers }) => {
      for (const i of [0, 2]) layers[i].attention.window = 3;
      layers[2].attention.kvBack = 2;
    },
  ],
  'a factor of the hidden states': [
    { change: (list) => [...list, vector('blk.0.layer_output_scale.weight', 1, 6)] },
    ({ tensors }) => {
      const one = /** @type {const} */ ({ nRows: 1, nCols: 1, use: 'factor', optional: false });
      tensors.push({ role: 'layers.0.feed.sumFactor', name: 'blk.0.layer_output_scale.weight', ...one });
    },
  ],
  'inputs of layers': [
    {
      change: (list) => [
        ...list,
        matrix('per_layer_token_embd.weight', 40, 16, 7),
        matrix('per_layer_model_proj.weight', 16, 64, 8),
        vector('per_layer_proj_norm.weight', 8, 9),
        ...[0, 1].flatMap((i) => [
          matrix(`blk.${i}.inp_gate.weight`, 8, 64, 10 + i),
          matrix(`blk.${i}.proj.weight`, 64, 8, 12 + i),
          vector(`blk.${i}.post_norm.weight`, 64, 14 + i),
        ]),
      ],
    },
    ({ embedding, layers, tensors }) => {
      embedding.layerInputs = { size: 8, tableScale: 3, projectionScale: 0.5, eps: 0.1, scale: 0.7 };
      const add = (
        /** @type {string} */ role,
        /** @type {string} */ name,
        /** @type {number} */ nRows,
        /** @type {number} */ nCols,
        /** @type {'matrix' | 'table' | 'vector'} */ use = 'matrix',
      ) => tensors.push({ role, name: `${name}.weight`, nRows, nCols, use, optional: false });
      add('embedding.layerTable', 'per_layer_token_embd', 40, 16, 'table');
      add('embedding.layerProjection', 'per_layer_model_proj', 16, 64);
      add('embedding.layerNorm', 'per_layer_proj_norm', 1, 8, 'vector');
      for (const [i, { feed }] of layers.entries()) {
        feed.layerInput = { activation: i === 0 ? 'gelu' : 'silu', eps: 0.2 };
        add(`layers.${i}.feed.inputGate`, `blk.${i}.inp_gate`, 8, 64);
        add(`layers.${i}.feed.inputOutput`, `blk.${i}.proj`, 64, 8);
        add(`layers.${i}.feed.inputNorm`, `blk.${i}.post_norm`, 1, 64, 'vector');
      }
    },
  ],
  'latent attention': latentModel(),
  'latent attention with queries from two products': latentModel({ layer: 1, latent: { qRank: 20 } }),
  'latent attention with factors of its matrices': latentModel({ factors: true, latent: { qRank: 20 } }),
};
/** Settings whose change is another form of the same model. */
const NEUTRAL = ['as it is', 'queries, keys and values in one matrix'];

for (const [name, [spec, change]] of Object.entries(SETTINGS)) {
  test(`backend: wasm computes what float64 JavaScript does, ${name}`, async (t) => {
    const wasm = await wasmBackend(t);
    const model = await planned(spec, change);
    const expected = await logitsOf(model, new ReferenceBackend());
    close(await logitsOf(model, wasm), expected, RELATIVE, 'logits');
    assert.equal(wasm.kernels.memory().handles, 0, 'everything is given back');
    const without = await logitsOf(
      await planned({ ...spec, change: undefined }, () => {}),
      new ReferenceBackend(),
    );
    const moved = distance(expected, without).max / peakOf(without);
    if (NEUTRAL.includes(name)) assert.equal(moved, 0);
    else assert.ok(moved > 100 * RELATIVE, `the setting shows: ${moved}`);
  });
}

test('backend: one block at a time, on both', async (t) => {
  const model = await planned(SETTINGS['window, scale and softcap'][0], (plan) => {
    SETTINGS['window, scale and softcap'][1](plan);
    plan.embedding.scale = 2;
    plan.layers[0].attention.causal = false;
  });
  const { plan } = model;
  /** @type {Backend[]} */
  const backends = [await wasmBackend(t), new ReferenceBackend()];
  const prng = new Prng(7);
  const random = (/** @type {number} */ n) => Float32Array.from({ length: n }, () => prng.gaussian());
  const states = random(5 * plan.nEmbd);
  /** @type {[string, ArrayLike<number>][][]} */
  const results = [];
  for (const backend of backends) {
    const { byRole } = await load(model, backend);
    const x = backend.hidden(plan, { batch: 5, part: 3 });
    const tokens = backend.tokens(8);
    const logits = backend.tensor({ nRows: 3, nCols: plan.nVocab });
    const [one, two] = plan.layers.map((of, i) => ({ of, weights: byRole.layers[i] }));
    const attention = (/** @type {typeof one} */ { of, weights }) => ({
      settings: of.attention,
      weights: weights.attention,
    });
    const feed = { settings: one.of.feed, weights: one.weights.feed };
    const head = { settings: plan.head, weights: byRole.head };
    const [cacheOne, cacheTwo] = plan.layers.map((layer, i) => backend.cache(layer.attention, settings, i));
    /** @type {[string, ArrayLike<number>][]} */
    const got = [];
    const first = { position: 0, start: 0, nTokens: 3, seen: 3 };
    const rest = { position: 3, start: 3, nTokens: 2, seen: 5 };

    backend.writeTokens(tokens, 0, TOKENS.slice(0, 5));
    const embedding = { settings: plan.embedding, weights: byRole.embedding };
    backend.embed(tokens, x, embedding, { position: 1, start: 1, nTokens: 4, seen: 5 });
    got.push(['embed', await backend.read(x, { start: 1, nRows: 4 })]);
    backend.write(x, 0, states);
    backend.project(x, attention(one), cacheOne, first);
    backend.project(x, attention(one), cacheOne, rest);
    backend.attend(x, attention(one), cacheOne, { ...first, seen: 5 });
    backend.attend(x, attention(one), cacheOne, rest);
    got.push(['attend, every token sees all', await backend.read(x)]);
    backend.write(x, 0, states);
    for (const at of [first, rest]) {
      backend.project(x, attention(two), cacheTwo, at);
      backend.attend(x, attention(two), cacheTwo, at);
    }
    got.push(['attend', await backend.read(x)]);
    backend.write(x, 1, states.subarray(0, plan.nEmbd));
    backend.write(x, 0, states.subarray(plan.nEmbd, 2 * plan.nEmbd));
    const behind = { position: 5, start: 0, nTokens: 2, seen: 7 };
    backend.project(x, attention(two), cacheTwo, behind);
    backend.attend(x, attention(two), cacheTwo, behind);
    got.push(['attend, behind what is in the cache', await backend.read(x, { start: 0, nRows: 2 })]);
    backend.write(x, 0, states);
    backend.feed(x, feed, rest);
    got.push(['feed', await backend.read(x)]);
    backend.write(x, 0, states);
    backend.head(x, head, logits, { start: 2, nRows: 3, position: 2 });
    got.push(['head', await backend.read(logits)]);
    got.push(['readStates', await backend.readStates(x, head, { start: 1, nRows: 3, position: 1 })]);
    backend.check(x, rest, { part: 'attention', layer: 1 });
    await backend.idle();
    const bad = states.slice(0, plan.nEmbd);
    bad[5] = Number.NaN;
    backend.write(x, 4, bad);
    backend.check(x, first, { part: 'attention', layer: 1 });
    await assert.rejects(
      async () => {
        backend.check(x, rest, { part: 'attention', layer: 1 });
        await backend.idle();
      },
      (error) =>
        error instanceof NumericError &&
        error.part === 'attention' &&
        error.layer === 1 &&
        error.position === 4 &&
        Number.isNaN(error.value),
    );
    backend.pick(logits, 1, tokens, new Sampler(GREEDY), 5);
    // The last chosen token is part of the text, so with this penalty it may not come again.
    backend.pick(logits, 1, tokens, new Sampler({ ...GREEDY, repeatPenalty: 50 }), 6);
    const picked = await backend.readTokens(tokens, 0, 7);
    assert.deepEqual([...picked.subarray(0, 5)], TOKENS.slice(0, 5));
    assert.notEqual(picked[5], picked[6]);
    got.push(['pick', picked]);
    backend.flush();
    await backend.idle();
    results.push(got);
  }
  const [wasm, reference] = results;
  for (const [i, [name, expected]] of reference.entries())
    close(wasm[i][1], expected, name === 'pick' ? 0 : RELATIVE, name);
});

test('backend: what it lacks is said before a weight is read, each by name', async (t) => {
  const wasm = await wasmBackend(t);
  const { plan, gguf, tensors } = await planned({}, () => {});
  const present = tensors.map(({ name }) => gguf.tensor(name));
  const broken = structuredClone(plan);
  Object.assign(broken.layers[0].attention, { kind: 'convolution', headSize: 640 });
  const latent = { rank: 8, qRank: 0, nopeSize: 8, valueSize: 8, norm: { kind: 'layer', eps: 1 } };
  Object.assign(broken.layers[1].attention, { latent, outputGate: true });
  Object.assign(broken.layers[0].feed, { activation: 'relu2' });
  Object.assign(broken.layers[1].feed, { kind: 'memory' });
  Object.assign(broken.layers[1].attention, { norm: { kind: 'group', eps: 1 } });
  Object.assign(broken.layers[1].attention.rope ?? {}, { pairing: 'thirds' });
  const reasons = wasm.lacks(broken, present, settings);
  for (const reason of [
    /layers of kind "convolution"/,
    /heads of 640 values are not supported; 576 at most/,
    /feed-forward blocks of kind "memory"/,
    /activations "relu2" in gated feed-forward blocks are not supported; supported are silu, gelu, relu/,
    /norms of kind "group"/,
    /RoPE of pairs "thirds"/,
    /output gates of latent attention/,
    /norms of kind "layer" in latent attention/,
  ])
    assert.ok(
      reasons.some((one) => reason.test(one)),
      `${reason} in ${reasons.join('; ')}`,
    );
  assert.equal(reasons.length, 8);

  const backend = new ReferenceBackend();
  backend.lacks = () => ['it has no time', 'it is closed'];
  const progress = () => assert.fail('weights were read');
  await assert.rejects(
    loadTo(makeModel({}).bytes.buffer, backend, { onProgress: progress }),
    (error) => error instanceof ModelError && error.message === 'it has no time; it is closed',
  );
  assert.equal(backend.disposed, true);
});
