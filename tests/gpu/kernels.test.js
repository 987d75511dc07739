/** createGpuKernels as its users meet it: products, errors, and a model on them. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { createGpuKernels, GpuError, GpuKernels, GpuWeight } from '../../js/gpu/index.js';
import { ArgumentError, createKernels, HandleError, openGguf, ShapeError } from '../../js/index.js';
import { Llama } from '../../js/llama/index.js';
import { makeWeights } from '../helpers/blocks.js';
import { ReferenceProduct, ReferenceWeight } from '../helpers/bounds.js';
import { gpuSkip, webGpu } from '../helpers/gpu.js';
import { distance, readReference, TINY_TALES } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { referenceByName } from '../helpers/reference.js';
import { skipWithout } from '../helpers/test-data.js';

/** The limit of README.md for f32 activations. */
const LOGIT_LIMIT = 2e-4;

/** @param {import('../../js/gpu/index.js').GpuOptions} [options] */
async function open(options) {
  const found = await webGpu();
  if ('skip' in found) throw new Error(found.skip);
  return createGpuKernels({ gpu: found.gpu, allowSoftware: true, selfTest: false, ...options });
}

test('options are checked before a GPU is asked for', async () => {
  const bad = (/** @type {any} */ options, /** @type {RegExp} */ message) =>
    assert.rejects(
      createGpuKernels(options),
      (error) => error instanceof ArgumentError && message.test(error.message),
    );
  await bad({ allowSoftwre: true }, /there is no option "allowSoftwre".*did you mean "allowSoftware"\?/);
  await bad(
    { powerPreference: 'fast' },
    /powerPreference must be one of high-performance, low-power, got "fast"/,
  );
  await bad({ allowSoftware: 1 }, /allowSoftware must be true or false, got 1/);
  await bad({ features: 'all' }, /features must be a list/);
  await bad({ features: ['f16'] }, /a feature must be one of shader-f16, subgroups, dot4I8Packed, got "f16"/);
  await assert.rejects(
    createGpuKernels(),
    (error) => error instanceof GpuError && error.reason === 'unavailable',
  );
});

describe('kernels on a GPU', { skip: await gpuSkip() }, () => {
  /** @type {GpuKernels} */
  let gpu;
  before(async () => {
    gpu = await open();
  });
  after(() => gpu.dispose());

  const prng = new Prng(12);
  /** @param {string} name @param {number} nRows @param {number} nCols */
  function makeWeight(name, nRows, nCols) {
    const type = referenceByName.get(name) ?? assert.fail(name);
    const data = makeWeights(type, 'natural', nRows, nCols, prng);
    return { data, reference: new ReferenceWeight(type, data, nRows, nCols) };
  }

  for (const [type, nRows, nCols, nTokens] of /** @type {[string, number, number, number][]} */ ([
    ['Q4_K', 37, 512, 1],
    ['Q6_K', 37, 512, 5],
    ['Q8_0', 37, 544, 40],
    ['F16', 5, 83, 3],
    ['IQ2_S', 37, 512, 5],
    ['IQ1_M', 37, 512, 40],
  ])) {
    test(`products of ${type} ${nRows}x${nCols} with ${nTokens} rows`, async () => {
      const { data, reference } = makeWeight(type, nRows, nCols);
      const w = await gpu.weight({ type, nRows, nCols, data, name: 'test' });
      assert.ok(w instanceof GpuWeight);
      assert.equal(String(w), `weight "test" (${type} ${nRows}x${nCols})`);
      const x = Float32Array.from({ length: nTokens * nCols }, () => prng.gaussian());
      const out = new Float32Array(nTokens * nRows).fill(Number.NaN);
      assert.equal(await gpu.fusedMatmul(w, x, { out }), out);
      new ReferenceProduct(reference, x, nTokens).check(out, { activation: 0, what: `${type} on the GPU` });
      assert.deepEqual(await gpu.fusedMatmul(w, x), out, 'the same bits again');
      const rows = await gpu.dequantize(w, { start: 2, end: 5 });
      assert.ok(distance(rows, reference.values.slice(2 * nCols, 5 * nCols)).max <= 1e-6);
      const before = gpu.memory().bytes;
      w.free();
      assert.ok(before - gpu.memory().bytes >= data.length);
    });
  }

  test('int8 is used where it is asked for, with its own bound', async () => {
    const int8 = await open({ activation: 'int8' });
    assert.equal(int8.info.variants.int8, true);
    const [nRows, nCols, nTokens] = [19, 512, 12];
    const { data, reference } = makeWeight('Q4_K', nRows, nCols);
    const w = await int8.weight({ type: 'Q4_K', nRows, nCols, data });
    const x = Float32Array.from({ length: nTokens * nCols }, () => prng.gaussian());
    const out = await int8.fusedMatmul(w, x);
    const product = new ReferenceProduct(reference, x, nTokens);
    product.check(out, { activation: 2, what: 'int8 on the GPU' });
    assert.throws(() => product.check(out, { activation: 0, what: 'f32' }), /bound/);
    int8.dispose();
  });

  test('arguments that do not fit are refused with both numbers, and nothing is lost', async () => {
    const { data } = makeWeight('Q4_0', 4, 64);
    const w = await gpu.weight({ type: 'Q4_0', nRows: 4, nCols: 64, data });
    const bad = (
      /** @type {Promise<unknown>} */ call,
      /** @type {Function} */ kind,
      /** @type {RegExp} */ message,
    ) => assert.rejects(call, (error) => error instanceof kind && message.test(String(error)));
    const any = (/** @type {unknown} */ value) => /** @type {any} */ (value);
    await bad(gpu.weight({ type: 'Q4_0', nRows: 4, nCols: 60, data }), ShapeError, /nCols is 60.*32 values/);
    await bad(
      gpu.weight({ type: 'Q4_0', nRows: 5, nCols: 64, data }),
      ShapeError,
      /data has 144 bytes.*take 180/,
    );
    await bad(gpu.weight(any({ type: 'Q4_0', nRows: 4, nCols: 64 })), ArgumentError, /data must be/);
    await bad(gpu.weight({ type: 'Q4_5', nRows: 4, nCols: 64, data }), ArgumentError, /Q4_5/);
    await bad(gpu.fusedMatmul(w, new Float32Array(65)), ShapeError, /x has 65 values.*64 columns/);
    await bad(gpu.fusedMatmul(w, any([1, 2])), ArgumentError, /x must be a Float32Array/);
    await bad(
      gpu.fusedMatmul(w, new Float32Array(64), { out: new Float32Array(3) }),
      ShapeError,
      /3 values, expected 4/,
    );
    await bad(
      gpu.fusedMatmul(any({}), new Float32Array(64)),
      ArgumentError,
      /w must be a weight of these kernels/,
    );
    await bad(gpu.dequantize(w, { start: 3, end: 6 }), ShapeError, /end at 6 of 4/);
    const other = await open();
    const foreign = await other.weight({ type: 'Q4_0', nRows: 4, nCols: 64, data });
    await bad(gpu.fusedMatmul(foreign, new Float32Array(64)), HandleError, /belongs to other kernels/);
    other.dispose();
    await bad(other.fusedMatmul(foreign, new Float32Array(64)), HandleError, /disposed/);
    w.free();
    await bad(gpu.fusedMatmul(w, new Float32Array(64)), HandleError, /is freed/);
    assert.throws(() => w.free(), HandleError);
    const again = await gpu.weight({ type: 'Q4_0', nRows: 4, nCols: 64, data });
    assert.equal((await gpu.fusedMatmul(again, new Float32Array(64))).length, 4);
    again.free();
  });

  test('info says which GPU it is and what is used of it', async () => {
    const { adapter, software, features, limits, variants, steps, memoryBytes } = gpu.info;
    assert.equal(software, true);
    assert.ok(adapter.name.length > 0 && steps[0].includes(adapter.name));
    assert.ok(limits.bindingBytes <= limits.bufferBytes && memoryBytes >= 0);
    assert.equal(variants.subgroups, features.includes('subgroups'));
    const plain = await open({ features: [] });
    assert.deepEqual([plain.info.features, plain.info.variants.subgroups], [[], false]);
    plain.dispose();
    assert.equal(plain.disposed, true);
    assert.equal((await plain.lost).reason, 'lost');
  });

  test('tensors of a file, and the products of the CPU', async () => {
    const gguf = await openGguf(readFileSync(TINY_TALES));
    const fm = await createKernels({ activation: 'f32', threads: 1 });
    const name = 'blk.0.ffn_down.weight';
    /** @type {number[]} */
    const seen = [];
    const [onGpu, onCpu] = await Promise.all([
      gpu.loadWeight(gguf, name, { onProgress: ({ loaded }) => seen.push(loaded) }),
      fm.loadWeight(gguf, name),
    ]);
    const { nCols, byteLength } = gguf.tensor(name);
    assert.equal(seen.at(-1), byteLength);
    const x = Float32Array.from({ length: 2 * nCols }, () => prng.gaussian());
    const [a, b] = [await gpu.fusedMatmul(onGpu, x), fm.fusedMatmul(onCpu, x)];
    assert.ok(distance(a, b).max <= 1e-5 * distance(b, new Float32Array(b.length)).max);
    const halt = AbortSignal.abort(new Error('enough'));
    await assert.rejects(gpu.loadWeights(gguf, [name], { signal: halt }), /enough/);
    await assert.rejects(gpu.loadWeight(gguf, 'no.such'), /no.such/);
    fm.dispose();
  });

  test('a whole model gives the logits of llama.cpp and its text', {
    skip: skipWithout('logits/tiny-tales-Q4_K_M.json'),
  }, async () => {
    const { reference, logits } = readReference('tiny-tales-Q4_K_M');
    const { bytes: before } = gpu.memory();
    const model = await Llama.load(readFileSync(TINY_TALES), {
      kernels: gpu,
      kvType: 'F32',
      contextLength: 256,
    });
    assert.equal(model.info.gpu?.adapter.name, gpu.info.adapter.name);
    assert.equal(model.info.types.Q4_K.isa, 'webgpu');
    const prompt = [...reference.prompts].sort((a, b) => a.tokens.length - b.tokens.length)[0];
    const { max } = distance(await model.logits(prompt.tokens), logits(prompt));
    assert.ok(max <= LOGIT_LIMIT, `logits differ by ${max}`);
    const sure = reference.greedy.margins.findIndex((margin) => margin < 2 * LOGIT_LIMIT);
    const n = Math.min(12, sure < 0 ? Number.POSITIVE_INFINITY : sure);
    const run = model.generate(reference.prompts[0].tokens, {
      temperature: 0,
      maxTokens: n,
      ignoreEnd: true,
    });
    await run.text();
    assert.deepEqual(run.tokens, reference.greedy.tokens.slice(0, n));
    // With a temperature the processor draws, from the same logits.
    const drawn = model.generate(prompt.tokens, { seed: 4, maxTokens: 4, ignoreEnd: true });
    assert.ok((await drawn.text()).length > 0);
    const { weights, kvCache, workspace } = model.info.memory;
    const used = gpu.memory().bytes - before;
    // Beside them: rows of candidates, steps, what is read.
    assert.ok(used <= 1.02 * weights + kvCache + workspace + 2 ** 18, `${used} bytes for ${weights}`);
    model.dispose();
    assert.equal(gpu.disposed, false, 'kernels that were given stay');
    assert.equal(gpu.memory().bytes, before, 'nothing of the model is left');
  });
});
