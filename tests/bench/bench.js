/**
 * `npm run bench`: runs the benchmarks. README.md of this folder says what they measure and how.
 * `--help` lists the options.
 */
import { spawnSync } from 'node:child_process';
import os from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { relaxedNode } from '../../scripts/setup/engines.js';
import { openModule } from '../helpers/raw.js';
import { bestModule } from './best.js';
import { drawCharts } from './charts.js';
import { growthCases } from './growth.js';
import { selectCases } from './lab.js';
import { limitCases } from './limits.js';
import { llamaCases } from './llama.js';
import { onnxCases } from './onnx.js';
import { overheadCases } from './overhead.js';
import { productCases } from './products.js';
import { mergedResults, writeResults } from './records.js';
import { caseTable, summary } from './report.js';
import { startup, startupReport } from './startup.js';
import { threadsReport } from './threads.js';
import { verdictTable } from './verdict.js';

/** @import { RawModule } from '../helpers/raw.js' */
/** @import { Limits } from './lab.js' */
/** @import { Result } from './report.js' */

/**
 * @typedef {object} Lab  the settings that every case gets
 * @property {RawModule} module  the best one that this engine accepts
 * @property {Limits} limits  number of rounds and time per case
 * @property {RegExp} kernels  names of the contenders that take part
 * @property {boolean} all  include contenders that are known to be slow
 * @property {boolean} quick
 * @property {boolean} peers  include other engines
 */
/**
 * @typedef {object} LabCase
 * @property {string} name
 * @property {boolean} byDefault  runs if there is no --filter
 * @property {(lab: Lab) => Promise<Result[]>} run
 * @property {(results: Result[]) => string} [show]  as Markdown; default: a row for each contender
 */

const HELP = `npm run bench -- [options]
  --filter REGEX   only cases whose name matches, of all that --list shows: 'Q4_K 4096x4096 M=1$', 'growth', 'limits', ...
                   without it: those behind the verdict, a few minutes
  --kernels REGEX  only contenders whose name matches: 'int8 relaxed i16', 'int16 simd128', 'naive', 'baseline', 'limit', ...
  --peers          also the same work by other engines: onnxruntime-web, wllama. Installs them on first use, from npm, into
                   build/peers (170 MB); the cases "onnx" and "llama"
  --quick          small shapes, few rounds: does it run, not how fast
  --all            contenders known to be slow, too: scalar and f32 kernels for many tokens
  --json FILE      writes the results into FILE, one JSON record a line; cases that it already has stay, unless measured again
  --charts FOLDER  draws the results (with --json: all that the file has) as SVG; Vega comes as --peers do
  --seconds N      time for each case (default 1.5)
  --layer          instead: norm + matmuls, feed-forward block, experts, attention, convolutions, recurrent
                   layers, against their unfused, dense or plain forms; --cold: from memory
  --threads        instead: one thread against several (--count N), and what sharing costs
  --engines        instead: the demo page's benchmark in Chromium, Firefox and WebKit
  --gpu            instead: the kernels of the GPU, by WebGPU in Node; --filter, --json, --quick, --seconds and --list as above;
                   --software: on a driver that computes on the processor; --peers: a whole model, against wllama, in Chromium
  --startup        instead: time from createKernels() to the first result, in fresh processes
  --contexts       instead: one context of a model against several that generate at the same time
  --speculate      instead: drafts by lookup, on texts that repeat their prompt and on one that does not
  --structured     instead: what structured output costs at a vocabulary of 150,000 tokens
  --list           the cases, without running them
  --help`;

const OPTIONS = /** @type {const} */ ({
  filter: { type: 'string' },
  kernels: { type: 'string', default: '' },
  quick: { type: 'boolean', default: false },
  all: { type: 'boolean', default: false },
  peers: { type: 'boolean', default: false },
  cold: { type: 'boolean', default: false },
  json: { type: 'string' },
  charts: { type: 'string' },
  seconds: { type: 'string', default: '1.5' },
  layer: { type: 'boolean', default: false },
  threads: { type: 'boolean', default: false },
  count: { type: 'string' },
  engines: { type: 'boolean', default: false },
  gpu: { type: 'boolean', default: false },
  software: { type: 'boolean', default: false },
  startup: { type: 'boolean', default: false },
  contexts: { type: 'boolean', default: false },
  speculate: { type: 'boolean', default: false },
  structured: { type: 'boolean', default: false },
  list: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
});

/**
 * Runs this program under a Node with relaxed SIMD.
 * @returns {Promise<boolean>} false if there is none
 */
async function runElsewhere() {
  if (!openModule('relaxed').reason || process.env.FM_BENCH_CHILD) return false;
  try {
    const node = await relaxedNode();
    console.error(`Node ${process.version} has no relaxed SIMD: running under ${node}`);
    const env = { ...process.env, FM_BENCH_CHILD: '1' };
    const { status } = spawnSync(node, process.argv.slice(1), { stdio: 'inherit', env });
    process.exitCode = status ?? 1;
    return true;
  } catch (error) {
    console.error(
      `no Node with relaxed SIMD (${/** @type {Error} */ (error).message}): simd128 is the best here`,
    );
    return false;
  }
}

function environment() {
  const cpus = os.cpus();
  return {
    machine: `${cpus[0]?.model.trim() ?? 'unknown processor'}, ${cpus.length} threads, ${process.platform} ${process.arch}`,
    engine: `Node ${process.versions.node} (V8 ${process.versions.v8})`,
    command: ['npm run bench --', ...process.argv.slice(2)].join(' ').replace(/ --$/, ''),
    date: new Date().toISOString().slice(0, 10),
  };
}

/**
 * Runs the programs that measure the fused operations, one after the other.
 * @param {{ seconds: string, cold: boolean }} options
 */
function layer({ seconds, cold }) {
  const { machine, engine, date } = environment();
  console.log(`${machine}; ${engine}; ${date}\n`);
  const programs = [
    ['fused.js'],
    ['experts.js'],
    ['attention.js', ...(cold ? ['--cold'] : [])],
    ['recurrent.js'],
    ['delta.js'],
    ['scan.js'],
  ];
  for (const [program, ...more] of programs) {
    const args = [fileURLToPath(new URL(program, import.meta.url)), '--seconds', seconds, ...more];
    const { status } = spawnSync(process.execPath, args, { stdio: 'inherit' });
    if (status !== 0) throw new Error(`${program} ended with ${status}`);
  }
}

/**
 * The largest ratio of median to minimum among the limits of registers alone. Only other programs
 * make it larger than 1.
 */
const MOST_BUSY = 1.25;

/** @param {Result[]} results */
const busyTimes = (results) =>
  Math.max(
    1,
    ...results.filter((r) => r.kernel.startsWith('limit') && r.flops > 0).map((r) => r.medianMs / r.minMs),
  );

async function bench() {
  const { values: options } = parseArgs({ options: OPTIONS });
  if (options.help) return console.log(HELP);
  const { quick, all, peers } = options;
  const budgetMs = (quick ? 0.2 : Number(options.seconds)) * 1000;
  /** @type {Limits} */
  const limits = quick
    ? { minRounds: 3, maxRounds: 10, budgetMs }
    : { minRounds: 5, maxRounds: 200, budgetMs };
  if (options.gpu && peers) {
    if (options.list || options.json || options.filter)
      throw new Error('--gpu --peers is one measurement: it takes no --list, --json or --filter');
    const { gpuPeersReport } = await import('./gpu-peers.js');
    return console.log(await gpuPeersReport({ ...options, setting: environment() }));
  }
  if (options.gpu) {
    const { benchGpu } = await import('./gpu.js');
    return benchGpu({ ...options, limits, setting: environment() });
  }
  if (await runElsewhere()) return;
  if (options.contexts) {
    const { machine, engine, date } = environment();
    const { contextsReport } = await import('./contexts.js');
    return console.log(`${machine}; ${engine}; ${date}\n\n${await contextsReport(quick ? 1 : 7)}`);
  }
  if (options.speculate) {
    const { machine, engine, date } = environment();
    const { speculationReport } = await import('./speculation.js');
    return console.log(`${machine}; ${engine}; ${date}\n\n${await speculationReport(quick ? 1 : 5, quick)}`);
  }
  if (options.structured) {
    const { structured } = await import('./structured.js');
    return console.log(await structured());
  }
  if (options.startup) {
    const results = startup(15);
    if (options.json) writeResults(options.json, environment(), results);
    return console.log(startupReport(results));
  }
  if (options.engines) {
    const { enginesReport } = await import('./engines.js');
    return console.log(await enginesReport(options.quick ? 1 : 3));
  }
  if (options.layer) return layer(options);
  /** @type {Lab} */
  const lab = {
    module: bestModule(),
    limits,
    kernels: new RegExp(options.kernels),
    all,
    quick,
    peers,
  };
  if (options.threads) {
    const { machine, engine, date } = environment();
    const count = options.count === undefined ? undefined : Number(options.count);
    return console.log(`${machine}; ${engine}; ${date}\n\n${await threadsReport(lab.limits, count)}`);
  }
  const cases = [
    ...limitCases(),
    ...productCases(lab),
    ...overheadCases(),
    ...growthCases(lab),
    ...onnxCases(lab),
    ...llamaCases(lab),
  ];
  const selected = selectCases(cases, options);
  if (options.list) return console.log(selected.map(({ name }) => name).join('\n'));

  const setting = environment();
  console.log(`${setting.machine}; ${setting.engine}; ${setting.date}; \`${setting.command}\``);
  console.log(
    'M: tokens. Times are medians of interleaved runs; weights from the caches, but for cold cases.\n',
  );
  /** @type {Result[]} */
  const results = [];
  for (const { name, run, show = caseTable } of selected) {
    const found = await run(lab);
    results.push(...found);
    if (options.json) writeResults(options.json, setting, results);
    console.log(`#### ${name}\n\n${show(found)}\n`);
  }
  const known = options.json ? mergedResults(options.json, results) : results;
  console.log(summary(known));
  const verdict = verdictTable(known);
  if (verdict) console.log(`\n${verdict}`);
  const busy = busyTimes(results);
  if (busy > MOST_BUSY)
    console.log(
      `\nThe machine was busy: limits took ${busy.toFixed(1)} times their minimum. Do not use these numbers.`,
    );
  if (options.charts) console.log(`\n${(await drawCharts(known, options.charts)).join('\n')}`);
}

await bench();
