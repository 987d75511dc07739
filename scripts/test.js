/**
 * `npm test`: set-up, build, every test. `npm test -- tests/gguf.test.js` runs some files; options go to node --test.
 * The last lines on stdout are the summary of node's test runner.
 */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import path from 'node:path';
import { build } from './build.js';
import { REPORT_FILE } from './reporter.js';
import { environment, isMain, main, root } from './setup/run.js';
import { ensureSetup } from './setup.js';

/** @returns {string[]} */
function allTestFiles() {
  const names = /** @type {string[]} */ (readdirSync(path.join(root, 'tests'), { recursive: true }));
  return names
    .filter((name) => name.endsWith('.test.js'))
    .map((name) => path.join('tests', name))
    .sort();
}

/** What must have run, and not been skipped, in CI: a test of this file with such a name. */
const REQUIRED_IN_CI = [
  { what: 'relaxed SIMD', file: /isa\.test\.js$/, name: /relaxed/ },
  { what: 'Chromium', file: /browser.*\.test\.js$/, name: /./ },
];

/** @returns {string[]} */
function missingInCi() {
  /** @type {import('./reporter.js').Report} */
  const { passed } = existsSync(REPORT_FILE) ? JSON.parse(readFileSync(REPORT_FILE, 'utf8')) : { passed: [] };
  return REQUIRED_IN_CI.filter(
    (need) => !passed.some(({ file, name }) => need.file.test(file) && need.name.test(name)),
  ).map(({ what }) => what);
}

/** @param {string[]} args @returns {Promise<number>}  exit status */
export async function test(args) {
  await ensureSetup({ native: true, browser: true });
  await build({ quiet: true });
  rmSync(REPORT_FILE, { force: true });
  const options = args.filter((arg) => arg.startsWith('-'));
  const named = args.filter((arg) => !arg.startsWith('-'));
  const files = named.length > 0 ? named : allTestFiles();
  const reporter = new URL('./reporter.js', import.meta.url).href;
  const runner = [
    '--test',
    `--test-reporter=${reporter}`,
    '--test-reporter-destination=stdout',
    ...options,
    ...files,
  ];
  const child = spawn(process.execPath, runner, { cwd: root, env: environment(), stdio: 'inherit' });
  const status = await new Promise((resolve) => child.on('close', (code) => resolve(code ?? 1)));
  const missing = process.env.CI && named.length === 0 ? missingInCi() : [];
  if (missing.length === 0) return status;
  process.stderr.write(`error: in CI these must run, and did not: ${missing.join(', ')}\n`);
  return 1;
}

if (isMain(import.meta.url)) await main(() => test(process.argv.slice(2)));
