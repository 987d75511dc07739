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
    r.error.toExponential(1),
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
          const q4 = best({ ...match, type: 'Q4_K' }, mode);
          const toNaive = naive ? `, ${ratio(naive.medianMs / own.medianMs)} naive` : '';
          const toQ4 = q4 && type !== 'Q4_K' ? `, ${ratio(own.gflops / q4.gflops)} Q4_K` : '';
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

/** What the project promises for Q4_K 4096x4096, where this run measured it. @param {Result[]} results */
export function promises(results) {
  const rows = [
    { mode: 'int8 relaxed', nTokens: 1, to: 'baseline', least: 2.6 },
    { mode: 'int8 relaxed', nTokens: 32, to: 'baseline', least: 6 },
    { mode: 'int16 simd128', nTokens: 1, to: 'baseline', least: 1.8 },
    { mode: 'int16 simd128', nTokens: 32, to: 'baseline', least: 2.7 },
    { mode: 'int8 relaxed', nTokens: 1, to: 'naive', least: 3 },
    { mode: 'int16 simd128', nTokens: 1, to: 'naive', least: 3 },
  ].flatMap(({ mode, nTokens, to, least }) => {
    const match = { type: 'Q4_K', nRows: 4096, nCols: 4096, nTokens };
    const own = finder(results.filter((r) => r.kernel.startsWith(mode)))(match);
    const other = finder(results)({ ...match, kernel: to });
    if (!own || !other) return [];
    const got = other.medianMs / own.medianMs;
    return [
      [
        `${own.kernel}, M=${nTokens}, to ${to}`,
        `>= ${least}x`,
        `${got.toFixed(2)}x`,
        got >= least ? 'yes' : 'NO',
      ],
    ];
  });
  return rows.length > 0 ? table(['Q4_K 4096x4096', 'promised', 'measured', 'met'], rows) : '';
}
