/**
 * Tokens in flight on the GPU: what a token costs in calls, the same tokens as the CPU's, and the
 * place of a number that cannot be right. tests/llama/flight.test.js has every way to end a text.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { GpuBackend } from '../../js/gpu/backend.js';
import { Flight, MOST_AHEAD } from '../../js/gpu/flight.js';
import { GpuTokens } from '../../js/gpu/handles.js';
import { Pipelines } from '../../js/gpu/pipelines.js';
import { Llama, NumericError } from '../../js/llama/index.js';
import { createKernels } from '../../js/wasm/create.js';
import { countCalls, gpuSkip, openTestDevice, SEED, sampled } from '../helpers/gpu.js';
import { makeModel } from '../helpers/synthetic-llama.js';

/** @import { Spec } from '../helpers/synthetic-llama.js' */
/** @import { GpuDevice } from '../../js/gpu/device.js' */
/** @import { GenerateOptions } from '../../js/llama/options.js' */

const PROMPT = [17, 5, 30];
/** @type {GenerateOptions} */
const GREEDY = { temperature: 0, ignoreEnd: true };
/** Beside the layers: the embedding, a search for faults, the head, the choice. */
const BESIDE = 4;
/** Positions from which attention is split. */
const SPLIT = 128;

test('the number of tokens ahead doubles as long as tokens come faster', () => {
  /** @param {(size: number) => number} msOf @param {number} n */
  const after = (msOf, n) => {
    const flight = new Flight();
    for (let i = 0; i < n; i++) flight.took(msOf(flight.size));
    return flight.size;
  };
  assert.equal(
    after(() => 5, 500),
    1,
    'the work takes all of the time',
  );
  assert.equal(
    after((size) => 12 / (size + 1), 500),
    MOST_AHEAD,
    'the way takes all of the time',
  );
  assert.equal(
    after((size) => Math.max(4, 12 / (size + 1)), 500),
    2,
    'first the way, then the work',
  );
  assert.equal(
    after((size) => 12 / (size + 1), 12),
    1,
    'the first tokens are not counted',
  );
  assert.equal(new Flight(3).size, 3);
});

test('tokens that are read late do not undo what was written or chosen since', () => {
  const tokens = new GpuTokens(/** @type {any} */ ({ buffer: () => ({}) }), 8);
  tokens.set(0, [5, 6]);
  for (const position of [2, 3, 4]) tokens.forget(position);
  const asked = tokens.unknown(0, 8);
  assert.deepEqual([asked?.first, asked?.count], [2, 3]);
  tokens.set(2, [9]);
  tokens.forget(3);
  tokens.learn(2, Uint32Array.of(20, 21, 22), asked?.versions ?? []);
  assert.deepEqual([...tokens.ids], [5, 6, 9, 0, 22, 0, 0, 0]);
  assert.deepEqual([tokens.unknown(0, 8)?.first, tokens.unknown(0, 8)?.count], [3, 1]);
  assert.equal(tokens.has(0, [5, 6, 9]), true);
  assert.equal(tokens.has(2, [9, 0]), false);
  assert.equal(tokens.unknown(4, 8), undefined);
});

describe('tokens in flight on the GPU', { skip: await gpuSkip() }, () => {
  /** @type {GpuDevice} */
  let gpu;
  /** @type {Pipelines} */
  let pipelines;
  /** @type {ReturnType<typeof countCalls>} */
  let calls;
  /** @type {import('../../js/wasm/kernels.js').Kernels} */
  let kernels;
  before(async () => {
    gpu = await openTestDevice();
    pipelines = new Pipelines(gpu);
    calls = countCalls(gpu);
    kernels = await createKernels({ threads: 1 });
  });
  after(() => {
    kernels?.dispose();
    gpu?.destroy();
  });

  /** @param {Spec} spec @param {number} [ahead] */
  async function open(spec, ahead) {
    const backend = new GpuBackend(gpu, {
      kvType: 'F32',
      variants: { subgroups: false, int8: false },
      pipelines,
      ahead,
    });
    const model = await Llama.loadTo(async () => backend, makeModel(spec).bytes.buffer, { kvType: 'F32' });
    return { model, backend };
  }

  /** @param {Spec} spec @param {readonly number[]} prompt @param {GenerateOptions} options */
  async function onCpu(spec, prompt, options) {
    const source = makeModel(spec).bytes.buffer;
    const model = await Llama.load(source, { kernels, activation: 'f32', kvType: 'F32' });
    const run = model.generate(prompt, options);
    await run.text();
    model.dispose();
    return run.tokens;
  }

  /**
   * Generates, and counts the calls of every token after the first. With tokens ahead, those of
   * the next ones are among them.
   * @param {Awaited<ReturnType<typeof open>>} opened @param {GenerateOptions} options
   */
  async function counted({ model, backend }, options) {
    const run = model.generate(PROMPT, options);
    const tokens = [];
    const state = () => ({ ...calls, ...backend.counts, made: run.tokens.length });
    let last = state();
    while (!(await run.next()).done) {
      const now = state();
      const [names, before] = [/** @type {(keyof typeof now)[]} */ (Object.keys(now)), last];
      // Control tokens are no piece of the text: with them, a piece is several tokens.
      const n = now.made - before.made;
      const each = Object.fromEntries(names.map((name) => [name, (now[name] - before[name]) / n]));
      tokens.push({ .../** @type {typeof now} */ (each), made: now.made });
      last = now;
    }
    return { tokens, ids: run.tokens, stats: run.stats };
  }

  /** @type {[Spec, number][]} */
  const specs = [
    [{ architecture: 'llama', context: 160 }, 5],
    [{ architecture: 'qwen2', type: 'Q8_0' }, 5],
    // Norms of queries and keys need whole heads, so products and heads are two dispatches.
    [{ architecture: 'qwen3', headSize: 32 }, 6],
  ];
  for (const [spec, perLayer] of sampled(specs, 1)) {
    test(`${spec.architecture}, seed ${SEED}: a token takes few dispatches, one submission, one read, and nothing new`, async () => {
      const AHEAD = 2;
      const opened = await open(spec, AHEAD);
      const { nLayers } = opened.model.info;
      const isLong = spec.context !== undefined;
      const options = { ...GREEDY, maxTokens: isLong ? SPLIT + 4 : 8 };
      const { tokens, ids, stats } = await counted(opened, options);
      assert.deepEqual(ids, await onCpu(spec, PROMPT, options));
      assert.equal(stats.tokens, options.maxTokens);
      // The first token brings those ahead with it, so the last ones begin nothing.
      for (const token of tokens.slice(1).filter(({ made }) => made <= stats.tokens - AHEAD)) {
        const seen = PROMPT.length + token.made - 1 + AHEAD;
        const splits = seen > SPLIT ? nLayers : 0;
        const where = `token ${token.made}, which begins the pass of ${seen}`;
        assert.equal(token.dispatches, perLayer * nLayers + BESIDE + splits, where);
        // What the steps are, in one write.
        const { submit, submits, reads, writeBuffer, createBuffer, createBindGroup } = token;
        const got = { submit, submits, reads, writeBuffer, createBuffer, createBindGroup };
        const one = { submit: 1, submits: 1, reads: 1, writeBuffer: 1 };
        assert.deepEqual(got, { ...one, createBuffer: 0, createBindGroup: 0 }, where);
      }
      for (const token of tokens.slice(-1)) assert.equal(token.dispatches, 0, 'nothing for later');
      // However many tokens are in flight later, there are buffers for their reads.
      const list = opened.backend.tokens(4);
      const before = calls.createBuffer;
      await Promise.all(Array.from({ length: MOST_AHEAD + 1 }, () => opened.backend.readTokens(list, 0, 1)));
      assert.equal(calls.createBuffer, before);
      list.free();
      opened.model.dispose();
      assert.equal(gpu.inUse, 0);
    });
  }

  test('a function on logits sees every row before anything follows, and decides', async () => {
    const spec = { architecture: 'llama', context: 160 };
    const opened = await open(spec, 2);
    const greedy = await onCpu(spec, PROMPT, { ...GREEDY, maxTokens: 8 });
    /** @type {number[][]} */
    const calls = [];
    const logits = (/** @type {Float32Array} */ row, /** @type {readonly number[]} */ all) => {
      calls.push([...all]);
      assert.equal(row.indexOf(Math.max(...row)), greedy[calls.length - 1]);
    };
    const { tokens, ids } = await counted(opened, { ...GREEDY, maxTokens: 8, logits });
    assert.deepEqual(ids, greedy);
    assert.deepEqual(
      calls,
      greedy.map((_, i) => [...PROMPT, ...greedy.slice(0, i)]),
    );
    for (const { dispatches } of tokens.slice(1)) assert.ok(dispatches > 0, 'no token was ahead');
    const banned = {
      ...GREEDY,
      maxTokens: 1,
      logits: (/** @type {Float32Array} */ row) => row.fill(-1e9, greedy[0], greedy[0] + 1),
    };
    const run = opened.model.generate(PROMPT, /** @type {any} */ (banned));
    await run.text();
    assert.notEqual(run.tokens[0], greedy[0]);
    opened.model.dispose();
  });

  test('sampling reads the largest logits, and chooses as the CPU does', async () => {
    const spec = { architecture: 'llama', context: 160, nVocab: 200 };
    const opened = await open(spec);
    const options = {
      topK: 40,
      topP: 0.9,
      minP: 0.02,
      temperature: 1.5,
      seed: 7,
      ignoreEnd: true,
      maxTokens: 24,
    };
    const { tokens, ids } = await counted(opened, options);
    assert.deepEqual(ids, await onCpu(spec, PROMPT, options));
    assert.ok(new Set(ids).size > 8, 'it is no repetition');
    for (const { dispatches, submits, reads, createBuffer, createBindGroup } of tokens.slice(2)) {
      assert.deepEqual([submits, reads, createBuffer, createBindGroup], [1, 1, 0, 0]);
      assert.equal(dispatches, 5 * opened.model.info.nLayers + BESIDE);
    }
    // Whoever needs all logits gets them.
    for (const change of [
      { topK: 0, topP: 0.8 },
      { topK: 0, topP: 1, minP: 0 },
      { repeatPenalty: 1.3 },
      { presencePenalty: 1.5, temperature: 0 },
    ]) {
      const other = { ...options, ...change, maxTokens: 12 };
      const run = opened.model.generate(PROMPT, other);
      await run.text();
      assert.deepEqual(run.tokens, await onCpu(spec, PROMPT, other), JSON.stringify(change));
    }
    opened.model.dispose();
    assert.equal(gpu.inUse, 0);
  });

  test('a NaN of a token in flight is found at its position, and not heard of where nobody comes', async () => {
    /** @type {Spec} */
    const plain = { architecture: 'llama', context: 160 };
    const whole = await onCpu(plain, PROMPT, { ...GREEDY, maxTokens: 30 });
    const at = whole.findIndex((token, i) => i > 3 && whole.indexOf(token) === i && !PROMPT.includes(token));
    assert.ok(at > 0);
    /** @type {Spec} */
    const spec = {
      ...plain,
      change: (tensors) => {
        const table = tensors.find(({ name }) => name === 'token_embd.weight');
        const { data } = /** @type {NonNullable<typeof table>} */ (table);
        new DataView(data.buffer, data.byteOffset).setFloat32(4 * 64 * whole[at], Number.NaN, true);
        return tensors;
      },
    };
    const { model } = await open(spec, 4);
    const run = model.generate(PROMPT, { ...GREEDY, maxTokens: 30 });
    await assert.rejects(run.text(), (error) => {
      assert.ok(error instanceof NumericError, String(error));
      assert.deepEqual([error.part, error.position], ['embedding', PROMPT.length + at]);
      return true;
    });
    const stop = model.detokenize([whole[at]]);
    for (const maxTokens of [30, 30]) {
      const before = model.generate(PROMPT, { ...GREEDY, maxTokens, stop });
      await before.text();
      assert.equal(before.stats.finishReason, 'stop');
    }
    const again = model.generate(PROMPT, { ...GREEDY, maxTokens: at + 1 });
    await again.text();
    assert.deepEqual(again.tokens, whole.slice(0, at + 1));
    model.dispose();
    assert.equal(gpu.inUse, 0);
  });

  test('a NaN among the logits is found by the choice', async () => {
    /** @type {Spec} */
    const spec = {
      ...{ architecture: 'llama', context: 160, nVocab: 200 },
      change: (tensors) => {
        const output = tensors.find(({ name }) => name === 'output.weight');
        const { data } = /** @type {NonNullable<typeof output>} */ (output);
        new DataView(data.buffer, data.byteOffset).setFloat32(4 * (64 * 199 + 3), Number.NaN, true);
        return tensors;
      },
    };
    const { model } = await open(spec);
    for (const temperature of [0, 1]) {
      for (const repeatPenalty of [1, 1.2]) {
        const run = model.generate(PROMPT, { temperature, topK: 40, repeatPenalty, maxTokens: 4 });
        await assert.rejects(run.text(), (error) => {
          assert.ok(error instanceof NumericError, String(error));
          assert.deepEqual(
            [error.part, error.layer, error.position],
            ['output', undefined, PROMPT.length - 1],
          );
          return true;
        });
        assert.deepEqual(run.tokens, []);
      }
    }
    model.dispose();
    assert.equal(gpu.inUse, 0);
  });

  test('a model that is disposed with tokens in flight gives everything back', async () => {
    const { model } = await open({ architecture: 'llama', context: 160 }, 4);
    const run = model.generate(PROMPT, { ...GREEDY, maxTokens: 30 });
    await run.next();
    const reading = run.text();
    reading.catch(() => {});
    model.dispose();
    await assert.rejects(reading, /disposed/);
    assert.equal(gpu.inUse, 0);
    await gpu.device.queue.onSubmittedWorkDone();
    assert.equal(gpu.failure, undefined);
  });
});
