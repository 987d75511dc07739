/** `npm run bench -- --gpu`: the kernels of a GPU, each beside a copy of memory on the same GPU. */
import { productWork } from '../../js/gpu/products.js';
import {
  attention,
  attentionGroups,
  mergeGroups,
  mergeSplits,
  partsBytes,
} from '../../js/gpu/wgsl/attention.js';
import { norm, rowGroups } from '../../js/gpu/wgsl/layer.js';
import { matmulGroups } from '../../js/gpu/wgsl/matmul.js';
import { matmulInt8 } from '../../js/gpu/wgsl/matmul-int8.js';
import { quantizeActivations, quantizeGroups, rowScales } from '../../js/gpu/wgsl/quantize.js';
import { WGSL_TYPES } from '../../js/gpu/wgsl/types.js';
import { activations } from '../helpers/activations.js';
import { checkWithin, KV, makeCase, makeShape, referenceAttention } from '../helpers/attention.js';
import { ReferenceProduct } from '../helpers/bounds.js';
import { Prng } from '../helpers/prng.js';
import { referenceByName } from '../helpers/reference.js';
import { normalize } from '../helpers/reference-formulas.js';
import { COPY, GpuLab, NoGpuError, stepOf } from './gpu-lab.js';
import { straightGroups, straightMatvec } from './gpu-straight.js';
import { selectCases } from './lab.js';
import { writeResults } from './records.js';
import { gbps, gflops, number, percent, table } from './report.js';

/** @import { Form, Product, Work } from '../../js/gpu/products.js' */
/** @import { ReferenceType } from '../helpers/reference.js' */
/** @import { GpuContender, GpuResult } from './gpu-lab.js' */
/** @import { Limits } from './lab.js' */
/** @import { Setting } from './records.js' */

/** @typedef {{ name: string, byDefault: boolean, run: (lab: GpuLab) => Promise<GpuResult[]> }} GpuCase */

const MAIN_TYPES = ['Q4_K', 'Q6_K', 'Q8_0', 'Q4_0'];
/** Of a model of a hundred million weights. */
const SMALL = [
  [256, 256],
  [576, 1536],
];
const WIDE = [64, 16_384];
const PROMPT = 128;
/** Tokens, and values of a hidden state, of an encoder. */
const NORM = /** @type {const} */ ([512, 768]);
const HEADS = { nHeads: 32, nKvHeads: 8, headSize: 64 };
/** Workgroups that fill a device, as js/gpu assumes, and as if any number did. */
const [FILL, NO_SPLIT] = [256, 1];

/**
 * Work of a product on each copy of a weight.
 * @param {GpuLab} lab
 * @param {Awaited<ReturnType<GpuLab['weight']>>} weight
 * @param {Pick<Product, 'x' | 'y'>} buffers
 * @param {Form} form
 * @param {{ subgroups?: boolean, groups?: number }} [options]
 * @returns {Work[][]}
 */
function productOf(lab, { weights }, buffers, form, { subgroups = false, groups = FILL } = {}) {
  /** @type {import('../../js/gpu/device.js').GpuBuffer | undefined} */
  let sums;
  // Copies take turns, so one buffer does for all.
  const spare = (/** @type {string} */ _, /** @type {number} */ bytes) => (sums ??= lab.gpu.buffer(bytes));
  const means = { variants: { subgroups, groups }, spare };
  return weights.map((w) => productWork({ ...buffers, weights: [w] }, form, means));
}

/**
 * A weight, activations, and the check of a result.
 * @param {GpuLab} lab @param {string} name @param {number} nRows @param {number} nCols @param {number} nTokens
 */
async function makeProduct(lab, name, nRows, nCols, nTokens) {
  const prng = new Prng(nRows + nCols);
  const type = /** @type {ReferenceType} */ (referenceByName.get(name));
  const weight = await lab.weight(type, nRows, nCols, prng);
  const dense = activations.gaussian(nTokens, nCols, prng);
  const x = lab.gpu.bufferOf(dense);
  const y = lab.floats(nTokens * nRows);
  const { reference } = weight;
  const expected = new ReferenceProduct(reference, dense, nTokens);
  /** @param {number} activation */
  const resultIn = (activation) => ({
    y,
    check(/** @type {Float32Array} */ got) {
      // The last rows of y, which repeat those of the reference.
      const n = reference.nRows;
      const first = nRows - n;
      const rows = Float32Array.from({ length: nTokens * n }, (_, i) => {
        const [t, r] = [Math.floor(i / n), i % n];
        return got[t * nRows + first + ((((r - first) % n) + n) % n)];
      });
      expected.check(rows, { activation, what: `${name} ${nRows}x${nCols}` });
      if (got.some((value) => !Number.isFinite(value))) throw new Error('an output was not written');
      return expected.normError(rows);
    },
  });
  const facts = { flops: 2 * nRows * nCols * nTokens, bytes: weight.bytes + x.bytes + y.bytes };
  const free = () => {
    for (const one of [weight, x, y]) one.free();
  };
  return { weight, x, y, facts, resultIn, free };
}

/**
 * @param {Awaited<ReturnType<GpuLab['weight']>>} weight
 * @param {Pick<Product, 'x' | 'y'>} buffers
 * @returns {Work[][]}
 */
const straight = ({ weights }, { x, y }) =>
  weights.map((weight) => {
    const [{ unit, buffer }] = weight.units();
    return [
      { shader: straightMatvec(unit), buffers: { w: buffer, x, y }, groups: () => straightGroups(unit) },
    ];
  });

/** @param {string} type @param {number} nRows @param {number} nCols @param {boolean} byDefault @returns {GpuCase} */
function matvecCase(type, nRows, nCols, byDefault) {
  const name = `matvec ${type} ${nRows}x${nCols}`;
  const isWide = nRows === WIDE[0];
  return {
    name,
    byDefault,
    async run(lab) {
      const { weight, x, y, facts, resultIn, free } = await makeProduct(lab, type, nRows, nCols, 1);
      const one = { steps: [stepOf(1)], ...facts, result: resultIn(0) };
      const work = productOf(lab, weight, { x, y }, 'one');
      /** @type {GpuContender[]} */
      const contenders = [{ ...one, name: 'matvec', copies: work }];
      if (work[0].length > 1) {
        contenders[0].name = 'matvec, columns in parts';
        const whole = productOf(lab, weight, { x, y }, 'one', { groups: NO_SPLIT });
        contenders.push({ ...one, name: 'matvec, whole columns', copies: whole });
      } else if (isWide) throw new Error(`${name} is not split`);
      if (lab.gpu.features.has('subgroups'))
        contenders.push({
          ...one,
          name: `${contenders[0].name}, subgroups`,
          copies: productOf(lab, weight, { x, y }, 'one', { subgroups: true }),
        });
      contenders.push({
        ...one,
        name: 'a workgroup for each row',
        copies: straight(weight, { x, y }),
      });
      const results = await lab.race({ case: name, type, nRows, nCols, nTokens: 1, cold: true }, contenders);
      free();
      return results;
    },
  };
}

/** @param {string} type @param {number} nRows @param {number} nCols @param {boolean} byDefault @returns {GpuCase} */
function matmulCase(type, nRows, nCols, byDefault) {
  const name = `matmul ${type} ${nRows}x${nCols} M=${PROMPT}`;
  return {
    name,
    byDefault,
    async run(lab) {
      const { weight, x, y, facts, resultIn, free } = await makeProduct(lab, type, nRows, nCols, PROMPT);
      const steps = [stepOf(PROMPT)];
      const apart = Array.from({ length: PROMPT }, (_, start) => stepOf(1, { start }));
      const f32 = { ...facts, result: resultIn(0) };
      /** @type {GpuContender[]} */
      const contenders = [
        { ...f32, name: 'matmul', steps, copies: productOf(lab, weight, { x, y }, 'many') },
        { ...f32, name: `${PROMPT} x matvec`, steps: apart, copies: productOf(lab, weight, { x, y }, 'one') },
      ];
      if (lab.gpu.features.has('dot4I8Packed') && WGSL_TYPES[type].coded)
        contenders.push({
          ...facts,
          name: 'matmul int8',
          steps,
          result: resultIn(2),
          copies: int8(lab, weight, { x, y }),
        });
      const results = await lab.race({ case: name, type, nRows, nCols, nTokens: PROMPT }, contenders);
      free();
      return results;
    },
  };
}

/**
 * Activations as int8, and the product with them.
 * @param {GpuLab} lab
 * @param {Awaited<ReturnType<GpuLab['weight']>>} weight
 * @param {Pick<Product, 'x' | 'y'>} buffers
 * @returns {Work[][]}
 */
function int8(lab, { weights }, { x, y }) {
  const { nCols } = weights[0];
  const codes = lab.gpu.buffer(x.bytes / 4);
  const scales = lab.floats(PROMPT * rowScales(nCols));
  return weights.map((weight) => {
    /** @type {Work[]} */
    const work = [];
    const [{ unit, buffer }] = weight.units();
    const tiles = { unit, tileRows: 64, tileTokens: 64 };
    work.push({
      shader: quantizeActivations({ nCols }),
      buffers: { x, codes, scales },
      groups: ({ nTokens }) => quantizeGroups({ nCols }, nTokens),
    });
    work.push({
      shader: matmulInt8(tiles),
      buffers: { w: buffer, codes, scales, y },
      groups: ({ nTokens }) => matmulGroups(tiles, nTokens),
    });
    return work;
  });
}

/** @param {'F32' | 'F16'} type @param {number} seen  positions @returns {GpuCase} */
function attentionCase(type, seen) {
  const { nHeads, nKvHeads, headSize } = HEADS;
  const name = `attention ${type} ${nHeads}/${nKvHeads}x${headSize}, ${seen} positions`;
  return {
    name,
    byDefault: type === 'F16',
    async run(lab) {
      const shape = makeShape({ ...HEADS, nPositions: seen, kvType: KV[type] });
      const made = makeCase(shape, new Prng(seen));
      const expected = referenceAttention(made);
      const both = new Uint8Array(made.k.bytes.length + made.v.bytes.length);
      both.set(made.k.bytes);
      both.set(made.v.bytes, made.k.bytes.length);
      const cache = lab.gpu.bufferOf(both);
      const q = lab.gpu.bufferOf(made.q);
      const out = lab.floats(made.q.length);
      const rows = { offset: 0, stride: made.q.length, ofBatch: true };
      const kernel = {
        ...{ ...HEADS, scale: shape.scale, causal: true, q: rows, out: rows },
        cache: { type, nPositions: seen, nKvHeads, headSize },
      };
      const step = stepOf(1, { position: seen - 1, seen });
      const parts = lab.gpu.buffer(partsBytes(kernel, step));
      /** @type {GpuContender} */
      const split = {
        name: 'attention in splits, merge',
        copies: [
          [
            {
              shader: attention({ ...kernel, parts: true }),
              buffers: { q, cache, parts },
              groups: (at) => attentionGroups(kernel, at),
            },
            { shader: mergeSplits(kernel), buffers: { parts, out }, groups: (at) => mergeGroups(kernel, at) },
          ],
        ],
        steps: [step],
        flops: 4 * nHeads * headSize * seen,
        bytes: cache.bytes + q.bytes + out.bytes,
        result: {
          y: out,
          check(got) {
            checkWithin(got, expected, name);
            const of = Math.hypot(...expected.out);
            return Math.hypot(...got.map((value, i) => value - expected.out[i])) / of;
          },
        },
      };
      const results = await lab.race({ case: name }, [split]);
      for (const one of [cache, q, out, parts]) one.free();
      return results;
    },
  };
}

/**
 * Norms of the rows of an encoder, layer norms with biases.
 * @param {'rms' | 'layer'} kind @param {number} nRows @param {number} nCols @param {boolean} byDefault
 * @returns {GpuCase}
 */
function normCase(kind, nRows, nCols, byDefault) {
  const name = `${kind} norm ${nRows}x${nCols}`;
  const eps = 1e-5;
  return {
    name,
    byDefault,
    async run(lab) {
      const prng = new Prng(nCols);
      const rows = activations.gaussian(nRows, nCols, prng);
      const gain = activations.gaussian(1, nCols, prng);
      const bias = kind === 'layer' ? activations.gaussian(1, nCols, prng) : undefined;
      const [x, weight] = [rows, gain].map((values) => lab.gpu.bufferOf(values));
      const shift = bias && lab.gpu.bufferOf(bias);
      const y = lab.floats(nRows * nCols);
      /** @type {GpuContender} */
      const contender = {
        name: 'norm',
        copies: [
          [
            {
              shader: norm({ kind, nCols, eps, bias: shift !== undefined }),
              buffers: { x, weight, ...(shift && { bias: shift }), y },
              groups: ({ nTokens }) => rowGroups(nTokens),
            },
          ],
        ],
        steps: [stepOf(nRows)],
        flops: 8 * nRows * nCols,
        bytes: x.bytes + y.bytes,
        result: {
          y,
          check(got) {
            const matrices = [gain, bias].map((values) => /** @type {any} */ (values && { values }));
            const [ofGain, ofShift] = matrices;
            const expected = Array.from({ length: nRows }, (_, r) => {
              const row = Float64Array.from(rows.subarray(r * nCols, (r + 1) * nCols));
              return [...normalize(row, { kind, eps }, ofGain, ofShift)];
            }).flat();
            const sizeOf = (/** @type {number[]} */ values) =>
              Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
            const off = sizeOf(expected.map((value, i) => got[i] - value)) / sizeOf(expected);
            // Sums of nCols terms, in any order.
            if (!(off < nCols * 2 ** -24)) throw new Error(`${name} is off by ${off}`);
            return off;
          },
        },
      };
      const results = await lab.race({ case: name }, [contender]);
      for (const one of [x, weight, shift, y]) one?.free();
      return results;
    },
  };
}

/** @param {boolean} quick @returns {GpuCase[]} */
function gpuCases(quick) {
  const large = quick ? [512, 1024] : [4096, 4096];
  const types = Object.keys(WGSL_TYPES);
  const isMain = (/** @type {string} */ type) => MAIN_TYPES.includes(type);
  const isQ4K = (/** @type {string} */ type) => type === 'Q4_K';
  /** @param {number[]} shape @param {(type: string) => boolean} byDefault */
  const matvecs = ([nRows, nCols], byDefault) =>
    types.map((type) => matvecCase(type, nRows, nCols, byDefault(type)));
  return [
    ...matvecs(large, quick ? isQ4K : () => true),
    ...SMALL.flatMap((shape) => matvecs(shape, isQ4K)),
    ...matvecs(WIDE, isQ4K),
    ...types.map((type) => matmulCase(type, large[0], large[1], quick ? isQ4K(type) : isMain(type))),
    ...[1024, 4096].flatMap((seen) => [attentionCase('F16', seen), attentionCase('F32', seen)]),
    normCase('layer', ...NORM, true),
    normCase('rms', ...NORM, false),
  ];
}

/** @param {GpuResult[]} results  of a case */
function gpuTable(results) {
  const head = [
    '',
    'median ms',
    'min ms',
    'GFLOP/s',
    'GB/s',
    'of copy',
    'dispatches',
    'workgroups',
    'invocations',
    'error',
  ];
  const rows = results.map((result) => [
    result.kernel,
    number(result.medianMs),
    number(result.minMs),
    number(gflops(result)),
    number(gbps(result)),
    percent(result.ofCopy),
    String(result.dispatches),
    String(result.workgroups),
    String(result.invocations),
    result.kernel === COPY ? '-' : (result.error ?? 0).toExponential(1),
  ]);
  return table(head, rows);
}

/**
 * @param {object} options
 * @param {Setting} options.setting
 * @param {Limits} options.limits
 * @param {boolean} options.software  takes a driver that computes on the processor
 * @param {boolean} options.quick
 * @param {boolean} options.list
 * @param {string} [options.filter]
 * @param {string} [options.json]
 */
export async function benchGpu({ setting, limits, software, quick, list, filter, json }) {
  const selected = selectCases(gpuCases(quick), { filter, list });
  if (list) return console.log(selected.map(({ name }) => name).join('\n'));
  const lab = await GpuLab.open({ software, limits, quick }).catch((error) => {
    if (!(error instanceof NoGpuError)) throw error;
    console.error(`error: ${error.message}`);
    process.exitCode = 1;
  });
  if (!lab) return;
  const { gpu } = lab;
  const features = [...gpu.features].join(', ') || 'no optional features';
  const of = { ...setting, adapter: gpu.name, features, software: gpu.software };
  console.log(`${gpu.name}; ${features}; ${setting.engine}; ${setting.date}; \`${setting.command}\``);
  if (gpu.software)
    console.log('This adapter computes on the processor: the numbers say nothing about any GPU.');
  console.log(
    'Medians of interleaved runs. GB/s: bytes that must be read or written at least; of copy: their share of what a copy moves.\n',
  );
  /** @type {GpuResult[]} */
  const results = [];
  for (const { name, run } of selected) {
    const found = await run(lab);
    results.push(...found);
    if (json) writeResults(json, of, results);
    console.log(`#### ${name}\n\n${gpuTable(found)}\n`);
  }
  lab.dispose();
}
