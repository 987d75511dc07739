/**
 * Faults of the GPU while a model is loaded and runs: the device is destroyed, memory runs out, the
 * adapter or the driver refuses something, weights are damaged. Every call ends with a typed error,
 * and all memory is given back.
 *
 * Where results do not matter the kernels are empty: the real ones take SwiftShader seconds to
 * compile.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { GpuBackend } from '../../js/gpu/backend.js';
import { GpuDevice } from '../../js/gpu/device.js';
import { GpuError } from '../../js/gpu/errors.js';
import { Pipelines } from '../../js/gpu/pipelines.js';
import { NumericError } from '../../js/llama/errors.js';
import { Llama } from '../../js/llama/index.js';
import { createKernels } from '../../js/wasm/create.js';
import { SEED as DRAW_SEED, gpuSkip, openTestDevice, sampled } from '../helpers/gpu.js';
import { Prng } from '../helpers/prng.js';
import { makeModel } from '../helpers/synthetic-llama.js';

/** @import { TensorSpec } from '../helpers/gguf-bytes.js' */
/** @import { Shader } from '../../js/gpu/shader.js' */

/** FM_TEST_DEEP: at 100 points, and with other ones in each run. */
const DEEP = Boolean(process.env.FM_TEST_DEEP);
const POINTS = DEEP ? 100 : 30;
const SEED = Number(process.env.FM_TEST_SEED ?? (DEEP ? Date.now() % 2 ** 31 : 17));
/**
 * No call takes longer than this, however slow the machine; the second where real kernels are
 * compiled.
 */
const [LIMIT_MS, COMPILE_MS] = [20_000, 180_000];
/** What no driver without a GPU can allocate, though it may be asked for. */
const TOO_MANY_BYTES = 2 ** 30;
const PROMPT = Array.from({ length: 20 }, (_, i) => 3 + i);

const QUANTISED = /** @type {ArrayBuffer} */ (
  makeModel({ type: 'Q8_0', qkType: 'Q4_0', nEmbd: 64, nFf: 96 }).bytes.buffer
);

/** @param {import('../../js/gpu/errors.js').GpuReason[]} reasons */
const isGpuError =
  (...reasons) =>
  (/** @type {unknown} */ error) => {
    if (error instanceof GpuError && reasons.includes(error.reason)) return true;
    throw error;
  };

/**
 * Rejects if work hangs.
 * @template T
 * @param {Promise<T>} work
 * @param {number} [limit] in milliseconds
 * @returns {Promise<T>}
 */
async function inTime(work, limit = LIMIT_MS) {
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing for ${limit} ms: it hangs`)), limit);
  });
  try {
    return /** @type {T} */ (await Promise.race([work, late]));
  } finally {
    clearTimeout(timer);
  }
}

/** Kernels that do nothing, each with its own bindings. */
function emptyKernels() {
  /** @type {Map<string, number>} */
  const numbers = new Map();
  return (/** @type {Shader} */ shader) => {
    if (!numbers.has(shader.code)) numbers.set(shader.code, numbers.size);
    return { ...shader, code: `// ${numbers.get(shader.code)}\n@compute @workgroup_size(1) fn main() {}` };
  };
}

/**
 * Loads a model.
 * @param {GpuDevice} gpu
 * @param {{ rewrite?: (shader: Shader) => Shader, owned?: boolean }} [given] owned: the device ends
 *   with the model, and all memory with it; otherwise whoever takes memory must give it back
 */
function load(gpu, { rewrite = emptyKernels(), owned = true } = {}) {
  return Llama.loadTo(
    async ({ kvType = 'F16' }) =>
      new GpuBackend(gpu, {
        kvType,
        variants: { subgroups: false, int8: false },
        pipelines: new Pipelines(gpu, { rewrite }),
        onDispose: () => owned && gpu.destroy(),
      }),
    QUANTISED,
    {},
  );
}

/**
 * Everything that a model does: it is loaded, reads a prompt, writes a few tokens of both kinds,
 * and embeds.
 * @param {GpuDevice} gpu
 * @param {Parameters<typeof load>[1]} [given]
 * @returns {Promise<unknown>} the first error
 */
async function useAll(gpu, given) {
  /** @type {unknown} */
  let failure;
  let model;
  try {
    model = await inTime(load(gpu, given));
    await inTime(model.logits(PROMPT));
    for (const temperature of [0, 1]) {
      const options = { temperature, maxTokens: 3, ignoreEnd: true, seed: 1 };
      await inTime(model.generate(PROMPT, options).text());
    }
    await inTime(model.embed('\u4e05\u4e06'));
  } catch (error) {
    failure = error;
  }
  if (model && failure) {
    // A device that failed stays failed, and says why.
    await assert.rejects(inTime(model.logits([1])), GpuError);
  }
  model?.dispose();
  // A device that failed must be destroyed; any other has its memory back.
  if (gpu.failure) gpu.destroy();
  assert.equal(gpu.inUse, 0, 'all memory is given back');
  return failure;
}

/** Calls of a device that are counted. */
const CALLS = /** @type {const} */ ([
  'createBuffer',
  'createBindGroup',
  'createComputePipelineAsync',
  'createCommandEncoder',
  'popErrorScope',
]);

/**
 * Does something at the n-th call of a device.
 * @param {GpuDevice} gpu
 * @param {number} n
 * @param {() => void} act
 * @returns {() => number} calls so far
 */
function atCall({ device }, n, act) {
  let count = 0;
  const counted = (/** @type {any} */ of, /** @type {string} */ name) => {
    const original = of[name];
    of[name] = (/** @type {any[]} */ ...args) => {
      // Submissions of nothing only wake the device; how many there are depends on time.
      if (!(name === 'submit' && args[0].length === 0) && ++count === n) act();
      return original.apply(of, args);
    };
  };
  for (const name of CALLS) counted(device, name);
  for (const name of ['submit', 'writeBuffer', 'onSubmittedWorkDone']) counted(device.queue, name);
  return () => count;
}

describe('faults of the GPU', { skip: await gpuSkip() }, () => {
  test('a device is destroyed at any moment', async (t) => {
    const counting = await openTestDevice();
    const calls = atCall(counting, 0, () => {});
    assert.equal(await useAll(counting), undefined, 'without a fault everything works');
    const total = calls();
    t.diagnostic(`seed ${SEED}, ${POINTS} points of ${total} calls`);
    const prng = new Prng(SEED);
    for (let i = 0; i < POINTS; i++) {
      // One in each part of the whole, at once or after the next turn of the loop.
      const n = Math.floor(((i + prng.unit()) * total) / POINTS) + 1;
      const later = prng.unit() < 0.5;
      const gpu = await openTestDevice();
      atCall(gpu, n, () => {
        if (later) setImmediate(() => gpu.device.destroy());
        else gpu.device.destroy();
      });
      const failure = await useAll(gpu);
      const where = `call ${n}${later ? ', later' : ''}, seed ${SEED}`;
      // What came last may be done before the device is destroyed.
      if (failure === undefined) assert.ok(later || n > total - 20, `${where}: an error is missing`);
      else assert.ok(failure instanceof GpuError && failure.reason === 'lost', `${where}: ${failure}`);
    }
    assert.equal(await useAll(await openTestDevice()), undefined, 'a new device works');
  });

  test('several calls that wait all hear of it', async () => {
    const gpu = await openTestDevice();
    const backend = new GpuBackend(gpu, {
      kvType: 'F16',
      variants: { subgroups: false, int8: false },
      onDispose: () => gpu.destroy(),
    });
    const x = backend.tensor({ nRows: 2, nCols: 20 });
    const tokens = backend.tokens(4);
    await backend.read(x);
    /** @type {Promise<unknown>[]} */
    const waiting = [backend.read(x), backend.idle(), backend.readTokens(tokens, 0, 2), backend.read(x)];
    gpu.device.destroy();
    for (const one of waiting) await assert.rejects(inTime(one), isGpuError('lost'));
    assert.throws(() => backend.tensor({ nRows: 1, nCols: 1 }), isGpuError('lost'));
    await assert.rejects(inTime(backend.idle()), isGpuError('lost'));
    backend.dispose();
    assert.equal(gpu.inUse, 0);
  });

  test('a model that is disposed while its kernels are compiled leaves the device as it was', async () => {
    const gpu = await openTestDevice();
    const pipelines = new Pipelines(gpu, { rewrite: emptyKernels() });
    const model = await Llama.loadTo(
      async () =>
        new GpuBackend(gpu, { kvType: 'F16', variants: { subgroups: false, int8: false }, pipelines }),
      QUANTISED,
      {},
    );
    const { device } = gpu;
    const { createComputePipelineAsync } = device;
    let compiling = 0;
    device.createComputePipelineAsync = async (descriptor) => {
      compiling++;
      await new Promise((resolve) => setTimeout(resolve, 200));
      return createComputePipelineAsync.call(device, descriptor);
    };
    const running = model.logits(PROMPT);
    running.catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.ok(compiling > 0);
    model.dispose();
    await assert.rejects(inTime(running));
    const other = gpu.buffer(16);
    await inTime(gpu.device.queue.onSubmittedWorkDone());
    assert.equal(gpu.failure, undefined);
    other.free();
    gpu.destroy();
  });

  test('memory runs out at each allocation', async (t) => {
    let n = 0;
    for (let done = false; !done; n++) {
      const gpu = await openTestDevice();
      const { device } = gpu;
      const { createBuffer } = device;
      let made = 0;
      let failed = false;
      device.createBuffer = (descriptor) => {
        failed ||= made++ === n;
        return createBuffer.call(device, failed ? { ...descriptor, size: TOO_MANY_BYTES } : descriptor);
      };
      const failure = await useAll(gpu, { owned: false });
      gpu.destroy();
      done = !failed;
      if (done) assert.equal(failure, undefined);
      else {
        assert.ok(failure instanceof GpuError, `allocation ${n}: ${failure}`);
        assert.equal(failure.reason, 'memory', `allocation ${n}: ${failure}`);
      }
    }
    t.diagnostic(`${n - 1} allocations`);
    assert.ok(n > 20);
  });

  test('an adapter that does not keep its word', async () => {
    const real = await openTestDevice();
    const { api, adapter: info } = real;
    const features = new Set();
    const limits = { maxBufferSize: 1, maxStorageBufferBindingSize: 1, maxStorageBuffersPerShaderStage: 1 };
    const adapter = {
      info,
      features,
      limits,
      requestDevice: () => Promise.reject(new Error('no, after all')),
    };
    const gpu = /** @type {GPU} */ (/** @type {unknown} */ ({ requestAdapter: async () => adapter }));
    await assert.rejects(GpuDevice.open({ gpu, allowSoftware: true }), (error) => {
      assert.ok(isGpuError('adapter')(error));
      assert.equal(/** @type {Error} */ (/** @type {Error} */ (error).cause).message, 'no, after all');
      return true;
    });
    const broken = /** @type {GPU} */ (
      /** @type {unknown} */ ({ requestAdapter: () => Promise.reject(new Error('blocked')) })
    );
    await assert.rejects(GpuDevice.open({ gpu: broken }), isGpuError('adapter'));
    // It says that it takes larger bindings than it does.
    const { device } = real;
    const { createBindGroup } = device;
    let left = 20;
    device.createBindGroup = (descriptor) => {
      if (left-- > 0) return createBindGroup.call(device, descriptor);
      const entries = [...descriptor.entries].map(({ binding, resource }) => ({
        binding,
        resource: { .../** @type {GPUBufferBinding} */ (resource), offset: 0, size: 2 ** 40 },
      }));
      return createBindGroup.call(device, { ...descriptor, entries });
    };
    assert.ok(isGpuError('command')(await useAll(real)));
    assert.ok(api);
  });

  test('the driver rejects a kernel', async () => {
    const kernels = [
      'planes of',
      'embed',
      'matvec',
      'heads',
      'attention',
      'matmul',
      'rms norm',
      'check of',
      'argmax',
    ];
    for (const name of kernels) {
      const gpu = await openTestDevice();
      const empty = emptyKernels();
      let found = false;
      const rewrite = (/** @type {Shader} */ shader) => {
        if (!shader.name.startsWith(name)) return empty(shader);
        found = true;
        return { ...shader, code: '@compute @workgroup_size(1) fn main() { let a: u32 = 1.5; }' };
      };
      /** @type {unknown} */
      let failure;
      let model;
      try {
        model = await inTime(load(gpu, { rewrite, owned: false }));
        await inTime(model.logits(PROMPT));
        await inTime(model.generate(PROMPT, { temperature: 0, maxTokens: 2, ignoreEnd: true }).text());
      } catch (error) {
        failure = error;
      }
      assert.ok(found, name);
      assert.ok(isGpuError('shader')(failure));
      assert.match(String(failure), new RegExp(`rejects the kernel ${name}.*: line 1:`));
      assert.equal(gpu.failure, undefined, 'the device is as good as before');
      model?.dispose();
      assert.equal(gpu.inUse, 0);
      gpu.destroy();
    }
  });
});

describe('numbers that cannot be right, on a GPU', { skip: await gpuSkip() }, () => {
  /** @type {GpuDevice} */
  let gpu;
  /** @type {Pipelines} */
  let pipelines;
  /** @type {import('../../js/wasm/kernels.js').Kernels} */
  let kernels;
  before(async () => {
    gpu = await openTestDevice();
    pipelines = new Pipelines(gpu);
    kernels = await createKernels({ threads: 1 });
  });
  after(() => {
    kernels?.dispose();
    gpu?.destroy();
  });

  const nEmbd = 32;
  /** @type {[string, number, number?][]} */
  const DAMAGED = [
    ['token_embd.weight', Number.NaN, 6 * nEmbd + 3],
    ['blk.1.attn_norm.weight', Number.POSITIVE_INFINITY],
    ['blk.0.attn_q.weight', Number.NaN],
    ['blk.1.attn_k.weight', Number.NaN],
    ['blk.1.attn_v.weight', 1e30],
    ['blk.0.attn_output.weight', Number.NaN],
    ['blk.1.ffn_gate.weight', Number.NaN],
    ['blk.0.ffn_down.weight', Number.POSITIVE_INFINITY],
    ['output_norm.weight', Number.NaN],
    ['output.weight', Number.NaN],
  ];
  for (const [name, value, at = 3] of sampled(DAMAGED, 3)) {
    test(`seed ${DRAW_SEED}: ${value} in ${name} is found where the CPU finds it`, async () => {
      /** @param {TensorSpec[]} tensors */
      const change = (tensors) => {
        const { data } = /** @type {TensorSpec} */ (tensors.find((one) => one.name === name));
        new DataView(data.buffer, data.byteOffset).setFloat32(4 * at, value, true);
        return tensors;
      };
      const { bytes } = makeModel({ nLayers: 2, nEmbd, nFf: 48, nHeads: 2, nKvHeads: 1, change });
      const source = /** @type {ArrayBuffer} */ (bytes.buffer);
      /** @param {Llama} model */
      const errorOf = async (model) => {
        try {
          await inTime(model.logits([1, 4, 6]), COMPILE_MS);
        } catch (error) {
          model.dispose();
          assert.ok(error instanceof NumericError, String(error));
          const { part, layer, position } = error;
          // Of several columns any may be named, and numbers differ in their last digits.
          const message = error.message.replace(/(hold|came out as) [-\w.+]+/, '$1 a number');
          return { message, part, layer, position };
        }
        return assert.fail('the number is not found');
      };
      const expected = await errorOf(await Llama.load(source, { kernels, activation: 'f32', kvType: 'F16' }));
      const onGpu = await Llama.loadTo(
        async () =>
          new GpuBackend(gpu, { kvType: 'F16', variants: { subgroups: false, int8: false }, pipelines }),
        source,
        { kvType: 'F16', activation: 'f32' },
      );
      const got = await errorOf(onGpu);
      assert.deepEqual(got, expected);
      assert.equal(gpu.inUse, 0, 'all memory is given back');
    });
  }
});
