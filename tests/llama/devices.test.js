/**
 * The options `backend` and `gpu` of Llama.load: their checks, the choice between CPU and GPU, and
 * what model.info says of it.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { GpuKernels } from '../../js/gpu/index.js';
import { openDevices } from '../../js/llama/devices.js';
import { ArgumentError, createKernels, Llama, ModelError } from '../../js/llama/index.js';
import { knownTimes, timeDevices, timeOf } from '../../js/llama/timing.js';
import { gpuSkip, webGpu } from '../helpers/gpu.js';
import { close, TOKENS } from '../helpers/llama.js';
import { makeModel } from '../helpers/synthetic-llama.js';

/** @import { Times, Timer } from '../../js/llama/devices.js' */
/** @import { LlamaOptions } from '../../js/llama/load-options.js' */

const made = makeModel({});
const source = /** @type {ArrayBuffer} */ (made.bytes.buffer);
/** As in tests/llama/architectures.test.js. */
const RELATIVE = 3e-5;
const EXACT = /** @type {const} */ ({ kvType: 'F32', activation: 'f32' });

/** A WebGPU that gives this adapter. @param {unknown} adapter */
const apiOf = (adapter) => ({ requestAdapter: async () => adapter });
const NO_ADAPTER = apiOf(null);
const SOFTWARE_ADAPTER = apiOf({
  info: { description: 'SwiftShader Device' },
  features: new Set(),
  limits: {},
});

/** The WebGPU of the tests, with shaders changed. @param {(code: string) => string} change */
async function changedApi(change) {
  const found = await webGpu();
  if ('skip' in found) throw new Error(found.skip);
  const { gpu } = found;
  /** @param {any} options */
  const requestAdapter = async (options) => {
    const adapter = /** @type {any} */ (await gpu.requestAdapter(options));
    const { info, features, limits } = adapter;
    /** @param {any} descriptor */
    const requestDevice = async (descriptor) => {
      const device = await adapter.requestDevice(descriptor);
      const { createShaderModule } = device;
      device.createShaderModule = (/** @type {any} */ module) =>
        createShaderModule.call(device, { ...module, code: change(module.code) });
      return device;
    };
    return { info, features, limits, requestDevice };
  };
  return { requestAdapter, wgslLanguageFeatures: gpu.wgslLanguageFeatures };
}

/** @param {string} [reason] */
const isGpuError = (reason) => (/** @type {any} */ error) => {
  assert.equal(error.code, 'FM_GPU', String(error));
  if (reason) assert.equal(error.reason, reason);
  return true;
};

/**
 * Loads with a timer that gives these times.
 * @param {LlamaOptions} options @param {Times | Error} times
 */
function loadTimed(options, times) {
  let calls = 0;
  /** @type {Timer} */
  const time = async () => {
    calls++;
    if (times instanceof Error) throw times;
    return times;
  };
  const model = Llama.loadTo((given, facts) => openDevices(given, facts, { time }), source, options);
  return { model, calls: () => calls };
}

test('backend: what it may be, by name', async () => {
  const load = (/** @type {any} */ options) =>
    Llama.load(source, { onProgress: () => assert.fail('weights were read'), ...options });
  const bad = (/** @type {any} */ options, /** @type {RegExp} */ message) =>
    assert.rejects(
      load(options),
      (error) => error instanceof ArgumentError && message.test(error.message),
      String(message),
    );
  await bad(
    { backend: 'gpuu' },
    /there is no backend "gpuu"; backends are cpu, gpu, auto; did you mean "gpu"\?/,
  );
  await bad({ backend: 'webgpu' }, /there is no backend "webgpu".*did you mean "gpu"\?/);
  await bad({ backend: 3 }, /backend must be 'cpu', 'gpu', 'auto' or a list of .* got 3/);
  await bad({ backend: [] }, /an empty list/);
  await bad({ backend: ['gpu'] }, /must be an object, got "gpu"/);
  await bad({ backend: [{ backend: 'auto' }] }, /there is no backend "auto"; backends are cpu, gpu/);
  await bad({ backend: [{ layers: 1 }] }, /backend\[0\]\.backend must be 'cpu' or 'gpu', got undefined/);
  await bad(
    { backend: [{ backend: 'cpu', layer: 1 }] },
    /no field of backend\[0\] "layer".*did you mean "layers"/,
  );
  for (const layers of [0, 1.5, 'all', -1])
    await bad(
      { backend: [{ backend: 'cpu', layers }] },
      /backend\[0\]\.layers must be an integer from 1 or 'fit', got/,
    );
  await bad(
    { backend: [{ backend: 'cpu' }, { backend: 'gpu' }] },
    /2 devices of backend have no number of layers/,
  );
  await bad({ backend: [{ backend: 'gpu', layers: 1, memoryBytes: 9 }] }, /memoryBytes needs layers: 'fit'/);
  await bad(
    { backend: [{ backend: 'gpu', layers: 'fit', memoryBytes: 0 }] },
    /memoryBytes must be a number 1 or more/,
  );
  await bad({ backend: [{ backend: 'cpu', gpu: {} }] }, /backend\[0\]\.gpu must be the options of a GPU/);
  await bad({ backend: 'cpu', gpu: {} }, /gpu has the options of a GPU, and backend is "cpu"/);
  await bad({ gpu: {} }, /gpu has the options of a GPU, and backend is "cpu"/);
  await bad({ backend: 'gpu', gpu: 5 }, /gpu must be an object, got 5/);
  await bad({ backend: 'gpu', threads: 1 }, /threads belong\(s\) to the CPU, and backend is "gpu"/);
  await bad({ backend: 'auto', gpu: { allowSoftwre: true } }, /no option "allowSoftwre".*"allowSoftware"/);
  const kernels = await createKernels({ threads: 1 });
  await bad({ kernels, backend: 'auto' }, /backend belong\(s\) to own kernels, and kernels are given/);
  kernels.dispose();
});

test('cpu: the default, what was asked for, or the kernels that were given', async () => {
  const reasonOf = async (/** @type {LlamaOptions} */ options) => {
    const model = await Llama.load(source, options);
    const { backend } = model.info;
    model.dispose();
    assert.equal(backend.name, 'cpu');
    return backend.reason;
  };
  assert.equal(await reasonOf({ threads: 1 }), 'the CPU is the default');
  assert.equal(await reasonOf({ backend: 'cpu', threads: 1 }), 'the option backend says so');
  const kernels = await createKernels({ threads: 1 });
  assert.equal(await reasonOf({ kernels }), 'its kernels were given');
  kernels.dispose();
});

test('gpu: where there is none, loading rejects with the reason', async () => {
  const load = (/** @type {unknown} */ gpu) => Llama.load(source, { backend: 'gpu', gpu: { gpu } });
  await assert.rejects(Llama.load(source, { backend: 'gpu' }), isGpuError('unavailable'));
  await assert.rejects(load(NO_ADAPTER), isGpuError('adapter'));
  await assert.rejects(load(SOFTWARE_ADAPTER), isGpuError('software'));
});

test('auto: without a GPU the model runs on the CPU, and says why', async () => {
  for (const [gpu, reason] of /** @type {[unknown, RegExp][]} */ ([
    [undefined, /^the GPU cannot be used: .*no WebGPU/],
    [NO_ADAPTER, /^the GPU cannot be used: WebGPU has no adapter here/],
    [SOFTWARE_ADAPTER, /^the GPU cannot be used: the only adapter, SwiftShader Device, computes on/],
  ])) {
    const options = { backend: /** @type {const} */ ('auto'), gpu: { gpu }, threads: 1, ...EXACT };
    const { model, calls } = loadTimed(options, { gpu: 1, cpu: 2 });
    const loaded = await model;
    const { name, reason: why, layers } = loaded.info.backend;
    assert.deepEqual([name, layers, calls()], ['cpu', undefined, 0]);
    assert.match(why, reason);
    assert.equal(loaded.info.kernels.threads, 1, 'options of the CPU are heard');
    close(await loaded.logits(TOKENS), made.logits(TOKENS), RELATIVE, 'logits');
    loaded.dispose();
  }
});

describe('with a GPU', { skip: await gpuSkip() }, async () => {
  const found = await webGpu();
  const gpu = { gpu: 'gpu' in found ? found.gpu : undefined, allowSoftware: true, selfTest: false };

  test('gpu: the model runs on kernels of its own, which end with it', async () => {
    const model = await Llama.load(source, { backend: 'gpu', gpu, ...EXACT });
    const { info, kernels } = model;
    assert.equal(info.backend.name, 'gpu');
    assert.equal(info.backend.reason, 'the option backend says so');
    assert.match(info.backend.steps.join(), /was opened/);
    assert.equal(info.gpu?.software, true);
    assert.ok(/** @type {unknown} */ (kernels) instanceof GpuKernels);
    close(await model.logits(TOKENS), made.logits(TOKENS), RELATIVE, 'logits');
    model.dispose();
    assert.equal(kernels.disposed, true);
    assert.equal(/** @type {any} */ (kernels).memory().bytes, 0);
  });

  test('auto: the faster one', async () => {
    for (const [times, name] of /** @type {[Times, string][]} */ ([
      [{ gpu: 1, cpu: 2.5 }, 'gpu'],
      [{ gpu: 30.04, cpu: 2 }, 'cpu'],
      [{ gpu: 2, cpu: 2 }, 'cpu'],
      [{ gpu: 2, cpu: Number.POSITIVE_INFINITY }, 'gpu'],
      [{ gpu: Number.POSITIVE_INFINITY, cpu: 2 }, 'cpu'],
    ])) {
      const { model, calls } = loadTimed({ backend: 'auto', gpu, ...EXACT }, times);
      const loaded = await model;
      const { backend, kernels, gpu: ofGpu } = loaded.info;
      assert.deepEqual([backend.name, calls()], [name, 1]);
      assert.match(backend.reason, /^the layers of a token take .* on the GPU and .* on the CPU$/);
      assert.equal(backend.steps.at(-1), backend.reason);
      assert.equal(kernels === undefined, name === 'gpu');
      assert.equal(ofGpu === undefined, name === 'cpu');
      loaded.dispose();
    }
    const { model } = loadTimed({ backend: 'auto', gpu, ...EXACT }, { gpu: 30.04, cpu: 2 });
    const { backend } = (await model).info;
    assert.equal(backend.reason, 'the layers of a token take 30 ms on the GPU and 2 ms on the CPU');
    (await model).dispose();
    const { model: failing } = loadTimed({ backend: 'auto', gpu }, new RangeError('a mistake'));
    await assert.rejects(failing, RangeError);
  });

  test('auto: a failing self-test, a model that the GPU lacks, a GPU that fails while loading', async () => {
    // Kernels that do nothing are compiled fast.
    const wrong = await changedApi(() => '@compute @workgroup_size(1) fn main() {}');
    const auto = /** @type {const} */ ({ backend: 'auto', threads: 1, ...EXACT });
    const broken = { gpu: wrong, allowSoftware: true };
    const { model: tested, calls } = loadTimed({ ...auto, gpu: broken }, { gpu: 1, cpu: 2 });
    const one = await tested;
    assert.match(one.info.backend.reason, /^the GPU cannot be used: kernels compute wrong results on/);
    assert.deepEqual([one.info.backend.name, calls()], ['cpu', 0]);
    close(await one.logits(TOKENS), made.logits(TOKENS), RELATIVE, 'logits');
    one.dispose();
    await assert.rejects(
      Llama.load(source, { backend: 'gpu', gpu: broken, ...EXACT }),
      isGpuError('selftest'),
    );

    // Heads of 2 values: a GPU takes multiples of 4.
    const small = /** @type {ArrayBuffer} */ (makeModel({ headSize: 2 }).bytes.buffer);
    const two = await Llama.load(small, { ...auto, gpu });
    assert.match(two.info.backend.reason, /^the GPU cannot compute this model: heads of 2 values are not/);
    two.dispose();
    await assert.rejects(
      Llama.load(small, { backend: 'gpu', gpu }),
      (error) => error instanceof ModelError && /heads of 2 values/.test(error.message),
    );

    const full = await Llama.loadTo(
      async (options, facts) => {
        const opened = await openDevices(options, facts, { time: async () => ({ gpu: 1, cpu: 2 }) });
        if (!('choice' in opened)) return assert.fail();
        opened.backend.loadWeights = async () => {
          const { GpuError } = await import('../../js/gpu/index.js');
          throw new GpuError('the GPU has no room', 'memory');
        };
        return opened;
      },
      source,
      { ...auto, gpu },
    );
    assert.equal(full.info.backend.reason, 'the model could not be loaded to the GPU: the GPU has no room');
    close(await full.logits(TOKENS), made.logits(TOKENS), RELATIVE, 'logits');
    full.dispose();
  });

  test('auto: an abort between two steps ends it', async () => {
    const controller = new AbortController();
    const loading = Llama.loadTo(
      (options, facts) =>
        openDevices(options, facts, {
          time: async () => {
            controller.abort(new Error('enough'));
            return { gpu: 1, cpu: 2 };
          },
        }),
      source,
      { backend: 'auto', gpu, signal: controller.signal },
    );
    await assert.rejects(loading, /enough/);
  });

  test('times are measured once for the same devices and a model of the same size', async () => {
    knownTimes.forget();
    /** @type {Times[]} */
    const seen = [];
    /** Bytes in use after it. @type {number[]} */
    const left = [];
    /** @type {Timer} */
    const time = async (onGpu, onCpu, facts) => {
      const before = onGpu.info.memoryBytes;
      seen.push(await timeDevices(onGpu, onCpu, facts));
      left.push(onGpu.info.memoryBytes - before);
      if (seen.length === 1) assert.ok((await timeOf(onCpu, facts)) > 0);
      return seen[0];
    };
    const load = async (/** @type {ArrayBuffer} */ bytes) => {
      const open = (/** @type {any} */ options, /** @type {any} */ facts) =>
        openDevices(options, facts, { time });
      (await Llama.loadTo(open, bytes, { backend: 'auto', gpu, threads: 1 })).dispose();
    };
    await load(source);
    await load(/** @type {ArrayBuffer} */ (makeModel({ seed: 3 }).bytes.buffer));
    assert.deepEqual(seen[0], seen[1]);
    for (const ms of Object.values(seen[0])) assert.ok(ms > 0 && Number.isFinite(ms), `${ms} ms`);
    await load(/** @type {ArrayBuffer} */ (makeModel({ nLayers: 3 }).bytes.buffer));
    assert.notDeepEqual(seen[2], seen[0]);
    // Vectors and the numbers of steps stay with the backend; the weights of two layers take twice as much.
    assert.ok(
      left.every((bytes) => bytes < 96_000),
      `${left} bytes are left`,
    );
    knownTimes.forget();
  });
});
