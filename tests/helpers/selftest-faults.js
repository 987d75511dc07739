/**
 * Faults for the WGSL of kernels, each with the case of the self-test that must find it, and settings
 * of models that the self-test must pass with.
 */

import { ENCODER_FAULTS, ENCODER_SETTINGS } from './selftest-encoders.js';

/** @import { BlockName, SelfTestOptions } from '../../js/gpu/selftest.js' */

/**
 * A fault: kernels by the beginning of their names, a text of their WGSL, and what it becomes.
 * @typedef {[kernel: RegExp, text: string | RegExp, becomes: string]} Fault
 */

/**
 * Small shapes: with tails everywhere, and columns enough to be summed in splits.
 * @satisfies {Partial<SelfTestOptions>}
 */
export const SMALL = { types: ['F32'], columns: [60, 2056] };
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
 * @typedef {[string, BlockName, Fault, RegExp, Partial<SelfTestOptions>?]} FaultCase
 */

/** @type {FaultCase[]} */
export const FAULTS = [
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
    [/^convolution/, 'clamp(-(a)', 'clamp((a)'],
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
    [/^gated norm/, 'activated(gates[first + i])', '1.0'],
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
  ...ENCODER_FAULTS,
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
export const OTHER_SETTINGS = [
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
  ['a scan before experts', { ...MIXTURE, blocks: ['recurrent', 'feed'], recurrent: SCAN }],
  ...ENCODER_SETTINGS,
  [
    'norms of results only',
    {
      blocks: ['attention', 'feed'],
      columns: [60, 100],
      kvType: 'F16',
      attention: {
        norm: undefined,
        postNorm: POST_NORM,
        qkNorm: ROW_NORM,
        nHeads: 4,
        nKvHeads: 2,
        headSize: 32,
      },
      feed: { norm: undefined, postNorm: POST_NORM },
    },
  ],
  [
    'scales of the ends',
    { blocks: ['head', 'embed'], head: { scale: 0.5, softcap: 10 }, embedding: { scale: 8 } },
  ],
];
