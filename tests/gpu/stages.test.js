/**
 * Models on several devices, one of them a GPU at least: a GPU and the CPU, and two GPUs (two devices
 * of a driver without a GPU).
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { openBackend } from '../../js/backend.js';
import { createGpuKernels, GpuError } from '../../js/gpu/index.js';
import { roomFor } from '../../js/gpu/room.js';
import { createKernels, Llama, NumericError } from '../../js/llama/index.js';
import { openStages } from '../../js/llama/stages.js';
import { WasmBackend } from '../../js/wasm/backend.js';
import { gpuSkip, openTestDevice, SEED, sampled, webGpu } from '../helpers/gpu.js';
import { close, TOKENS } from '../helpers/llama.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { dataPath, skipWithout } from '../helpers/test-data.js';

/** @import { GpuKernels } from '../../js/gpu/index.js' */
/** @import { BackendPart } from '../../js/llama/load-options.js' */
/** @import { TensorSpec } from '../helpers/gguf-bytes.js' */

/** Orders of two different devices. @type {BackendPart['backend'][][]} */
const ORDERS = [
  ['gpu', 'cpu'],
  ['cpu', 'gpu'],
];

/** The limit of tests/llama/architectures.test.js for two layers, for models of up to seven. */
const RELATIVE = 1e-4;
const EXACT = /** @type {const} */ ({ kvType: 'F32', activation: 'f32' });
/** Models, and how many layers the first device has. @type {[string, number][]} */
const MODELS = [
  ['llama-rope3-A', 1],
  ['qwen3-A', 1],
  ['gemma3-A', 3],
];
/** More bytes than a driver without a GPU can allocate. */
const TOO_MANY_BYTES = 2 ** 30;

describe('several devices with a GPU', { skip: await gpuSkip() }, async () => {
  const found = await webGpu();
  const options = { gpu: 'gpu' in found ? found.gpu : undefined, allowSoftware: true, selfTest: false };
  /** Two devices, and the CPU, whose kernels all tests share. @type {GpuKernels[]} */
  const gpus = [];
  /** @type {import('../../js/index.js').Kernels} */
  let cpu;
  before(async () => {
    gpus.push(await createGpuKernels(options), await createGpuKernels(options));
    cpu = await createKernels({ threads: 1 });
  });
  after(() => {
    for (const kernels of [...gpus, cpu]) kernels?.dispose();
  });

  /**
   * Loads to the shared devices.
   * @param {string | ArrayBuffer} source @param {BackendPart[]} list @param {object} [more]
   */
  function load(source, list, more = {}) {
    let n = 0;
    const open = async (/** @type {BackendPart} */ { backend }) =>
      backend === 'gpu'
        ? gpus[n++][openBackend](EXACT)
        : new WasmBackend(cpu, { ...EXACT, ownsKernels: false });
    return Llama.loadTo((_, facts) => openStages(list, facts, open, true), source, { ...EXACT, ...more });
  }

  /** Layers on the devices of a list. @param {BackendPart['backend'][]} names @param {number} first */
  const split = ([one, two], first) => [{ backend: one, layers: first }, { backend: two }];

  /** Logits of a batch, and greedy tokens after a rewind. @param {Llama} model */
  async function resultsOf(model) {
    const logits = await model.logits([...TOKENS, ...TOKENS, ...TOKENS]);
    const run = model.generate(TOKENS.slice(0, 4), { temperature: 0, maxTokens: 5, ignoreEnd: true });
    await run.text();
    assert.equal(run.stats.reusedTokens, 4 - 1);
    return { logits, tokens: run.tokens };
  }

  for (const [name, first] of sampled(MODELS, 1)) {
    test(`a GPU and the CPU, and two GPUs, ${name}, seed ${SEED}`, {
      skip: skipWithout('arch/models'),
    }, async () => {
      const path = dataPath(`arch/models/${name}.gguf`);
      const more = { contextLength: 64 };
      const run = async (/** @type {BackendPart[]} */ list) => {
        const model = await load(path, list, more);
        const results = await resultsOf(model);
        const { backend } = model.info;
        model.dispose();
        return { ...results, backend };
      };
      const onCpu = await run([{ backend: 'cpu' }]);
      const onGpu = await run([{ backend: 'gpu' }]);
      close(onGpu.logits, onCpu.logits, RELATIVE, 'one GPU');
      for (const names of sampled(ORDERS, 1)) {
        const { logits, tokens, backend } = await run(split(names, first));
        close(logits, onCpu.logits, RELATIVE, `${first} layers on ${names[0]}`);
        assert.deepEqual(tokens, onCpu.tokens);
        assert.equal(backend.name, 'mixed');
        assert.deepEqual(
          backend.layers?.map(({ backend: of, to }) => [of, to]),
          [
            [names[0], first],
            [names[1], backend.layers?.[1].to],
          ],
        );
      }
      const { logits, tokens } = await run(split(['gpu', 'gpu'], first));
      assert.deepEqual(logits, onGpu.logits, `two GPUs, ${first} layers on the first`);
      assert.deepEqual(tokens, onGpu.tokens);
    });
  }

  test('by the option: own kernels of each device, which end with the model', async () => {
    const made = makeModel({ nLayers: 3 });
    const source = /** @type {ArrayBuffer} */ (made.bytes.buffer);
    const backend = /** @type {BackendPart[]} */ ([
      { backend: 'gpu', layers: 'fit', memoryBytes: 350_000 },
      { backend: 'gpu', layers: 1, gpu: { ...options, features: [] } },
      { backend: 'cpu' },
    ]);
    const model = await Llama.load(source, { backend, gpu: options, threads: 1, ...EXACT });
    const { info, kernels } = model;
    const { name, layers, steps } = info.backend;
    assert.deepEqual(
      [name, layers],
      [
        'mixed',
        [
          { backend: 'gpu', from: 0, to: 1 },
          { backend: 'gpu', from: 1, to: 2 },
          { backend: 'cpu', from: 2, to: 3 },
        ],
      ],
      steps.join('\n'),
    );
    assert.ok(info.gpu && info.kernels.threads === 1);
    close(await model.logits(TOKENS), made.logits(TOKENS), RELATIVE, 'logits');
    model.dispose();
    assert.equal(kernels.disposed, true);
  });

  test('numbers that are wrong: their place, and the next call works', async () => {
    for (const [broken, place] of /** @type {[string, [string, number | undefined]][]} */ ([
      ['blk.0.ffn_down.weight', ['feed-forward', 0]],
      ['blk.1.attn_output.weight', ['attention', 1]],
    ])) {
      const change = (/** @type {TensorSpec[]} */ list) =>
        list.map((one) => {
          if (one.name !== broken) return one;
          const data = one.data.slice();
          new DataView(data.buffer).setFloat32(400, Number.NaN, true);
          return { ...one, data };
        });
      const source = /** @type {ArrayBuffer} */ (makeModel({ change }).bytes.buffer);
      for (const names of /** @type {BackendPart['backend'][][]} */ ([
        ['gpu', 'cpu'],
        ['cpu', 'gpu'],
        ['gpu', 'gpu'],
      ])) {
        const model = await load(source, split(names, 1));
        for (let again = 0; again < 2; again++)
          await assert.rejects(model.logits(TOKENS.slice(0, 5)), (error) => {
            assert.ok(error instanceof NumericError, String(error));
            assert.deepEqual([error.part, error.layer, error.position], [...place, 0], names.join(' + '));
            return true;
          });
        model.dispose();
      }
    }
    assert.equal(cpu.memory().handles, 0);
  });

  test('a GPU that is lost while the CPU waits for its states', async () => {
    const source = /** @type {ArrayBuffer} */ (makeModel({}).bytes.buffer);
    const lost = await createGpuKernels(options);
    const open = async (/** @type {BackendPart} */ { backend }) =>
      backend === 'gpu' ? lost[openBackend](EXACT) : new WasmBackend(cpu, { ...EXACT, ownsKernels: false });
    const model = await Llama.loadTo(
      (_, facts) => openStages(split(['gpu', 'cpu'], 1), facts, open, true),
      source,
      EXACT,
    );
    const running = model.logits(TOKENS);
    setTimeout(() => lost.dispose(), 20);
    await assert.rejects(running, (error) => error instanceof GpuError && error.reason === 'lost');
    model.dispose();
    assert.equal(cpu.memory().handles, 0);
  });

  test('room: pieces of memory until one is refused, and all are given back', async () => {
    const gpu = await openTestDevice();
    const { device } = gpu;
    const { createBuffer } = device;
    const pieces = Array.from({ length: 6 }, () => 1 << 20);
    assert.equal(await roomFor(gpu, pieces), 6);
    assert.equal(await roomFor(gpu, []), 0);
    for (const refused of [0, 1, 4]) {
      let made = 0;
      device.createBuffer = (descriptor) => {
        // A sixteenth stays free.
        assert.equal(descriptor.size, (1 << 20) + (1 << 16));
        return createBuffer.call(
          device,
          made++ === refused ? { ...descriptor, size: TOO_MANY_BYTES } : descriptor,
        );
      };
      assert.equal(await roomFor(gpu, pieces), refused);
    }
    device.createBuffer = createBuffer;
    assert.deepEqual([gpu.inUse, gpu.failure], [0, undefined]);
    // A piece that is larger than a buffer may be is several buffers.
    gpu.limits.bufferBytes = 1 << 18;
    assert.equal(await roomFor(gpu, pieces), 6);
    assert.equal(gpu.inUse, 0);
    gpu.destroy();
    await assert.rejects(
      roomFor(gpu, pieces),
      (error) => error instanceof GpuError && error.reason === 'lost',
    );
  });
});
