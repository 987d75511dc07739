/** What the project promises, what was measured, and whether it is met. All ratios come from one interleaved race. */
import { finder, gbps, number, ofLimit, percent, ratio, table } from './report.js';

/** @import { Result } from './report.js' */

/**
 * @typedef {object} Promised  one of the conditions is enough
 * @property {string} case
 * @property {string} kernel  start of the contender's name; the fastest that matches
 * @property {string} [to]  start of the name of the contender it is compared with, of the same case; the fastest
 * @property {number} [least]  times as fast as that
 * @property {number} [gbps]  GB/s of weights
 * @property {number} [ofLimit]  fraction of its limit
 */

const SQUARE = '4096x4096';
const INT8 = 'int8 relaxed';
const INT16 = 'int16 simd128';
/** Types whose int8 kernels share Q4_K's micro-kernel. */
const LIKE_Q4_K = 'Q2_K Q3_K Q5_K Q6_K Q4_0 Q4_1 Q5_0 Q5_1 IQ4_NL IQ4_XS MXFP4'.split(' ');

/** @param {string} type @returns {Promised[]} the targets for Q4_K and Q6_K, each to its own baseline */
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

/** @param {Result[]} results @returns {{ what: string, promised: string, measured: string, met: boolean }[]} */
export function verdict(results) {
  return PROMISES.flatMap((promise) => {
    const race = results.filter((result) => result.case === promise.case);
    const fastest = (/** @type {string} */ kernel) =>
      finder(race.filter((result) => result.kernel.startsWith(kernel)))({});
    const own = fastest(promise.kernel);
    const other = promise.to === undefined ? undefined : fastest(promise.to);
    if (!own || (promise.to !== undefined && !other)) return [];
    const fraction = ofLimit(own, race);
    const conditions = [
      {
        needed: promise.least,
        got: other ? other.medianMs / own.medianMs : undefined,
        show: ratio,
        of: ` ${promise.to}`,
      },
      {
        needed: promise.gbps,
        got: gbps(own),
        show: (/** @type {number} */ v) => `${number(v)} GB/s`,
        of: '',
      },
      { needed: promise.ofLimit, got: fraction, show: percent, of: ' of the limit' },
    ].filter(({ needed }) => needed !== undefined);
    const met = conditions.some(({ needed = 0, got = Number.NaN }) => got >= needed);
    return [
      {
        what: `${promise.case}, ${own.kernel}`,
        promised: conditions.map(({ needed = 0, show, of }) => `>= ${show(needed)}${of}`).join(' or '),
        measured: conditions.map(({ got = Number.NaN, show }) => show(got)).join(', '),
        met,
      },
    ];
  });
}

/** @param {Result[]} results @returns {string} '' where nothing promised was measured */
export function verdictTable(results) {
  const rows = verdict(results).map(({ what, promised, measured, met }) => [
    what,
    promised,
    measured,
    met ? 'yes' : 'NO',
  ]);
  return rows.length > 0 ? table(['case, kernel', 'promised', 'measured', 'met'], rows) : '';
}
