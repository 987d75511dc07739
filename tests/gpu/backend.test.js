/**
 * Whole models on the GPU backend: the runner's logits against float64 JavaScript and llama.cpp.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { GpuBackend } from '../../js/gpu/backend.js';
import { lacks } from '../../js/gpu/fit.js';
import { Llama, openGguf } from '../../js/llama/index.js';
import { planModel } from '../../js/llama/plan.js';
import { types } from '../../js/types.js';
import { gpuSkip, openTestDevice, SEED, sampled } from '../helpers/gpu.js';
import { checkGreedy, close, SMALL_MODELS, TOKENS } from '../helpers/llama.js';
import { planOf } from '../helpers/plan-of.js';
import { makeHybrid } from '../helpers/synthetic-hybrid.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { dataPath, skipWithout } from '../helpers/test-data.js';

/** As in tests/llama/architectures.test.js: f32 rounds each of some ten operations of a layer. */
const RELATIVE = 3e-5;

/**
 * A model on a device of its own.
 * @param {import('../../js/gguf/source.js').GgufSource} source
 * @param {import('../../js/llama/index.js').LlamaOptions} [options]
 */
async function loadOnGpu(source, options = {}) {
  const gpu = await openTestDevice();
  /** @type {GpuBackend | undefined} */
  let backend;
  const model = await Llama.loadTo(
    async ({ kvType = 'F16' }) => {
      backend = new GpuBackend(gpu, {
        kvType,
        variants: { subgroups: false, int8: false },
        onDispose: () => gpu.destroy(),
      });
      return backend;
    },
    source,
    options,
  );
  return { model, gpu, backend: /** @type {GpuBackend} */ (/** @type {unknown} */ (backend)) };
}

test('work memory that no binding holds is named before a weight is read', async () => {
  const gguf = await openGguf(makeModel({ causal: false }).bytes.buffer);
  const plan = planModel(gguf.metadata, 64);
  const settings = /** @type {const} */ ({ contextLength: 64, kvType: 'F16' });
  assert.deepEqual(lacks(plan, [], settings, { bindingBytes: 2 ** 20 }), []);
  assert.match(
    lacks(plan, [], settings, { bindingBytes: 16_384 }).join(),
    /64 positions need \d+ bytes of work memory/,
  );
  const long = { ...settings, contextLength: 65_536 };
  assert.match(
    lacks(plan, [], long, { bindingBytes: 2 ** 40 }).join(),
    /^batches of 65536 tokens .*: 65535 at most; try a shorter context$/,
  );
  const longest = { ...settings, contextLength: 65_535 };
  assert.deepEqual(lacks(plan, [], longest, { bindingBytes: 2 ** 40 }), []);
});

test('factors of products that no kernel applies are named before a weight is read', async () => {
  const gguf = await openGguf(makeModel({ causal: false }).bytes.buffer);
  const plan = planModel(gguf.metadata, 64);
  const settings = /** @type {const} */ ({ contextLength: 64, kvType: 'F16' });
  /** @param {string} type @param {string} ofFactor */
  const lacksOf = (type, ofFactor) => {
    const tensors = [
      { name: 'blk.0.attn_q.weight', type, supported: true },
      { name: 'blk.0.attn_q.scale', type: ofFactor, supported: true },
    ];
    return lacks(plan, /** @type {any} */ (tensors), settings, { bindingBytes: 2 ** 20 }).join();
  };
  assert.equal(lacksOf('NVFP4', 'F32'), '');
  assert.match(lacksOf('Q4_K', 'F32'), /factors.*attn_q\.scale.*not for Q4_K in F32/);
  assert.match(lacksOf('NVFP4', 'F16'), /factors.*attn_q\.scale.*not for NVFP4 in F16/);
});

test('norms and gates that no kernel computes are named', async () => {
  const hybrid = await openGguf(/** @type {ArrayBuffer} */ (makeHybrid([true, false]).bytes.buffer));
  const eps = { 'attention.layer_norm_epsilon': 1e-5, 'attention.head_count_kv': undefined };
  /** @type {Record<string, any>} */
  const plans = {
    bert: planOf('bert', eps).plan,
    olmoe: planOf('olmoe', { expert_count: 4, expert_used_count: 2 }).plan,
    lfm2: planModel(hybrid.metadata, 32),
  };
  const settings = /** @type {const} */ ({ contextLength: 32, kvType: 'F16' });
  const lacksOf = (/** @type {any} */ plan) => lacks(plan, [], settings, { bindingBytes: 2 ** 27 });
  for (const plan of Object.values(plans)) assert.deepEqual(lacksOf(plan), []);
  const [layer, rms] = ['layer', 'rms'].map((kind) => ({ kind, eps: 1e-5 }));
  /** @type {[string, 'attention' | 'recurrent' | 'feed', Record<string, unknown>, RegExp][]} */
  const changes = [
    ['bert', 'attention', { outputGate: true }, /^output gates of attention without a causal mask/],
    ['bert', 'attention', { sumNorm: undefined, postNorm: layer }, /^layer norms of results/],
    ['bert', 'feed', { sumNorm: undefined, postNorm: layer }, /^layer norms of results/],
    ['bert', 'attention', { postNorm: rms }, /^blocks with norms of both the result and the sum/],
    ['bert', 'feed', { postNorm: rms }, /^blocks with norms of both the result and the sum/],
    ['lfm2', 'recurrent', { postNorm: layer }, /^layer norms of results/],
    ['lfm2', 'recurrent', { norm: layer }, /^layer norms before recurrent blocks/],
    ['olmoe', 'feed', { norm: layer }, /^layer norms before experts/],
    ['olmoe', 'feed', { sumNorm: layer }, /^norms of the sums of experts/],
  ];
  for (const [name, block, change, reason] of changes) {
    const plan = structuredClone(plans[name]);
    Object.assign(plan.layers[0][block], change);
    const named = lacksOf(plan);
    assert.equal(named.length, 1, `${name}: ${named}`);
    assert.match(named[0], reason);
  }
});

test('what models have and the GPU has not is named before a weight is read', {
  skip: skipWithout('arch/models'),
}, async () => {
  const settings = /** @type {const} */ ({ contextLength: 64, kvType: 'F16' });
  /** @type {Record<string, RegExp[]>} */
  const expected = {
    'bert-A': [],
    'nomic-bert-A': [],
    'modern-bert-A': [],
    'gemma-embedding-A': [],
    'qwen3-embed-A': [],
    // Experts are none of what these lack.
    'gpt-oss-A': [/attention sinks/],
    'deepseek2-A': [/latent attention/],
  };
  for (const [name, reasons] of Object.entries(expected)) {
    const gguf = await openGguf(dataPath(`arch/models/${name}.gguf`));
    const plan = planModel(gguf.metadata, 64);
    const named = lacks(plan, [...gguf.tensors.values()], settings, { bindingBytes: 2 ** 27 });
    gguf.close();
    for (const reason of reasons)
      assert.ok(
        named.some((one) => reason.test(one)),
        `${name}: ${reason} in ${named}`,
      );
    assert.equal(named.length, reasons.length, `${name}: ${named}`);
  }
});

describe('the GPU backend', { skip: await gpuSkip() }, () => {
  test('types are served before a weight of them is loaded', async () => {
    const gpu = await openTestDevice();
    const backend = new GpuBackend(gpu, { kvType: 'F16', variants: { int8: true } });
    for (const { name, blockValues } of types.filter(({ served }) => served)) {
      const activation = blockValues > 1 ? 'int8' : 'f32';
      assert.deepEqual(backend.servedBy(name), { isa: 'webgpu', activation }, name);
    }
    backend.dispose();
    gpu.destroy();
  });

  for (const [name, spec] of sampled(SMALL_MODELS, 1)) {
    test(`the whole runner, seed ${SEED}, ${name}`, async () => {
      const made = makeModel(spec);
      const { model, gpu } = await loadOnGpu(made.bytes.buffer, { kvType: 'F32' });
      close(await model.logits(TOKENS), made.logits(TOKENS), RELATIVE, 'logits');
      if (spec.causal !== false) await checkGreedy(model, made, 5);
      assert.equal(gpu.failure, undefined);
      model.dispose();
      assert.equal(gpu.inUse, 0);
    });
  }
});
