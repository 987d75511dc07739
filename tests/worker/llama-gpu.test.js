/** Models in a worker that are to run on a GPU, where there is none: what is refused, and how. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GpuError } from '../../js/gpu/errors.js';
import { ArgumentError, createWorkerLlama, LoadError } from '../../js/llama/index.js';
import { modelPath, rejection, untilAlive, workersAlive } from '../helpers/workers.js';

const ONE_THREAD = { threads: 1 };

test('without WebGPU, a model for the GPU is refused with the error of createGpuKernels', async () => {
  const before = workersAlive();
  const error = await rejection(createWorkerLlama(modelPath, { backend: 'gpu' }));
  assert.ok(error instanceof GpuError, String(error));
  assert.deepEqual([error.name, error.code, error.reason], ['GpuError', 'FM_GPU', 'unavailable']);
  assert.match(error.message, /no WebGPU/);
  await untilAlive(before);
});

test("without WebGPU, 'auto' is the CPU, and info says why", async (t) => {
  const options = { temperature: 0, maxTokens: 20 };
  const texts = [];
  for (const backend of /** @type {const} */ (['auto', 'cpu'])) {
    const model = await createWorkerLlama(modelPath, { ...ONE_THREAD, backend });
    t.after(() => model.dispose());
    const { name, reason } = model.info.backend;
    assert.equal(name, 'cpu');
    assert.match(reason, backend === 'auto' ? /^the GPU cannot be used: .*no WebGPU/ : /the option backend/);
    texts.push(await model.generate('Once upon a time', options).text());
  }
  assert.equal(texts[0], texts[1]);
});

test('a WebGPU object is refused by name: no message can carry it', async () => {
  const before = workersAlive();
  const gpu = { requestAdapter: () => null };
  for (const [options, name] of /** @type {[any, string][]} */ ([
    [{ backend: 'auto', gpu: { gpu } }, 'gpu.gpu'],
    [
      {
        backend: [
          { backend: 'cpu', layers: 1 },
          { backend: 'gpu', gpu: { gpu } },
        ],
      },
      'backend[1].gpu.gpu',
    ],
  ])) {
    const error = await rejection(createWorkerLlama(modelPath, options));
    assert.ok(error instanceof ArgumentError, String(error));
    assert.ok(error.message.startsWith(`${name} cannot be sent to a worker`), error.message);
  }
  assert.equal(workersAlive(), before, 'no worker was started');
});

test('wrong options of devices are refused as by Llama.load', async () => {
  for (const [options, message] of /** @type {[any, RegExp][]} */ ([
    [{ backend: 'gpus' }, /there is no backend "gpus".*did you mean "gpu"\?/],
    [{ backend: 'cpu', gpu: {} }, /gpu has the options of a GPU, and backend is "cpu"/],
    [{ backend: 'gpu', threads: 2 }, /threads belong\(s\) to the CPU/],
  ])) {
    const error = await rejection(createWorkerLlama(modelPath, options));
    assert.ok(error instanceof ArgumentError, String(error));
    assert.match(error.message, message);
  }
});

test('the script without the code of GPUs names the one that has it', async () => {
  const worker = new URL('../../dist/llama-host.js', import.meta.url);
  const error = await rejection(createWorkerLlama(modelPath, { backend: 'auto', worker }));
  assert.ok(error instanceof LoadError, String(error));
  assert.match(error.message, /fused-matmul\/llama-host-gpu/);
});
