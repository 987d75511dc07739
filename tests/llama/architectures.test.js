/**
 * Every architecture, RoPE variant and tensor type on small synthetic models, compared with
 * float64; and files that are refused.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GgufError, Llama, MemoryError, ModelError, ShapeError, types } from '../../js/llama/index.js';
import { distance, peakOf, TOKENS } from '../helpers/llama.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { libraryVariants } from '../helpers/variants.js';

/** @import { Spec } from '../helpers/synthetic-llama.js' */
/** @import { LlamaOptions } from '../../js/llama/model.js' */

/**
 * f32 rounds each of some ten operations of a layer by 2^-24 of values up to a few times the
 * outputs, and two layers and softmax pass that on. A mistake of any kind gives an error of more
 * than a hundredth (the last test of this file).
 */
const RELATIVE = 3e-5;

/** @param {Spec} spec @param {LlamaOptions} [options] @param {number[]} [tokens] */
async function check(spec, options, tokens = TOKENS) {
  const { bytes, logits, spec: whole } = makeModel(spec);
  const model = await Llama.load(bytes.buffer, { activation: 'f32', kvType: 'F32', ...options });
  try {
    const expected = logits(tokens);
    const got = await model.logits(tokens);
    assert.equal(expected.length, tokens.length * whole.nVocab);
    assert.equal(got.length, expected.length);
    const { max } = distance(got, expected);
    assert.ok(max <= RELATIVE * peakOf(expected), `${max} of ${peakOf(expected)}`);
    // The same token by token: the prompt, then one token at a time, each drawn from the logits
    // before it.
    const prompt = tokens.slice(0, 4);
    const run = model.generate(prompt, { temperature: 0, maxTokens: 12 });
    await run.text();
    const all = [...prompt];
    for (const token of run.tokens) {
      const row = logits(all).slice(-whole.nVocab);
      const best = row.indexOf(Math.max(...row));
      if (token !== best)
        assert.ok(
          row[best] - row[token] <= RELATIVE * peakOf(row),
          `token ${all.length}: ${token}, not ${best}`,
        );
      all.push(token);
    }
    return { model: model.info, tokens: run.tokens };
  } finally {
    model.dispose();
  }
}

/** @type {[string, Spec][]} */
const CASES = [
  ['llama', {}],
  ['llama, tied', { tied: true }],
  ['llama, factors', { factors: true, base: 500000 }],
  ['llama, linear scaling', { linear: 4 }],
  ['llama, biases', { bias: true }],
  ['llama, part of a head turned', { nDims: 8 }],
  ['llama, every head its own keys', { nKvHeads: 4 }],
  ['llama, one KV head', { nKvHeads: 1, nHeads: 8 }],
  ['qwen2', { architecture: 'qwen2', base: 1e6, eps: 1e-6 }],
  ['qwen2, tied', { architecture: 'qwen2', tied: true, nHeads: 8 }],
  ['qwen3', { architecture: 'qwen3', base: 1e6, eps: 1e-6 }],
  ['qwen3, heads wider than the embedding', { architecture: 'qwen3', headSize: 32 }],
  ['qwen3, heads narrower than the embedding', { architecture: 'qwen3', headSize: 8, tied: true }],
];
for (const [name, spec] of CASES) {
  for (const { isa, dot, label, skip } of libraryVariants) {
    test(`architecture: ${name}, ${label}`, { skip }, async () => {
      await check(spec, { isa, dot });
    });
  }
}

for (const { name } of types.filter(({ served }) => served)) {
  test(`architecture: tensors of ${name}`, async () => {
    const { model } = await check({ nEmbd: 256, nFf: 256, type: name, qkType: 'F16', tied: name === 'Q8_K' });
    assert.ok(model.types[name].count >= 9);
    assert.ok(model.types[name].bytes > 0);
  });
}

test('architecture: prompts longer than a batch', async () => {
  const tokens = Array.from({ length: 600 }, (_, i) => 3 + ((i * i) % 37));
  const { model } = await check({ context: 640, nLayers: 1, architecture: 'qwen2' }, {}, tokens);
  assert.ok(model.batch <= 512);
});

test('architecture: caches of 16 and 8 bits', async () => {
  for (const [kvType, limit] of /** @type {const} */ ([
    ['F16', 2e-3],
    ['Q8_0', 0.05],
  ])) {
    const { bytes, logits } = makeModel({ nEmbd: 128 });
    const model = await Llama.load(bytes.buffer, { activation: 'f32', kvType });
    const expected = logits(TOKENS);
    const { max } = distance(await model.logits(TOKENS), expected);
    assert.ok(max <= limit * peakOf(expected) && max > 0, `${kvType}: ${max}`);
    model.dispose();
  }
});

/** @param {Spec} spec @param {new (...args: any[]) => Error} Kind @param {RegExp} message */
async function refused(spec, Kind, message) {
  const progress = () => assert.fail('weights were read');
  await assert.rejects(Llama.load(makeModel(spec).bytes.buffer, { onProgress: progress }), (error) => {
    assert.ok(error instanceof Kind, `${error}`);
    assert.match(/** @type {Error} */ (error).message, message);
    return true;
  });
}

test('architecture: what is not supported is refused before a weight is read', async () => {
  const pair = (/** @type {string} */ key, /** @type {any} */ type, /** @type {any} */ value) => ({
    pairs: { [key]: /** @type {any} */ ([key, type, value]) },
  });
  await refused(
    { architecture: 'gemma9' },
    ModelError,
    /"gemma9" is not supported; supported are llama, .*gemma3, gemma4, phi3/,
  );
  await refused(
    pair('general.architecture', 'string', 'toString'),
    ModelError,
    /"toString" is not supported/,
  );
  await refused(pair('llama.rope.scaling.type', 'string', 'su'), ModelError, /"su" is not supported/);
  await refused(pair('llama.expert_count', 'u32', 8), ModelError, /expert_used_count" must be an integer/);
  await refused(
    pair('llama.block_count', 'u32', 0),
    ModelError,
    /llama.block_count" must be an integer over 0, got 0/,
  );
  await refused(
    pair('llama.attention.layer_norm_rms_epsilon', 'f32', -1),
    ModelError,
    /rms_epsilon" must be a number over 0, got -1/,
  );
  await refused(
    pair('llama.attention.head_count_kv', 'u32', 3),
    ModelError,
    /4 heads are no multiple of the 3 KV heads/,
  );
  await refused(
    pair('llama.attention.head_count', 'u32', 6),
    ModelError,
    /64 values is not divisible by 6 heads/,
  );
  await refused(pair('tokenizer.ggml.model', 'string', 'rwkv'), ModelError, /"rwkv" is not supported/);
  await refused({ headSize: 640 }, ModelError, /heads of 640 values are not supported; 576 at most/);
  await refused(
    {
      pairs: {
        'tokenizer.ggml.tokens': ['tokenizer.ggml.tokens', 'array', { of: 'string', items: ['a'] }],
        'tokenizer.ggml.scores': ['tokenizer.ggml.scores', 'array', { of: 'f32', items: [0] }],
      },
    },
    ShapeError,
    /"token_embd.weight" is 40x64, expected 1x64/,
  );
});

test('architecture: tensors that are missing, misshapen, unknown or without kernels', async () => {
  const without = (/** @type {RegExp} */ name) => ({
    change: (/** @type {any[]} */ list) => list.filter((one) => !name.test(one.name)),
  });
  await refused(
    without(/blk.1.ffn_up/),
    GgufError,
    /1 of the tensors of a llama model are missing: "blk.1.ffn_up.weight"/,
  );
  await refused(
    { ...without(/bias/), architecture: 'qwen2' },
    GgufError,
    /6 of the tensors of a qwen2 model are missing: "blk.0.attn_q.bias".*\.\.\./,
  );
  await refused(
    { nFf: 96, pairs: { 'llama.feed_forward_length': ['llama.feed_forward_length', 'u32', 128] } },
    ShapeError,
    /"blk.0.ffn_gate.weight" is 96x64, expected 128x64/,
  );
  await refused(
    { change: (list) => [...list, { ...list[1], name: 'blk.0.attn_sub_norm.weight' }] },
    ModelError,
    /1 tensors that a llama model does not use: "blk.0.attn_sub_norm.weight"/,
  );
  const integers = { name: 'blk.0.attn_norm.weight', typeId: 26, shape: [64], data: new Uint8Array(256) };
  await refused(
    { change: (list) => list.map((one) => (one.name === integers.name ? integers : one)) },
    ModelError,
    /types without kernels \(I32\), the first is "blk.0.attn_norm.weight"/,
  );
  const { bytes } = makeModel({});
  await assert.rejects(Llama.load(bytes.buffer, { contextLength: 2 ** 24 }), MemoryError);
});

test('architecture: the reference sees what it should', () => {
  const base = makeModel({ architecture: 'llama' }).logits(TOKENS);
  const off = (/** @type {Spec} */ change) =>
    distance(makeModel(change).logits(TOKENS), base).max / peakOf(base);
  for (const change of [{ base: 20000 }, { linear: 2 }, { eps: 1e-3 }, { factors: true }]) {
    assert.ok(off(change) > 100 * RELATIVE, `${JSON.stringify(change)}: ${off(change)}`);
  }
});
