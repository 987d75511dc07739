/** A benchmark's result as text to paste. */
import { digits } from './format.js';

/** @typedef {Awaited<ReturnType<typeof import('./bench-model.js').measureModel>>} ModelReport */
/** @typedef {Awaited<ReturnType<typeof import('./bench-gpu.js').benchmarkGpu>>} GpuKernelReport */
/**
 * The GPU, the model on it, and why something of it could not be measured. Times of products are in the rows of the report.
 * @typedef {Partial<Omit<GpuKernelReport, 'rows'>> & { model?: ModelReport, problem?: string }} GpuReport
 */
/**
 * @typedef {Awaited<ReturnType<typeof import('./bench.js').benchmark>>
 *   & { model?: ModelReport, gpu?: GpuReport, file: string }} Report
 */

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

/** @param {GpuReport} gpu */
export const gpuName = ({ name = 'a GPU', software }) =>
  software ? `${name} (computes on the processor)` : name;

/** @param {ModelReport} model @param {string} file */
function modelLine({ promptTokensPerSecond, decodeTokensPerSecond, ...model }, file) {
  const where = model.backend === 'gpu' ? 'GPU' : `${model.activation}, ${plural(model.threads, 'thread')}`;
  const speeds = `reads ${digits(promptTokensPerSecond)} and writes ${digits(decodeTokensPerSecond)} tokens/s`;
  return `${file}: ${speeds} (${plural(model.promptTokens, 'token')} of prompt, ${where})`;
}

/** @param {Report} report  a Markdown table */
export function reportText(report) {
  const { version, isa, dot, threads, cores, nRows, nCols, activation, many, rows, model, gpu } = report;
  const kernels = dot ? `${isa} (${dot} dot)` : isa;
  const head = [
    `fused-matmul ${version}, ${browserName(report.userAgent)}, ${plural(cores, 'core')}, ${kernels}, ${report.date.slice(0, 10)}`,
    ...(gpu?.name ? [`GPU: ${gpuName(gpu)}`] : []),
    '',
    `GFLOP/s, ${nRows} x ${nCols}, ${activation} activations`,
    '',
  ];
  const columns = ['type', '1 token, 1 thread'];
  if (threads > 1) columns.push(`1 token, ${threads} threads`);
  columns.push('1 token, dequantised first', `${many} tokens, 1 thread`);
  if (threads > 1) columns.push(`${many} tokens, ${threads} threads`);
  if (rows[0].gpu) columns.push('1 token, GPU', `${many} tokens, GPU`);
  const figure = (/** @type {{ gflops: number } | undefined} */ timing) =>
    timing ? digits(timing.gflops) : '-';
  const lines = [...new Set(rows.map(({ type }) => type))].map((type) => {
    const [few, lots] = rows.filter((row) => row.type === type);
    const cells = [type, figure(few.one)];
    if (threads > 1) cells.push(figure(few.all));
    cells.push(figure(few.naive), figure(lots.one));
    if (threads > 1) cells.push(figure(lots.all));
    if (rows[0].gpu) cells.push(figure(few.gpu), figure(lots.gpu));
    return cells;
  });
  const table = [columns, columns.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`);
  const models = [model, gpu?.model].flatMap((one) => (one ? [modelLine(one, report.file)] : []));
  const tail = gpu?.problem ? [...models, `The GPU: ${gpu.problem}`] : models;
  return [...head, ...table, ...(tail.length > 0 ? ['', ...tail] : [])].join('\n');
}

/** @param {Report} report */
export const reportJson = (report) => JSON.stringify(report, null, 2);
