/** The attention kernel for few tokens, in one split and in many, against float64. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { attention, attentionGroups, mergeSplits } from '../../js/gpu/wgsl/attention.js';
import { attentionTiles } from '../../js/gpu/wgsl/attention-tiles.js';
import { checkWithin, KV, makeCase, makeShape, referenceAttention } from '../helpers/attention.js';
import { gpuSkip, TestGpu } from '../helpers/gpu.js';
import {
  allOneSign,
  describeLayer,
  gaussians,
  kernelShape,
  runOneSplit,
  runSplits,
  wgslBound,
} from '../helpers/gpu-attention.js';
import { Prng } from '../helpers/prng.js';

/** @import { Shape } from '../helpers/attention.js' */
/** @import { Place } from '../helpers/gpu-attention.js' */

const SPLIT = 64;

/** @type {Place[]} */
const PLACES = [
  { room: 303, split: SPLIT },
  { room: 300, split: SPLIT, ofBatch: true, start: 2, alone: true },
];

/**
 * Layers with every cache type, groups of 1 to 8 heads, heads of whole eights and not, and every
 * setting.
 * @type {Partial<Shape>[]}
 */
const IN_ONE = [
  { kvType: KV.Q8_0, nHeads: 8, nKvHeads: 1, headSize: 128, causal: 1, softcap: 5 },
  { kvType: KV.F32, nHeads: 4, nKvHeads: 1, headSize: 256, causal: 1, window: 9 },
  { kvType: KV.F16, nHeads: 5, nKvHeads: 1, headSize: 100, causal: 1, window: 63, sinks: gaussians(5) },
  { kvType: KV.F16, nHeads: 2, nKvHeads: 2, headSize: 16, causal: 1, sinks: gaussians(2) },
  { kvType: KV.F16, nHeads: 4, nKvHeads: 4, headSize: 32, causal: 0, window: 15 },
];

/** The same for several splits. @type {Partial<Shape>[]} */
const IN_SPLITS = [
  { kvType: KV.F16, nHeads: 8, nKvHeads: 2, headSize: 64, causal: 1, window: 70 },
  { kvType: KV.F32, nHeads: 3, nKvHeads: 3, headSize: 4, causal: 1 },
  { kvType: KV.F16, nHeads: 14, nKvHeads: 2, headSize: 80, causal: 1, sinks: gaussians(14) },
  { kvType: KV.Q8_0, nHeads: 4, nKvHeads: 2, headSize: 192, causal: 0, softcap: 2, sinks: gaussians(4) },
  { kvType: KV.Q8_0, nHeads: 3, nKvHeads: 1, headSize: 32, causal: 1, window: 129, softcap: 30 },
  { kvType: KV.F16, nHeads: 4, nKvHeads: 4, headSize: 32, causal: 0, window: 128 },
];

/**
 * @param {Partial<Shape>} layer
 * @param {number} nTokens
 * @param {number} nPositions
 * @param {number} seed
 * @param {{ q?: number, v?: number }} [sizes]
 */
function caseOf(layer, nTokens, nPositions, seed, sizes) {
  // A window to both sides has positions there.
  const later = layer.window && !layer.causal ? Math.floor((nPositions - nTokens) / 2) : 0;
  const firstPosition = nPositions - nTokens - later;
  return makeCase(makeShape({ ...layer, nTokens, nPositions, firstPosition }), new Prng(seed), sizes);
}

test('shaders of all sizes of heads keep to what WebGPU promises', () => {
  for (const type of /** @type {const} */ (['F32', 'F16', 'Q8_0'])) {
    for (const headSize of [4, 16, 32, 64, 80, 96, 100, 112, 128, 192, 252, 256]) {
      if (type === 'Q8_0' && headSize % 32 !== 0) continue;
      for (const nHeads of [1, 2, 3, 8]) {
        const shape = makeShape({
          nHeads,
          nKvHeads: 1,
          headSize,
          kvType: KV[type],
          sinks: gaussians(nHeads),
        });
        const { split, ...kernel } = kernelShape(shape);
        attention({ ...kernel, parts: false });
        attention({ ...kernel, parts: true });
        mergeSplits(kernel);
        attentionTiles(kernel);
      }
    }
  }
});

test('splits are counted by the positions that a token sees', () => {
  const kernel = kernelShape(makeShape({ nHeads: 14, nKvHeads: 2, window: 100 }), { split: 128 });
  const everything = { ...kernel, window: 0 };
  assert.deepEqual(attentionGroups(everything, { seen: 32_768, nTokens: 3 }), [4, 256, 3]);
  assert.deepEqual(attentionGroups(everything, { seen: 129, nTokens: 1 }), [4, 2, 1]);
  assert.deepEqual(attentionGroups(kernel, { seen: 32_768, nTokens: 1 }), [4, 1, 1]);
  for (const [window, n] of [
    [127, 1],
    [128, 2],
    [255, 2],
    [256, 3],
  ])
    assert.equal(attentionGroups({ ...kernel, causal: false, window }, { seen: 1000, nTokens: 1 })[1], n);
});

describe('attention of few tokens', { skip: await gpuSkip() }, () => {
  /** @type {TestGpu} */
  let gpu;
  before(async () => {
    gpu = await TestGpu.open();
  });
  after(() => gpu.dispose());

  IN_ONE.forEach((layer, i) => {
    test(`one split: ${describeLayer(makeShape(layer))}`, async () => {
      for (const [nTokens, nPositions] of [
        [1, 1],
        [1, 2],
        [3, SPLIT - 1],
        [1, SPLIT],
      ]) {
        const made = caseOf(layer, nTokens, nPositions, nPositions);
        const got = await runOneSplit(gpu, made, PLACES[i % 2]);
        const what = `${nTokens} tokens, ${nPositions} positions`;
        checkWithin(got, wgslBound(referenceAttention(made)), what);
      }
    });
  });

  IN_SPLITS.forEach((layer, i) => {
    test(`splits: ${describeLayer(makeShape(layer))}`, async () => {
      for (const [nTokens, nPositions] of [
        [1, 1],
        [3, SPLIT - 1],
        [2, SPLIT],
        [2, SPLIT + 1],
        [1, 2 * SPLIT + 1],
        [3, 300],
      ]) {
        const made = caseOf(layer, nTokens, nPositions, nPositions);
        const got = await runSplits(gpu, made, { ...PLACES[i % 2], moreSplits: i });
        const what = `${nTokens} tokens, ${nPositions} positions`;
        checkWithin(got, wgslBound(referenceAttention(made)), what);
      }
    });
  });

  test('splits: the longest context', async () => {
    const made = caseOf(IN_SPLITS[1], 2, 32_768, 1);
    const got = await runSplits(gpu, made, { split: SPLIT });
    checkWithin(got, wgslBound(referenceAttention(made)), 'splits');
  });

  /** @param {typeof runSplits} run @param {Partial<Shape>} layer @param {number} nPositions */
  const extremes = async (run, layer, nPositions) => {
    for (const made of [
      caseOf(layer, 1, nPositions, 1, { q: 1000 }),
      caseOf(layer, 2, nPositions, 2, { q: 1e-30, v: 1e-6 }),
      allOneSign(caseOf(layer, 2, nPositions, 3), -300),
      allOneSign(caseOf(layer, 2, nPositions, 4), 300),
    ]) {
      const got = await run(gpu, made, PLACES[0]);
      checkWithin(got, wgslBound(referenceAttention(made)), `${nPositions} positions`);
      assert.deepEqual(await run(gpu, made, PLACES[0]), got, 'a second run differs');
    }
  };

  test('large scores, scores of one sign, the same bits twice', async () => {
    await extremes(runOneSplit, IN_ONE[0], 60);
    await extremes(runOneSplit, IN_ONE[2], 60);
    await extremes(runSplits, IN_SPLITS[0], 200);
    await extremes(runSplits, IN_SPLITS[2], 290);
  });
});
