/**
 * Several contexts of a model on the GPU: with tokens in flight in all of them, each has the text that
 * it would have alone, and what one leaves behind does not hurt the others.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { GpuBackend } from '../../js/gpu/backend.js';
import { Pipelines } from '../../js/gpu/pipelines.js';
import { Llama, MemoryError, ModelError } from '../../js/llama/index.js';
import { gpuSkip, openTestDevice } from '../helpers/gpu.js';
import { makeModel } from '../helpers/synthetic-llama.js';

/** @import { GpuDevice } from '../../js/gpu/device.js' */
/** @import { GenerateOptions } from '../../js/llama/options.js' */

/** @type {GenerateOptions} */
const GREEDY = { temperature: 0, ignoreEnd: true, maxTokens: 9 };
const PROMPTS = [
  [17, 5, 30],
  [9, 9, 22, 3],
  [12, 6],
];

describe('contexts on the GPU', { skip: await gpuSkip() }, () => {
  /** @type {GpuDevice} */
  let gpu;
  /** @type {Pipelines} */
  let pipelines;
  before(async () => {
    gpu = await openTestDevice();
    pipelines = new Pipelines(gpu);
  });
  after(() => gpu?.destroy());

  /** @param {number} ahead */
  const open = async (ahead) => {
    const backend = new GpuBackend(gpu, {
      ...{ kvType: 'F32', variants: { subgroups: false, int8: false } },
      ...{ pipelines, ahead },
    });
    const { buffer } = makeModel({ context: 64 }).bytes;
    const model = await Llama.loadTo(async () => backend, /** @type {ArrayBuffer} */ (buffer), {
      ...{ kvType: 'F32', activation: 'f32', contextLength: 64 },
    });
    return { model, backend };
  };

  test('texts at the same time, one of which is left in its middle', async (t) => {
    const { model, backend } = await open(3);
    const write = async (/** @type {Pick<Llama, 'generate'>} */ at, /** @type {number} */ i, n = 9) => {
      const run = at.generate(PROMPTS[i], { ...GREEDY, maxTokens: n });
      await run.text();
      return run.tokens;
    };
    /** @type {number[][]} */
    const expected = [];
    for (const i of PROMPTS.keys()) expected.push(await write(model, i));
    const before = gpu.inUse;
    const contexts = [await model.context({ contextLength: 32 }), await model.context()];
    assert.ok(gpu.inUse > before);
    assert.deepEqual(await Promise.all([model, ...contexts].map((at, i) => write(at, i))), expected);
    const left = contexts[0].generate(PROMPTS[2], { ...GREEDY, maxTokens: 20 });
    await left.next();
    const others = [model, contexts[1]].map((at, i) => write(at, i));
    await left.next();
    contexts[0].dispose();
    assert.deepEqual(await Promise.all(others), expected.slice(0, 2));
    assert.deepEqual(await write(contexts[1], 2), expected[2]);
    for (const call of [() => contexts[1].save(), () => contexts[1].fork()])
      await assert.rejects(call, (error) => error instanceof ModelError && /on the GPU/.test(error.message));
    assert.deepEqual(await write(contexts[1], 0), expected[0]);
    contexts[1].dispose();
    /** Makes contexts, writes, and disposes them. */
    const round = async () => {
      for (const contextLength of [32, 64]) {
        const context = await model.context({ contextLength });
        assert.deepEqual(await write(context, 1), expected[1]);
        context.dispose();
      }
      await backend.idle();
      await new Promise((resolve) => setTimeout(resolve, 50));
      return gpu.inUse;
    };
    // A table of rotations for each length stays with the model.
    const afterFirst = await round();
    assert.ok(afterFirst - before < 16_384, `${afterFirst} bytes, ${before} before`);
    assert.equal(await round(), afterFirst);
    t.mock.method(backend, 'fits', async () => 0);
    await assert.rejects(model.context(), MemoryError);
    model.dispose();
    assert.equal(gpu.inUse, 0);
    await gpu.device.queue.onSubmittedWorkDone();
    assert.equal(gpu.failure, undefined);
  });
});
