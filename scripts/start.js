/**
 * `npm start`: sets up, builds, multiplies by the matrices of a GGUF file, writes a story with the
 * embedded model, then serves the demo page.
 *
 * It multiplies by one matrix of each shape and type in the file, fused and by
 * dequantise-then-multiply (both in the same module and instruction set, in turns), compares the
 * result with float64, and prints the times and memory that fusing saves.
 */
import { existsSync, statSync } from 'node:fs';
import path from 'node:path';
import { build } from './build.js';
import { isMain, main, root, SetupError } from './setup/run.js';
import { bytesMoved, others, planJobs } from './start/jobs.js';
import { formatBytes, formatNumber, formatTable, formatTime } from './start/table.js';

const USAGE = `usage: npm start -- [--once] [model.gguf]

  model.gguf  a path or an http(s) address; default: the embedded tiny-tales model
  --once      exit after the story; so it does where stdout is no terminal
  --help      this text
`;

const DEFAULT_MODEL = path.join(root, 'web/public/tiny-tales-Q4_K_M.gguf');
const SEED_CLAIM = 8;
const progress = (/** @type {string} */ text) => {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
};

/** @param {string[]} args */
function readArguments(args) {
  const unknown = args.find((arg) => arg.startsWith('-') && arg !== '--once' && arg !== '--help');
  const files = args.filter((arg) => !arg.startsWith('-'));
  if (unknown || files.length > 1)
    throw new SetupError(`unexpected ${unknown ?? files[1]}; npm start -- --help`);
  const [file = DEFAULT_MODEL] = files;
  const isAddress = /^https?:\/\//.test(file);
  if (!isAddress && !existsSync(file)) throw new SetupError(`there is no file ${file}`);
  if (!isAddress && !statSync(file).isFile()) throw new SetupError(`${file} is no file`);
  return { source: isAddress ? new URL(file) : path.resolve(file), once: args.includes('--once') };
}

/** @typedef {import('./start/jobs.js').Job} Job */
/** @typedef {Awaited<ReturnType<typeof import('../web/measure.js').measure>>} Measurement */
/** @typedef {{ job: Job, measurement: Measurement }} Result */

/**
 * @param {import('../js/index.js').Kernels} fm
 * @param {Job[]} jobs
 * @returns {Promise<Result[]>}
 */
async function runJobs(fm, jobs) {
  const { measure } = await import('../web/measure.js');
  const { signal } = new AbortController();
  const results = [];
  for (const job of jobs) {
    progress(`${job.type} ${job.nRows} x ${job.nCols}: ${job.label}`);
    const w = await job.load();
    for (const { nTokens, activation } of job.runs) {
      results.push({ job, measurement: await measure(fm, w, { nTokens, activation, signal }) });
    }
    w.free();
  }
  progress('');
  return results;
}

/** @param {Result} result */
const shapeCells = ({ job: { type, nRows, nCols, filled }, measurement: { nTokens } }) => [
  `${nRows} x ${nCols}${filled ? ' *' : ''}`,
  type,
  `${nTokens}`,
];

/** @param {Result[]} results */
function timeTable(results) {
  const heads = [
    'matrix',
    'type',
    '>tokens',
    'activation',
    '>fused ms (min)',
    '>dequantise + multiply',
    '>faster',
  ];
  const rows = results.map((result) => {
    const { served, fused, dense, memory, verified } = result.measurement;
    return [
      ...shapeCells(result),
      served.activation,
      formatTime(fused),
      formatTime(dense),
      dense ? `${formatNumber(dense.ms / fused.ms)}x` : '-',
      formatNumber(fused.gflops),
      formatNumber(memory.weight / fused.ms / 1e6),
      verified.largest.toExponential(1),
      verified.pass ? 'yes' : 'NO',
    ];
  });
  return formatTable([...heads, '>GFLOP/s', '>GB/s', '>error', 'in bounds'], rows);
}

/** @param {Result} result */
const moves = ({ measurement: { tensor, memory, nTokens, served } }) =>
  bytesMoved({ ...tensor, nTokens, weightBytes: memory.weight, activation: served.activation });

/** @param {Result[]} results */
function bytesTable(results) {
  const rows = results.map((result) => {
    const { memory } = result.measurement;
    const moved = moves(result);
    const dequantised = memory.dense > 0;
    return [
      ...shapeCells(result),
      formatBytes(moved.fused),
      dequantised ? formatBytes(moved.naive) : '-',
      dequantised ? `${(moved.naive / moved.fused).toFixed(1)}x` : '-',
      dequantised ? formatBytes(memory.dense) : '-',
      `${result.job.label}${others(result.job.alike)}`,
    ];
  });
  return formatTable(
    [
      'matrix',
      'type',
      '>tokens',
      '>fused moves',
      '>dequantise + multiply',
      '>less',
      '>memory not used',
      'tensor',
    ],
    rows,
  );
}

/** @param {import('../js/index.js').Kernels} fm */
function engineLines(fm) {
  const { info } = fm;
  const lines = [
    `instruction set: ${info.isa}${info.dot ? ` (dot ${info.dot})` : ''}: ${info.reason}`,
    ...info.steps.filter(({ ok }) => !ok).map(({ isa, reason }) => `  not ${isa}: ${reason}`),
  ];
  if (info.isa !== 'relaxed' && Number(process.versions.node.split('.')[0]) < 22) {
    lines.push(
      `  Node ${process.versions.node} has relaxed SIMD switched off. Node 22 and newer have it:  npx -y -p node@24 npm start`,
    );
  }
  return lines;
}

/** @param {{ source: string | URL }} options */
async function mainJob({ source }) {
  const { createKernels, FmError, openGguf } = await import('../js/index.js');
  try {
    const gguf = await openGguf(source);
    const fm = await createKernels();
    const { jobs, unsupported } = planJobs(gguf, fm);
    const shown = source instanceof URL ? source.href : path.relative(process.cwd(), source);
    const out = [
      `${shown}: ${formatBytes(gguf.byteLength)}, ${gguf.tensors.size} tensors`,
      `Node ${process.versions.node}, ${process.platform} ${process.arch}, one thread`,
      ...engineLines(fm),
    ];
    process.stdout.write(`${out.join('\n')}\n\n`);
    if (jobs.length === 0) process.stdout.write('no matrix in this file has a supported type\n');
    else {
      const results = await runJobs(fm, jobs);
      process.stdout.write(`${timeTable(results)}\n${bytesTable(results)}\n${notes(results)}`);
    }
    for (const line of unsupported) process.stdout.write(`not supported: ${line}\n`);
    gguf.close();
    fm.dispose();
  } catch (error) {
    if (error instanceof FmError) throw new SetupError(error.message);
    throw error;
  }
}

/** Writes a story with the embedded model, piece by piece. */
async function tellStory() {
  const { Llama } = await import('../js/llama/index.js');
  const prompt = 'Once upon a time';
  const model = await Llama.load(DEFAULT_MODEL);
  try {
    const run = model.generate(prompt, { maxTokens: 230 });
    process.stdout.write(
      `\na story by ${path.relative(root, DEFAULT_MODEL)}, seed ${run.stats.seed}:\n\n${prompt}`,
    );
    for await (const piece of run) process.stdout.write(piece);
    const { promptTokensPerSecond, decodeTokensPerSecond, tokens, timeToFirstToken } = run.stats;
    const { memory, activation } = model.info;
    process.stdout.write(
      `\n\n${tokens} tokens, ${formatNumber(decodeTokensPerSecond)} a second (prompt ${formatNumber(promptTokensPerSecond)}), ` +
        `the first after ${timeToFirstToken.toFixed(0)} ms; activations ${activation}; ${formatBytes(memory.linear)} of memory\n`,
    );
  } finally {
    model.dispose();
  }
}

/** @param {number[]} values */
const range = (values) => `${Math.min(...values).toFixed(1)}x to ${Math.max(...values).toFixed(1)}x`;

/** @param {Result[]} results */
function notes(results) {
  const moved = results
    .filter(({ measurement: { memory, nTokens } }) => memory.dense > 0 && nTokens === 1)
    .map(moves);
  const lines = [
    'Times are medians of turns taken by both ways, with the minimum in brackets; GB/s counts the bytes of the weights.',
    'Error: the largest |result - float64| of an output, relative to the root mean square of the outputs.',
  ];
  if (results.some(({ job }) => job.filled))
    lines.push('* Not in the file: filled with the blocks of one of its tensors.');
  if (moved.length > 0) {
    const naive = range(moved.map(({ fused, naive }) => naive / fused));
    const dense = range(moved.map(({ fused, dense }) => dense / fused));
    lines.push(
      'Bytes moved are computed from what each way reads and writes. The document this project starts from claims',
      `${SEED_CLAIM}x less. For one token it is ${naive} here, since dequantising writes an f32 copy and reads it again;`,
      `against weights dequantised once and kept as f32 it is ${dense}.`,
    );
  }
  return `${lines.join('\n')}\n`;
}

/** @param {string[]} args */
async function start(args) {
  if (args.includes('--help')) {
    process.stdout.write(USAGE);
    return;
  }
  const { source, once } = readArguments(args);
  await build({ quiet: true });
  await mainJob({ source });
  await tellStory();
  if (once || !process.stdout.isTTY) return;
  const { serveDemo } = await import('../web/serve.js');
  const { url } = await serveDemo();
  process.stdout.write(`\ndemo page: ${url}   (Ctrl+C stops it)\n`);
  await new Promise(() => {});
}

if (isMain(import.meta.url)) await main(() => start(process.argv.slice(2)));
