/**
 * Embedding models on the GPU: their vectors against llama.cpp; ranking heads, and biases that few files
 * have, against float64 JavaScript. Compiling takes a software driver seconds a model, so one of each
 * list is drawn by a seed: FM_GPU_SEED sets it, FM_ARCH_ALL=1 or FM_TEST_DEEP=1 runs all.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { GpuBackend } from '../../js/gpu/backend.js';
import { up16, withPadding } from '../../js/gpu/shader.js';
import { embed, embedGroups } from '../../js/gpu/wgsl/embed.js';
import { rowBlocks } from '../../js/gpu/wgsl/types.js';
import { Llama, NumericError } from '../../js/llama/index.js';
import { ABSENT, checkVectors, embeddingModels, RARE_BIASES } from '../helpers/arch-embed.js';
import { changedGguf, floats } from '../helpers/changed-gguf.js';
import { countCalls, gpuSkip, openTestDevice, SEED, sampled, TestGpu } from '../helpers/gpu.js';
import { arrange } from '../helpers/gpu-weights.js';
import { distance } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { dataPath } from '../helpers/test-data.js';

const ALL = process.env.FM_ARCH_ALL === '1';
/** Values of a hidden state in the models that get other tensors. */
const WIDTH = 256;
const QUERY = 'the little girl';
const DOCUMENTS = ['a big red dog', 'the'];

/** @param {string} name @param {number[]} shape @param {number} [size] */
function random(name, shape, size = 1) {
  const prng = new Prng([...name].reduce((sum, c) => (Math.imul(31, sum) + c.charCodeAt(0)) | 0, 0));
  const length = shape.reduce((product, n) => product * n, 1);
  return floats(
    name,
    shape,
    Array.from({ length }, () => size * prng.gaussian()),
  );
}

const biasesOf = (/** @type {string} */ name) =>
  RARE_BIASES.filter(([model]) => model === name).map(([, tensor, length]) => random(tensor, [length]));
const headOf = (/** @type {ReturnType<typeof floats>[]} */ ...more) => [
  random('cls.weight', [WIDTH, WIDTH], 0.1),
  random('cls.output.weight', [WIDTH, 1], 0.2),
  ...more,
];
/** Models, and the tensors that they get. @type {[string, ReturnType<typeof floats>[]][]} */
const CHANGED = [
  ['bert-A', headOf(random('cls.bias', [WIDTH]), random('cls.output.bias', [1]))],
  ['nomic-bert-A', biasesOf('nomic-bert-A')],
  ['modern-bert-A', [...biasesOf('modern-bert-A'), ...headOf(random('cls.norm.weight', [WIDTH]))]],
];

/** @param {string | ArrayBuffer | Uint8Array} source */
async function load(source) {
  const gpu = await openTestDevice();
  const variants = { subgroups: false, int8: false };
  const backend = new GpuBackend(gpu, { kvType: 'F32', variants, onDispose: () => gpu.destroy() });
  const model = await Llama.loadTo(async () => backend, /** @type {any} */ (source), { kvType: 'F32' });
  return { gpu, backend, model };
}

/** A small BERT whose rows have padding. */
function makeBert() {
  const [nEmbd, context] = [36, 16];
  /** @type {[string, string][]} */
  const renamed = [
    ['.attn_norm.', '.attn_output_norm.'],
    ['.ffn_norm.', '.layer_output_norm.'],
    ['output_norm.', 'token_embd_norm.'],
  ];
  const nameOf = (/** @type {string} */ name) => {
    const [from, to] = renamed.find(([from]) => name.includes(from)) ?? ['', ''];
    return name.replace(from, to);
  };
  return makeModel({
    ...{ architecture: 'bert', nEmbd, context, nFf: 40, nHeads: 3, nKvHeads: 3, tied: true },
    pairs: { eps: ['bert.attention.layer_norm_epsilon', 'f32', 1e-5] },
    change: (tensors) => [
      ...tensors
        .filter(({ name }) => !name.includes('ffn_gate'))
        .map((tensor) => ({ ...tensor, name: nameOf(tensor.name) })),
      random('position_embd.weight', [nEmbd, context], 0.1),
    ],
  }).bytes.buffer;
}

test('a NaN is reported, and no later text has it', { skip: await gpuSkip() }, async (t) => {
  const { backend, model } = await load(/** @type {ArrayBuffer} */ (makeBert()));
  t.after(() => model.dispose());
  const text = '\u4e05\u4e09\u4e1e';
  const vector = await model.embed(text);
  const broken = backend.tensor({ nRows: 1, nCols: 36 });
  backend.write(broken, 0, new Float32Array(36).fill(Number.NaN));
  const { feed } = backend;
  backend.feed = (x, block, at) => {
    const weights = block.layer === 0 ? { ...block.weights, sumNorm: broken } : block.weights;
    return feed.call(backend, x, { ...block, weights }, at);
  };
  await assert.rejects(model.embed(text), NumericError);
  backend.feed = feed;
  assert.deepEqual(await model.embed(text), vector);
  broken.free();
});

describe('rows of a table on the GPU', { skip: await gpuSkip() }, () => {
  /** Not whole vec4f. */
  const [N_ROWS, N_COLS, STRIDE] = [4, 22, up16(22)];
  const shape = { type: 'F32', nRows: N_ROWS, nCols: N_COLS };
  const unit = { ...shape, nBlocks: N_ROWS * rowBlocks(shape), firstBlock: 0 };
  const prng = new Prng(3);
  const numbers = (/** @type {number} */ n) => Float32Array.from({ length: n }, () => prng.gaussian());
  const w = numbers(N_ROWS * N_COLS);
  const y = withPadding(numbers(8 * N_COLS), N_COLS);
  const step = { position: 5, start: 1, nTokens: 5, seen: 0 };

  /**
   * @param {import('../../js/gpu/shader.js').Shader} shader @param {Record<string, Float32Array>} data
   * @param {(row: number, column: number, before: number) => number} expected  row: of the table
   */
  async function check(shader, data, expected) {
    const gpu = await TestGpu.open();
    const hasIds = shader.bindings.some(({ name }) => name === 'ids');
    const ids = Uint32Array.from({ length: 16 }, (_, i) => 13 - i);
    const all = { ...data, ...(hasIds && { ids }), w: arrange(shape, new Uint8Array(w.buffer)), y };
    const got = new Float32Array(await gpu.run(shader, all, embedGroups(unit, step.nTokens), 'y', step));
    gpu.dispose();
    for (const [i, value] of got.entries()) {
      const [t, column] = [Math.floor(i / STRIDE) - step.start, i % STRIDE];
      const row = (hasIds ? 8 - t : 5 + t) - FIRST;
      const isIn = t >= 0 && t < step.nTokens && row >= 0 && row < N_ROWS && column < N_COLS;
      const wanted = isIn ? expected(row, column, y[i]) : y[i];
      assert.ok(Math.abs(value - wanted) <= 1e-6, `token ${t}, column ${column}: ${value}, not ${wanted}`);
    }
  }
  /** First row of the part of a table that is tested: some tokens have rows outside it. */
  const FIRST = 3;

  test('positions are added to what is there', () =>
    check(
      embed({ unit, scale: 1, firstRow: FIRST, ofPositions: true }),
      {},
      (row, column, before) => before + w[row * N_COLS + column],
    ));

  test('a bias is added to every row', async () => {
    const bias = withPadding(numbers(N_COLS), N_COLS);
    await check(
      embed({ unit, scale: 0.5, firstRow: FIRST, bias: true }),
      { bias },
      (row, column) => 0.5 * w[row * N_COLS + column] + bias[column],
    );
  });
});

describe('embeddings on the GPU', { skip: ABSENT || (await gpuSkip()) }, () => {
  const drawn = (/** @type {any[]} */ list) => (ALL ? list : sampled(list, 1));

  for (const one of drawn(embeddingModels())) {
    test(`vectors of ${one.name}, seed ${SEED}`, async (t) => {
      const { gpu, model } = await load(dataPath(`arch/models/${one.name}.gguf`));
      const max = await checkVectors(model, one);
      t.diagnostic(`ran: ${one.name} on the GPU: largest difference ${max.toExponential(1)}`);
      const calls = countCalls(gpu);
      const [{ text }] = one.reference.texts;
      assert.deepEqual(await model.embed(text), await model.embed(text), 'the same bits again');
      assert.deepEqual([calls.createBuffer, calls.createBindGroup], [0, 0], 'nothing is made again');
      model.dispose();
      assert.equal(gpu.inUse, 0, 'everything is given back');
    });
  }

  for (const [name, tensors] of drawn(CHANGED)) {
    test(`${name} with other tensors, seed ${SEED}`, async () => {
      const bytes = await changedGguf(dataPath(`arch/models/${name}.gguf`), { tensors });
      const { gpu, model } = await load(bytes);
      const reference = await Llama.loadTo(async () => new ReferenceBackend(), bytes, {});
      const [got, expected] = await Promise.all(
        [model, reference].map(async (one) => ({
          vector: await one.embed(QUERY, { normalize: false }),
          scores: tensors.some((/** @type {any} */ tensor) => tensor.name.startsWith('cls'))
            ? await one.rank(QUERY, DOCUMENTS)
            : [],
        })),
      );
      assert.ok(distance(got.vector, expected.vector).max < 2e-5);
      for (const [i, score] of expected.scores.entries())
        assert.ok(Math.abs(got.scores[i] - score) < 1e-4, `${got.scores[i]} of ${score}`);
      model.dispose();
      reference.dispose();
      assert.equal(gpu.inUse, 0, 'everything is given back');
    });
  }
});
