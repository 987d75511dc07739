/** Results as Markdown, ready for the README. */

/**
 * @typedef {object} Result
 * @property {string} type
 * @property {number} nRows
 * @property {number} nCols
 * @property {number} nTokens
 * @property {string} kernel
 * @property {number} medianMs
 * @property {number} minMs
 * @property {number} samples
 * @property {number} gflops  2 * nTokens * nRows * nCols / median
 * @property {number} gbps  bytes of the quantised weights / median
 * @property {number} error  norm-wise, to float64
 */

/** @param {number} value @param {number} [digits]  significant ones */
const number = (value, digits = 3) =>
  Number.isFinite(value) ? String(Number(value.toPrecision(digits))) : '-';
const ratio = (/** @type {number | undefined} */ value) =>
  value === undefined ? '-' : `${value.toFixed(2)}x`;

/** @param {string[]} head @param {string[][]} rows */
export function table(head, rows) {
  const widths = head.map((cell, i) => Math.max(cell.length, ...rows.map((row) => row[i].length)));
  const line = (/** @type {string[]} */ cells) =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i])).join(' | ')} |`;
  return [line(head), `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`, ...rows.map(line)].join(
    '\n',
  );
}

/** @param {Result} r */
const shape = (r) => `${r.nRows}x${r.nCols}`;

/** @param {Result[]} results  of one case */
export function caseTable(results) {
  const naive = results.find((r) => r.kernel === 'naive')?.medianMs;
  const baseline = results.find((r) => r.kernel === 'baseline')?.medianMs;
  const rows = results.map((r) => [
    r.kernel,
    number(r.medianMs),
    number(r.minMs),
    number(r.gflops),
    number(r.gbps),
    ratio(naive && naive / r.medianMs),
    ratio(baseline && baseline / r.medianMs),
    Number.isNaN(r.error) ? '-' : r.error.toExponential(1),
  ]);
  const head = ['kernel', 'median ms', 'min ms', 'GFLOP/s', 'GB/s', 'to naive', 'to baseline', 'error'];
  return table(head, rows);
}

/** @param {Result[]} results @returns {(match: Partial<Result>) => Result | undefined} the fastest that matches */
const finder = (results) => (match) =>
  results
    .filter((r) =>
      Object.entries(match).every(([key, value]) => r[/** @type {keyof Result} */ (key)] === value),
    )
    .sort((a, b) => a.medianMs - b.medianMs)[0];

/** One row a type, the fastest kernel of each activation mode: GFLOP/s, and how it stands to others. @param {Result[]} results */
export function summary(results) {
  const find = finder(results);
  const best = (/** @type {Partial<Result>} */ match, /** @type {string} */ mode) =>
    finder(results.filter((r) => r.kernel.startsWith(mode)))(match);
  const shapes = [...new Set(results.map(shape))];
  const tokens = [...new Set(results.map((r) => r.nTokens))];
  const types = [...new Set(results.map((r) => r.type))];
  const parts = [];
  for (const name of shapes) {
    const [nRows, nCols] = name.split('x').map(Number);
    for (const mode of ['int8', 'int16', 'f32']) {
      const rows = types.flatMap((type) => {
        const cells = tokens.map((nTokens) => {
          const match = { type, nRows, nCols, nTokens };
          const own = best(match, mode);
          if (!own) return '-';
          const naive = find({ ...match, kernel: 'naive' });
          const q4 = best(match, `Q4_K ${mode}`);
          const toNaive = naive ? `, ${ratio(naive.medianMs / own.medianMs)} naive` : '';
          const toQ4 = q4 ? `, ${ratio(own.gflops / q4.gflops)} Q4_K` : '';
          const bandwidth = nTokens === 1 ? `, ${number(own.gbps)} GB/s` : '';
          return `${number(own.gflops)}${bandwidth}${toNaive}${toQ4}`;
        });
        return cells.every((cell) => cell === '-') ? [] : [[type, ...cells]];
      });
      if (rows.length === 0) continue;
      const head = ['type', ...tokens.map((n) => `M=${n}: GFLOP/s`)];
      parts.push(`### ${name}, ${mode} activations\n\n${table(head, rows)}`);
    }
  }
  return parts.join('\n\n');
}

/** Types whose int8 kernels share Q4_K's micro-kernel. */
const LIKE_Q4_K = 'Q2_K Q3_K Q5_K Q6_K Q4_0 Q4_1 Q5_0 Q5_1 IQ4_NL IQ4_XS MXFP4'.split(' ');

/**
 * @typedef {object} Promised
 * @property {string} type
 * @property {string} mode  start of the kernel's name
 * @property {number} nTokens
 * @property {string} [to]  the kernel it is compared with, of the same case
 * @property {number} [least]  times as fast as that
 * @property {number} [gbps]  or this many GB/s of weights
 */

/** @type {Promised[]} */
const PROMISES = [
  { type: 'Q4_K', mode: 'int8 relaxed', nTokens: 1, to: 'baseline', least: 2.6 },
  { type: 'Q4_K', mode: 'int8 relaxed', nTokens: 32, to: 'baseline', least: 6 },
  { type: 'Q4_K', mode: 'int16 simd128', nTokens: 1, to: 'baseline', least: 1.8 },
  { type: 'Q4_K', mode: 'int16 simd128', nTokens: 32, to: 'baseline', least: 2.7 },
  { type: 'Q4_K', mode: 'int8 relaxed', nTokens: 1, to: 'naive', least: 3 },
  { type: 'Q4_K', mode: 'int16 simd128', nTokens: 1, to: 'naive', least: 3 },
  ...LIKE_Q4_K.map((type) => ({
    type,
    mode: 'int8 relaxed',
    nTokens: 32,
    to: 'Q4_K int8 relaxed',
    least: 0.85,
  })),
  { type: 'Q6_K', mode: 'int8 relaxed', nTokens: 1, to: 'Q4_K int8 relaxed', least: 0.7, gbps: 10 },
  { type: 'Q5_K', mode: 'int8 relaxed', nTokens: 1, to: 'Q4_K int8 relaxed', least: 0.75, gbps: 10 },
  { type: 'Q8_0', mode: 'int', nTokens: 1, to: 'Q4_K int8 relaxed', least: 0.8, gbps: 10 },
  { type: 'F16', mode: 'f32', nTokens: 1, gbps: 12 },
];

/** What the project promises for 4096x4096, where this run measured it. @param {Result[]} results */
export function promises(results) {
  const rows = PROMISES.flatMap(({ type, mode, nTokens, to, least, gbps }) => {
    const of = results.filter(
      (r) => r.type === type && r.nRows === 4096 && r.nCols === 4096 && r.nTokens === nTokens,
    );
    const fastest = (/** @type {string} */ kernel) =>
      finder(of.filter((r) => r.kernel.startsWith(kernel)))({});
    const own = fastest(mode);
    const other = to && fastest(to);
    if (!own || (to && !other)) return [];
    const got = other ? other.medianMs / own.medianMs : Number.NaN;
    const met = got >= (least ?? Number.POSITIVE_INFINITY) || own.gbps >= (gbps ?? Number.POSITIVE_INFINITY);
    const promised = [least && `>= ${least}x ${to}`, gbps && `>= ${gbps} GB/s`].filter(Boolean).join(' or ');
    const measured = [other && ratio(got), gbps && `${number(own.gbps)} GB/s`].filter(Boolean).join(', ');
    return [[`${type} M=${nTokens}, ${own.kernel}`, promised, measured, met ? 'yes' : 'NO']];
  });
  return rows.length > 0 ? table(['4096x4096', 'promised', 'measured', 'met'], rows) : '';
}
