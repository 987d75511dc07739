/**
 * The choice of kernel forms by time, with a clock that the tests set: each form wins once and is
 * used, wrong results never win, and a choice is remembered.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, describe, test } from 'node:test';
import { choices, chooseForms } from '../../js/gpu/choice.js';
import { PLAIN } from '../../js/gpu/features.js';
import { GpuKernels } from '../../js/gpu/kernels.js';
import { Pipelines } from '../../js/gpu/pipelines.js';
import { Llama } from '../../js/llama/index.js';
import { createKernels } from '../../js/wasm/create.js';
import { makeWeights } from '../helpers/blocks.js';
import { ReferenceProduct, ReferenceWeight } from '../helpers/bounds.js';
import { gpuSkip, openTestDevice, SEED, sampled } from '../helpers/gpu.js';
import { TINY_TALES } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { referenceByName } from '../helpers/reference.js';

/** @import { ChoiceOptions, Trial } from '../../js/gpu/choice.js' */
/** @import { GpuDevice } from '../../js/gpu/device.js' */
/** @import { GpuVariants } from '../../js/gpu/features.js' */
/** @import { Shader } from '../../js/gpu/shader.js' */

const TYPE = 'Q8_0';
/** Columns for all numbers of invocations, and few rows, whose tiles are small. */
const WIDE = { nRows: 512, nCols: 4096, few: [16, 512], nTokens: 9 };
/** Rows for large tiles, and few columns. */
const TALL = { nRows: 1024, nCols: 256, few: [16], nTokens: 9 };
/** For what does not depend on the shape. */
const SMALL = { nRows: 64, nCols: 256, few: [16], nTokens: 3 };
const BYTES = { Q8_0: 34 };

/**
 * A clock by which forms are fast that have all of these properties, as far as they differ from what
 * is timed first.
 * @param {Partial<GpuVariants>} wins
 */
function clockFor(wins) {
  const clock = {
    calls: 0,
    /** @type {NonNullable<Trial['time']>} */
    time: async (forms, run) => {
      // The first sample runs the product once; others would take this driver minutes.
      if (clock.calls++ === 0) await run();
      const matches = Object.entries(wins).filter(([name, value]) => Reflect.get(forms, name) === value);
      return 20 / (1 + matches.length);
    },
  };
  return clock;
}

describe('the choice of forms', { skip: await gpuSkip() }, () => {
  /** @type {GpuDevice} */
  let gpu;
  /** @type {Pipelines} */
  let pipelines;
  /** @type {import('../../js/wasm/kernels.js').Kernels} */
  let fm;
  /** Changes shaders. @type {(shader: Shader) => Shader} */
  let rewrite = (shader) => shader;

  before(async () => {
    gpu = await openTestDevice({ features: ['dot4I8Packed', 'shader-f16'] });
    pipelines = new Pipelines(gpu, { rewrite: (shader) => rewrite(shader) });
    fm = await createKernels({ threads: 1 });
  });
  after(() => {
    fm?.dispose();
    gpu?.destroy();
  });
  afterEach(() => {
    choices.forget();
    Reflect.deleteProperty(globalThis, 'caches');
    rewrite = (shader) => shader;
  });

  /**
   * @param {Trial} trial
   * @param {Partial<ChoiceOptions>} [options]
   */
  const choose = (trial, options) =>
    chooseForms(
      {
        ...{ gpu, pipelines, type: TYPE, activation: 'int8', variants: PLAIN },
        trial: { timed: true, ...trial },
        ...options,
      },
      fm,
    );

  /**
   * Products of all forms with these variants: within bounds, with the same bits twice.
   * @param {GpuVariants} variants
   * @returns {Promise<string[]>} the code of their kernels
   */
  async function products(variants) {
    /** @type {string[]} */
    const codes = [];
    const { device } = gpu;
    const create = device.createShaderModule.bind(device);
    device.createShaderModule = (of) => {
      codes.push(of.code);
      return create(of);
    };
    try {
      const options = { variants, steps: [], isTested: false, activation: /** @type {const} */ ('int8') };
      const kernels = new GpuKernels(gpu, options);
      const [nRows, nCols] = [37, 2080];
      const prng = new Prng(7);
      const type = referenceByName.get(TYPE) ?? assert.fail();
      const data = makeWeights(type, 'natural', nRows, nCols, prng);
      assert.equal(data.length, (nRows * nCols * BYTES[TYPE]) / 32);
      const w = await kernels.weight({ type: TYPE, nRows, nCols, data });
      const reference = new ReferenceWeight(type, data, nRows, nCols);
      for (const nTokens of [1, 2, 3, 8, 9]) {
        const x = Float32Array.from({ length: nTokens * nCols }, () => prng.gaussian());
        const y = await kernels.fusedMatmul(w, x);
        const product = new ReferenceProduct(reference, x, nTokens);
        const what = `${nTokens} tokens, ${JSON.stringify(variants)}`;
        if (nTokens <= 8 || !variants.f16)
          product.check(y, { activation: nTokens > 8 && variants.int8 ? 2 : 0, what });
        else assert.ok(product.normError(y) < 2 ** -10, what);
        assert.deepEqual(await kernels.fusedMatmul(w, x), y, `${what}: the same bits again`);
      }
      w.free();
    } finally {
      device.createShaderModule = create;
    }
    return codes;
  }

  const forms = [
    { rows: 2, invocations: 32, groups: 1, int8: false },
    { rows: 1, invocations: 128, groups: 1024, int8: true },
    { rows: 8, invocations: 256, int8: true },
  ];
  for (const wins of sampled(forms, 1)) {
    test(`the fastest win and are used, seed ${SEED}: ${JSON.stringify(wins)}`, async () => {
      const before = gpu.inUse;
      const { variants, report } = await choose({ shape: WIDE, time: clockFor(wins).time });
      assert.deepEqual(variants, { ...PLAIN, ...wins });
      assert.equal(gpu.inUse, before, 'everything is given back');
      assert.equal(report.length, 1);
      const { rows, invocations } = wins;
      assert.match(report[0], new RegExp(`: rows a workgroup: ${rows} \\(0\\.\\d\\d of the time of 4\\), `));
      assert.match(
        report[0],
        new RegExp(`, invocations: ${invocations} \\(0\\.\\d\\d of the time of 64\\), `),
      );
      const codes = await products(variants);
      const one = codes.find((code) => code.includes(`row0 = (group - 0u) * ${rows}u;`)) ?? assert.fail();
      assert.ok(one.includes(`@workgroup_size(${invocations})`));
      assert.equal(
        codes.some((code) => code.includes('parts[')),
        variants.groups > 1 && invocations < 128,
      );
      assert.equal(
        codes.some((code) => code.includes('dot4I8Packed')),
        wins.int8,
      );
    });
  }

  const tiles = [
    { int8: false, f16: false, tile: 32 },
    { int8: true, f16: false, tile: 32 },
    { int8: true, f16: false, tile: 64 },
  ];
  for (const wins of [...sampled(tiles, 1), { int8: false, f16: true, tile: 64 }]) {
    test(`the fastest tiles win, seed ${SEED}: ${JSON.stringify(wins)}`, async (t) => {
      if (wins.f16 && !gpu.features.has('shader-f16')) return t.skip('this Vulkan driver has no shader-f16');
      const { variants } = await choose({ shape: TALL, time: clockFor(wins).time });
      assert.deepEqual(variants, { ...PLAIN, ...wins });
      if (wins.f16) await products(variants);
    });
  }

  test('with f32 only, no other precision is timed', async () => {
    const { time } = clockFor({ int8: true, f16: true });
    /** @type {GpuVariants[]} */
    const timed = [];
    const { variants } = await choose(
      {
        shape: SMALL,
        time: (forms, run) => {
          timed.push(forms);
          return time(forms, run);
        },
      },
      { activation: 'f32' },
    );
    assert.deepEqual(variants, PLAIN);
    assert.ok(timed.length > 0 && timed.every(({ int8, f16 }) => !int8 && !f16));
  });

  test('a form that is only a little faster, or slower, is not worth it', async () => {
    const { variants } = await choose({
      shape: SMALL,
      time: async ({ rows }) => ({ 1: 24, 2: 19.2 })[rows] ?? 20,
    });
    assert.deepEqual(variants, PLAIN);
  });

  test('samples are long, few, and fewer of those that are behind', async () => {
    /** @type {Record<string, number>} */
    const times = {};
    await choose({
      shape: SMALL,
      time: async ({ rows }) => {
        times[rows] = (times[rows] ?? 0) + 1;
        return rows === 1 ? 40 : 20;
      },
    });
    assert.equal(times[1], 1, 'one that is far behind is timed once');
    assert.ok(times[2] > 1, 'the others more often');
  });

  test('a candidate with wrong results is not chosen, though it is the fastest', async () => {
    const isFast = (/** @type {Shader} */ { name, code }) =>
      name.startsWith('matvec') && code.includes('row0 = (group - 0u) * 2u;');
    const faults = [
      // The last row is not written.
      ['row0 + r >= end', 'row0 + r + 1u >= end'],
      // The last columns are not read.
      ['p < 16u', 'p < 15u'],
    ];
    for (const [text, becomes] of faults) {
      let changed = 0;
      rewrite = (shader) => {
        if (!isFast(shader)) return shader;
        const code = shader.code.replace(text, becomes);
        changed += Number(code !== shader.code);
        return { ...shader, code };
      };
      const { variants, report } = await choose({ shape: SMALL, time: clockFor({ rows: 2 }).time });
      assert.ok(changed > 0, 'the kernel has that text');
      assert.deepEqual(variants, PLAIN);
      assert.equal(report[0], 'Not timed, because its results are wrong: rows a workgroup: 2.');
      choices.forget();
    }
  });

  test('a candidate that the driver rejects is left out', async () => {
    rewrite = (shader) =>
      shader.name.startsWith('matvec') && shader.code.includes('row0 = (group - 0u) * 2u;')
        ? { ...shader, code: `${shader.code}\nfn broken() { let a: u32 = 1.5; }` }
        : shader;
    const time = async (/** @type {GpuVariants} */ { rows }) => ({ 2: 5, 8: 10 })[rows] ?? 20;
    const { variants } = await choose({ shape: SMALL, time });
    assert.deepEqual(variants, { ...PLAIN, rows: 8 });
    assert.equal(gpu.failure, undefined);
  });

  test('an adapter that computes on the processor is not timed, unless that is asked for', async () => {
    const clock = clockFor({ rows: 2 });
    const { variants, report } = await choose({ timed: undefined, time: clock.time });
    assert.deepEqual(variants, PLAIN);
    assert.equal(clock.calls, 0);
    assert.match(
      report.join(),
      /^No forms are timed, since .* computes on the processor: rows a workgroup: 4, /,
    );
  });

  /** Cache Storage in memory. */
  class Storage {
    /** @type {Map<string, string>} */
    entries = new Map();
    /** @type {string[]} */
    names = [];
    async open(/** @type {string} */ name) {
      this.names.push(name);
      const { entries } = this;
      return {
        match: async (/** @type {string} */ key) => entries.has(key) && new Response(entries.get(key)),
        put: async (/** @type {string} */ key, /** @type {Response} */ response) =>
          void entries.set(key, await response.text()),
        keys: async () => [...entries.keys()],
        delete: async (/** @type {string} */ key) => entries.delete(key),
      };
    }
  }
  const give = (/** @type {unknown} */ caches) =>
    Object.defineProperty(globalThis, 'caches', { value: caches, configurable: true });

  describe('remembered choices', () => {
    const wins = { rows: 2 };
    const ask = async (/** @type {Partial<ChoiceOptions>} */ options = {}) => {
      const clock = clockFor(wins);
      const { variants, report } = await choose({ shape: SMALL, time: clock.time }, options);
      assert.deepEqual(variants, { ...PLAIN, ...wins });
      return { times: clock.calls, report };
    };

    test('in the process, by adapter, type and what is allowed', async () => {
      assert.ok((await ask()).times > 0);
      const { times, report } = await ask();
      assert.equal(times, 0);
      assert.match(
        report.join(),
        /^Forms that were the fastest before: rows a workgroup: 2, .*tiles of 64 in f32\.$/,
      );
      assert.ok((await ask({ activation: 'f32' })).times > 0);
      assert.ok((await ask({ type: 'Q4_0' })).times > 0);
    });

    test('in Cache Storage, for the next process', async () => {
      const storage = new Storage();
      give(storage);
      assert.ok((await ask()).times > 0);
      assert.deepEqual([...new Set(storage.names)], ['fused-matmul-gpu']);
      assert.equal(storage.entries.size, 1);
      choices.forget();
      assert.equal((await ask()).times, 0);

      const [[address, good]] = storage.entries;
      const { key, value } = JSON.parse(good);
      const entry = (/** @type {object} */ changes) =>
        JSON.stringify({ key, value: { ...value, ...changes } });
      for (const damaged of [
        '',
        'null',
        '{"key":',
        JSON.stringify({ key: 'another', value }),
        JSON.stringify({ key }),
        entry({ rows: 3 }),
        entry({ tile: '32' }),
        entry({ subgroups: true }),
        entry({ more: 1 }),
        JSON.stringify({ key, value: [] }),
      ]) {
        choices.forget();
        storage.entries.set(address, damaged);
        assert.ok((await ask()).times > 0, damaged);
        assert.equal(storage.entries.get(address), good, 'it is written anew');
      }
    });

    test('storage that fails is no error, and old entries go', async () => {
      for (const broken of [
        { open: () => Promise.reject(new Error('no')) },
        {
          open: () => {
            throw new Error('no');
          },
        },
        {},
        { open: async () => ({ match: async () => undefined }) },
      ]) {
        choices.forget();
        give(broken);
        assert.ok((await ask()).times > 0);
      }
      choices.forget();
      const storage = new Storage();
      for (let i = 0; i < 40; i++) storage.entries.set(`old ${i}`, '{}');
      give(storage);
      await ask();
      assert.equal(storage.entries.size, 32);
      assert.ok(storage.entries.has('old 39') && !storage.entries.has('old 8'));
    });
  });
});

describe('kernels with a choice', { skip: await gpuSkip() }, () => {
  afterEach(() => choices.forget());

  /**
   * @param {Partial<GpuVariants>} variants
   * @param {Trial} [trial]
   */
  async function open(variants, trial) {
    const gpu = await openTestDevice({ features: ['dot4I8Packed'] });
    return new GpuKernels(gpu, {
      ...{ steps: [], isTested: trial !== undefined, activation: 'int8', trial },
      variants: { ...PLAIN, ...variants },
    });
  }

  test('choose once, before the first weight, and test what was chosen', async () => {
    const clock = clockFor({ rows: 2 });
    const kernels = await open({}, { timed: true, time: clock.time, shape: SMALL });
    const type = referenceByName.get(TYPE) ?? assert.fail();
    const data = makeWeights(type, 'natural', 3, 64, new Prng(3));
    const weight = () => kernels.weight({ type: TYPE, nRows: 3, nCols: 64, data });
    await Promise.all([weight(), weight()]);
    const { variants, steps } = kernels.info;
    assert.deepEqual(variants, { ...PLAIN, rows: 2 });
    assert.match(steps[0], /^Q8_0: The fastest forms, by samples of \d+ ms: rows a workgroup: 2 \(0\.50 /);
    assert.match(steps[1], /^Q8_0: The kernels with rows 2 are used: all \d+ cases of the self-test passed/);
    assert.ok(clock.calls > 0);
    kernels.dispose();
  });

  test('the precision is what both the kernels and the model allow', async () => {
    const kernels = await open({ int8: true });
    for (const [activation, expected] of /** @type {const} */ ([
      [undefined, 'int8'],
      ['int8', 'int8'],
      ['int16', 'f32'],
      ['f32', 'f32'],
    ])) {
      const model = await Llama.load(readFileSync(TINY_TALES), {
        kernels,
        contextLength: 32,
        ...(activation && { activation }),
      });
      const { info } = model;
      assert.equal(info.activation, expected);
      assert.equal(info.types.Q4_K.activation, expected);
      assert.equal(info.types.F32.activation, 'f32');
      model.dispose();
    }
    const exact = await open({});
    const model = await Llama.load(readFileSync(TINY_TALES), { kernels: exact, contextLength: 32 });
    assert.equal(model.info.activation, 'f32');
    model.dispose();
    kernels.dispose();
    exact.dispose();
  });
});
