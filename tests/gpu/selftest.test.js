/**
 * The self-test of the GPU kernels: it passes with every weight type and setting, and finds faults
 * that are put into the WGSL of each kernel.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { GpuError } from '../../js/gpu/errors.js';
import { PLAIN } from '../../js/gpu/features.js';
import { Pipelines } from '../../js/gpu/pipelines.js';
import { chooseVariants, selfTest } from '../../js/gpu/selftest.js';
import { generator, makeMatrix } from '../../js/gpu/selftest-data.js';
import { WasmBackend } from '../../js/wasm/backend.js';
import { createKernels } from '../../js/wasm/create.js';
import { gpuSkip, openTestDevice, SEED, sampled } from '../helpers/gpu.js';
import { GPU_TYPES as TYPES } from '../helpers/gpu-weights.js';
import { FAULTS, OTHER_SETTINGS, SMALL } from '../helpers/selftest-faults.js';

/** @import { GpuDevice } from '../../js/gpu/device.js' */
/** @import { SelfTestOptions } from '../../js/gpu/selftest.js' */
/** @import { Shader } from '../../js/gpu/shader.js' */

/** Faults that are tested. */
const DRAWN = 4;

describe('the self-test of the GPU', { skip: await gpuSkip() }, () => {
  /** @type {GpuDevice} */
  let gpu;
  /** @type {Pipelines} */
  let pipelines;
  /** @type {import('../../js/wasm/kernels.js').Kernels} */
  let fm;
  /** @type {WasmBackend} */
  let wasm;
  /** Changes shaders. @type {(shader: Shader) => Shader} */
  let rewrite = (shader) => shader;

  before(async () => {
    gpu = await openTestDevice();
    // Shared by all tests: only what a fault changes is compiled anew.
    pipelines = new Pipelines(gpu, { rewrite: (shader) => rewrite(shader) });
    fm = await createKernels({ threads: 1 });
    wasm = new WasmBackend(fm, { activation: 'f32', kvType: 'F16', ownsKernels: false });
  });
  after(() => {
    fm?.dispose();
    gpu?.destroy();
  });

  /** @param {Partial<SelfTestOptions>} options */
  const run = (options) =>
    selfTest(
      { ...SMALL, gpu, pipelines, kvType: 'F32', variants: { subgroups: false, int8: false }, ...options },
      wasm,
    );

  /** @param {Partial<SelfTestOptions>} options */
  async function passes(options) {
    const before = { gpu: gpu.inUse, handles: fm.memory().handles };
    const { cases, failed } = await run(options);
    assert.deepEqual(failed, []);
    assert.deepEqual({ gpu: gpu.inUse, handles: fm.memory().handles }, before, 'everything is given back');
    return cases.map(({ name }) => name);
  }

  test('passes, and covers every block', async () => {
    const names = await passes({});
    for (const block of ['embed, 5 tokens', 'head, 1 token', 'head, 5 tokens', 'largest logit, 1 token'])
      assert.ok(
        names.some((name) => name.startsWith(block)),
        block,
      );
    for (const tokens of ['1 token', '5 tokens', '40 tokens'])
      for (const block of ['project and attend', 'feed'])
        assert.ok(
          names.some((name) => name.startsWith(`${block}, ${tokens}`)),
          `${block}, ${tokens}`,
        );
  });

  const faults = sampled(FAULTS, DRAWN);
  for (const [name, block, [kernel, text, becomes], wrong, options] of faults) {
    test(`finds a fault, seed ${SEED}: ${name}`, async () => {
      let changed = 0;
      rewrite = (shader) => {
        if (!kernel.test(shader.name)) return shader;
        const code = shader.code.replace(text, becomes);
        if (code !== shader.code) changed++;
        return { ...shader, code };
      };
      try {
        const { failed } = await run({ blocks: [block], ...options });
        assert.ok(changed > 0, 'the kernel has that text');
        const names = failed.map((one) => one.name);
        assert.ok(
          names.some((one) => wrong.test(one)),
          `failed are: ${names.join('; ') || 'none'}`,
        );
      } finally {
        rewrite = (shader) => shader;
      }
    });
  }

  describe('the choice of kernels', () => {
    /**
     * @param {(shader: Shader) => Shader} change of kernels with subgroups
     * @param {(shader: Shader) => Shader} [changePlain]
     */
    const choose = async (change, changePlain = (shader) => shader) => {
      rewrite = (shader) => (shader.code.includes('enable subgroups') ? change(shader) : changePlain(shader));
      try {
        const variants = { ...PLAIN, subgroups: gpu.features.has('subgroups') };
        return await chooseVariants(
          { ...SMALL, gpu, pipelines, kvType: 'F32', blocks: ['head'], variants },
          wasm,
        );
      } finally {
        rewrite = (shader) => shader;
      }
    };
    /** @param {Shader} shader @returns {Shader} */
    const invalid = (shader) => ({ ...shader, code: `${shader.code}\nfn broken() { let a: u32 = 1.5; }` });
    /** @param {Shader} shader @returns {Shader} */
    const wrong = (shader) => ({
      ...shader,
      code: shader.code.replaceAll('row0 + r >= end', 'row0 + r + 1u >= end'),
    });

    test('takes the faster kernels where they are right', async (t) => {
      if (!gpu.features.has('subgroups')) return t.skip('this Vulkan driver has no subgroups');
      const { variants, report } = await choose((shader) => shader);
      assert.deepEqual(variants, { ...PLAIN, subgroups: true });
      assert.match(
        report.join(' '),
        /^The kernels with subgroups are used: all 4 cases of the self-test passed in \d+ ms\.$/,
      );
    });

    const intTypes = sampled(['Q8_0', 'Q4_0'], 1);
    const ofInts = `seed ${SEED}: ${intTypes.join(', ')}`;
    test(`integer products are within their own bounds, and a fault in them is found, ${ofInts}`, async (t) => {
      if (!gpu.features.has('dot4I8Packed')) return t.skip('this Vulkan driver has no dot4I8Packed');
      const options = /** @type {const} */ ({
        types: intTypes,
        columns: [64, 1056],
        variants: { subgroups: false, int8: true },
      });
      await passes({ ...options, blocks: ['attention', 'feed'] });
      rewrite = (shader) =>
        shader.name.startsWith('quantize')
          ? { ...shader, code: shader.code.replace('m / 127.0', 'm / 110.0') }
          : shader;
      try {
        const { failed } = await run({ ...options, blocks: ['feed'] });
        assert.ok(
          failed.some(({ name }) => name.startsWith('feed, 40 tokens')),
          'the scale is found',
        );
        assert.ok(failed.every(({ name }) => name.includes('40 tokens')));
      } finally {
        rewrite = (shader) => shader;
      }
    });

    test('f16 products are within their own bounds, and a fault in them is found', async (t) => {
      if (!gpu.features.has('shader-f16')) return t.skip('this Vulkan driver has no shader-f16');
      /** @type {Partial<SelfTestOptions>} */
      const options = {
        ...{ types: ['Q8_0'], columns: [64, 1056], variants: { f16: true } },
        blocks: ['feed'],
      };
      await passes(options);
      // Activations are divided by half of their scale.
      const [scale, half] = [`${254 << 23}u`, `${255 << 23}u`];
      rewrite = (shader) => ({ ...shader, code: shader.code.replace(scale, half) });
      try {
        const { failed } = await run(options);
        assert.deepEqual(
          failed.map(({ name }) => name),
          ['feed, 40 tokens, Q8_0'],
        );
      } finally {
        rewrite = (shader) => shader;
      }
    });

    test('takes the plain ones where the driver rejects the faster ones', async (t) => {
      if (!gpu.features.has('subgroups')) return t.skip('this Vulkan driver has no subgroups');
      const { variants, report } = await choose(invalid);
      assert.deepEqual(variants, PLAIN);
      assert.match(
        report[0],
        /^The kernels with subgroups are not used: .* rejects the kernel matvec F32 4099x60/,
      );
      assert.match(report[1], /^The plain kernels are used/);
    });

    test('takes the plain ones where the faster ones are wrong', async (t) => {
      if (!gpu.features.has('subgroups')) return t.skip('this Vulkan driver has no subgroups');
      const { variants, report } = await choose(wrong);
      assert.deepEqual(variants, PLAIN);
      assert.match(report[0], /not used: \d of 4 cases of the self-test failed: "head, 1 token, F32"/);
    });

    test('takes none where all are wrong, or rejected', async () => {
      const failsWith =
        (/** @type {string} */ reason, /** @type {RegExp} */ message) => (/** @type {unknown} */ error) =>
          error instanceof GpuError && error.reason === reason && message.test(error.message);
      await assert.rejects(choose(wrong, wrong), failsWith('selftest', /"head, 1 token, F32"/));
      await assert.rejects(choose(invalid, invalid), failsWith('shader', /rejects the kernel matvec/));
      assert.equal(gpu.failure, undefined, 'the device is as good as before');
    });
  });

  for (const [name, settings] of sampled(OTHER_SETTINGS, 1))
    test(`passes with ${name}, seed ${SEED}`, async () => {
      await passes(settings);
    });

  // All of them take minutes without a GPU.
  const some = sampled(TYPES, 2);
  test(`passes with weight types, seed ${SEED}: ${some.join(', ')}`, async () => {
    const attention = { nHeads: 4, nKvHeads: 2, headSize: 64 };
    const names = await passes({ types: some, columns: [256, 512], attention });
    for (const type of some)
      assert.ok(
        names.some((name) => name.includes(type) && !name.startsWith('embed')),
        type,
      );
  });
});

test('weights of the self-test: every type, most values positive, and as large as asked for', async () => {
  const fm = await createKernels({ threads: 1 });
  for (const type of TYPES) {
    const matrix = makeMatrix(fm, { type, nRows: 70, nCols: 256, mean: 0.02 }, generator(1));
    const weight = fm.weight({ type, nRows: 70, nCols: 256, data: matrix.data });
    const values = fm.dequantize(weight);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const negative = values.filter((value) => value < 0).length / values.length;
    assert.ok(mean > 0.008 && mean < 0.04, `${type}: the mean is ${mean}`);
    assert.ok(negative < 0.4, `${type}: ${negative} are negative`);
    assert.ok(new Set(values).size > 2, type);
    for (const r of [0, 60, 61, 69]) {
      const row = values.subarray(256 * r, 256 * (r + 1));
      const norm = Math.sqrt(row.reduce((sum, value) => sum + value * value, 0));
      assert.ok(Math.abs(matrix.norm(r) - norm) < 1e-6 * norm, `${type}: the norm of row ${r}`);
      assert.ok(row.every((value) => Math.abs(value) <= matrix.largest));
    }
  }
  fm.dispose();
});
