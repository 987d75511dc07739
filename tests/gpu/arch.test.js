/**
 * Models of every architecture on the GPU backend, compared with llama.cpp (`arch` in the test
 * data). Compiling takes a software driver seconds a model, so one with experts or recurrent blocks and one of
 * the others are drawn by a seed: FM_GPU_SEED sets it, FM_ARCH_ALL=1 or FM_TEST_DEEP=1 runs all.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { openBackend } from '../../js/backend.js';
import { createGpuKernels } from '../../js/gpu/index.js';
import { ARCHITECTURES } from '../../js/llama/architectures/names.js';
import { Llama } from '../../js/llama/index.js';
import { gpuSkip, SEED, sampled, webGpu } from '../helpers/gpu.js';
import { distance, readReference } from '../helpers/llama.js';
import { dataPath, listData, skipWithout } from '../helpers/test-data.js';

const ALL = process.env.FM_ARCH_ALL === '1';
/** Metadata of latent attention and inputs of layers, which the GPU does not compute. */
const REFUSED_KEYS = /kv_lora_rank|per_layer_input/;
/** Architectures with sinks of attention, which have no metadata. */
const REFUSED = /^gpt-oss$/;
/** Metadata of experts and recurrent blocks, for which the number of tokens at a time matters most. */
const SPECIAL_KEYS = /expert_count|^ssm\.|^shortconv\./;
/** Tokens that are computed at a time; one of these is drawn. */
const BATCHES = [undefined, 3, 1];

/** llama.cpp takes GELU from a table with 16-bit values. @param {string} architecture */
const limitOf = (architecture) => (/^gemma/.test(architecture) ? 0.03 : 5e-4);

/**
 * @param {import('../../js/gpu/index.js').GpuKernels} kernels @param {string} path
 * @param {number} contextLength @param {number} [batch]  tokens that are computed at a time
 */
const load = (kernels, path, contextLength, batch) =>
  Llama.loadTo(
    async () => {
      const backend = await kernels[openBackend]({ kvType: 'F32', activation: 'f32' });
      const { sizes } = backend;
      if (batch)
        backend.sizes = (plan, settings) => ({ ...sizes.call(backend, plan, settings), batch, part: batch });
      return backend;
    },
    path,
    { kvType: 'F32', contextLength },
  );

/**
 * The continuation is known up to the first choice that the limit leaves open.
 * @param {Llama} model @param {import('../helpers/llama.js').Reference} reference @param {number} limit
 */
async function checkGreedy(model, { prompts, greedy: { tokens, margins } }, limit) {
  const open = margins.findIndex((margin) => margin < 2 * limit);
  const maxTokens = open === -1 ? tokens.length : open;
  const run = model.generate(prompts[0].tokens, { temperature: 0, maxTokens, ignoreEnd: true });
  await run.text();
  assert.deepEqual(run.tokens, tokens.slice(0, maxTokens));
}

const skip = skipWithout('arch/models') || skipWithout('arch/logits') || (await gpuSkip());

describe('architectures on the GPU', { skip }, async () => {
  const names = (skip ? [] : listData('arch/models'))
    .map((file) => file.replace(/\.gguf$/, ''))
    .filter((name) => !skipWithout(`arch/logits/${name}.logits.f32`));
  const references = names.map((name) => ({ name, ...readReference(name, 'arch/logits') }));
  const known = references.filter(({ reference }) => {
    const { architecture, hyperparameters } = /** @type {any} */ (reference);
    const isServed = !Object.keys(hyperparameters).some((key) => REFUSED_KEYS.test(key));
    return Object.hasOwn(ARCHITECTURES, architecture) && isServed && !REFUSED.test(architecture);
  });
  const has = (/** @type {(typeof known)[0]} */ { reference }, /** @type {RegExp} */ key) =>
    Object.keys(/** @type {any} */ (reference).hyperparameters).some((name) => key.test(name));
  const isSpecial = (/** @type {(typeof known)[0]} */ one) => has(one, SPECIAL_KEYS);
  const [special, others] = [known.filter(isSpecial), known.filter((one) => !isSpecial(one))];
  const drawn = ALL ? known : [...sampled(special, 1), ...sampled(others, 1)];
  const batches = ALL ? BATCHES : sampled(BATCHES, 1);

  for (const { name, reference, logits } of drawn) {
    test(`${name}, seed ${SEED}`, async (t) => {
      const found = await webGpu();
      if ('skip' in found) return;
      const kernels = await createGpuKernels({ gpu: found.gpu, allowSoftware: true, selfTest: false });
      const { architecture, n_ctx: contextLength } = /** @type {any} */ (reference);
      const limit = limitOf(architecture);
      const path = dataPath(`arch/models/${name}.gguf`);
      try {
        for (const batch of isSpecial({ name, reference, logits }) ? batches : [undefined]) {
          const model = await load(kernels, path, contextLength, batch);
          try {
            let worst = 0;
            for (const prompt of reference.prompts) {
              const { max } = distance(await model.logits(prompt.tokens), logits(prompt));
              worst = Math.max(worst, max);
            }
            const what = batch ? `${batch} at a time` : 'at once';
            t.diagnostic(`ran: ${name}, ${what}, seed ${SEED}: largest difference ${worst.toExponential(1)}`);
            assert.ok(worst <= limit, `${what}: ${worst} of ${limit}`);
            if (batch === 1) await checkGreedy(model, reference, limit);
          } finally {
            model.dispose();
          }
        }
      } finally {
        kernels.dispose();
      }
    });
  }
});
