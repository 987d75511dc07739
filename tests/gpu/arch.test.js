/**
 * Models of every architecture on the GPU backend, compared with llama.cpp (`arch` in the test
 * data). Compiling takes a software driver seconds a model, so two are drawn by a seed:
 * FM_GPU_SEED sets it, FM_ARCH_ALL=1 or FM_TEST_DEEP=1 runs all.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createGpuKernels } from '../../js/gpu/index.js';
import { ARCHITECTURES } from '../../js/llama/architectures/names.js';
import { Llama, ModelError } from '../../js/llama/index.js';
import { gpuSkip, SEED, sampled, webGpu } from '../helpers/gpu.js';
import { distance, readReference } from '../helpers/llama.js';
import { dataPath, listData, skipWithout } from '../helpers/test-data.js';

const ALL = process.env.FM_ARCH_ALL === '1';
const DRAWN = 2;
/** Metadata of experts, recurrent blocks and inputs of layers, which the GPU does not compute. */
const REFUSED_KEYS = /expert_count|^ssm\.|^shortconv\.|per_layer_input/;

/** llama.cpp takes GELU from a table with 16-bit values. @param {string} architecture */
const limitOf = (architecture) => (/^gemma/.test(architecture) ? 0.03 : 5e-4);

const skip = skipWithout('arch/models') || skipWithout('arch/logits') || (await gpuSkip());

describe('architectures on the GPU', { skip }, async () => {
  const names = (skip ? [] : listData('arch/models'))
    .map((file) => file.replace(/\.gguf$/, ''))
    .filter((name) => !skipWithout(`arch/logits/${name}.logits.f32`));
  const references = names.map((name) => ({ name, ...readReference(name, 'arch/logits') }));
  const known = references.filter(({ reference }) => {
    const { architecture, hyperparameters } = /** @type {any} */ (reference);
    const isServed = !Object.keys(hyperparameters).some((key) => REFUSED_KEYS.test(key));
    return Object.hasOwn(ARCHITECTURES, architecture) && isServed;
  });
  const drawn = ALL ? known : sampled(known, DRAWN);

  test('a model with recurrent blocks is refused by name', async () => {
    const found = await webGpu();
    if ('skip' in found) return;
    const kernels = await createGpuKernels({ gpu: found.gpu, allowSoftware: true, selfTest: false });
    try {
      await assert.rejects(Llama.load(dataPath('arch/models/falcon-h1-A.gguf'), { kernels }), (error) => {
        assert.ok(error instanceof ModelError, String(error));
        assert.match(error.message, /recurrent blocks of kind "scan" are not supported on the GPU/);
        return true;
      });
    } finally {
      kernels.dispose();
    }
  });

  for (const { name, reference, logits } of drawn) {
    test(`${name}, seed ${SEED}`, async (t) => {
      const found = await webGpu();
      if ('skip' in found) return;
      const kernels = await createGpuKernels({ gpu: found.gpu, allowSoftware: true, selfTest: false });
      const { architecture, n_ctx: contextLength } = /** @type {any} */ (reference);
      try {
        const path = dataPath(`arch/models/${name}.gguf`);
        const model = await Llama.load(path, { kernels, kvType: 'F32', contextLength });
        let worst = 0;
        for (const prompt of reference.prompts) {
          const { max } = distance(await model.logits(prompt.tokens), logits(prompt));
          worst = Math.max(worst, max);
        }
        t.diagnostic(`ran: ${name}, seed ${SEED}: largest difference ${worst.toExponential(1)}`);
        assert.ok(worst <= limitOf(architecture), `${worst} of ${limitOf(architecture)}`);
        model.dispose();
      } finally {
        kernels.dispose();
      }
    });
  }
});
