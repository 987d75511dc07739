/**
 * The promises of the project, the measured values, and whether they are met. All ratios come from
 * one interleaved run. They are judged by the minima, since other work on the machine only adds
 * time. Ratios of medians are in brackets.
 */
import { linesOf } from './growth.js';
import { finder, number, ofLimit, percent, ratio, table } from './report.js';

/** @import { Result } from './report.js' */

/**
 * @typedef {object} Promised  one met condition is enough
 * @property {string} case
 * @property {string} kernel  start of the contender's name; the fastest match counts
 * @property {string} [to]  start of the name of the contender to compare with in the same case; the
 *   fastest match counts
 * @property {number} [least]  how many times as fast it must be
 * @property {number} [gbps]  GB/s at which weights must be read
 * @property {number} [ofLimit]  fraction of its limit that it must reach
 */

const SQUARE = '4096x4096';
const INT8 = 'int8 relaxed';
const INT16 = 'int16 simd128';
/** Types whose int8 kernels share Q4_K's micro-kernel. */
const LIKE_Q4_K = 'Q2_K Q3_K Q5_K Q6_K Q4_0 Q4_1 Q5_0 Q5_1 IQ4_NL IQ4_XS MXFP4'.split(' ');

/**
 * @param {string} type
 * @returns {Promised[]} the targets for Q4_K and Q6_K, each to its own baseline
 */
const kQuant = (type) => [
  { case: `${type} ${SQUARE} M=1`, kernel: INT8, to: 'baseline', least: 3.2 },
  { case: `${type} ${SQUARE} M=1 cold`, kernel: INT8, to: 'baseline', least: 2.8, ofLimit: 0.6 },
  ...[32, 128, 512].flatMap((nTokens) => [
    { case: `${type} ${SQUARE} M=${nTokens}`, kernel: INT8, to: 'baseline', least: 7.5 },
    { case: `${type} ${SQUARE} M=${nTokens}`, kernel: INT8, ofLimit: 0.7 },
  ]),
  { case: `${type} ${SQUARE} M=1`, kernel: INT16, to: 'baseline', least: 2 },
  { case: `${type} ${SQUARE} M=128`, kernel: INT16, to: 'baseline', least: 3.3 },
];

/** @type {Promised[]} */
const PROMISES = [
  ...kQuant('Q4_K'),
  ...kQuant('Q6_K'),
  { case: `Q8_0 ${SQUARE} M=128`, kernel: INT8, to: 'baseline', least: 3 },
  { case: `Q4_0 ${SQUARE} M=128`, kernel: INT8, to: 'baseline', least: 4 },
  ...[1, 8, 128].flatMap((nTokens) =>
    ['576x1536', '256x256'].map((shape) => ({
      case: `Q4_K ${shape} M=${nTokens}`,
      kernel: 'int',
      to: 'naive',
      least: 1,
    })),
  ),
  { case: `Q4_K ${SQUARE} M=1`, kernel: INT8, to: 'naive', least: 3 },
  { case: `Q4_K ${SQUARE} M=1`, kernel: INT16, to: 'naive', least: 3 },
  ...LIKE_Q4_K.map((type) => ({
    case: `${type} ${SQUARE} M=32`,
    kernel: INT8,
    to: 'Q4_K int8 relaxed',
    least: 0.85,
  })),
  { case: `Q6_K ${SQUARE} M=1`, kernel: INT8, to: 'Q4_K int8 relaxed', least: 0.7, gbps: 10 },
  { case: `Q5_K ${SQUARE} M=1`, kernel: INT8, to: 'Q4_K int8 relaxed', least: 0.75, gbps: 10 },
  { case: `Q8_0 ${SQUARE} M=1`, kernel: 'int', to: 'Q4_K int8 relaxed', least: 0.8, gbps: 10 },
  { case: `F16 ${SQUARE} M=1`, kernel: 'f32', gbps: 12 },
];

/**
 * @typedef {object} Judged
 * @property {string} what
 * @property {string} [promise]  name of the promise, the same for all measurements, while `what`
 *   names the fastest kernel
 * @property {string} promised
 * @property {string} measured  medians in brackets
 * @property {boolean} met
 */

/** @param {Result[]} results @returns {Judged[]} */
function products(results) {
  return PROMISES.flatMap((promise) => {
    const race = results.filter((result) => result.case === promise.case);
    const fastest = (/** @type {string} */ kernel) =>
      finder(race.filter((result) => result.kernel.startsWith(kernel)))({});
    const own = fastest(promise.kernel);
    const other = promise.to === undefined ? undefined : fastest(promise.to);
    if (!own || (promise.to !== undefined && !other)) return [];
    const conditions = [
      {
        needed: promise.least,
        got: /** @type {const} */ (['minMs', 'medianMs']).map((of) => other && other[of] / own[of]),
        show: ratio,
        of: ` ${promise.to}`,
      },
      {
        needed: promise.gbps,
        got: [own.minMs, own.medianMs].map((ms) => own.bytes / ms / 1e6),
        show: (/** @type {number | undefined} */ v) => `${number(v ?? Number.NaN)} GB/s`,
        of: '',
      },
      {
        needed: promise.ofLimit,
        got: /** @type {const} */ (['minMs', 'medianMs']).map((of) => ofLimit(own, race, of)),
        show: percent,
        of: ' of the limit',
      },
    ].filter(({ needed }) => needed !== undefined);
    return [
      {
        what: `${promise.case}, ${own.kernel}`,
        promise: `${promise.case}, ${promise.kernel}`,
        promised: conditions.map(({ needed = 0, show, of }) => `>= ${show(needed)}${of}`).join(' or '),
        measured: conditions
          .map(({ got: [min, median], show }) => `${show(min)} (${show(median)})`)
          .join(', '),
        met: conditions.some(({ needed = 0, got: [min = Number.NaN] }) => min >= needed),
      },
    ];
  });
}

/** Largest overhead of JavaScript beyond a kernel, in microseconds. */
const MOST_OVERHEAD = 1;

/** @param {Result[]} results @returns {Judged[]} */
function overheads(results) {
  const calls = results.filter((result) => result.case === 'overhead 1x256');
  const bare = calls.find(({ kernel }) => kernel === 'the export alone');
  if (!bare) return [];
  return calls
    .filter((result) => result !== bare)
    .map(({ kernel, medianMs, minMs }) => {
      const micros = 1000 * (minMs - bare.minMs);
      return {
        what: `a call of fusedMatmul, ${kernel}`,
        promised: `<= ${MOST_OVERHEAD} µs beyond the kernel`,
        measured: `${micros.toFixed(2)} µs (${(1000 * (medianMs - bare.medianMs)).toFixed(2)} µs)`,
        met: micros <= MOST_OVERHEAD,
      };
    });
}

/** Largest relative deviation of a curve from a straight line. */
const MOST_DEVIATION = 0.1;

/** @param {Result[]} results @returns {Judged[]} */
function curves(results) {
  return linesOf(results.filter(({ section }) => section === 'growth')).map(({ name, worst, worstAt }) => ({
    what: name,
    promised: `<= ${percent(MOST_DEVIATION)} off a straight line`,
    measured: `${percent(worst)} (at ${worstAt})`,
    met: worst <= MOST_DEVIATION,
  }));
}

/** Required speed relative to ONNX Runtime Web at its better level. */
const ONNX = { 'onnx 4096x4096 M=1': 30, 'onnx 4096x4096 M=128': 3.5 };
/** Required speed relative to wllama: prompt, decode. */
const LLAMA = { Q4_K_M: [7, 3.5], Q4_0: [10, 5], Q8_0: [10, 3] };

/** @param {Result[]} results @returns {Judged[]} */
function peers(results) {
  const atLeast = (
    /** @type {string} */ what,
    /** @type {number} */ least,
    /** @type {string} */ to,
    /** @type {number} */ got,
  ) => ({
    what,
    promised: `>= ${ratio(least)} ${to}`,
    measured: ratio(got),
    met: got >= least,
  });
  const onnx = Object.entries(ONNX).flatMap(([name, least]) => {
    const race = results.filter((result) => result.case === name);
    const fastest = (/** @type {string} */ start) =>
      finder(race.filter(({ kernel }) => kernel.startsWith(start)))({});
    const other = fastest('onnxruntime');
    return ['Q4_K', 'Q4_0'].flatMap((type) => {
      const own = fastest(`${type} int8`);
      if (!own || !other) return [];
      const [min, median] = [other.minMs / own.minMs, other.medianMs / own.medianMs];
      return [
        {
          what: `${name}, ${own.kernel}`,
          promise: `${name}, ${type}`,
          promised: `>= ${ratio(least)} onnxruntime-web`,
          measured: `${ratio(min)} (${ratio(median)})`,
          met: min >= least,
        },
      ];
    });
  });
  const llama = Object.entries(LLAMA).flatMap(([file, [prompt, decode]]) =>
    [...new Set(results.map((result) => result.case))]
      .filter((name) => name.startsWith(`llama ${file},`))
      .flatMap((name) => {
        const race = results.filter((result) => result.case === name);
        const own = race.find(({ kernel }) => kernel.startsWith('fused'))?.llama;
        const other = race.find(({ kernel }) => kernel.startsWith('wllama'))?.llama;
        if (!own || !other) return [];
        return [
          atLeast(`${name}, prompt`, prompt, 'wllama', own.promptPerSecond / other.promptPerSecond),
          atLeast(`${name}, decode`, decode, 'wllama', own.decodePerSecond / other.decodePerSecond),
        ];
      }),
  );
  return [...onnx, ...llama];
}

/** @param {Result[]} results @returns {Judged[]} the promises that were measured */
export const verdict = (results) => [products, overheads, curves, peers].flatMap((judge) => judge(results));

/** @param {Judged} judged */
const promiseOf = ({ what, promise = what, promised }) => `${promise} ${promised}`;

/**
 * @param {Result[]} results
 * @param {{ machine: string, results: Result[] }} [other]  another machine, whose minima are shown
 *   in a column
 * @returns {string} '' if nothing promised was measured
 */
export function verdictTable(results, other) {
  const there = new Map(verdict(other?.results ?? []).map((judged) => [promiseOf(judged), judged]));
  const beside = (/** @type {Judged} */ judged) => {
    const same = there.get(promiseOf(judged));
    const minima = same?.measured.replace(/ \((?!at)[^)]*\)/g, '');
    return minima === undefined ? '-' : `${minima}${same?.met ? '' : ', NO'}`;
  };
  const rows = verdict(results).map((judged) => [
    judged.what,
    judged.promised,
    judged.measured,
    judged.met ? 'yes' : 'NO',
    ...(other ? [beside(judged)] : []),
  ]);
  const head = ['case, kernel', 'promised', 'by minima (medians)', 'met', ...(other ? [other.machine] : [])];
  return rows.length > 0 ? table(head, rows) : '';
}
