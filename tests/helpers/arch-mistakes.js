/** Settings of the small models of `arch` in the test data, to be ignored or mistaken one at a time. */
import { attentionsOf, recurrentsOf } from '../../js/llama/layers.js';

/** @import { AttentionLayer, AttentionPlan as Plan } from '../../js/llama/plan.js' */

/** @param {(attention: AttentionLayer['attention'], feed: AttentionLayer['feed']) => void} change */
const inLayers = (change) => (/** @type {Plan} */ plan) => {
  for (const { attention, feed } of plan.layers) change(attention, feed);
};
const noWindows = inLayers((attention) => {
  attention.window = 0;
});
/** @param {Partial<import('../../js/llama/plan.js').Rope>} change */
const turned = (change) => inLayers(({ rope }) => Object.assign(rope ?? {}, change));

/** @param {Partial<import('../../js/llama/plan.js').ExpertSettings>} change */
const mixed = (change) => inLayers((_, { experts }) => Object.assign(experts ?? {}, change));
/** @param {Partial<import('../../js/llama/plan.js').RouterSettings>} change */
const routed = (change) => inLayers((_, { experts }) => Object.assign(experts?.router ?? {}, change));
/** @param {Partial<AttentionLayer['attention']>} change */
const attending = (change) => inLayers((attention) => Object.assign(attention, change));
/** @param {Partial<AttentionLayer['feed']>} change */
const feeding = (change) => inLayers((_, feed) => Object.assign(feed, change));
/** @param {Partial<import('../../js/llama/plan.js').LayerInputs>} change */
const ofInputs = (change) => (/** @type {Plan} */ plan) =>
  Object.assign(plan.embedding.layerInputs ?? {}, change);
/** @param {string} end  of the roles that no tensor has any more */
const withoutRoles = (end) => (/** @type {Plan} */ plan) => {
  for (const one of plan.tensors) if (one.role.endsWith(end)) one.role = `unknown.${one.role}`;
};
/** @param {Partial<import('../../js/llama/plan.js').ScanSettings>} change */
const inScans = (change) => (/** @type {Plan} */ plan) => {
  for (const { recurrent } of plan.layers) if (recurrent?.kind === 'scan') Object.assign(recurrent, change);
};

/**
 * Settings that a model has, each ignored or mistaken by itself.
 * @type {[model: string, what: string, change: (plan: Plan) => void][]}
 */
export const MISTAKES = [
  ['gemma2-A', 'windows', noWindows],
  ['gemma3-A', 'windows', noWindows],
  ['exaone4-swa-A', 'windows', noWindows],
  [
    'gemma2-A',
    'the other layers have the windows',
    (plan) => {
      for (const [i, { attention }] of plan.layers.entries()) attention.window = i % 2 === 0 ? 0 : 8;
    },
  ],
  [
    'gemma2-A',
    'windows one position wider',
    inLayers((one) => one.window && Object.assign(one, { window: 9 })),
  ],
  ['gemma2-A', 'softcap of the scores', inLayers((attention) => Object.assign(attention, { softcap: 0 }))],
  ['gemma2-A', 'softcap of the logits', ({ head }) => Object.assign(head, { softcap: 0 })],
  ['gemma2-A', 'scale of the embeddings', ({ embedding }) => Object.assign(embedding, { scale: 1 })],
  [
    'gemma2-A',
    'norm after attention',
    inLayers((attention) => Object.assign(attention, { postNorm: undefined })),
  ],
  [
    'gemma2-A',
    'norm after the feed-forward',
    inLayers((_, feed) => Object.assign(feed, { postNorm: undefined })),
  ],
  ['gemma2-A', 'GELU', inLayers((_, feed) => Object.assign(feed, { activation: 'silu' }))],
  [
    'gemma3-A',
    'norms of queries and keys',
    inLayers((attention) => Object.assign(attention, { qkNorm: undefined })),
  ],
  [
    'qwen35-A',
    'gate of attention',
    ({ layers }) => {
      for (const attention of attentionsOf(layers)) attention.outputGate = false;
    },
  ],
  [
    'qwen35-A',
    'part of a head that turns',
    ({ layers }) => {
      for (const { rope } of attentionsOf(layers)) if (rope) rope.nDims = 32;
    },
  ],
  [
    'qwen35-A',
    'epsilon of the results of delta nets',
    ({ layers }) => {
      for (const one of recurrentsOf(layers))
        if (one.kind === 'delta') one.headNorm = { ...one.headNorm, eps: 1e-6 };
    },
  ],
  ['gemma3-A', 'linear scaling of the global layer', turned({ linearScale: 1 })],
  ['gemma3-A', 'linear scaling in all layers', turned({ linearScale: 8 })],
  ['gemma3-A', 'base of the local layers', turned({ base: 500000 })],
  ['granite-A', 'scale of the embeddings', ({ embedding }) => Object.assign(embedding, { scale: 1 })],
  ['granite-A', 'scale of the logits', ({ head }) => Object.assign(head, { scale: 1 })],
  [
    'granite-A',
    'scale of the scores',
    inLayers((attention) => Object.assign(attention, { scale: 32 ** -0.5 })),
  ],
  [
    'granite-A',
    'residual scale of attention',
    inLayers((attention) => Object.assign(attention, { residualScale: 1 })),
  ],
  [
    'granite-A',
    'residual scale of the feed-forward',
    inLayers((_, feed) => Object.assign(feed, { residualScale: 1 })),
  ],
  [
    'smollm3-A',
    'a layer without RoPE',
    (plan) => Object.assign(plan.layers[3].attention, { rope: plan.layers[0].attention.rope }),
  ],
  [
    'lfm2-A',
    'order of the factors of a convolution',
    (plan) => {
      for (const i of [0, 2]) {
        const role = `layers.${i}.recurrent.b`;
        plan.shared[role] = { ...plan.shared[role], start: 256 };
      }
    },
  ],
  ['phi3-A', 'magnitude', turned({ magnitude: 1 })],
  [
    'phi3-A',
    'the other frequency factors',
    (plan) => Object.assign(plan.shared, { 'rope.factors': { of: 'rope.shortFactors' } }),
  ],
  [
    'phi3-short-A',
    'the other frequency factors',
    (plan) => Object.assign(plan.shared, { 'rope.factors': { of: 'rope.longFactors' } }),
  ],
  [
    'olmo2-A',
    'norm after attention',
    inLayers((attention) => Object.assign(attention, { postNorm: undefined })),
  ],
  [
    'olmo2-A',
    'norms of all heads together',
    inLayers((attention) => Object.assign(attention, { qkNorm: undefined })),
  ],
  [
    'hunyuan-dense-A',
    'norms after the rotation',
    inLayers(({ qkNorm }) => Object.assign(qkNorm ?? {}, { afterRope: false })),
  ],
  ['ernie4_5-A', 'pairs of neighbours', turned({ pairing: 'halves' })],
  ['glm4-A', 'pairs of neighbours', turned({ pairing: 'halves' })],
  ['glm4-A', 'part of the head', turned({ nDims: 32 })],
  [
    'glm4-A',
    'norm after attention',
    inLayers((attention) => Object.assign(attention, { postNorm: undefined })),
  ],
  [
    'glm4-A',
    'norm after the feed-forward',
    inLayers((_, feed) => Object.assign(feed, { postNorm: undefined })),
  ],
  ['falcon-h1-A', 'attention', inLayers((attention) => Object.assign(attention, { residualScale: 0 }))],
  ['falcon-h1-A', 'Mamba-2', inScans({ residualScale: 0 })],
  ['falcon-h1-A', 'epsilon of the gated values', inScans({ gateNorm: { kind: 'rms', eps: 0.5 } })],
  ['falcon-h1-A', 'halves of a head', turned({ pairing: 'adjacent' })],
  ['granitehybrid-A', 'residual scale of Mamba-2', inScans({ residualScale: 1 })],
  ['granitehybrid-A', 'epsilon of the gated values', inScans({ gateNorm: { kind: 'rms', eps: 1e-6 } })],
  ['llama-yarn-A', 'frequencies of YaRN', turned({ divisors: undefined })],
  ['llama-yarn-A', 'magnitude of YaRN', turned({ magnitude: 1 })],
  ['mistral3-A', 'frequencies of YaRN', turned({ divisors: undefined })],
  ['mistral3-A', 'log multiplier of YaRN', turned({ magnitude: 1 + 0.1 * Math.log(8) })],
  ['qwen3moe-A', 'weights with the sum 1', routed({ normalize: false })],
  ['qwen3moe-A', 'softmax', routed({ scores: 'sigmoid' })],
  ['olmoe-A', 'weights without the sum 1', routed({ normalize: true })],
  ['llama-moe-A', 'second expert', mixed({ nUsed: 1 })],
  ['granitemoe-A', 'shared expert', mixed({ shared: undefined })],
  ['gpt-oss-A', 'windows', noWindows],
  ['lfm2moe-A', 'scores by sigmoids', routed({ scores: 'softmax' })],
  ['lfm2moe-A', 'weights that sum to 1', routed({ normalize: false })],
  [
    'lfm2moe-A',
    'the bias of the choice',
    (plan) => {
      for (const tensor of plan.tensors)
        if (tensor.role.endsWith('.selectBias')) tensor.role = `unknown.${tensor.role}`;
    },
  ],
  ['gpt-oss-A', 'softmax of the chosen experts', routed({ over: 'all' })],
  ['gpt-oss-A', 'clamped gates', inLayers((_, feed) => Object.assign(feed, { activation: 'silu' }))],
  ['gpt-oss-A', 'frequencies of YaRN', turned({ divisors: undefined })],
  [
    'gpt-oss-A',
    'sinks',
    (plan) => {
      for (const one of plan.tensors) one.role = one.role.replace('.sinks', '.noSinks');
    },
  ],
  ...['routerBias', 'gateBias', 'upBias', 'downBias'].map(
    (role) =>
      /** @type {[string, string, (plan: Plan) => void]} */ ([
        'gpt-oss-A',
        role,
        (plan) => {
          for (const one of plan.tensors) one.role = one.role.replace(`.${role}`, `.no${role}`);
        },
      ]),
  ),
  ['qwen2moe-A', 'factor of the shared expert', mixed({ shared: { nFf: 64, gated: false } })],
  ['gemma4-A', 'windows', noWindows],
  ['gemma4-A', 'norms of values', attending({ valueNorm: undefined })],
  ['gemma4-A', 'epsilon of the norms of values', attending({ valueNorm: { eps: 0.5 } })],
  ['gemma4-A', 'scale of the scores', attending({ scale: 1 / 8 })],
  [
    'gemma4-A',
    'whose keys and values a layer reads',
    ({ layers }) => Object.assign(layers[4].attention, { kvBack: 4 }),
  ],
  ['gemma4-A', 'base of the layers with windows', turned({ base: 40000 })],
  [
    'gemma4-A',
    'values that do not turn',
    ({ shared, layers }) => {
      for (const i of layers.keys()) delete shared[`layers.${i}.attention.ropeFactors`];
    },
  ],
  ['gemma4-A', 'scale of the table of the inputs', ofInputs({ tableScale: 1 })],
  ['gemma4-A', 'scale of the projection of the inputs', ofInputs({ projectionScale: 1e-3 })],
  ['gemma4-A', 'epsilon of the inputs', ofInputs({ eps: 1 })],
  ['gemma4-A', 'inputs of layers', feeding({ layerInput: undefined })],
  ['gemma4-A', 'GELU of the inputs', feeding({ layerInput: { activation: 'relu', eps: 0.005 } })],
  ['gemma4-A', 'epsilon of the layer inputs', feeding({ layerInput: { activation: 'gelu', eps: 0.5 } })],
  ['gemma4-A', 'factors of the hidden states', withoutRoles('.sumFactor')],
  ['gemma4-A', 'softcap of the logits', ({ head }) => Object.assign(head, { softcap: 0 })],
  ['gemma4-A', 'scale of the embeddings', ({ embedding }) => Object.assign(embedding, { scale: 1 })],
  ['gemma4-moe-A', 'norm of the router', mixed({ routerNorm: undefined })],
  ['gemma4-moe-A', 'scale of the router', mixed({ routerNorm: { eps: 0.005, scale: 1 } })],
  ['gemma4-moe-A', 'epsilon of the router', mixed({ routerNorm: { eps: 5, scale: 1 / 16 } })],
  ['gemma4-moe-A', 'norms of the experts', mixed({ norms: undefined })],
  ['gemma4-moe-A', 'epsilon of the experts', mixed({ norms: { eps: 0.5 } })],
  ['gemma4-moe-A', 'shared expert', mixed({ shared: undefined })],
  ['gemma4-moe-A', 'factors of the experts', withoutRoles('.downFactor')],
  [
    'gemma4-moe-A',
    'order of gate and up',
    ({ tensors }) => {
      for (const one of tensors) one.alternating = undefined;
    },
  ],
  ['deepseek2-A', 'pairs of neighbours', turned({ pairing: 'halves' })],
  ['deepseek2-A', 'frequencies of YaRN', turned({ divisors: undefined })],
  ['deepseek2-A', 'magnitude of YaRN in the scale only', turned({ magnitude: 1 + 0.1 * Math.log(8) })],
  [
    'deepseek2-A',
    'magnitude of YaRN in the scale',
    inLayers((attention) => Object.assign(attention, { scale: 48 ** -0.5 })),
  ],
  [
    'deepseek2-A',
    'scale by the size of keys before their compression',
    inLayers((attention) => Object.assign(attention, { scale: (1 + 0.1 * Math.log(8)) ** 2 / 12 })),
  ],
  [
    'deepseek2-A',
    'epsilon of latents',
    inLayers(({ latent }) => latent && Object.assign(latent, { norm: { kind: 'rms', eps: 0.1 } })),
  ],
  [
    'deepseek2-A',
    'place of the values that turn',
    (plan) => {
      for (const i of plan.layers.keys()) {
        const of = `layers.${i}.attention.kv`;
        plan.shared[`layers.${i}.attention.kRope`] = { of, start: 0, nRows: 16 };
      }
    },
  ],
  ['deepseek2-A', 'groups of experts', routed({ nGroupsUsed: 4 })],
  ['deepseek2-A', 'size of the groups', routed({ nGroups: 2, nGroupsUsed: 1 })],
  ['deepseek2-A', 'scale of the weights', routed({ scale: 1 })],
  ['deepseek2-A', 'weights that sum to 1', routed({ normalize: false })],
  ['deepseek2-A', 'scores by sigmoids', routed({ scores: 'softmax' })],
  ['deepseek2-A', 'shared expert', mixed({ shared: undefined })],
  [
    'mistral3-A',
    'temperature',
    inLayers((attention) => Object.assign(attention, { temperature: undefined })),
  ],
];
