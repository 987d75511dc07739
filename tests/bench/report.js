/** Results as Markdown for the README. */

/**
 * @typedef {object} Result  the measurements of one contender in one case
 * @property {string} section  product, limit, growth, overhead, onnx, llama, startup
 * @property {string} case
 * @property {string} kernel  the contender's name
 * @property {string} [type]  weight type
 * @property {number} [nRows]
 * @property {number} [nCols]
 * @property {number} [nTokens]
 * @property {boolean} [cold]  weights come from memory, not from a cache
 * @property {string} [curve]  the curve to which this point belongs, in growth cases
 * @property {number} [at]  position on the axis of the curve
 * @property {number} medianMs  per call
 * @property {number} minMs
 * @property {number} samples
 * @property {number} flops  per call
 * @property {number} bytes  bytes of weights that a call reads
 * @property {number} [error]  norm-wise, against float64
 * @property {LlamaNumbers} [llama]  numbers of a whole model
 */

/**
 * @typedef {{ chromium: string, promptPerSecond: number, decodePerSecond: number, firstMs: number,
 *   loadMs: number, megabytes: number }} LlamaNumbers
 */

/** @param {number} value @param {number} [digits]  significant ones */
export const number = (value, digits = 3) =>
  Number.isFinite(value) && value > 0 ? String(Number(value.toPrecision(digits))) : '-';
export const ratio = (/** @type {number | undefined} */ value) =>
  value === undefined ? '-' : `${value.toFixed(2)}x`;
export const percent = (/** @type {number | undefined} */ value) =>
  value === undefined ? '-' : `${(100 * value).toFixed(0)} %`;

export const gflops = (/** @type {Result} */ { flops, medianMs }) => flops / medianMs / 1e6;
export const gbps = (/** @type {Result} */ { bytes, medianMs }) => bytes / medianMs / 1e6;

/** @param {string[]} head @param {string[][]} rows */
export function table(head, rows) {
  const widths = head.map((cell, i) => Math.max(cell.length, ...rows.map((row) => row[i].length)));
  const line = (/** @type {string[]} */ cells) =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i])).join(' | ')} |`;
  return [line(head), `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`, ...rows.map(line)].join(
    '\n',
  );
}

/** A table with columns as wide as their text. @param {string[][]} rows  the heads first */
export function markdown(rows) {
  const [heads, ...body] = rows;
  return [heads, heads.map(() => '---'), ...body].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

/**
 * The measured limit that bounds a kernel: reading for few tokens, else the dot instruction that it
 * is built on.
 * @param {Result} result
 */
function limitName({ kernel, nTokens = 1 }) {
  if (nTokens < 4) return 'limit: read 160 MB';
  if (kernel.endsWith('relaxed i16')) return 'limit: relaxed dot i16';
  if (kernel.endsWith('relaxed i32')) return 'limit: relaxed dot i32';
  return kernel.startsWith('int16 simd128') || kernel === 'baseline' ? 'limit: i32x4.dot_i16x8' : '';
}

/** @typedef {'medianMs' | 'minMs'} Of */

/**
 * A result as a share of its limit, both from the same run.
 * @param {Result} result @param {Result[]} race @param {Of} [of]
 */
export function ofLimit(result, race, of = 'medianMs') {
  const limit = race.find(({ kernel }) => kernel === limitName(result));
  if (!limit || result.kernel.startsWith('limit')) return undefined;
  const work = limit.flops > 0 ? 'flops' : 'bytes';
  return result[work] / result[of] / (limit[work] / limit[of]);
}

/** @param {Result[]} results  the results of one case */
export function caseTable(results) {
  const naive = results.find((r) => r.kernel === 'naive')?.medianMs;
  const baseline = results.find((r) => r.kernel === 'baseline')?.medianMs;
  const rows = results.map((r) => {
    const isLimit = r.kernel.startsWith('limit');
    return [
      r.kernel,
      number(r.medianMs),
      number(r.minMs),
      number(gflops(r)),
      number(gbps(r)),
      percent(ofLimit(r, results)),
      isLimit ? '-' : ratio(naive && naive / r.medianMs),
      isLimit ? '-' : ratio(baseline && baseline / r.medianMs),
      r.error?.toExponential(1) ?? '-',
    ];
  });
  const head = ['', 'median ms', 'min ms', 'GFLOP/s', 'GB/s', 'of limit', 'to naive', 'to baseline', 'error'];
  return table(head, rows);
}

/**
 * @param {Result[]} results
 * @returns {(match: Partial<Result>) => Result | undefined} the fastest match
 */
export const finder = (results) => (match) =>
  results
    .filter((r) =>
      Object.entries(match).every(([key, value]) => r[/** @type {keyof Result} */ (key)] === value),
    )
    .sort((a, b) => a.minMs - b.minMs)[0];

/**
 * A table with a row for each type: GFLOP/s of the fastest kernel of each activation mode, compared
 * with other contenders.
 * @param {Result[]} results
 */
export function summary(results) {
  const products = results.filter(({ section, cold }) => section === 'product' && !cold);
  const find = finder(products);
  const best = (/** @type {Partial<Result>} */ match, /** @type {string} */ mode) =>
    finder(products.filter((r) => r.kernel.startsWith(mode)))(match);
  const shapes = [...new Set(products.map(({ nRows, nCols }) => `${nRows}x${nCols}`))];
  const tokens = [...new Set(products.map((r) => r.nTokens ?? 0))].sort((a, b) => a - b);
  const types = [...new Set(products.map((r) => r.type))];
  const parts = [];
  for (const name of shapes) {
    const [nRows, nCols] = name.split('x').map(Number);
    for (const mode of ['int8', 'int16', 'f32']) {
      const rows = types.flatMap((type = '') => {
        const cells = tokens.map((nTokens) => {
          const match = { type, nRows, nCols, nTokens };
          const own = best(match, mode);
          if (!own) return '-';
          const naive = find({ ...match, kernel: 'naive' });
          const q4 = best(match, `Q4_K ${mode}`);
          const toNaive = naive ? `, ${ratio(naive.medianMs / own.medianMs)} naive` : '';
          const toQ4 = q4 ? `, ${ratio(gflops(own) / gflops(q4))} Q4_K` : '';
          const bandwidth = nTokens === 1 ? `, ${number(gbps(own))} GB/s` : '';
          return `${number(gflops(own))}${bandwidth}${toNaive}${toQ4}`;
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
