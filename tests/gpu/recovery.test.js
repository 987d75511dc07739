/**
 * Models whose GPU is lost while they compute, on a software driver: it is opened again, and the
 * text goes on. tests/llama/recovery.test.js loses devices at every call.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Llama } from '../../js/llama/index.js';
import { DEEP, gpuSkip, webGpu } from '../helpers/gpu.js';
import { close, TOKENS } from '../helpers/llama.js';
import { makeModel } from '../helpers/synthetic-llama.js';

/** @import { BackendOption } from '../../js/llama/load-options.js' */

const made = makeModel({});
/** As in tests/llama/architectures.test.js. */
const RELATIVE = 3e-5;
const EXACT = /** @type {const} */ ({ kvType: 'F32', activation: 'f32' });
/** So short that one form of kernels serves it, and is used again for what is computed again. */
const PROMPT = TOKENS.slice(0, 2);
const GREEDY = { temperature: 0, maxTokens: 8, ignoreEnd: true };
const DRAWN = { temperature: 1, topK: 20, seed: 5, maxTokens: 8, ignoreEnd: true };

describe('a GPU that is lost', { skip: await gpuSkip() }, async () => {
  const found = await webGpu();

  /** A WebGPU that notes its devices. */
  function notingApi() {
    const { gpu } = /** @type {{ gpu: GPU }} */ (found);
    /** @type {GPUDevice[]} */
    const devices = [];
    /** @param {any} options */
    const requestAdapter = async (options) => {
      const adapter = /** @type {GPUAdapter} */ (await gpu.requestAdapter(options));
      const { info, features, limits } = adapter;
      /** @param {any} descriptor */
      const requestDevice = async (descriptor) => {
        const device = await adapter.requestDevice(descriptor);
        devices.push(device);
        return device;
      };
      return { info, features, limits, requestDevice };
    };
    return { devices, gpu: { requestAdapter, wgslLanguageFeatures: gpu.wgslLanguageFeatures } };
  }

  /** @param {BackendOption} backend */
  async function load(backend) {
    const { devices, gpu } = notingApi();
    const options = { gpu, allowSoftware: true, selfTest: false };
    const model = await Llama.load(made.bytes, { backend, gpu: options, ...EXACT });
    return { model, devices };
  }

  /**
   * Writes a text, and loses the last device after some pieces.
   * @param {Awaited<ReturnType<typeof load>>} loaded
   * @param {object} options
   * @param {number} [nPieces]
   */
  async function write({ model, devices }, options, nPieces) {
    const run = model.generate(PROMPT, options);
    let n = 0;
    for await (const _ of run) if (++n === nPieces) devices.at(-1)?.destroy();
    return run.tokens;
  }

  test('in the middle of texts: opened again, and then the CPU goes on', async (t) => {
    t.mock.method(Date, 'now', () => 0);
    const loaded = await load('gpu');
    const { model, devices } = loaded;
    const tokens = await write(loaded, GREEDY);
    assert.deepEqual(await write(loaded, GREEDY, 3), tokens);
    assert.equal(devices.length, 2);
    const { backend, gpu, memory } = model.info;
    assert.equal(backend.name, 'gpu');
    assert.match(backend.reason, /^the GPU was lost after [4-8] tokens: opened again$/);
    assert.equal(backend.steps.length, 3, backend.steps.join('\n'));
    assert.equal(memory.linear, gpu?.memoryBytes);
    assert.equal(/** @type {any} */ (model.kernels).memory().bytes, gpu?.memoryBytes);

    assert.deepEqual(await write(loaded, GREEDY, 2), tokens);
    assert.equal(devices.length, 2);
    assert.equal(model.info.backend.reason, 'the GPU was lost twice within a minute');
    assert.equal(model.info.gpu, undefined);
    close(await model.logits(TOKENS), made.logits(TOKENS), RELATIVE, 'logits');
    model.dispose();
  });

  test('with layers on the CPU, in the middle of a text: drawn tokens are the same', {
    skip: !DEEP && 'compiles for a minute: FM_TEST_DEEP=1 runs it',
  }, async () => {
    const loaded = await load([{ backend: 'gpu', layers: 1 }, { backend: 'cpu' }]);
    const { model, devices } = loaded;
    const tokens = await write(loaded, DRAWN);
    assert.deepEqual(await write(loaded, DRAWN, 3), tokens);
    assert.equal(devices.length, 2);
    const { name, layers } = model.info.backend;
    assert.deepEqual([name, layers?.length], ['mixed', 2]);
    model.dispose();
  });
});
