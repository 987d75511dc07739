/**
 * Cases `growth AXIS ...`: one curve each, of the time of a product over tokens (M), rows (N) or
 * columns (K), or of attention over positions. All points of a curve are measured in turns in one
 * run. A curve should be a straight line over its work; fitLine says how far it is from one.
 */
import { availableParallelism } from 'node:os';
import { createKernels } from '../../js/index.js';
import { KV, makeCache, makeShape, referenceAttention, shapeBytes } from '../helpers/attention.js';
import { Prng } from '../helpers/prng.js';
import { STATUS } from '../helpers/raw.js';
import { referenceByName } from '../helpers/reference.js';
import { enter } from './contenders.js';
import { checkResult, makeData } from './data.js';
import { race } from './lab.js';
import { percent, table } from './report.js';

/** @import { RawModule } from '../helpers/raw.js' */
/** @import { ReferenceType } from '../helpers/reference.js' */
/** @import { Lab, LabCase } from './bench.js' */
/** @import { BenchContender } from './contenders.js' */
/** @import { Result } from './report.js' */

/** @typedef {BenchContender & { at: number, curve: string }} Point */
/** @typedef {{ points: Point[], free: () => void }} Curve */

const TOKENS = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];
const ROWS = [128, 256, 512, 1024, 2048, 4096, 8192, 16384];
const COLUMNS = [256, 512, 1024, 2048, 4096, 8192, 14336];
const POSITIONS = [512, 1024, 2048, 4096, 8192, 16384, 32768];
const PROMPTS = [64, 128, 256, 512, 1024];
/**
 * From this number of tokens on, a weight is decoded once for all of them. This makes a constant
 * part, and another line.
 */
const MATRIX_MATRIX = 4;
/**
 * Number of positions after which keys and values repeat, because making random ones takes longer
 * than using them.
 */
const PATTERN_POSITIONS = 4096;
const HEADS = { nHeads: 32, nKvHeads: 8, headSize: 64, kvType: KV.F16, causal: 1 };

/**
 * Fits the line a + b * work with the least squares of relative deviations.
 * @param {{ work: number, ms: number }[]} points
 * @returns {{ a: number, b: number, worst: number, worstAt: number }} worst: largest |line - ms| /
 *   ms, and its work
 */
export function fitLine(points) {
  let [s, sx, sxx, sy, sxy] = [0, 0, 0, 0, 0];
  for (const { work, ms } of points) {
    const weight = 1 / ms ** 2;
    s += weight;
    sx += weight * work;
    sxx += weight * work * work;
    sy += weight * ms;
    sxy += weight * work * ms;
  }
  const b = (s * sxy - sx * sy) / (s * sxx - sx * sx);
  const a = (sy - b * sx) / s;
  const deviations = points.map(({ work, ms }) => Math.abs(a + b * work - ms) / ms);
  const worst = Math.max(...deviations);
  return { a, b, worst, worstAt: deviations.indexOf(worst) };
}

/**
 * @param {RawModule} module @param {number[]} sizes
 * @param {(size: number) => { nTokens: number, nRows: number, nCols: number }} shape
 * @returns {Curve}
 */
function productCurve(module, sizes, shape) {
  const type = /** @type {ReferenceType} */ (referenceByName.get('Q4_K'));
  const entered = sizes.map((at) => {
    const kernels = /^(int8 relaxed|int16 simd128)/;
    return { at, ...enter(module, { type, ...shape(at) }, { kernels, all: false }) };
  });
  const points = entered.flatMap(({ at, contenders }) =>
    contenders.map((contender) => ({ ...contender, at, curve: contender.name })),
  );
  const free = () => {
    for (const { free } of entered) free();
  };
  return { points, free };
}

/** @param {number} nPositions @param {Prng} prng */
function repeatedCache(nPositions, prng) {
  const row = HEADS.nKvHeads * HEADS.headSize;
  const pattern = Float32Array.from({ length: Math.min(nPositions, PATTERN_POSITIONS) * row }, () =>
    prng.gaussian(),
  );
  const made = makeCache(HEADS.kvType, pattern);
  const values = new Float64Array(nPositions * row);
  const bytes = new Uint8Array(2 * values.length);
  for (let at = 0; at < values.length; at += pattern.length) {
    values.set(made.values.subarray(0, values.length - at), at);
    bytes.set(made.bytes.subarray(0, bytes.length - 2 * at), 2 * at);
  }
  return { bytes, values };
}

/**
 * @param {RawModule} module @param {number[]} sizes @param {boolean} isPrompt  false: one token
 * @returns {Curve}
 */
function attentionCurve(module, sizes, isPrompt) {
  const prng = new Prng(3);
  const most = Math.max(...sizes);
  const [k, v] = [repeatedCache(most, prng), repeatedCache(most, prng)];
  const q = Float32Array.from({ length: (isPrompt ? most : 1) * HEADS.nHeads * HEADS.headSize }, () =>
    prng.gaussian(),
  );
  /** @type {number[]} */
  const owned = [];
  const put = (/** @type {ArrayBufferView} */ data) => {
    const p = module.alloc(data.byteLength);
    owned.push(p);
    module.u8.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), p);
    return p;
  };
  const [kAt, vAt, qAt, outAt] = [k.bytes, v.bytes, q, q].map(put);
  const points = sizes.map((at) => {
    const nTokens = isPrompt ? at : 1;
    const shape = makeShape({ ...HEADS, nTokens, nPositions: at, firstPosition: at - nTokens });
    const shapeAt = put(shapeBytes(shape));
    const run = () => {
      const status = module.exports.fm_flash_attention(shapeAt, qAt, kAt, vAt, outAt);
      if (status !== STATUS.OK) throw new Error(`status ${status}`);
    };
    const length = nTokens * HEADS.nHeads * HEADS.headSize;
    const output = new Float32Array(module.exports.memory.buffer, outAt, length).fill(Number.NaN);
    run();
    const curve = isPrompt ? 'prompt' : 'one token';
    const error = Math.max(
      ...[0, nTokens >> 1, nTokens - 1].map((t) => {
        const rowLength = HEADS.nHeads * HEADS.headSize;
        const row = (/** @type {Float32Array} */ rows) => rows.subarray(t * rowLength, (t + 1) * rowLength);
        const one = { ...shape, nTokens: 1, firstPosition: shape.firstPosition + t };
        return checkResult(
          curve,
          'f32',
          row(output),
          referenceAttention({ shape: one, q: row(q), k, v }).out,
        );
      }),
    );
    const seen = isPrompt ? (nTokens * (nTokens + 1)) / 2 : at;
    return {
      name: curve,
      curve,
      at,
      run,
      flops: 4 * HEADS.nHeads * HEADS.headSize * seen,
      bytes: isPrompt ? 0 : 4 * HEADS.nKvHeads * HEADS.headSize * at,
      error,
    };
  });
  const free = () => {
    for (const p of owned) module.free(p);
  };
  return { points, free };
}

/**
 * A product on 1, 2, ... threads, for 128 tokens and for one.
 * @param {number} most @returns {Promise<Curve>}
 */
async function threadsCurve(most) {
  const type = /** @type {ReferenceType} */ (referenceByName.get('Q4_K'));
  const [nRows, nCols] = [4096, 4096];
  const all = await Promise.all(Array.from({ length: most }, (_, i) => createKernels({ threads: i + 1 })));
  const points = [1, 128].flatMap((nTokens) => {
    const { w: data, x, expected } = makeData({ type, nRows, nCols, nTokens });
    return all.map((fm, i) => {
      const at = i + 1;
      if (fm.info.threads !== at) throw new Error(`${at} threads asked for: ${fm.info.threadsReason}`);
      const w = fm.weight({ type: 'Q4_K', nRows, nCols, data });
      const [xIn, yOut] = [
        fm.tensor({ nRows: nTokens, nCols, data: x }),
        fm.tensor({ nRows: nTokens, nCols: nRows }),
      ];
      const run = () => fm.fusedMatmul(w, xIn, { out: yOut, activation: 'int8' });
      run();
      const curve = `int8, M=${nTokens}`;
      const error = checkResult(`${curve} on ${at} threads`, 'int8', yOut.toArray(), expected);
      /* the work of the busiest thread */
      return { name: curve, curve, at, run, flops: (2 * nTokens * nRows * nCols) / at, bytes: 0, error };
    });
  });
  const free = () => {
    for (const fm of all) fm.dispose();
  };
  return { points, free };
}

/** @param {Lab} lab @returns {LabCase[]} */
export function growthCases({ quick }) {
  const few = (/** @type {number[]} */ sizes) => (quick ? sizes.slice(0, 4) : sizes);
  /** @type {[string, (module: RawModule) => Curve | Promise<Curve>][]} */
  const curves = [
    [
      'growth M: Q4_K 1024x4096',
      (m) => productCurve(m, few(TOKENS), (nTokens) => ({ nTokens, nRows: 1024, nCols: 4096 })),
    ],
    ...[1, 32].flatMap(
      (nTokens) =>
        /** @type {[string, (module: RawModule) => Curve][]} */ ([
          [
            `growth N: Q4_K Nx2048 M=${nTokens}`,
            (m) => productCurve(m, few(ROWS), (nRows) => ({ nTokens, nRows, nCols: 2048 })),
          ],
          [
            `growth K: Q4_K 1024xK M=${nTokens}`,
            (m) => productCurve(m, few(COLUMNS), (nCols) => ({ nTokens, nRows: 1024, nCols })),
          ],
        ]),
    ),
    ...(availableParallelism() > 1
      ? [
          /** @type {[string, () => Promise<Curve>]} */ ([
            'growth threads: Q4_K 4096x4096',
            () => threadsCurve(Math.min(8, availableParallelism())),
          ]),
        ]
      : []),
    ['growth positions: attention, one token', (m) => attentionCurve(m, few(POSITIONS), false)],
    ['growth positions: attention, prompt', (m) => attentionCurve(m, few(PROMPTS), true)],
  ];
  return curves.map(([name, make]) => ({
    name,
    byDefault: true,
    show: growthTable,
    run: async ({ module, limits }) => {
      const { points, free } = await make(module);
      const timings = await race(points, limits);
      free();
      return timings.map(({ name: kernel, run: _, ...timing }) => ({
        section: 'growth',
        case: name,
        kernel,
        ...timing,
      }));
    },
  }));
}

/**
 * @param {Result[]} results  the results of one case
 * @returns {Map<string, Result[]>} grouped by curve
 */
export function curvesOf(results) {
  /** @type {Map<string, Result[]>} */
  const curves = new Map();
  for (const result of results) {
    const { curve = '' } = result;
    curves.set(curve, [...(curves.get(curve) ?? []), result]);
  }
  return curves;
}

/**
 * @typedef {object} Line  ms = a + b * flops
 * @property {string} name
 * @property {string} case
 * @property {string} curve
 * @property {number} from  the least size that it covers
 * @property {number} a
 * @property {number} b
 * @property {number} worst  largest deviation, relative
 * @property {number} worstAt  size
 */

/**
 * Fits the line of each curve to minima, since other work on the machine only adds time. Curves
 * over tokens have two lines, with and without the few tokens that a matrix-vector kernel serves.
 * @param {Result[]} results  the results of growth cases
 * @returns {Line[]}
 */
export function linesOf(results) {
  const cases = [...new Set(results.map((result) => result.case))];
  return cases.flatMap((name) =>
    [...curvesOf(results.filter((result) => result.case === name))].flatMap(([label, curve]) => {
      const isTokens = name.startsWith('growth M');
      return (isTokens ? [1, MATRIX_MATRIX] : [0]).map((from) => {
        const part = curve.filter(({ at = 0 }) => at >= from);
        const line = fitLine(part.map(({ flops, minMs }) => ({ work: flops, ms: minMs })));
        const { at = 0 } = part[line.worstAt];
        return {
          ...line,
          case: name,
          curve: label,
          from,
          name: `${name}, ${label}${isTokens ? `, M >= ${from}` : ''}`,
          worstAt: at,
        };
      });
    }),
  );
}

/** @param {Result[]} results  the results of one case */
function growthTable(results) {
  const curves = [...curvesOf(results)];
  const sizes = curves[0][1].map(({ at }) => at);
  const rows = sizes.map((at = 0, i) => [
    String(at),
    ...curves.flatMap(([, curve]) => [
      curve[i].medianMs.toPrecision(3),
      (curve[i].flops / curve[i].minMs / 1e6).toFixed(1),
    ]),
  ]);
  const head = ['', ...curves.flatMap(([name]) => [`${name}, median ms`, 'GFLOP/s (min)'])];
  const lines = linesOf(results).map(({ name, a, b, worst, worstAt }) => {
    const line = `${(1000 * a).toPrecision(2)} µs + work / ${(1 / b / 1e6).toPrecision(3)} GFLOP/s`;
    return `- ${name}: ${line}, off by ${percent(worst)} at most (at ${worstAt})`;
  });
  return `${table(head, rows)}\n\n${lines.join('\n')}`;
}
