/**
 * LoRA adapters that do not fit: each is refused by a typed error that names the adapter, the tensor and
 * both numbers, before the weights of the model are loaded. What an adapter may come from.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { lacks } from '../../js/gpu/fit.js';
import {
  ArgumentError,
  createKernels,
  createWorkerLlama,
  GgufError,
  Llama,
  ModelError,
  openGguf,
  ShapeError,
} from '../../js/llama/index.js';
import { readModel } from '../../js/llama/read-model.js';
import { openStages } from '../../js/llama/stages.js';
import { makeAdapter } from '../helpers/adapters.js';
import { floats } from '../helpers/changed-gguf.js';
import { gpuSkip, webGpu } from '../helpers/gpu.js';
import { TOKENS } from '../helpers/llama.js';
import { startServer } from '../helpers/range-server.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { splitGguf } from '../helpers/split-gguf.js';
import { makeHybrid } from '../helpers/synthetic-hybrid.js';
import { makeModel } from '../helpers/synthetic-llama.js';

/** @import { LlamaOptions } from '../../js/llama/load-options.js' */
/** @import { TensorSpec } from '../helpers/gguf-bytes.js' */

const OPTIONS = /** @type {const} */ ({ threads: 1, contextLength: 32 });
const made = makeModel({});
const base = /** @type {ArrayBuffer} */ (made.bytes.buffer);
const shapes = { 'blk.0.attn_q.weight': [64, 64], 'blk.1.ffn_down.weight': [96, 64] };
const adapter = makeAdapter({ shapes });

/** Loads a model with one adapter. @param {any} source @param {object} [more] */
const loadWith = (source, more = {}) => Llama.load(base, { ...OPTIONS, adapters: [{ source, ...more }] });

/** @param {any} Class @param {RegExp} message @param {object} [fields] */
const refusal =
  (Class, message, fields = {}) =>
  (/** @type {any} */ error) => {
    assert.ok(error instanceof Class, String(error.stack));
    assert.match(error.message, message);
    for (const [name, value] of Object.entries(fields)) assert.equal(error[name], value, name);
    return true;
  };

/** Another tensor instead of one. @param {string} name @param {TensorSpec[]} others */
const instead = (name, ...others) => ({
  change: (/** @type {TensorSpec[]} */ tensors) =>
    tensors.flatMap((tensor) => (tensor.name === name ? others : [tensor])),
});

const Q = 'blk.0.attn_q.weight';

test('adapters: what does not fit is refused by name', async () => {
  /** @type {[string, Parameters<typeof makeAdapter>[0], any, RegExp, object?][]} */
  const cases = [
    [
      'a model',
      { shapes, metadata: { 'general.type': 'model' } },
      ModelError,
      /^adapters\[0\] \(the given bytes\) is no adapter: its general\.type is "model", expected "adapter"/,
    ],
    [
      'another kind',
      { shapes, metadata: { 'adapter.type': 'control' } },
      ModelError,
      /is no LoRA adapter: its adapter\.type is "control", expected "lora"/,
    ],
    [
      'another architecture',
      { shapes, architecture: 'qwen2' },
      ModelError,
      /is for another model: its general\.architecture is "qwen2", expected "llama"/,
    ],
    [
      'aLoRA',
      { shapes, metadata: { 'adapter.alora.invocation_tokens': [1, 2] } },
      ModelError,
      /is an activated adapter \(aLoRA\)/,
    ],
    ['no tensors', { shapes: {} }, ModelError, /has no tensors/],
    [
      'alpha',
      { shapes, metadata: { 'adapter.lora.alpha': 'much' } },
      ModelError,
      /its adapter\.lora\.alpha must be a finite number, got "much"/,
    ],
    [
      'a without b',
      { shapes, ...instead(`${Q}.lora_b`) },
      ModelError,
      /has "blk\.0\.attn_q\.weight\.lora_a" without "blk\.0\.attn_q\.weight\.lora_b"/,
    ],
    [
      'b without a',
      { shapes, ...instead(`${Q}.lora_a`) },
      ModelError,
      /has "blk\.0\.attn_q\.weight\.lora_b" without "blk\.0\.attn_q\.weight\.lora_a"/,
    ],
    [
      'another tensor',
      { shapes, change: (all) => [...all, floats('blk.0.attn_norm.weight', [64], Array(64).fill(1))] },
      ModelError,
      /has the tensor "blk\.0\.attn_norm\.weight", which is no lora_a or lora_b/,
    ],
    [
      'no such matrix',
      { shapes: { ...shapes, 'blk.7.attn_q.weight': [64, 64] } },
      GgufError,
      /does not fit: .* has no tensor "blk\.7\.attn_q\.weight"; the nearest of its \d+ are "blk\.0\.attn_q\.weight"/,
      { tensor: 'blk.7.attn_q.weight' },
    ],
    [
      'a norm',
      { shapes: { 'blk.0.attn_norm.weight': [64, 1] } },
      ModelError,
      /nothing can be added to "blk\.0\.attn_norm\.weight", which is a row of numbers/,
    ],
    [
      'columns of a',
      { shapes: { [Q]: [32, 64] } },
      ShapeError,
      /"blk\.0\.attn_q\.weight\.lora_a" has 32 columns, expected 64: as many as "blk\.0\.attn_q\.weight" has/,
      { got: 32, expected: 64 },
    ],
    [
      'rows of b',
      { shapes: { [Q]: [64, 48] } },
      ShapeError,
      /"blk\.0\.attn_q\.weight\.lora_b" has 48 rows, expected 64/,
      { got: 48, expected: 64 },
    ],
    [
      'ranks',
      { shapes, ...instead(`${Q}.lora_a`, floats(`${Q}.lora_a`, [64, 3], Array(192).fill(1))) },
      ShapeError,
      /lora_a" has 3 rows, expected 4: the rank, which is the number of columns of ".*lora_b"/,
      { got: 3, expected: 4 },
    ],
    [
      'rows of an embedding',
      { shapes: { 'token_embd.weight': [64, 41] } },
      ShapeError,
      /"token_embd\.weight\.lora_a" has 41 rows, expected 40: a row for each row of "token_embd\.weight"/,
      { got: 41, expected: 40 },
    ],
    [
      'an embedding that is not transposed',
      {
        shapes: { 'token_embd.weight': [64, 40] },
        ...instead(
          'token_embd.weight.lora_a',
          floats('token_embd.weight.lora_a', [40, 4], Array(160).fill(1)),
        ),
      },
      ShapeError,
      /"token_embd\.weight\.lora_a" has 4 rows, expected 40/,
      { got: 4, expected: 40 },
    ],
    [
      'a type without kernels',
      { shapes, change: ([first, ...rest]) => [{ ...first, typeId: 24 }, ...rest] },
      ModelError,
      /types without kernels.*adapters\[0\]\.blk\.0\.attn_q\.weight\.lora_a/,
    ],
  ];
  const fm = await createKernels({ threads: 1 });
  const { inUse } = fm.memory();
  for (const [what, spec, Class, message, fields] of cases) {
    const adapters = [{ source: makeAdapter(spec) }];
    await assert.rejects(
      Llama.load(base, { kernels: fm, contextLength: 32, adapters }),
      refusal(Class, message, fields),
      what,
    );
    assert.equal(fm.memory().inUse, inUse, what);
  }
  fm.dispose();
});

test('adapters: a convolution and the table of another input are refused', async () => {
  const hybrid = makeHybrid([true, false]).bytes.buffer;
  const { metadata, tensors } = await openGguf(hybrid);
  const architecture = String(metadata['general.architecture']);
  const conv = [...tensors.values()].find(({ name }) => name.includes('conv.conv')) ?? assert.fail();
  const source = makeAdapter({ architecture, shapes: { [conv.name]: [...conv.shape] } });
  await assert.rejects(
    Llama.load(hybrid, { ...OPTIONS, adapters: [{ source }] }),
    refusal(ModelError, /nothing can be added to ".*conv.*", which is rows of numbers/),
  );
});

test('adapters: wrong options', async () => {
  /** @type {[any, RegExp][]} */
  const cases = [
    [{ source: adapter }, /adapters must be a list of \{ source, scale \}, got Object/],
    ['a.gguf', /adapters must be a list of \{ source, scale \}, got "a\.gguf"/],
    [[null], /^adapters\[0\] must be \{ source, scale \}, got null/],
    [[{ source: adapter }, { source: adapter, Scale: 2 }], /no field of adapters\[1\] "Scale".*"scale"/],
    [[{ scale: 1 }], /adapters\[0\]\.source is missing/],
    [[{ source: adapter, scale: '1' }], /adapters\[0\]\.scale must be a finite number, got "1"/],
    [[{ source: adapter, scale: Number.NaN }], /adapters\[0\]\.scale must be a finite number, got NaN/],
  ];
  for (const [adapters, message] of cases) {
    await assert.rejects(Llama.load(base, { adapters }), refusal(ArgumentError, message));
    await assert.rejects(createWorkerLlama(base, { adapters }), refusal(ArgumentError, message));
  }
  await assert.rejects(loadWith(new Uint8Array(40)), refusal(GgufError, /^adapters\[0\]: /));
  await assert.rejects(loadWith('no-such-file.gguf'), /no-such-file/);
  await assert.rejects(loadWith(17), refusal(ArgumentError, /a GGUF source is/));
  await assert.rejects(
    Llama.load(adapter, OPTIONS),
    refusal(
      ModelError,
      /^this is no model but an adapter for one of the architecture "llama": load the model/,
    ),
  );
});

test('adapters: they come from everything that a model comes from', async (t) => {
  const plain = await loadWith(adapter);
  t.after(() => plain.dispose());
  const expected = await plain.logits(TOKENS);
  const server = await startServer(adapter, {});
  t.after(() => server.close());
  const open = await openGguf(adapter);
  const { parts } = await splitOf(adapter);
  let fetched = 0;
  const counting = (/** @type {any} */ ...args) => {
    fetched++;
    return fetch(.../** @type {[any]} */ (args));
  };
  /** @type {[string, any, LlamaOptions?][]} */
  const cases = [
    ['a URL', server.url],
    ['a URL, with fetch', server.url, { fetch: counting }],
    ['a Blob', new Blob([adapter])],
    ['an ArrayBuffer', adapter.buffer],
    ['an open file', open],
    ['parts', parts],
  ];
  for (const [what, source, options] of cases) {
    const adapters = [{ source }];
    const model = await Llama.load(base, { ...OPTIONS, ...options, adapters });
    assert.deepEqual(await model.logits(TOKENS), expected, what);
    const [{ bytes: _, ...info }] = model.info.adapters;
    assert.deepEqual(info, { name: 'adapter 1', rank: 4, alpha: 16, scale: 1, tensors: 4 }, what);
    model.dispose();
  }
  assert.ok(fetched > 0);
  assert.equal((await open.read(`${Q}.lora_a`)).length, 4 * 4 * 64, 'an open file stays open');
  // The model itself may be split.
  const divided = await splitOf(base);
  const model = await Llama.load(divided.parts, {
    ...OPTIONS,
    adapters: [{ source: open }, { source: open, scale: -1 }],
  });
  t.after(() => model.dispose());
  const without = await Llama.load(base, OPTIONS);
  t.after(() => without.dispose());
  const [cancelled, ofBase] = [await model.logits(TOKENS), await without.logits(TOKENS)];
  assert.ok(cancelled.every((value, i) => Math.abs(value - ofBase[i]) < 1e-4));
  assert.ok(expected.some((value, i) => Math.abs(value - ofBase[i]) > 0.01));
  // A name that the file does not have is that of the file.
  const nameless = makeAdapter({ shapes, metadata: { 'general.name': undefined } });
  const named = await loadWith(new File([nameless], 'stories.gguf'));
  assert.equal(named.info.adapters[0].name, 'stories.gguf');
  named.dispose();
});

/** A file in two parts. @param {ArrayBuffer | Uint8Array} source */
async function splitOf(source) {
  const gguf = await openGguf(source);
  const tensors = await Promise.all(
    [...gguf.tensors.values()].map(async ({ name, typeId, shape }) => ({
      ...{ name, typeId, shape: [...shape], data: await gguf.read(name) },
    })),
  );
  const { pairOf } = await import('../helpers/changed-gguf.js');
  const pairs = Object.entries(gguf.metadata)
    .filter(([key]) => key.includes('.'))
    .map(([key, value]) => pairOf(key, value));
  const files = splitGguf({ pairs, tensors }, [1, tensors.length - 1]);
  return { parts: files.map(({ name, bytes }) => new File([bytes], name)) };
}

test('adapters: a GPU says that it lacks them', async () => {
  const gguf = await openGguf(base);
  const settings = /** @type {const} */ ({ contextLength: 32, kvType: 'F16' });
  const reasonsOf = async (/** @type {any[]} */ adapters) => {
    const { plan, tensors } = await readModel(gguf, { adapters });
    return lacks(plan, tensors, settings, { bindingBytes: 2 ** 27 });
  };
  assert.deepEqual(await reasonsOf([]), []);
  assert.deepEqual(await reasonsOf([{ source: adapter, scale: 0 }]), []);
  assert.deepEqual(await reasonsOf([{ source: adapter }]), ['LoRA adapters are not supported on the GPU']);
});

test('adapters: only the layers that they change leave a GPU', async () => {
  const gguf = await openGguf(base);
  const source = makeAdapter({ shapes: { 'blk.1.ffn_down.weight': [96, 64] } });
  const facts = {
    ...(await readModel(gguf, { adapters: [{ source }] })),
    settings: /** @type {const} */ ({ contextLength: 32, kvType: 'F16', activation: 'f32', causal: true }),
  };
  const open = async (/** @type {{ backend: string }} */ { backend: name }) => {
    const backend = new ReferenceBackend();
    const limits = { bindingBytes: 2 ** 27 };
    if (name === 'gpu')
      backend.lacks = (/** @type {any[]} */ ...args) =>
        lacks(.../** @type {[any, any, any]} */ (args), limits);
    return backend;
  };
  const { choice } = await openStages([{ backend: 'gpu' }], facts, open, false);
  assert.deepEqual(choice.layers, [
    { backend: 'gpu', from: 0, to: 1 },
    { backend: 'cpu', from: 1, to: 2 },
  ]);
  assert.match(choice.reason, /the CPU computes layer 1: LoRA adapters are not supported on the GPU$/);
});

test('adapters: a model that may run on a GPU runs on the CPU', { skip: await gpuSkip() }, async (t) => {
  const found = await webGpu();
  assert.ok('gpu' in found);
  const options = {
    ...OPTIONS,
    gpu: { gpu: found.gpu, allowSoftware: true },
    adapters: [{ source: adapter }],
  };
  const model = await Llama.load(base, { ...options, backend: 'auto' });
  t.after(() => model.dispose());
  assert.equal(model.info.backend.name, 'cpu');
  assert.match(
    model.info.backend.reason,
    /^the GPU cannot compute this model: LoRA adapters are not supported/,
  );
  await model.logits(TOKENS);
  await assert.rejects(
    Llama.load(base, { ...options, threads: undefined, backend: 'gpu' }),
    refusal(ModelError, /LoRA adapters are not supported on the GPU/),
  );
});
