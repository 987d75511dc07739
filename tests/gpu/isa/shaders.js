/**
 * The shaders whose machine code is counted, at shapes of a model of about a billion weights: every
 * kernel that writes a token or reads a prompt, with the options that products.js and blocks.js
 * give it.
 */
import { productWork } from '../../../js/gpu/products.js';
import { up16 } from '../../../js/gpu/shader.js';
import { attention, mergeSplits } from '../../../js/gpu/wgsl/attention.js';
import { attentionTiles } from '../../../js/gpu/wgsl/attention-tiles.js';
import { causalConvolution } from '../../../js/gpu/wgsl/convolution.js';
import { embed } from '../../../js/gpu/wgsl/embed.js';
import { innerLayout } from '../../../js/gpu/wgsl/expert-layout.js';
import { expertsIn, expertsOut } from '../../../js/gpu/wgsl/experts.js';
import { FAULT_WORDS } from '../../../js/gpu/wgsl/faults.js';
import { findFaults } from '../../../js/gpu/wgsl/find-faults.js';
import { gatedNorm } from '../../../js/gpu/wgsl/gated-norm.js';
import { heads, headsAfter } from '../../../js/gpu/wgsl/heads.js';
import { addTo, gate, norm, scaleAndCap } from '../../../js/gpu/wgsl/layer.js';
import { matmulInt8 } from '../../../js/gpu/wgsl/matmul-int8.js';
import { quantizeActivations } from '../../../js/gpu/wgsl/quantize.js';
import { recurrence } from '../../../js/gpu/wgsl/recurrence.js';
import { route } from '../../../js/gpu/wgsl/route.js';
import { samplingPasses } from '../../../js/gpu/wgsl/sample.js';
import { rowBlocks } from '../../../js/gpu/wgsl/types.js';
import { GPU_TYPES } from '../../helpers/gpu-weights.js';

/** @import { Form, Product } from '../../../js/gpu/products.js' */
/** @import { Shader } from '../../../js/gpu/shader.js' */
/** @import { Unit } from '../../../js/gpu/wgsl/types.js' */

const [N_EMBD, N_FF, N_VOCAB] = [2048, 8192, 128_256];
const [N_HEADS, N_KV_HEADS, HEAD_SIZE, N_POSITIONS] = [32, 8, 64, 4096];
const EPS = 1e-5;
const TILED = ['Q4_K', 'Q6_K', 'Q8_0'];

/** @param {string} type @param {number} nRows @param {number} nCols @returns {Unit} */
const unitOf = (type, nRows, nCols) => ({
  ...{ type, nRows, nCols, firstBlock: 0 },
  nBlocks: nRows * rowBlocks({ type, nCols }),
});

/**
 * The shaders of a product, without any buffers.
 * @param {readonly Unit[]} units
 * @param {Form} form
 * @param {Partial<Product>} [options]
 * @param {import('../../../js/gpu/products.js').Variants} [variants]
 */
function product(units, form, options, variants = {}) {
  const weights = units.map((unit) => ({ ...unit, units: () => [{ unit, firstRow: 0, buffer: {} }] }));
  const buffer = { bytes: 0 };
  const means = { variants: { ...variants }, spare: () => buffer };
  const given = { weights, x: buffer, y: buffer, ...options };
  const work = productWork(/** @type {any} */ (given), form, /** @type {any} */ (means));
  return work.map(({ shader }) => shader);
}

/**
 * One for each of the names.
 * @param {readonly string[]} names
 * @param {(name: string) => [string, Shader]} make
 */
const each = (names, make) => Object.fromEntries(names.map(make));

const gated = [unitOf('Q4_K', N_FF, N_EMBD), unitOf('Q4_K', N_FF, N_EMBD)];
/** Cut by columns, as on a GPU that needs so many workgroups. */
const down = product([unitOf('Q4_K', N_EMBD, N_FF)], 'one', { epilogue: 'add' }, { groups: 1024 });
const normed = { norm: { eps: EPS }, vectors: /** @type {any} */ ({}) };

/** @param {'F16' | 'Q8_0'} type */
const cacheOf = (type) => ({ type, nPositions: N_POSITIONS, nKvHeads: N_KV_HEADS, headSize: HEAD_SIZE });
const rows = [N_HEADS * HEAD_SIZE, N_KV_HEADS * HEAD_SIZE, N_KV_HEADS * HEAD_SIZE];
const stride = up16(rows.reduce((sum, n) => sum + n, 0));
const layer = N_EMBD;
const rope = { pairing: /** @type {const} */ ('adjacent'), nDims: HEAD_SIZE };
const halves = { pairing: /** @type {const} */ ('halves'), nDims: HEAD_SIZE };
const qkv = ['Q4_K', 'Q4_K', 'Q6_K'].map((type, i) => unitOf(type, rows[i], N_EMBD));
const project = { units: qkv, norm: { eps: EPS }, cache: cacheOf('F16'), layer, stride };
const after = { nHeads: N_HEADS, layer, stride };
const qkNorm = /** @type {const} */ ({ kind: 'rms', span: 'head', eps: EPS, afterRope: false });

/** @param {'F16' | 'Q8_0'} type */
const attend = (type) => ({
  ...{ nHeads: N_HEADS, nKvHeads: N_KV_HEADS, headSize: HEAD_SIZE, scale: 0.125, causal: true },
  cache: cacheOf(type),
  q: { offset: FAULT_WORDS, stride, ofBatch: true },
  out: { offset: 0, stride: up16(rows[0]), ofBatch: true },
});

const [N_EXPERTS, N_USED, N_EXPERT_FF] = [128, 8, 768];
const layout = innerLayout(N_EXPERT_FF, { nUsed: N_USED, shared: undefined });
const form = { rows: 4, invocations: 64, subgroups: false };
/** @param {number} nRows  of one expert @param {number} nCols */
const expertsOf = (nRows, nCols) => ({
  ...{ unit: unitOf('Q4_K', N_EXPERTS * nRows, nCols), first: 0, whole: true },
});
const ofExperts = expertsOf(N_EXPERT_FF, N_EMBD);

/** @param {string} name @param {number} k */
const sampling = (name, k) =>
  Object.fromEntries(samplingPasses(N_VOCAB, k).map(({ shader }, i) => [`${name}, pass ${i + 1}`, shader]));

/** @type {Record<string, Shader>} */
export const SHADERS = {
  ...each(GPU_TYPES, (type) => [
    `matvec ${type}`,
    product([unitOf(type, N_EMBD, N_EMBD)], 'one', { epilogue: 'add' })[0],
  ]),
  'matvec Q4_K by subgroups': product(
    [unitOf('Q4_K', N_EMBD, N_EMBD)],
    'one',
    { epilogue: 'add' },
    { subgroups: true },
  )[0],
  ...each(TILED, (type) => [
    `matvec ${type} for 8`,
    product([unitOf(type, N_EMBD, N_EMBD)], 'eight', { epilogue: 'add' })[0],
  ]),
  ...each(['two', 'four'], (form) => [
    `matvec Q4_K for ${form}`,
    product([unitOf('Q4_K', N_EMBD, N_EMBD)], /** @type {Form} */ (form), { epilogue: 'add' })[0],
  ]),
  ...each(['1', '2', '8'], (rows) => [
    `matvec Q4_K, rows: ${rows}`,
    product([unitOf('Q4_K', N_EMBD, N_EMBD)], 'one', { epilogue: 'add' }, { rows: Number(rows) })[0],
  ]),
  'matvec Q4_K, invocations: 128': product(
    [unitOf('Q4_K', N_EMBD, N_EMBD)],
    'one',
    {},
    { invocations: 128 },
  )[0],
  'matvec Q4_K gated': product(gated, 'one', { epilogue: 'gated', activation: 'silu', ...normed })[0],
  ...each(['two', 'four'], (form) => [
    `matvec Q4_K gated for ${form}`,
    product(gated, /** @type {Form} */ (form), { epilogue: 'gated', activation: 'silu', ...normed })[0],
  ]),
  'matvec Q4_K gated, rows: 8': product(
    gated,
    'one',
    { epilogue: 'gated', activation: 'silu', ...normed },
    { rows: 8 },
  )[0],
  'matvec Q4_K gated for 8': product(gated, 'eight', { epilogue: 'gated', activation: 'silu', ...normed })[0],
  'matvec Q4_K in parts': down[0],
  'sums of parts': down[1],
  'head Q6_K': product([unitOf('Q6_K', N_VOCAB, N_EMBD)], 'one', normed)[0],
  'heads, adjacent pairs': heads({ ...project, rope }),
  'heads, pairs by halves': heads({ ...project, rope: halves }),
  'heads after F16': headsAfter({ ...after, cache: cacheOf('F16'), rope }),
  'heads after F16, norms': headsAfter({
    ...after,
    cache: cacheOf('F16'),
    rope: halves,
    qkNorm,
    gains: [0, 64],
  }),
  'heads after Q8_0': headsAfter({ ...after, cache: cacheOf('Q8_0'), rope }),
  'attention F16': attention({ ...attend('F16'), parts: false }),
  'attention F16 in splits': attention({ ...attend('F16'), parts: true }),
  'attention Q8_0 in splits': attention({ ...attend('Q8_0'), parts: true }),
  'merge splits': mergeSplits(attend('F16')),
  'attention tiles F16': attentionTiles(attend('F16')),
  'attention tiles Q8_0': attentionTiles(attend('Q8_0')),
  'attention tiles F16, windows to both sides': attentionTiles({
    ...{ ...attend('F16'), causal: false, window: 128 },
  }),
  ...each(TILED, (type) => [
    `matmul ${type}`,
    product([unitOf(type, N_EMBD, N_EMBD)], 'many', { epilogue: 'add' })[0],
  ]),
  'matmul Q4_K, tiles of 32': product(
    [unitOf('Q4_K', N_EMBD, N_EMBD)],
    'many',
    { epilogue: 'add' },
    { tile: 32 },
  )[0],
  'matmul f16 Q4_K': product([unitOf('Q4_K', N_EMBD, N_EMBD)], 'many', { epilogue: 'add' }, { f16: true })[1],
  'scales of activations for f16': product([unitOf('Q4_K', N_EMBD, N_EMBD)], 'many', {}, { f16: true })[0],
  ...each(TILED, (type) => [
    `matmul int8 ${type}`,
    matmulInt8({ unit: unitOf(type, N_EMBD, N_EMBD), epilogue: 'add', tileRows: 64, tileTokens: 64 }),
  ]),
  'activations as int8': quantizeActivations({ nCols: N_EMBD }),
  'route 8 of 128': route({
    ...{ nExperts: N_EXPERTS, nUsed: N_USED },
    router: { scores: 'softmax', over: 'all', normalize: true, scale: 1, nGroups: 1, nGroupsUsed: 1 },
  }),
  'experts Q4_K': expertsIn({
    ...{ parts: [ofExperts, ofExperts], nRows: N_EXPERT_FF, layout, activation: 'silu', form },
    norm: { eps: EPS, at: 0 },
  }),
  'experts out Q4_K': expertsOut({
    ...{ experts: expertsOf(N_EMBD, N_EXPERT_FF), shared: undefined, nRows: N_EMBD },
    ...{ layout, residualScale: 1, form },
  }),
  'short convolution': causalConvolution({
    ...{ nChannels: N_EMBD, length: 3, stride: 3 * N_EMBD },
    gates: { b: 0, c: N_EMBD, x: 2 * N_EMBD },
  }),
  'delta net': recurrence({
    ...{
      kind: 'delta',
      nHeads: 32,
      nKeyHeads: 16,
      rows: 128,
      cols: 128,
      stride: 12_352,
      eps: EPS,
      first: 24_576,
    },
    at: { query: 0, key: 2048, value: 4096, step: 12_288, beta: 12_320 },
  }),
  'scan of Mamba-2': recurrence({
    ...{
      kind: 'scan',
      nHeads: 64,
      nKeyHeads: 1,
      rows: 128,
      cols: 64,
      stride: 8512,
      numbers: 16,
      first: 13_056,
    },
    at: { value: 4096, key: 8192, query: 8320, step: 8448 },
  }),
  'gated norm': gatedNorm({
    ...{ nGroups: 32, size: 128, stride: 12_352, at: 8192, eps: EPS },
    shared: true,
  }),
  'embed Q6_K': embed({ unit: unitOf('Q6_K', N_VOCAB, N_EMBD), scale: 1 }),
  'embed Q6_K of positions': embed({ unit: unitOf('Q6_K', 8192, N_EMBD), scale: 1, ofPositions: true }),
  'rms norm': norm({ nCols: N_EMBD, eps: EPS }),
  'layer norm in place': norm({ kind: 'layer', nCols: N_EMBD, eps: EPS, bias: true, inPlace: true }),
  'rms norm added': addTo({ nCols: N_EMBD, scale: 1, norm: { kind: 'rms', eps: EPS } }),
  'silu gate': gate({ nCols: N_FF, activation: 'silu' }),
  'GELU without a gate': gate({ nCols: N_FF, activation: 'gelu', plain: true }),
  'scale and cap': scaleAndCap({ nCols: N_VOCAB, scale: 1, softcap: 30, fromZero: true }),
  'find faults': findFaults({ part: 'output', nCols: N_VOCAB }),
  ...sampling('argmax', 1),
  ...sampling('top 40', 40),
};
