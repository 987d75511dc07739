/** Settings of encoders for the self-test of the GPU, and faults in the WGSL that only they use. */

/** @import { FaultCase } from './selftest-faults.js' */

const LAYER_NORM = { kind: /** @type {const} */ ('layer'), eps: 1e-5 };
/** An encoder with norms of the sums, as BERT. */
const SUM_NORMS = /** @type {const} */ ({
  columns: [60, 100],
  attention: {
    ...{ nHeads: 4, nKvHeads: 4, headSize: 32, rope: undefined, causal: false },
    ...{ norm: undefined, sumNorm: LAYER_NORM, biases: true, outputBias: true },
  },
  feed: { kind: 'plain', activation: 'gelu', norm: undefined, sumNorm: LAYER_NORM },
  feedRoles: ['upBias', 'downBias'],
  embedding: { norm: LAYER_NORM },
  embeddingRoles: ['positions', 'types'],
  normBiases: ['attention.sumNorm', 'feed.sumNorm', 'embedding.norm'],
});
/** An encoder with norms before the blocks, and windows, as ModernBERT. */
const LAYER_NORMS = /** @type {const} */ ({
  columns: [60, 100],
  attention: { nHeads: 4, nKvHeads: 4, headSize: 32, causal: false, window: 4096, norm: LAYER_NORM },
  feed: { activation: 'gelu', norm: LAYER_NORM },
  head: { norm: LAYER_NORM },
  normBiases: ['head.norm', 'feed.norm'],
});

/** @type {FaultCase[]} */
export const ENCODER_FAULTS = [
  [
    'layer norm: its mean',
    'feed',
    [/^layer norm/, '(x[row + i] - mean) * scale', 'x[row + i] * scale'],
    /^feed, 5 tokens/,
    LAYER_NORMS,
  ],
  [
    'layer norm: the padding in its sum of squares',
    'feed',
    [/^layer norm/, /v = select\([^;]*;/, ''],
    /^feed, 40 tokens/,
    LAYER_NORMS,
  ],
  ['layer norm: its bias', 'feed', [/^layer norm/, ' + bias[i]', ''], /^feed, 1 token/, LAYER_NORMS],
  ['layer norm: eps', 'feed', [/^layer norm/, 'f32(0.00001)', 'f32(0.01)'], /^feed, 40 tokens/, LAYER_NORMS],
  [
    'norm of sums: its bias',
    'attention',
    [/^layer norm/, ' + bias[i]', ''],
    /^project and attend/,
    SUM_NORMS,
  ],
  [
    'norm of sums: a barrier',
    'feed',
    [/^layer norm/, /(partial\[tid \+ n\]; \}\s+)workgroupBarrier\(\);/, '$1'],
    /^feed, 40 tokens/,
    SUM_NORMS,
  ],
  [
    'norm of sums: its first row',
    'feed',
    [/^layer norm/, 'step.start + t', 'step.start - t'],
    /^feed, 5/,
    SUM_NORMS,
  ],
  [
    'norm of states: its rows',
    'states',
    [/^layer norm/, 'let to = t', 'let to = t + 1u'],
    /^states/,
    LAYER_NORMS,
  ],
  [
    'embed: the position',
    'embed',
    [/^embed.*positions/, 'step.position + id.y', 'id.y'],
    /^embed/,
    SUM_NORMS,
  ],
  ['embed: the sum', 'embed', [/^embed.*positions/, 'y[at] += a', 'y[at] = a'], /^embed/, SUM_NORMS],
  ['embed: token types', 'embed', [/^embed/, ' + bias[column / 4u]', ''], /^embed/, SUM_NORMS],
  ['embed: norm', 'embed', [/^layer norm/, 'let mean = sum', 'let mean = 0.99 * sum'], /^embed/, SUM_NORMS],
  [
    'bias of up: few tokens',
    'feed',
    [/^matvec F32 100x60/, / \+ vector\([^;]*;/, ';'],
    /^feed, 1 token/,
    SUM_NORMS,
  ],
  [
    'bias of down: many tokens',
    'feed',
    [/^matmul F32 60x100/, /vectors\[/, '0.9 * vectors['],
    /^feed, 40 tokens/,
    SUM_NORMS,
  ],
  [
    'GELU without a gate',
    'feed',
    [/^gelu of/, '(1.0 + bounded', '(1.05 + bounded'],
    /^feed, 5 tokens/,
    SUM_NORMS,
  ],
  [
    'windows to both sides: their end',
    'attention',
    [/^attention tiles/, 't + 101u', 't + 99u'],
    /^project and attend, 40 tokens/,
    LAYER_NORMS,
  ],
  [
    'windows to both sides: their beginning',
    'attention',
    [/^attention tiles/, 'min(p, 100u)', 'min(p, 103u)'],
    /^project and attend, 40 tokens from position 134/,
    LAYER_NORMS,
  ],
  [
    'windows to both sides: the end of the text',
    'attention',
    [/^attention F32/, 'min(step.seen, step.position + t + 101u)', 'step.position + t + 101u'],
    /^project and attend, 5 tokens from position 174/,
    LAYER_NORMS,
  ],
  [
    'windows to both sides: splits',
    'attention',
    [/^merge/, 't + 101u', 't + 50u'],
    /^project and attend, 1 token from position 40/,
    LAYER_NORMS,
  ],
];

/** Settings that the self-test must pass with. @type {[string, any][]} */
export const ENCODER_SETTINGS = [
  ['norms of sums, biases, learned positions', { ...SUM_NORMS, blocks: ['embed', 'attention', 'feed'] }],
  [
    'layer norms before blocks, windows to both sides',
    { ...LAYER_NORMS, blocks: ['attention', 'feed', 'states'] },
  ],
];
