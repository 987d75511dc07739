/**
 * Latent attention, and the plans of the architecture that has it. arch.test.js compares a model with
 * llama.cpp.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lacks as lacksOnGpu } from '../../js/gpu/fit.js';
import { Decoder } from '../../js/llama/decoder.js';
import { createKernels, Llama, openGguf } from '../../js/llama/index.js';
import { Lease } from '../../js/llama/lease.js';
import { Pace } from '../../js/llama/pause.js';
import { planModel } from '../../js/llama/plan.js';
import { checkTensors } from '../../js/llama/weights.js';
import { WasmBackend } from '../../js/wasm/backend.js';
import { lacks, sizes } from '../../js/wasm/fit.js';
import { LayerCache } from '../../js/wasm/layer-cache.js';
import { ggufBytes } from '../helpers/gguf-bytes.js';
import { latentModel } from '../helpers/latent-model.js';
import { checkLikeLlama, close, distance, peakOf, readReference } from '../helpers/llama.js';
import { planOf as planOfFile, refusal, SIZES } from '../helpers/plan-of.js';
import { dequantizeF64, referenceByName } from '../helpers/reference.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { dataPath, skipWithout } from '../helpers/test-data.js';

/** @import { Backend } from '../../js/backend.js' */
/** @import { Pair, TensorSpec } from '../helpers/gguf-bytes.js' */
/** @import { MetadataValue } from '../../js/gguf/index.js' */
/** @import { AttentionPlan } from '../../js/llama/plan.js' */
/** @import { Routing } from '../../js/wasm/kernel-types.js' */
/** @import { KvType } from '../../js/wasm/kv-cache.js' */

/** The keys of a file without optional ones, in addition to those of every small model. */
const LATENT = {
  expert_count: 8,
  expert_used_count: 2,
  'attention.head_count_kv': 1,
  'attention.key_length': 144,
  'attention.value_length': 128,
  'attention.key_length_mla': 48,
  'attention.value_length_mla': 32,
  'attention.kv_lora_rank': 128,
  'rope.dimension_count': 16,
  expert_feed_forward_length: 96,
};

/** @param {Record<string, MetadataValue | undefined>} keys  in addition, or undefined for none */
const planOf = (keys) => planOfFile('deepseek2', { ...LATENT, ...keys });

test('deepseek2: the plan has latent attention, and experts in groups after the first layers', () => {
  const { plan, attention, names, feed } = planOf({});
  const norm = { kind: 'rms', eps: 1e-5 };
  assert.deepEqual(attention[7].latent, { rank: 128, qRank: 0, nopeSize: 32, valueSize: 32, norm });
  const { nKvHeads, headSize, rope, scale } = attention[0];
  assert.deepEqual([nKvHeads, headSize, scale], [1, 144, 1 / Math.sqrt(48)]);
  assert.deepEqual([rope?.pairing, rope?.nDims, rope?.magnitude], ['adjacent', 16, 1]);
  const shapeOf = (/** @type {string} */ name, of = plan) => {
    const found = of.tensors.find((tensor) => tensor.name === `blk.1.${name}.weight`);
    return [found?.role, found?.nRows, found?.nCols];
  };
  const role = (/** @type {string} */ part) => `layers.1.attention.${part}`;
  assert.deepEqual(shapeOf('attn_q'), [role('q'), 4 * 48, 256]);
  assert.deepEqual(shapeOf('attn_kv_a_mqa'), [role('kv'), 144, 256]);
  assert.deepEqual(shapeOf('attn_k_b'), [role('keyUp'), 4 * 128, 32]);
  // No block reads factors of the heads' matrices, so a file that has some is refused.
  assert.deepEqual(
    names.filter((name) => /attn_[kv]_b\.(input_)?scale/.test(name)),
    [],
  );
  assert.deepEqual(shapeOf('attn_v_b'), [role('valueUp'), 4 * 32, 128]);
  assert.deepEqual(shapeOf('attn_output'), [role('output'), 256, 4 * 32]);
  assert.deepEqual(plan.shared[role('kRope')], { of: role('kv'), start: 128, nRows: 16 });
  assert.deepEqual(plan.shared[role('latentFactor')], { of: role('kvFactor') });
  assert.ok(!names.some((name) => /attn_(k|v|q_a)\./.test(name)));
  const deep = planOf({ 'attention.q_lora_rank': 64 });
  assert.equal(deep.attention[0].latent?.qRank, 64);
  assert.deepEqual(shapeOf('attn_q_a', deep.plan), [role('qDown'), 64, 256]);
  assert.deepEqual(shapeOf('attn_q_b', deep.plan), [role('q'), 4 * 48, 64]);

  // Without the keys: experts in all layers, by a softmax without a sum of 1, and none is shared.
  assert.deepEqual([feed.kind, feed.nFf, feed.experts?.shared], ['experts', 96, undefined]);
  assert.deepEqual(feed.experts?.router, {
    ...{ scores: 'softmax', over: 'all', normalize: false, scale: 1, nGroups: 1, nGroupsUsed: 1 },
  });
  assert.equal(plan.tensors.find(({ role: of }) => of.endsWith('.selectBias'))?.optional, true);
  const third = planOf({
    leading_dense_block_count: 3,
    expert_shared_count: 2,
    expert_weights_scale: 2.5,
    expert_weights_norm: true,
    expert_gating_func: 2,
    expert_group_count: 4,
    expert_group_used_count: 2,
  });
  assert.deepEqual(
    third.plan.layers.map((layer) => layer.feed.kind),
    [...Array(3).fill('gated'), ...Array(5).fill('experts')],
  );
  const { experts } = third.plan.layers[3].feed;
  assert.deepEqual(experts?.shared, { nFf: 192, gated: false });
  assert.deepEqual(experts?.router, {
    ...{ scores: 'sigmoid', over: 'all', normalize: true, scale: 2.5, nGroups: 4, nGroupsUsed: 2 },
  });
  const dense = planOf({ expert_count: 0 });
  assert.ok(dense.plan.layers.every((layer) => layer.feed.kind === 'gated'));

  const refused = (/** @type {object} */ keys, /** @type {RegExp} */ message) =>
    assert.throws(() => planOf({ ...keys }), refusal(message));
  refused({ 'attention.value_length_mla': undefined }, /value_length_mla" must be an integer over 0/);
  refused({ 'attention.key_length_mla': 16 }, /heads have 16 values, of which 16 turn/);
  refused({ 'attention.head_count_kv': 4 }, /4 KV heads of 144 values .* one of 128 \+ 16/);
  refused({ 'attention.key_length': 128 }, /1 KV heads of 128 values/);
  refused({ 'attention.temperature_scale': 0.1 }, /temperature_scale" is not supported/);
  refused({ nextn_predict_layers: 1 }, /nextn_predict_layers" is not supported/);
  refused({ expert_gating_func: 3 }, /expert_gating_func" is 3 .*supported is 1/);
  refused({ leading_dense_block_count: 8 }, /leading_dense_block_count.* is 8, the model has 8 layers/);
  const reasons = lacksOnGpu(plan, [], { contextLength: 64, kvType: 'F16' }, { bindingBytes: 2 ** 27 });
  assert.deepEqual(reasons, ['latent attention is not supported on the GPU']);
  const large = { 'attention.key_length': 576 + 64, 'attention.kv_lora_rank': 576 };
  const { plan: wide } = planOf({ ...large, 'rope.dimension_count': 64, 'attention.key_length_mla': 192 });
  assert.deepEqual(lacks(wide, []), ['heads of 640 values are not supported; 576 at most']);
  for (const [change, reason] of /** @type {const} */ ([
    [{ valueNorm: { eps: 1e-5 } }, 'norms of values in latent attention are not supported'],
    [{ kvBack: 1 }, 'latent attention with keys of an earlier layer is not supported'],
    [{ rope: undefined }, 'latent attention without a rotation is not supported'],
  ])) {
    const changed = planOf({}).plan;
    Object.assign(changed.layers[1].attention, change);
    assert.deepEqual(lacks(changed, []), [reason]);
  }
});

test('deepseek2: GLM 4.7 Flash has sigmoids, whether its file says so or not', () => {
  const tokens = Array.from({ length: 154880 }, (_, i) => `${i}`);
  const scoresOf = (/** @type {number} */ nLayers, /** @type {number} */ nTokens) => {
    /** @type {Record<string, any>} */
    const metadata = {
      'general.architecture': 'deepseek2',
      'tokenizer.ggml.tokens': tokens.slice(0, nTokens),
    };
    for (const [key, value] of Object.entries({ ...SIZES, ...LATENT, block_count: nLayers }))
      metadata[`deepseek2.${key}`] = value;
    return planModel(metadata).layers[0].feed.experts?.router.scores;
  };
  assert.deepEqual(
    [scoresOf(47, 154880), scoresOf(48, 154880), scoresOf(46, 154880), scoresOf(47, 154879)],
    ['sigmoid', 'sigmoid', 'softmax', 'softmax'],
  );
});

/** The same model in an older form. */
const OLD = {
  'attention.head_count_kv': 4,
  'attention.key_length': 48,
  'attention.value_length': 32,
  'attention.key_length_mla': undefined,
  'attention.value_length_mla': undefined,
};

test('deepseek2: older files have keys and values of a head in one matrix', () => {
  const [{ plan, attention }, other] = [planOf(OLD), planOf({})];
  assert.deepEqual(plan.layers, other.plan.layers);
  const isOther = (/** @type {{ role: string }} */ { role }) => !/\.(keyUp|valueUp|kvUp)/.test(role);
  assert.deepEqual(plan.tensors.filter(isOther), other.plan.tensors.filter(isOther));
  const of = 'layers.3.attention.kvUp';
  assert.deepEqual(
    plan.tensors.find(({ role }) => role === of),
    {
      ...{ role: of, name: 'blk.3.attn_kv_b.weight', nRows: 4 * 64, nCols: 128, use: 'experts' },
      ...{ optional: false, alternating: 32 },
    },
  );
  assert.deepEqual(plan.shared['layers.3.attention.keyRows'], { of, start: 0, nRows: 128 });
  assert.deepEqual(plan.shared['layers.3.attention.valueUp'], { of, start: 128, nRows: 128 });
  assert.deepEqual([attention[0].nKvHeads, attention[0].headSize], [1, 144]);
  const run = /** @type {const} */ ({ contextLength: 64, kvType: 'F16' });
  const more = sizes(plan, run).workspaceBytes - sizes(other.plan, run).workspaceBytes;
  assert.equal(more, 8 * 4 * 32 * 128 * 4, 'the transposed matrices in f32');
  assert.throws(
    () => planOf({ ...OLD, 'attention.value_length': 48 }),
    refusal(/attn_kv_b with 32 rows for keys and 48 for values/),
  );
});

test("deepseek2: the plan has YaRN's factor of the magnitude in the scale of the scores", () => {
  const given = {
    'rope.scaling.type': 'yarn',
    'rope.scaling.factor': 40,
    'rope.scaling.original_context_length': 4096,
  };
  const of = (/** @type {object} */ keys) => {
    const { scale, rope } = planOf({ ...given, ...keys }).attention[5];
    return [scale * Math.sqrt(48), rope?.magnitude ?? 0];
  };
  const close = (/** @type {number[]} */ got, /** @type {number[]} */ expected) => {
    for (const [i, value] of got.entries())
      assert.ok(Math.abs(value - expected[i]) < 1e-12, `${got} is not ${expected}`);
  };
  // Files have a tenth of the multiplier.
  const m = (/** @type {number} */ multiplier) => 1 + 0.1 * multiplier * Math.log(40);
  close(of({ 'rope.scaling.yarn_log_multiplier': 0.1 }), [m(1) ** 2, 1]);
  close(of({ 'rope.scaling.yarn_log_multiplier': 0.08 }), [m(0.8) ** 2, 1]);
  close(of({ 'rope.scaling.yarn_log_multiplier': 0.1, 'rope.scaling.attn_factor': 0.5 }), [
    (0.5 * m(1)) ** 2,
    0.5,
  ]);
  close(of({}), [m(1) ** 2, m(1)]);
});

/** As in backend.test.js. */
const RELATIVE = 3e-5;
const N_TOKENS = 12;
const TOKENS = Array.from({ length: N_TOKENS }, (_, i) => 3 + ((i * 7) % 30));

/**
 * Rows of logits of a model with latent attention, computed some tokens at a time.
 * @param {ReturnType<typeof latentModel>} model
 * @param {(activation: { kvType: KvType }) => Promise<Backend>} open
 * @param {{ kvType?: KvType, batch?: number }} [options]
 */
async function logitsOf([spec, change], open, { kvType = 'F32', batch = 5 } = {}) {
  const gguf = await openGguf(makeModel(spec).bytes.buffer);
  const plan = /** @type {AttentionPlan} */ (planModel(gguf.metadata));
  change(plan);
  const tensors = checkTensors(gguf, plan);
  const settings = { contextLength: 16, kvType };
  const backend = await open({ kvType });
  const present = tensors.map(({ name }) => gguf.tensor(name));
  assert.deepEqual(backend.lacks(plan, present, settings), []);
  const weights = await backend.loadWeights(gguf, plan, tensors, { otherBytes: 0 });
  const { sizes } = backend;
  backend.sizes = (...args) => ({ ...sizes.apply(backend, args), batch, part: Math.ceil(batch / 2) });
  const decoder = new Decoder(backend, plan, weights.byRole, settings);
  const pace = () => new Pace(new Lease('logits', N_TOKENS, undefined));
  const rows = [];
  for (let start = 0; start < N_TOKENS; start += batch) {
    const some = TOKENS.slice(start, start + batch);
    await decoder.forward(some, start, pace());
    for (let row = 0; row < some.length; row++) rows.push(...(await decoder.logits(row, 1, pace())));
  }
  decoder.free();
  weights.free();
  return Float32Array.from(rows);
}

/** @param {import('node:test').TestContext} t @param {object} [options]  of the kernels */
const onWasm =
  (t, options) =>
  async (/** @type {{ kvType: KvType }} */ { kvType }) => {
    const fm = await createKernels({ threads: 1, ...options });
    t.after(() => fm.dispose());
    return new WasmBackend(fm, { activation: 'f32', kvType, ownsKernels: false });
  };
const onReference = async () => new ReferenceBackend();

/** The sizes of DeepSeek's models, except that it has fewer heads. */
const REAL = { nDims: 64, latent: { rank: 512, qRank: 48, nopeSize: 128, valueSize: 128 } };

for (const [what, options] of /** @type {const} */ ([
  ['small sizes', {}],
  ["the sizes of DeepSeek's heads", REAL],
])) {
  test(`deepseek2: latent attention in any batches, ${what}`, async (t) => {
    const model = latentModel(options);
    const expected = await logitsOf(model, onReference);
    for (const batch of [1, 4, N_TOKENS])
      close(await logitsOf(model, onWasm(t), { batch }), expected, RELATIVE, `${batch} at a time`);
    close(await logitsOf(model, onWasm(t, { threads: 2 })), expected, RELATIVE, 'two threads');
  });
}

test('deepseek2: latents are cached in 16 and 8 bits', async (t) => {
  const [spec, change] = latentModel(REAL);
  /** @type {ReturnType<typeof latentModel>} */
  const model = [{ ...spec, headSize: 32 }, change];
  const expected = await logitsOf(model, onReference);
  // Rounding of keys and values to 2^-11, and to a step of 2^-7 of the largest of a block.
  for (const [kvType, limit] of /** @type {const} */ ([
    ['F16', 2 ** -8],
    ['Q8_0', 2 ** -4],
  ])) {
    const got = await logitsOf(model, onWasm(t), { kvType });
    const { max } = distance(got, expected);
    assert.ok(max > 0 && max < limit * peakOf(expected), `${kvType}: ${max}`);
  }
});

test('deepseek2: a window of latents, which are moved once', async (t) => {
  const [spec, change] = latentModel();
  /** @type {ReturnType<typeof latentModel>} */
  const model = [
    spec,
    (plan) => {
      change(plan);
      plan.layers[0].attention.window = 3;
    },
  ];
  const expected = await logitsOf(model, onReference);
  /** A cache of so few rows that they are full several times. */
  const open = async () => {
    const backend = await onWasm(t)({ kvType: 'F32' });
    backend.cache = (attention) => {
      const { nKvHeads, headSize, window, latent } = attention;
      const shape = /** @type {const} */ ({
        type: 'F32',
        nPositions: window > 0 ? 6 : 16,
        nKvHeads,
        headSize,
      });
      const keys = backend.kernels.kvCache(shape);
      return new LayerCache(keys, latent ? keys : backend.kernels.kvCache(shape), window);
    };
    return backend;
  };
  close(await logitsOf(model, open, { batch: 3 }), expected, RELATIVE, 'a full cache');
});

const NAME = 'deepseek2-A';
const absent = skipWithout(`arch/models/${NAME}.gguf`) || skipWithout(`arch/logits/${NAME}.logits.f32`);

test('deepseek2: int8 with the experts that f32 chooses', { skip: absent }, async (t) => {
  const { reference, logits } = readReference(NAME, 'arch/logits');
  const { n_vocab: n, quantized_run: theirs } = /** @type {any} */ (reference);
  /** @type {Routing[]} */
  const routings = [];
  /** @param {'f32' | 'int8'} activation */
  const run = async (activation) => {
    const options = /** @type {const} */ ({ activation, kvType: 'F32', contextLength: 256 });
    const open = async () => {
      const fm = await createKernels({ isa: 'scalar', threads: 1 });
      t.after(() => fm.dispose());
      const { route } = fm;
      fm.route = (...args) => {
        const routing = route.apply(fm, args);
        if (activation === 'int8') return routings.shift() ?? assert.fail('more calls');
        routings.push(routing);
        return routing;
      };
      return new WasmBackend(fm, { activation, kvType: 'F32', ownsKernels: false });
    };
    const llama = await Llama.loadTo(open, dataPath(`arch/models/${NAME}.gguf`), options);
    const rows = [];
    for (const prompt of reference.prompts) {
      const [got, expected] = [await llama.logits(prompt.tokens), logits(prompt)];
      for (let at = 0; at < got.length; at += n)
        rows.push(distance(got.subarray(at, at + n), expected.subarray(at, at + n)));
    }
    llama.dispose();
    return rows;
  };
  await run('f32');
  const rows = await run('int8');
  assert.equal(routings.length, 0);
  checkLikeLlama(rows, theirs, reference.tensor_types, 'scalar');
  for (const { max } of rows) assert.ok(max <= 1.5 * theirs.max_abs, `largest difference ${max}`);
});

/**
 * A file whose matrices of keys and values are in the older form, in f32.
 * @param {import('../../js/gguf/index.js').GgufFile} gguf
 */
async function inOlderForm(gguf) {
  const [nHeads, rank, size] = [4, 128, 32];
  /** @param {string} name */
  const floats = async (name) => {
    const type = referenceByName.get(gguf.tensor(name).type) ?? assert.fail(name);
    return dequantizeF64(type, await gguf.read(name)).values;
  };
  /** @type {TensorSpec[]} */
  const tensors = [];
  for (const [name, { typeId, shape }] of gguf.tensors) {
    if (name.endsWith('attn_v_b.weight')) continue;
    if (!name.endsWith('attn_k_b.weight')) {
      tensors.push({ name, typeId, shape: [...shape], data: await gguf.read(name) });
      continue;
    }
    const [keys, values] = [await floats(name), await floats(name.replace('k_b', 'v_b'))];
    const data = Float32Array.from({ length: 2 * nHeads * size * rank }, (_, i) => {
      const [column, row] = [i % rank, Math.floor(i / rank)];
      const [head, at] = [Math.floor(row / (2 * size)), row % (2 * size)];
      if (at >= size) return values[(head * size + at - size) * rank + column];
      return keys[(head * rank + column) * size + at];
    });
    const both = { name: name.replace('k_b', 'kv_b'), typeId: 0, shape: [rank, 2 * nHeads * size] };
    tensors.push({ ...both, data: new Uint8Array(data.buffer) });
  }
  /** @type {Pair[]} */
  const pairs = [];
  for (const [key, given] of Object.entries(gguf.metadata)) {
    const name = key.replace(/^deepseek2\./, '');
    if (name.endsWith('_mla')) continue;
    const value = /** @type {Record<string, unknown>} */ (OLD)[name] ?? given;
    pairs.push([key, ...typed(key, value)]);
  }
  return ggufBytes({ pairs, tensors }).bytes.buffer;
}

/** @param {string} key @param {any} value @returns {[Pair[1], any]} */
function typed(key, value) {
  if (Array.isArray(value)) {
    const of = typeof value[0] === 'string' ? 'string' : key.endsWith('scores') ? 'f32' : 'i32';
    return ['array', { of, items: value }];
  }
  if (typeof value === 'number') return [Number.isInteger(value) ? 'u32' : 'f32', value];
  return [typeof value === 'boolean' ? 'bool' : 'string', value];
}

test('deepseek2: the older form of a file gives the same logits', { skip: absent }, async (t) => {
  const bytes = await inOlderForm(await openGguf(dataPath(`arch/models/${NAME}.gguf`)));
  const { reference, logits } = readReference(NAME, 'arch/logits');
  const options = /** @type {const} */ ({ activation: 'f32', kvType: 'F32', contextLength: 256 });
  for (const open of [() => onWasm(t)(options), onReference]) {
    const llama = await Llama.loadTo(open, bytes, options);
    const [prompt] = reference.prompts;
    const { max } = distance(await llama.logits(prompt.tokens), logits(prompt));
    llama.dispose();
    t.diagnostic(`ran: largest difference ${max.toExponential(1)}`);
    assert.ok(max <= 5e-4, `largest difference ${max}`);
  }
});

test('deepseek2: a layer caches its latents once', () => {
  const { plan } = planOf({});
  const run = /** @type {const} */ ({ contextLength: 64, kvType: 'F16' });
  assert.equal(sizes(plan, run).kvBytes, 8 * 64 * 144 * 2);
});
