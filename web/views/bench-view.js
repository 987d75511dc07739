/** The benchmark's result: figures, and a table whose cells are its chart. */
import { byId, el } from '../dom.js';
import { bytes, digits } from '../format.js';
import { browserName, gpuName } from '../report.js';

/** @typedef {import('../report.js').Report} Report */
/** @typedef {{ kind: 'all' | 'one' | 'naive' | 'gpu', label: string, gflops: number }} Bar */

const threadsOf = (/** @type {number} */ n) => (n === 1 ? '1 thread' : `${n} threads`);

/** @param {string} figure @param {string} unit @param {string} words @param {boolean} [isOfGpu] */
const figureOf = (figure, unit, words, isOfGpu) =>
  el(
    'div',
    { class: isOfGpu && 'gpu' },
    el('dt', {}, words),
    el('dd', {}, el('strong', {}, figure), ` ${unit}`),
  );

/** @param {Report} report */
function figures({ rows, model, gpu, file, threads, many }) {
  const fastest = (/** @type {Report['rows'][number]} */ row) =>
    Math.max(row.one.gflops, row.all?.gflops ?? 0);
  const [few, lots] = rows;
  const shown = [];
  for (const one of [model, gpu?.model]) {
    if (!one) continue;
    const isOfGpu = one.backend === 'gpu';
    const where = gpu ? ` on the ${one.backend.toUpperCase()}` : '';
    shown.push(
      figureOf(digits(one.decodeTokensPerSecond), 'tokens/s', `written by ${file}${where}`, isOfGpu),
      figureOf(
        digits(one.promptTokensPerSecond),
        'tokens/s',
        `read${where}, of a prompt of ${one.promptTokens}`,
        isOfGpu,
      ),
    );
  }
  shown.push(
    figureOf(digits(fastest(lots)), 'GFLOP/s', `${lots.type}, ${many} tokens, ${threadsOf(threads)}`),
  );
  if (lots.gpu)
    shown.push(figureOf(digits(lots.gpu.gflops), 'GFLOP/s', `${lots.type}, ${many} tokens, GPU`, true));
  shown.push(
    figureOf(
      `${digits(fastest(few) / (few.naive?.gflops ?? 1))}×`,
      '',
      `as fast as dequantising first, ${few.type}, 1 token`,
    ),
  );
  return el('dl', { class: 'bench-figures' }, ...shown);
}

/** @param {Bar[]} bars @param {number} longest @param {string} label */
function cell(bars, longest, label) {
  const list = bars.map(({ kind, label: name, gflops }) => {
    const fill = el('span', { class: 'fill' });
    fill.style.setProperty('--part', String(gflops / longest));
    return el(
      'div',
      { class: `bench-bar ${kind}` },
      el('span', { class: 'track', 'aria-hidden': 'true' }, fill),
      el('span', {}, el('span', { class: 'visually-hidden' }, `${name}: `), `${digits(gflops)}\u00a0GFLOP/s`),
    );
  });
  return el('td', { role: 'cell', 'data-label': label }, ...list);
}

/** @param {Report} report */
function chart({ rows, threads, many, nRows, nCols, activation, gpu }) {
  const longest = Math.max(
    ...rows.flatMap((row) => [row.one.gflops, row.all?.gflops ?? 0, row.gpu?.gflops ?? 0]),
  );
  const bars = (/** @type {Report['rows'][number]} */ { one, all, naive, gpu }) => {
    /** @type {Bar[]} */
    const found = [];
    if (gpu) found.push({ kind: 'gpu', label: 'GPU', gflops: gpu.gflops });
    if (all) found.push({ kind: 'all', label: threadsOf(threads), gflops: all.gflops });
    found.push({ kind: all ? 'one' : 'all', label: '1 thread', gflops: one.gflops });
    if (naive) found.push({ kind: 'naive', label: 'dequantised first, 1 thread', gflops: naive.gflops });
    return found;
  };
  const columns = ['1 token', `${many} tokens`];
  const body = [...new Set(rows.map(({ type }) => type))].map((type) => {
    const cells = rows
      .filter((row) => row.type === type)
      .map((row, i) => cell(bars(row), longest, columns[i]));
    return el('tr', { role: 'row' }, el('th', { role: 'rowheader', scope: 'row' }, type), ...cells);
  });
  const head = ['Type', ...columns].map((text) => el('th', { role: 'columnheader', scope: 'col' }, text));
  const legend = [
    rows[0].gpu && gpu ? ['gpu', `GPU: ${gpuName(gpu)}`] : [],
    ['all', threadsOf(threads)],
    threads > 1 ? ['one', '1 thread'] : [],
    ['naive', 'dequantised to f32 first, 1 thread'],
  ].filter(({ length }) => length);
  return [
    el(
      'table',
      { class: 'bench-table', role: 'table' },
      el('caption', {}, `${nRows} × ${nCols}, ${activation} activations: GFLOP/s, more is better`),
      el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, ...head)),
      el('tbody', { role: 'rowgroup' }, ...body),
    ),
    el(
      'p',
      { class: 'legend', 'aria-hidden': 'true' },
      ...legend.map(([kind, words]) => el('span', { class: kind }, el('span', { class: 'swatch' }), words)),
    ),
  ];
}

/** @param {Report} report */
export function showBench(report) {
  const { isa, dot, cores, userAgent, nCols, nRows, rows, gpu } = report;
  const where = `${browserName(userAgent)} · ${cores} cores · ${isa}${dot ? `, ${dot} dot` : ''}`;
  byId('bench-result').replaceChildren(
    figures(report),
    ...chart(report),
    el(
      'p',
      { class: 'muted small-print' },
      `${where}. A matrix has ${bytes((nRows * nCols * 144) / 256)} in Q4_K, ${bytes(nRows * nCols * 4)} in f32.`,
      rows[0].gpu
        ? ' On the GPU activations are f32, and a time includes sending them and reading the result.'
        : '',
    ),
    ...(gpu?.problem
      ? [el('p', { class: 'bench-problem' }, `The GPU was not measured in full: ${gpu.problem}.`)]
      : []),
  );
}
