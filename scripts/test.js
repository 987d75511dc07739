/**
 * `npm test`: sets up, builds, runs every test. `npm test -- tests/gguf/gguf.test.js` runs some
 * files. As many files run side by side as there are processors; those that measure time run after
 * them, one by one. The last lines on stdout are the summary of node's test runner.
 */
import { subscribe } from 'node:diagnostics_channel';
import { existsSync, readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { run } from 'node:test';
import { parseArgs } from 'node:util';
import { build } from './build.js';
import { reporter } from './reporter.js';
import { environment, isMain, main, root, SetupError } from './setup/run.js';
import { ensureSetup } from './setup.js';

/** Time limit of a file, in milliseconds; many times what the longest file takes. */
const FILE_MS = 900_000;
/** Time that a process has to end after it is asked to, in milliseconds. */
const CLOSE_MS = 10_000;

const HELP = `npm test -- [options] [files]
  --test-name-pattern X  only tests whose name matches; can be given several times
  --test-concurrency N   files side by side (default: as many as there are processors)
  --test-timeout MS      a file that takes longer is ended, and has failed (default: ${FILE_MS})
`;

/** Files that are started first, the longest before the others, so that none of them runs last. */
const LONG = [
  'kernels/isa',
  'kernels/arm64',
  'gpu/selftest',
  'gpu/lavapipe',
  'browser/gpu',
  'browser/demo-everyone',
  'browser/demo',
  'browser/demo-model',
  'gpu/stages',
  'kernels/native',
  'gpu/choice',
  'browser/engines',
  'kernels/fused',
  'package/consumers',
  'browser/model-worker',
  'llama/arch',
  'llama/structured',
  'llama/contexts-saved',
  'llama/contexts',
  'fuzz/fuzz',
].map((name) => `tests/${name}.test.js`);
/** Files that run alone: they compare times, or have time limits that other work would break. */
const ALONE = ['browser/demo-calm', 'browser/load-peak', 'worker/lifecycle', 'gguf/stalled'].map(
  (name) => `tests/${name}.test.js`,
);

/** @returns {string[]} */
function allTestFiles() {
  const names = /** @type {string[]} */ (readdirSync(path.join(root, 'tests'), { recursive: true }));
  return names
    .filter((name) => name.endsWith('.test.js'))
    .map((name) => path.join('tests', name))
    .sort();
}

/** Tests that must run in CI and not be skipped: at least one of this file with such a name. */
const REQUIRED_IN_CI = [
  { what: 'relaxed SIMD', file: /isa\.test\.js$/, name: /relaxed/ },
  { what: 'arm64', file: /kernels\/arm64\.test\.js$/, name: /^arm64: / },
  { what: 'Chromium', file: /browser.*\.test\.js$/, name: /./ },
  { what: 'WebGPU in Node', file: /gpu\/types\.test\.js$/, name: /: lanes$/ },
  { what: 'WebGPU in Chromium', file: /browser\/gpu\.test\.js$/, name: /^WebGPU in Chromium, / },
];

/** @param {import('./reporter.js').Report} report @returns {string[]} */
const missingInCi = ({ passed }) =>
  REQUIRED_IN_CI.filter(
    (need) => !passed.some(({ file, name }) => need.file.test(file) && need.name.test(name)),
  ).map(({ what }) => what);

/** @param {string} a @param {string} b */
const longFirst = (a, b) => rank(a) - rank(b) || (a < b ? -1 : 1);
/** @param {string} file */
const rank = (file) => (LONG.includes(file) ? LONG.indexOf(file) : LONG.length);

/**
 * Ends test processes that run for too long, from now on. In some versions of Node, the limit of
 * its runner applies to a test and not to a file, and a file whose tests have ended may still wait
 * for something.
 * @param {number} ms
 */
function endSlowFiles(ms) {
  subscribe('child_process', (message) => {
    const { process: child } = /** @type {{ process: import('node:child_process').ChildProcess }} */ (
      message
    );
    let timer = setTimeout(() => {
      process.stderr.write(`error: not done after ${ms} ms, and ended: ${child.spawnargs.at(-1)}\n`);
      child.kill();
      timer = setTimeout(() => child.kill('SIGKILL'), CLOSE_MS);
    }, ms);
    child.once('exit', () => clearTimeout(timer));
  });
}

/**
 * @param {string[]} args
 * @returns {{ options: import('node:test').RunOptions, timeout: number, files: string[],
 *   isAll: boolean } | undefined}  undefined if help was asked for
 */
function parse(args) {
  let values, positionals;
  try {
    ({ values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        'test-name-pattern': { type: 'string', multiple: true },
        'test-concurrency': { type: 'string' },
        'test-timeout': { type: 'string' },
        help: { type: 'boolean' },
      },
    }));
  } catch (error) {
    throw new SetupError(`${/** @type {Error} */ (error).message}; npm test -- --help`);
  }
  if (values.help) return undefined;
  const { 'test-name-pattern': testNamePatterns } = values;
  /** @param {'test-concurrency' | 'test-timeout'} option @param {number} usual */
  const count = (option, usual) => {
    const { [option]: asked = `${usual}` } = values;
    if (!/^[1-9]\d*$/.test(asked)) throw new SetupError(`--${option} must be 1 or more, got ${asked}`);
    return Number(asked);
  };
  const concurrency = count('test-concurrency', availableParallelism());
  const timeout = count('test-timeout', FILE_MS);
  const all = allTestFiles();
  const missing = [...LONG, ...ALONE, ...positionals].find((file) => !existsSync(path.join(root, file)));
  if (missing !== undefined) throw new SetupError(`there is no ${missing}`);
  return {
    timeout,
    options: { concurrency, ...(testNamePatterns && { testNamePatterns }) },
    files: positionals.length > 0 ? positionals.map((file) => path.normalize(file)) : all,
    isAll: positionals.length === 0,
  };
}

/** @param {string[]} args @returns {Promise<number>}  exit status */
export async function test(args) {
  const parsed = parse(args);
  if (!parsed) {
    process.stdout.write(HELP);
    return 0;
  }
  const { options, timeout, files, isAll } = parsed;
  await ensureSetup({ native: true, browser: true, gpu: true, arm64: true });
  await build({ quiet: true });
  Object.assign(process.env, environment());
  process.chdir(root);
  endSlowFiles(timeout);
  const phases = [
    { files: files.filter((file) => !ALONE.includes(file)).sort(longFirst), options },
    { files: files.filter((file) => ALONE.includes(file)), options: { ...options, concurrency: 1 } },
  ].filter((phase) => phase.files.length > 0);
  const runs = phases.map(
    (phase) => () => run({ ...phase.options, files: phase.files.map((file) => path.join(root, file)) }),
  );
  const { report, output } = reporter(runs);
  await pipeline(output, process.stdout, { end: false });
  if (report.failed.length > 0) return 1;
  const missing = process.env.CI && isAll ? missingInCi(report) : [];
  if (missing.length === 0) return 0;
  process.stderr.write(`error: in CI these must run, and did not: ${missing.join(', ')}\n`);
  return 1;
}

if (isMain(import.meta.url)) await main(() => test(process.argv.slice(2)));
