/**
 * Layers with a window keep only the latest positions on the GPU, in a ring. The results are compared
 * with plain float64 JavaScript, which keeps all, over a text that is longer than the ring.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { openBackend } from '../../js/backend.js';
import { createGpuKernels } from '../../js/gpu/index.js';
import { Llama } from '../../js/llama/index.js';
import { gpuSkip, webGpu } from '../helpers/gpu.js';
import { close } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { ReferenceBackend } from '../helpers/reference-backend.js';
import { makeModel } from '../helpers/synthetic-llama.js';

const WINDOW = 8;
const N_VOCAB = 40;
const made = makeModel({ nVocab: N_VOCAB, context: 2000, nEmbd: 32, nFf: 32, nHeads: 2 });

/** @param {any} backend */
function load(backend) {
  const { lacks } = backend;
  backend.lacks = (/** @type {any} */ plan, /** @type {any[]} */ ...more) => {
    plan.layers[1].attention.window = WINDOW;
    return lacks.call(backend, plan, ...more);
  };
  return Llama.loadTo(async () => backend, made.bytes.buffer, { kvType: 'F32', contextLength: 2000 });
}

describe('windows on the GPU', { skip: await gpuSkip() }, () => {
  test('a prompt and single tokens, longer than the ring; then back', async () => {
    const found = await webGpu();
    if ('skip' in found) return;
    const kernels = await createGpuKernels({ gpu: found.gpu, allowSoftware: true, selfTest: false });
    const settings = /** @type {const} */ ({ activation: 'f32', kvType: 'F32' });
    const model = await load(await kernels[openBackend](settings));
    const reference = await load(new ReferenceBackend());
    const prng = new Prng(3);
    const tokens = Array.from({ length: 640 }, () => prng.int(3, N_VOCAB - 1));
    close(await model.logits(tokens), await reference.logits(tokens), 3e-5, 'logits');
    const options = { maxTokens: 6, temperature: 0, ignoreEnd: true };
    const reused = [];
    for (const kept of [640, 635, 100]) {
      const text = [...tokens.slice(0, kept), 5];
      const [run, expected] = [model.generate(text, options), reference.generate(text, options)];
      await run.text();
      await expected.text();
      assert.deepEqual(run.tokens, expected.tokens, `${kept} tokens kept`);
      reused.push(run.stats.reusedTokens);
    }
    // The window before position 100 is overwritten.
    assert.deepEqual(reused, [640, 635, 0]);
    model.dispose();
    kernels.dispose();
  });
});
