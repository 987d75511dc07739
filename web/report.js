/** A benchmark's result as text to paste. */
import { digits } from './format.js';

/** @typedef {Awaited<ReturnType<typeof import('./bench-model.js').measureModel>>} ModelReport */
/** @typedef {Awaited<ReturnType<typeof import('./bench.js').benchmark>> & { model?: ModelReport, file: string }} Report */

/** Chrome 156 on Linux, from what the browser says about itself. @param {string} userAgent */
export function browserName(userAgent) {
  const found =
    /(Firefox|Edg|OPR|Chrome)\/(\d+)/.exec(userAgent.replace(/Chrome(?=.*(Edg|OPR)\/)/, '')) ??
    /(Version)\/(\d+).*Safari/.exec(userAgent);
  const names = { Edg: 'Edge', OPR: 'Opera', Version: 'Safari' };
  const system = /Android|iPhone|iPad|Windows|Mac OS X|CrOS|Linux/.exec(userAgent)?.[0];
  const name = found
    ? `${names[/** @type {'Edg'} */ (found[1])] ?? found[1]} ${found[2]}`
    : 'an unknown browser';
  return system ? `${name}, ${system}` : name;
}

const plural = (/** @type {number} */ n, /** @type {string} */ what) => `${n} ${what}${n === 1 ? '' : 's'}`;

/** @param {Report} report  a Markdown table */
export function reportText(report) {
  const { version, isa, dot, threads, cores, nRows, nCols, activation, many, rows, model, file } = report;
  const kernels = dot ? `${isa} (${dot} dot)` : isa;
  const head = [
    `fused-matmul ${version}, ${browserName(report.userAgent)}, ${plural(cores, 'core')}, ${kernels}, ${report.date.slice(0, 10)}`,
    '',
    `GFLOP/s, ${nRows} x ${nCols}, ${activation} activations`,
    '',
  ];
  const columns = ['type', '1 token, 1 thread'];
  if (threads > 1) columns.push(`1 token, ${threads} threads`);
  columns.push('1 token, dequantised first', `${many} tokens, 1 thread`);
  if (threads > 1) columns.push(`${many} tokens, ${threads} threads`);
  const figure = (/** @type {{ gflops: number } | undefined} */ timing) =>
    timing ? digits(timing.gflops) : '-';
  const lines = [...new Set(rows.map(({ type }) => type))].map((type) => {
    const [few, lots] = rows.filter((row) => row.type === type);
    const cells = [type, figure(few.one)];
    if (threads > 1) cells.push(figure(few.all));
    cells.push(figure(few.naive), figure(lots.one));
    if (threads > 1) cells.push(figure(lots.all));
    return cells;
  });
  const table = [columns, columns.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`);
  const tail = model
    ? [
        '',
        `${file}: reads ${digits(model.promptTokensPerSecond)} and writes ${digits(model.decodeTokensPerSecond)} tokens/s ` +
          `(${plural(model.promptTokens, 'token')} of prompt, ${model.activation}, ${plural(model.threads, 'thread')})`,
      ]
    : [];
  return [...head, ...table, ...tail].join('\n');
}

/** @param {Report} report */
export const reportJson = (report) => JSON.stringify(report, null, 2);
