/** The attention kernel for prompts against float64. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { checkWithin, KV, makeCase, makeShape, referenceAttention } from '../helpers/attention.js';
import { gpuSkip, TestGpu } from '../helpers/gpu.js';
import { allOneSign, describeLayer, gaussians, runTiles, wgslBound } from '../helpers/gpu-attention.js';
import { Prng } from '../helpers/prng.js';

/** @import { Shape } from '../helpers/attention.js' */
/** @import { Place } from '../helpers/gpu-attention.js' */

/**
 * Layers with every cache type, several groups of heads, heads of whole chunks of 32 columns and
 * not, and every setting.
 * @type {Partial<Shape>[]}
 */
const LAYERS = [
  { kvType: KV.F16, nHeads: 8, nKvHeads: 2, headSize: 64, causal: 1, window: 20 },
  { kvType: KV.Q8_0, nHeads: 8, nKvHeads: 1, headSize: 256, causal: 1, softcap: 3 },
  { kvType: KV.F32, nHeads: 2, nKvHeads: 2, headSize: 20, causal: 0, sinks: gaussians(2) },
  { kvType: KV.F16, nHeads: 6, nKvHeads: 2, headSize: 80, causal: 1, window: 33, sinks: gaussians(6) },
  { kvType: KV.F32, nHeads: 3, nKvHeads: 1, headSize: 128, causal: 1, window: 5, softcap: 30 },
  { kvType: KV.F16, nHeads: 4, nKvHeads: 4, headSize: 32, causal: 0, window: 21 },
];
/** @type {Place[]} */
const PLACES = [
  { room: 140, ofBatch: true, start: 3 },
  { room: 137, alone: true },
];

describe('attention of a prompt', { skip: await gpuSkip() }, () => {
  /** @type {TestGpu} */
  let gpu;
  before(async () => {
    gpu = await TestGpu.open();
  });
  after(() => gpu.dispose());

  LAYERS.forEach((layer, i) => {
    test(describeLayer(makeShape(layer)), async () => {
      const prng = new Prng(100 + i);
      for (const [nTokens, firstPosition, later] of [
        [1, 0, 0],
        [3, 40, 50],
        [17, 0, 60],
        [33, 5, 3],
        [70, 64, 0],
      ]) {
        // Without a mask, tokens see positions after those of the step.
        const nPositions = firstPosition + nTokens + (layer.causal ? 0 : later);
        const shape = makeShape({ ...layer, nTokens, nPositions, firstPosition });
        const made = makeCase(shape, prng);
        const reference = wgslBound(referenceAttention(made));
        checkWithin(
          await runTiles(gpu, made, PLACES[i % 2]),
          reference,
          `${nTokens} tokens from position ${firstPosition}`,
        );
      }
    });
  });

  test('the last tokens of the longest context', async () => {
    const layer = { kvType: KV.F16, nHeads: 4, nKvHeads: 2, headSize: 32, causal: 1 };
    const place = { nTokens: 17, nPositions: 32_768, firstPosition: 32_751 };
    const made = makeCase(makeShape({ ...layer, ...place }), new Prng(9));
    checkWithin(
      await runTiles(gpu, made, { room: 32_768, alone: true }),
      wgslBound(referenceAttention(made)),
      'tiles',
    );
  });

  test('large scores, scores of one sign, the same bits twice', async () => {
    const shape = makeShape({ ...LAYERS[0], nTokens: 19, nPositions: 130, firstPosition: 111 });
    for (const made of [
      makeCase(shape, new Prng(1), { q: 1000 }),
      makeCase(shape, new Prng(2), { q: 1e-30, v: 1e-6 }),
      allOneSign(makeCase(shape, new Prng(3)), -300),
      allOneSign(makeCase(shape, new Prng(4)), 300),
    ]) {
      const got = await runTiles(gpu, made, PLACES[0]);
      checkWithin(got, wgslBound(referenceAttention(made)), 'tiles');
      assert.deepEqual(await runTiles(gpu, made, PLACES[0]), got, 'a second run differs');
    }
  });
});
