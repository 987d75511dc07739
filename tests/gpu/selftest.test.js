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

/** @import { GpuDevice } from '../../js/gpu/device.js' */
/** @import { BlockName, SelfTestOptions } from '../../js/gpu/selftest.js' */
/** @import { Shader } from '../../js/gpu/shader.js' */

/**
 * A fault: kernels by the beginning of their names, a text of their WGSL, and what it becomes.
 * @typedef {[kernel: RegExp, text: string | RegExp, becomes: string]} Fault
 */

/** Faults that are tested. */
const DRAWN = 4;

/**
 * Small shapes: with tails everywhere, and columns enough to be summed in splits.
 * @satisfies {Partial<SelfTestOptions>}
 */
const SMALL = { types: ['F32'], columns: [60, 2056] };
const POST_NORM = { kind: /** @type {const} */ ('rms'), eps: 1e-5 };
/** @type {import('../../js/llama/plan.js').RecurrentSettings} */
const CONVOLUTION = {
  kind: 'convolution',
  ...{ norm: POST_NORM, postNorm: undefined, residualScale: 0.5, nChannels: 4096, length: 3 },
};
/** @type {import('../../js/llama/plan.js').RecurrentSettings} */
const DELTA = {
  kind: 'delta',
  ...{ norm: POST_NORM, postNorm: undefined, residualScale: 1, headNorm: POST_NORM, length: 4 },
  ...{ nKeyHeads: 16, nValueHeads: 32, keySize: 32, valueSize: 32 },
};
/** @type {import('../../js/llama/plan.js').RecurrentSettings} */
const SCAN = {
  kind: 'scan',
  ...{ norm: POST_NORM, postNorm: undefined, residualScale: 1, gateNorm: POST_NORM, length: 4 },
  ...{ nHeads: 16, nGroups: 2, headSize: 40, stateSize: 16 },
};

const ROUTER = /** @type {const} */ ({
  scores: 'softmax',
  over: 'all',
  normalize: true,
  scale: 1,
  nGroups: 1,
  nGroupsUsed: 1,
});
const SHARED = { nFf: 80, gated: true };
const MIXTURE = /** @type {const} */ ({
  columns: [60, 40],
  feed: { kind: 'experts', experts: { nExperts: 8, nUsed: 2, router: ROUTER, shared: SHARED } },
});

/**
 * What is broken, the block that runs, the fault, the first words of a case that must fail, and
 * settings.
 * @type {[string, BlockName, Fault, RegExp, Partial<SelfTestOptions>?][]}
 */
const FAULTS = [
  ['matvec: the last row', 'head', [/^matvec/, 'row0 + r >= end', 'row0 + r + 1u >= end'], /^head, 1 token/],
  ['matvec: a barrier', 'feed', [/^matvec F32 60x2056/, 'workgroupBarrier();', ''], /^feed, 1 token/],
  [
    'matvec: tokens',
    'head',
    [/^matvec.*for 8/, 't >= step.n_tokens', 't + 1u >= step.n_tokens'],
    /^head, 5 tokens/,
  ],
  ['matvec: eps', 'head', [/^matvec/, 'f32(0.00001)', 'f32(0.0001)'], /^head, 5 tokens/],
  ['matvec: the last columns', 'feed', [/^matvec.*x60,/, /p < 4u/g, 'p < 3u'], /^feed, 1 token/],
  ['splits: one is missing', 'feed', [/^splits of/, 'k < 2u', 'k < 1u'], /^feed, 1 token/],
  [
    'splits: other bits in the second run',
    'feed',
    [/^splits of.*for 8/, '* factor)', '* factor + 1e-6 * f32(step.start))'],
    /^feed, 5 tokens/,
  ],
  ['splits: the last columns', 'feed', [/^matvec F32 60x2056/, 'min(129u', 'min(128u'], /^feed, 1 token/],
  ['gate of few tokens', 'feed', [/^matvec/, '1.0 + exp(', '1.01 + exp('], /^feed, 1 token/],
  [
    'tiles: the last token',
    'feed',
    [/^matmul/, 'token >= step.n_tokens', 'token + 1u >= step.n_tokens'],
    /^feed, 40 tokens/,
  ],
  [
    'tiles: a barrier',
    'feed',
    [/^matmul/, /(stage_x\(.*\n\s+)workgroupBarrier\(\);/, '$1'],
    /^feed, 40 tokens/,
  ],
  ['norm: eps', 'feed', [/^rms norm/, 'f32(0.00001)', 'f32(0.0001)'], /^feed, 40 tokens/],
  [
    'norm: overflow',
    'feed',
    [/^rms norm/, 'sum += dot(v, v)', 'sum += min(dot(v, v), 65504.0)'],
    /^feed, 40 tokens/,
  ],
  [
    'norm: a barrier',
    'feed',
    [/^rms norm/, /(partial\[tid \+ n\]; \}\s+)workgroupBarrier\(\);/, '$1'],
    /^feed, 40 tokens/,
  ],
  ['gate: its sign', 'feed', [/^silu of/, 'exp(-x)', 'exp(x)'], /^feed, 40 tokens/],
  [
    'scaled add: its scale',
    'feed',
    [/^scaled add/, 'f32(0.5)', 'f32(0.52)'],
    /^feed, 1 token/,
    { feed: { postNorm: POST_NORM, residualScale: 0.5 } },
  ],
  [
    'embed: the last token',
    'embed',
    [/^embed/, 'id.y >= step.n_tokens', 'id.y + 1u >= step.n_tokens'],
    /^embed/,
  ],
  ['embed: the last columns', 'embed', [/^embed/, '4u <= 60u', '4u < 60u'], /^embed/],
  [
    'heads: a turn',
    'attention',
    [/^heads F32/, 'v.x * a.y + v.y', 'v.x * a.y - v.y'],
    /^project and attend, 1 token/,
  ],
  [
    'heads after products: a turn',
    'attention',
    [/^heads after/, 'v.x * a.y + v.y', 'v.x * a.y - v.y'],
    /^project and attend, 40 tokens/,
  ],
  [
    'heads after products: the last token',
    'attention',
    [/^heads after/, 'wid.y >= step.n_tokens', 'wid.y + 1u >= step.n_tokens'],
    /^project and attend, 40 tokens/,
  ],
  [
    'attention: its scale',
    'attention',
    [/^attention F32 8\/2x64$/, 'f32(0.125)', 'f32(0.5)'],
    /^project and attend, 1 token from position 40/,
  ],
  [
    'attention: a barrier',
    'attention',
    [/^attention F32 8\/2x64$/, /(scores\[i\] = s;\s+\}\s+)workgroupBarrier\(\);/, '$1'],
    /^project and attend, 1 token from position 40/,
  ],
  [
    'attention in splits: their first',
    'attention',
    [/^attention F32 8\/2x64 in/, 'wid.y * 128u', 'wid.y * 120u'],
    /^project and attend, 1 token from position 179/,
  ],
  [
    'merge: a split',
    'attention',
    [/^merge/, 'i = stripe; i < n;', 'i = stripe; i < n - 1u;'],
    /^project and attend, 1 token from position 179/,
  ],
  [
    'attention tiles: who sees what',
    'attention',
    [/^attention tiles/, 't + 1u', 't + 2u'],
    /^project and attend, 40 tokens/,
  ],
  [
    'attention tiles: barriers',
    'attention',
    [/^attention tiles/, /workgroupBarrier\(\);\n\s+var larger/, 'var larger'],
    /^project and attend, 40 tokens/,
  ],
  [
    'convolution: a column of the state',
    'recurrent',
    [/^convolution/, 's0 = state[0u + i]', 's0 = state[60u + i]'],
    /^recurrent convolution, 1 token from position 41/,
    { recurrent: CONVOLUTION },
  ],
  [
    'convolution: the state is not zeros in the beginning',
    'recurrent',
    [/^convolution/, 'if (step.position > 0u)', 'if (step.position >= 0u)'],
    /^recurrent convolution, 3 tokens from the beginning/,
    { recurrent: CONVOLUTION },
  ],
  [
    'convolution: the copy is made a token early',
    'recurrent',
    [/^convolution/, 't + 1u == step.n_tokens', 't + 2u == step.n_tokens'],
    /^recurrent convolution, 2 tokens from the copy/,
    { recurrent: CONVOLUTION },
  ],
  [
    'convolution: its gate',
    'recurrent',
    [/^convolution/, /x\[row \+ 60u\] \* sum/, 'sum'],
    /^recurrent convolution, 1 token from position 41/,
    { recurrent: CONVOLUTION },
  ],
  [
    'convolution: its bias',
    'recurrent',
    [/^convolution/, ' + bias[i]', ''],
    /^recurrent convolution, 41 tokens/,
    { recurrent: CONVOLUTION },
  ],
  [
    'convolution: silu',
    'recurrent',
    [/^convolution/, 'clamp(-sum', 'clamp(sum'],
    /^recurrent delta, 41 tokens/,
    { recurrent: DELTA },
  ],
  [
    'delta: a row of the state',
    'recurrent',
    [/^delta of/, '(4u * i + 1u)', '(4u * i)'],
    /^recurrent delta, 5 tokens from position 42/,
    { recurrent: DELTA },
  ],
  [
    'delta: the keys of a head',
    'recurrent',
    [/^delta of/, 'head % 2u', 'head / 2u'],
    /^recurrent delta, 41 tokens/,
    { recurrent: DELTA },
  ],
  [
    'delta: beta',
    'recurrent',
    [/^delta of/, 'of_key * beta', 'of_key'],
    /^recurrent delta, 41 tokens/,
    { recurrent: DELTA },
  ],
  [
    'delta: the decay of what is read',
    'recurrent',
    [/^delta of/, '(decay * sums.y', '(sums.y'],
    /^recurrent delta, 1 token from position 41/,
    { recurrent: DELTA },
  ],
  [
    'delta: halves of workgroup memory',
    'recurrent',
    [/^delta of/, 't & 1u', 't & 0u'],
    /^recurrent delta, 41 tokens/,
    { recurrent: DELTA },
  ],
  [
    'gated norm: its gate',
    'recurrent',
    [/^gated norm/, 'silu(gates[first + i])', '1.0'],
    /^recurrent delta, 1 token from position 41/,
    { recurrent: DELTA },
  ],
  [
    'gated norm: a barrier',
    'recurrent',
    [/^gated norm/, /(partial\[tid \+ n\]; \}\s+)workgroupBarrier\(\);/, '$1'],
    /^recurrent scan, 41 tokens/,
    { recurrent: SCAN },
  ],
  [
    'gated norm: the weights of a group',
    'recurrent',
    [/^gated norm/, 'weight[wid.x * ', 'weight[0u * '],
    /^recurrent scan, 1 token from position 41/,
    { recurrent: SCAN },
  ],
  [
    'scan: the copy is made a token late',
    'recurrent',
    [/^scan of/, 't + 2u == step.n_tokens', 't + 1u == step.n_tokens'],
    /^recurrent scan, 2 tokens from the copy/,
    { recurrent: SCAN },
  ],
  [
    'scan: the state is not zeros in the beginning',
    'recurrent',
    [/^scan of/, 'step.position > 0u', 'step.position >= 0u'],
    /^recurrent scan, 3 tokens from the beginning/,
    { recurrent: SCAN },
  ],
  [
    'scan: its last columns',
    'recurrent',
    [/^scan of/, 'column < 40u', 'column < 39u'],
    /^recurrent scan, 1 token from position 41/,
    { recurrent: SCAN },
  ],
  [
    'scan: d',
    'recurrent',
    [/^scan of/, / \+ d\[[^\]]*\] \* v/, ''],
    /^recurrent scan, 1 token from position 41/,
    { recurrent: SCAN },
  ],
  [
    'gates of attention: their sign',
    'attention',
    [/^sigmoid of/, 'exp(-x)', 'exp(x)'],
    /^project and attend, 1 token/,
    { attention: { outputGate: true } },
  ],
  [
    'argmax: larger or not',
    'head',
    [/^argmax/, 'rank[o] > rank[tid]', 'rank[o] < rank[tid]'],
    /^largest logit/,
  ],
  ['route: the order', 'feed', [/^route/, 'other > own', 'other < own'], /^feed, 1 token/, MIXTURE],
  [
    'route: weights that sum to 1',
    'feed',
    [/^route/, 'max(sum,', 'max(1.01 * sum,'],
    /^feed, 1 token/,
    MIXTURE,
  ],
  ['route: a barrier', 'feed', [/^route/, /workgroupBarrier\(\);(\s+var sum)/, '$1'], /^feed/, MIXTURE],
  [
    'experts: another one',
    'feed',
    [/^experts 2x/, /expert \* 40u/g, '(expert ^ 1u) * 40u'],
    /^feed, 1 token/,
    MIXTURE,
  ],
  [
    'experts: the weight of another one',
    'feed',
    [/^experts 2x/, '2u + slot', '3u - slot'],
    /^feed, 40 tokens/,
    MIXTURE,
  ],
  ['experts: the last row', 'feed', [/^experts 2x/, 'row >= 40u', 'row >= 39u'], /^feed, 1 token/, MIXTURE],
  [
    'shared expert: its factor',
    'feed',
    [/^shared expert/, 'weight * gated', 'gated'],
    /^feed, 1 token/,
    MIXTURE,
  ],
  [
    'experts out: the last one',
    'feed',
    [/^experts out/, 'slot < 2u', 'slot < 1u'],
    /^feed, 5 tokens/,
    MIXTURE,
  ],
  [
    'experts out: the last token',
    'feed',
    [/^experts out/, 't >= step.n_tokens', 't + 1u >= step.n_tokens'],
    /^feed, 5 tokens/,
    MIXTURE,
  ],
  [
    'a kernel that does nothing',
    'feed',
    [/^matmul/, /fn put\(([^)]*)\) \{/, 'fn put($1) { if (step.n_tokens > 0u) { return; }'],
    /^feed, 40 tokens/,
  ],
];

const ROPE = /** @type {const} */ ({
  pairing: 'halves',
  nDims: 32,
  base: 1e6,
  linearScale: 2,
  divisors: undefined,
  magnitude: 1,
});
const QK_NORM = /** @type {const} */ ({ kind: 'rms', eps: 1e-6, span: 'head', afterRope: false });
const ROW_NORM = { ...QK_NORM, span: /** @type {const} */ ('row'), afterRope: true };
/** Settings that models have, which a self-test takes too. @type {[string, any][]} */
const OTHER_SETTINGS = [
  [
    'norms, biases and GELU',
    {
      kvType: 'F16',
      blocks: ['attention', 'feed'],
      columns: [60, 100],
      attention: {
        nHeads: 14,
        nKvHeads: 2,
        headSize: 32,
        rope: ROPE,
        qkNorm: QK_NORM,
        biases: true,
        window: 4096,
        postNorm: POST_NORM,
      },
      feed: { activation: 'gelu', postNorm: POST_NORM, residualScale: 0.5 },
    },
  ],
  [
    'norms of rows, soft caps, no mask',
    {
      kvType: 'Q8_0',
      blocks: ['attention'],
      attention: {
        nHeads: 4,
        nKvHeads: 4,
        headSize: 64,
        qkNorm: ROW_NORM,
        softcap: 20,
        outputBias: true,
        causal: false,
      },
    },
  ],
  [
    'temperature and plain blocks',
    {
      blocks: ['attention', 'feed'],
      columns: [60, 100],
      attention: {
        nHeads: 4,
        nKvHeads: 2,
        headSize: 32,
        rope: { ...ROPE, magnitude: 1.2 },
        temperature: { scale: 0.1, length: 50 },
      },
      feed: { kind: 'plain', activation: 'relu2' },
    },
  ],
  [
    'experts in groups, with biases',
    {
      blocks: ['feed'],
      columns: [60, 40],
      feed: {
        ...{ kind: 'experts', activation: 'clamped', postNorm: POST_NORM },
        experts: {
          ...{ nExperts: 64, nUsed: 6, shared: { nFf: 80, gated: false } },
          router: { scores: 'sigmoid', over: 'all', normalize: true, scale: 2.5, nGroups: 8, nGroupsUsed: 3 },
        },
      },
      feedRoles: ['routerBias', 'selectBias', 'gateBias', 'upBias', 'downBias', 'downFactor'],
    },
  ],
  [
    'experts of their own softmax, a norm of the router',
    {
      blocks: ['feed'],
      columns: [60, 40],
      feed: {
        ...{ kind: 'experts', activation: 'gelu', residualScale: 0.5 },
        experts: {
          ...{ nExperts: 6, nUsed: 3, shared: undefined, routerNorm: { eps: 1e-3, scale: 0.125 } },
          router: {
            scores: 'softmax',
            over: 'chosen',
            normalize: false,
            scale: 1,
            nGroups: 1,
            nGroupsUsed: 1,
          },
        },
      },
      feedRoles: ['gateFactor', 'upFactor'],
    },
  ],
  [
    'a delta net, and gates of attention',
    {
      blocks: ['attention', 'recurrent'],
      columns: [60, 100],
      attention: { nHeads: 4, nKvHeads: 2, headSize: 32, qkNorm: QK_NORM, outputGate: true },
      recurrent: DELTA,
    },
  ],
  ['a scan', { blocks: ['recurrent'], columns: [60, 100], recurrent: SCAN }],
  ['scales of the ends', { blocks: ['head', 'embed'], head: { scale: 0.5, softcap: 10 }, embeddingScale: 8 }],
];

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

    test('integer products are within their own bounds, and a fault in them is found', async (t) => {
      if (!gpu.features.has('dot4I8Packed')) return t.skip('this Vulkan driver has no dot4I8Packed');
      const options = /** @type {const} */ ({
        types: ['Q8_0', 'Q4_0'],
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
