/**
 * `npm run fuzz`: runs libFuzzer over every export of the native build, with the address and
 * undefined-behaviour sanitizers (tests/fuzz/). Each export is a target. Interesting inputs are
 * kept in build/fuzz/corpus/, where the next run starts.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { build, cmake } from './build.js';
import { aptInstall, canInstall } from './setup/apt.js';
import { ask, isMain, main, root, SetupError, which, withLock } from './setup/run.js';

const FOLDER = path.join(root, 'build/fuzz');
const DEBIAN_PACKAGES = ['clang', 'libclang-rt-dev'];
/** Largest input for libFuzzer, in bytes; no target reads more. */
const MAX_INPUT_BYTES = 512;
const N_SEEDS = 48;
/**
 * Seconds after which an input counts as a hang, in wall-clock time, because the machine may be
 * busy.
 */
const HANG_SECONDS = 300;
/** Processor seconds between two records of progress. */
const STRETCH_SECONDS = 60;
const POLL_MS = 250;

const HELP = `npm run fuzz -- [options]
  --seconds N    processor seconds for each target (default 60) ...
  --at-least N   ... and executions of each (default 0): a target is done when it has both
  --jobs N       targets at a time (default 1)
  --target X     only this one; can be given several times
  --seed N       of the fuzzer and of the first corpus (default 1; 0: another one each time)
  --again        from nothing
  --replay FILE  one input, as a finding left it; needs --target
  --list         the targets

What was done is counted in build/fuzz/results/, a file for each build of the program, and adds up: a run that was interrupted goes
on where it was, targets that are done are skipped. Of another build nothing counts, but the inputs it found are used.
`;

const PROBE = `#include <stddef.h>
#include <stdint.h>
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) { return data != 0 && n > 1u << 30; }
`;

/** @returns {string | undefined}  a Clang that has libFuzzer and AddressSanitizer */
export function findFuzzingClang() {
  const named = process.env.FUZZ_CC;
  const versions = Array.from({ length: 10 }, (_, i) => `clang-${22 - i}`);
  const candidates = named ? [named] : ['clang', ...versions].map(which);
  mkdirSync(FOLDER, { recursive: true });
  const source = path.join(FOLDER, 'probe.c');
  writeFileSync(source, PROBE);
  const probe = ['-fsanitize=fuzzer,address,undefined', source, '-o', path.join(FOLDER, 'probe')];
  return candidates.find((clang) => clang && ask(clang, probe) !== undefined);
}

/**
 * @param {string} clang
 * @returns {Promise<string>}  path of the program
 */
export async function buildFuzzer(clang) {
  return withLock('fuzz', async () => {
    await cmake('build/fuzz/native', {
      settings: [`-DCMAKE_C_COMPILER=${clang}`, '-DFM_FUZZ=ON'],
      target: 'fm_fuzz',
    });
    return path.join(FOLDER, 'native/fm_fuzz');
  });
}

/** @param {string} program @returns {string[]} */
export const fuzzTargets = (program) => (ask(program, ['--list']) ?? '').split('\n');

/**
 * Writes random inputs to begin with; the same seed gives the same inputs.
 * @param {string} folder
 * @param {number} seed
 */
function makeSeeds(folder, seed) {
  mkdirSync(folder, { recursive: true });
  if (readdirSync(folder).length > 0) return;
  let state = seed >>> 0 || 1;
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 16;
  };
  for (let i = 0; i < N_SEEDS; i++) {
    const bytes = Uint8Array.from({ length: 8 + (next() % (MAX_INPUT_BYTES - 8)) }, () => next() & 255);
    bytes[0] = i; // whether arguments may be wrong
    writeFileSync(path.join(folder, `seed-${i}`), bytes);
  }
}

/**
 * @typedef {object} FuzzResult
 * @property {number} executions
 * @property {number} cpuSeconds
 * @property {number} edges  number of reached edges in the program's control flow graph
 * @property {string[]} findings  the fuzzer's last lines
 */

/**
 * Processor seconds of a process, undefined if it has ended.
 * @param {number} pid
 * @returns {number | undefined}
 */
function cpuSeconds(pid) {
  if (existsSync('/proc/self/stat')) {
    try {
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ');
      return (Number(fields[11]) + Number(fields[12])) / 100; // utime, stime; the kernel's USER_HZ
    } catch {
      return undefined;
    }
  }
  // hours:minutes:seconds; leading parts may be missing
  const time = ask('ps', ['-o', 'time=', '-p', String(pid)]);
  return time
    ?.trim()
    .split(':')
    .reduce((sum, part) => sum * 60 + Number(part), 0);
}

/**
 * Runs one fuzzing process.
 * @param {string} program
 * @param {string} target
 * @param {object} options
 * @param {number} [options.seconds]  processor seconds to run
 * @param {number} [options.runs]  number of inputs to run instead
 * @param {number} options.seed
 * @param {string} options.corpus  a folder
 * @param {AbortSignal} [options.signal]  stops it early
 * @returns {Promise<FuzzResult>}
 */
export async function fuzz(program, target, { seconds = Infinity, runs = -1, seed, corpus, signal }) {
  makeSeeds(corpus, seed);
  const findings = path.join(FOLDER, 'findings');
  mkdirSync(findings, { recursive: true });
  const args = [
    `--target=${target}`,
    `-runs=${runs}`,
    `-seed=${seed}`,
    `-max_len=${MAX_INPUT_BYTES}`,
    '-len_control=0',
    '-entropic_scale_per_exec_time=1',
    `-timeout=${HANG_SECONDS}`,
    `-report_slow_units=${HANG_SECONDS}`,
    '-rss_limit_mb=2048',
    '-print_final_stats=1',
    `-artifact_prefix=${findings}/${target}-`,
    corpus,
  ];
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let output = '';
  let edges = 0;
  child.stderr.setEncoding('utf8').on('data', (text) => {
    output = (output + text).slice(-200_000);
    edges = Number([...text.matchAll(/ cov: (\d+) /g)].at(-1)?.[1] ?? edges);
  });
  let used = 0,
    wasStopped = false;
  const poll = setInterval(() => {
    used = cpuSeconds(child.pid ?? 0) ?? used;
    if (wasStopped || (used < seconds && !signal?.aborted)) return;
    wasStopped = child.kill('SIGINT'); // libFuzzer prints its statistics last
  }, POLL_MS);
  const status = await new Promise((resolve, reject) =>
    child.on('error', reject).on('close', (code, killer) => resolve(killer ?? code)),
  );
  clearInterval(poll);
  const executions = /^stat::number_of_executed_units: +(\d+)/m.exec(output);
  // Stopped by this script or the keyboard; a process that has not begun yet prints nothing.
  const interrupted = status === 'SIGINT' || /libFuzzer: run interrupted/.test(output);
  const failed = !interrupted && !(status === 0 && executions);
  return {
    executions: Number(executions?.[1] ?? 0),
    cpuSeconds: used,
    edges,
    findings: failed
      ? [output.slice(Math.max(0, output.search(/FINDING|==ERROR|runtime error/))).slice(0, 6000)]
      : [],
  };
}

/** The record of the work done with one build of the program. */
export class Results {
  /**
   * @param {string} build
   * @param {{ again?: boolean, folder?: string }} [options]  again: from the beginning
   */
  constructor(build, { again = false, folder = path.join(FOLDER, 'results') } = {}) {
    this.build = build;
    this.file = path.join(folder, `${build}.json`);
    if (again) rmSync(this.file, { force: true });
    this.#read();
  }

  /** Reads the record again, since other processes may have added to it. */
  #read() {
    /** @type {Record<string, FuzzResult>} */
    this.targets = existsSync(this.file) ? JSON.parse(readFileSync(this.file, 'utf8')).targets : {};
  }

  /** @param {string} target @returns {FuzzResult} */
  of(target) {
    return this.targets[target] ?? { executions: 0, cpuSeconds: 0, edges: 0, findings: [] };
  }

  /** @param {string} target @param {FuzzResult} more */
  add(target, more) {
    this.#read();
    const sum = this.of(target);
    this.targets[target] = {
      executions: sum.executions + more.executions,
      cpuSeconds: Math.round((sum.cpuSeconds + more.cpuSeconds) * 100) / 100,
      edges: Math.max(sum.edges, more.edges),
      findings: [...sum.findings, ...more.findings],
    };
    mkdirSync(path.dirname(this.file), { recursive: true });
    writeFileSync(
      `${this.file}.new`,
      `${JSON.stringify({ build: this.build, targets: this.targets }, null, 2)}\n`,
    );
    renameSync(`${this.file}.new`, this.file);
  }

  /**
   * Whether there is more to do. There is not after a finding.
   * @param {string} target
   * @param {{ seconds: number, atLeast: number }} wanted
   */
  isOpen(target, { seconds, atLeast }) {
    const { executions, cpuSeconds, findings } = this.of(target);
    return findings.length === 0 && (cpuSeconds < seconds || executions < atLeast);
  }

  /** @param {string[]} names */
  table(names) {
    const rows = names.map((name) => {
      const { executions, cpuSeconds, edges, findings } = this.of(name);
      return [name, executions, cpuSeconds.toFixed(0), edges, findings.length];
    });
    const lines = [['target', 'executions', 'CPU seconds', 'edges', 'findings'], ...rows].map(
      ([name, ...rest]) =>
        [String(name).padEnd(34), ...rest.map((cell) => String(cell).padStart(12))].join(''),
    );
    return `${lines.join('\n')}\nbuild ${this.build}: ${path.relative(root, this.file)}\n`;
  }
}

/**
 * A copy of the program, so that the next build does not change a running one. Its name contains
 * its hash.
 * @param {string} program
 */
function keep(program) {
  const build = createHash('sha256').update(readFileSync(program)).digest('hex').slice(0, 12);
  const copy = path.join(FOLDER, `fm_fuzz-${build}`);
  if (!existsSync(copy)) {
    copyFileSync(program, `${copy}.new`);
    renameSync(`${copy}.new`, copy);
  }
  return { build, copy };
}

async function command() {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '60' },
      'at-least': { type: 'string', default: '0' },
      jobs: { type: 'string', default: '1' },
      target: { type: 'string', multiple: true },
      seed: { type: 'string', default: '1' },
      again: { type: 'boolean', default: false },
      replay: { type: 'string' },
      list: { type: 'boolean' },
      help: { type: 'boolean' },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  const number = (/** @type {'seconds' | 'at-least' | 'jobs' | 'seed'} */ name) => {
    if (!/^\d+$/.test(values[name]))
      throw new SetupError(`--${name} must be a whole number, got ${values[name]}`);
    return Number(values[name]);
  };
  const [seconds, atLeast, nJobs, seed] = [
    number('seconds'),
    number('at-least'),
    number('jobs'),
    number('seed'),
  ];
  await build({ quiet: true });
  const program = await buildFuzzer(await getClang());
  const all = fuzzTargets(program);
  if (values.list) {
    process.stdout.write(`${all.join('\n')}\n`);
    return 0;
  }
  const targets = values.target ?? all;
  const unknown = targets.find((target) => !all.includes(target));
  if (unknown !== undefined)
    throw new SetupError(`no target ${unknown}; npm run fuzz -- --list shows them all`);
  if (values.replay !== undefined) return replay(program, targets, values.replay);

  const { build: name, copy } = keep(program);
  const results = new Results(name, { again: values.again });
  const interruption = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => interruption.abort());
  const isOpen = (/** @type {string} */ target) => results.isOpen(target, { seconds, atLeast });
  const waiting = targets.filter(isOpen);
  const work = async () => {
    for (;;) {
      const target = interruption.signal.aborted ? undefined : waiting.shift();
      if (target === undefined) return;
      while (isOpen(target) && !interruption.signal.aborted) {
        const left = seconds - results.of(target).cpuSeconds;
        const result = await fuzz(copy, target, {
          seconds: left > 0 ? Math.min(left, STRETCH_SECONDS) : STRETCH_SECONDS,
          seed: seed === 0 ? 0 : seed + Math.floor(results.of(target).executions),
          corpus: path.join(FOLDER, 'corpus', target),
          signal: interruption.signal,
        });
        results.add(target, result);
      }
      const { executions, cpuSeconds, findings } = results.of(target);
      process.stdout.write(`${target}: ${executions} executions in ${cpuSeconds.toFixed(0)} CPU seconds\n`);
      for (const finding of findings) {
        const file = `build/fuzz/findings/${target}-...`;
        process.stderr.write(`${finding}\n  npm run fuzz -- --target ${target} --replay ${file}\n`);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, nJobs) }, work));
  process.stdout.write(results.table(targets));
  const nFindings = targets.filter((target) => results.of(target).findings.length > 0).length;
  if (interruption.signal.aborted) process.stdout.write('interrupted; the same command goes on from here\n');
  return nFindings > 0 || targets.some(isOpen) ? 1 : 0;
}

/** @returns {Promise<string>} */
async function getClang() {
  const found = findFuzzingClang();
  if (found) return found;
  if (canInstall()) await aptInstall(DEBIAN_PACKAGES, 'fuzzing');
  const installed = findFuzzingClang();
  if (installed) return installed;
  throw new SetupError(
    `fuzzing needs a Clang with libFuzzer: on Debian and Ubuntu  apt-get install ${DEBIAN_PACKAGES.join(' ')}` +
      '  , on macOS  brew install llvm  ; FUZZ_CC can name one',
  );
}

/**
 * @param {string} program
 * @param {string[]} targets
 * @param {string} file
 * @returns {Promise<number>}
 */
async function replay(program, targets, file) {
  if (targets.length !== 1 || !existsSync(file))
    throw new SetupError('--replay needs one --target, and a file that is there');
  const child = spawn(program, [`--target=${targets[0]}`, path.resolve(file)], { stdio: 'inherit' });
  return new Promise((resolve) => child.on('close', (code) => resolve(code ?? 1)));
}

if (isMain(import.meta.url)) await main(command);
