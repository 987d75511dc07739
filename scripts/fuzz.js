/**
 * `npm run fuzz`: libFuzzer over every export of the native build, under the address and undefined-behaviour sanitizers
 * (tests/fuzz/). One target an export; what was found interesting is kept in build/fuzz/corpus/ and built upon the next time.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { build, cmake } from './build.js';
import { aptInstall, canInstall } from './setup/apt.js';
import { ask, isMain, main, root, SetupError, which, withLock } from './setup/run.js';

const FOLDER = path.join(root, 'build/fuzz');
const DEBIAN_PACKAGES = ['clang', 'libclang-rt-dev'];
/** What libFuzzer may grow an input to; no target reads more. */
const MAX_INPUT_BYTES = 512;
const N_SEEDS = 48;

const HELP = `npm run fuzz -- [options]
  --seconds N    for each target (default 60)
  --runs N       for each target, instead of a time
  --target X     only this one; can be given several times
  --seed N       of the fuzzer and of the first corpus (default 1; 0: another one each time)
  --replay FILE  one input, as a finding left it; needs --target
  --list         the targets
`;

const PROBE = `#include <stddef.h>
#include <stdint.h>
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) { return data != 0 && n > 1u << 30; }
`;

/** @returns {string | undefined}  a Clang that brings libFuzzer and AddressSanitizer */
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

/** Random inputs to begin with, the same for the same seed. @param {string} folder @param {number} seed */
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
 * @property {string} target
 * @property {number} runs
 * @property {number} seconds
 * @property {string | undefined} finding  the fuzzer's last lines
 */

/**
 * @param {string} program
 * @param {string} target
 * @param {{ seconds?: number, runs?: number, seed: number, corpus: string }} options  corpus: a folder
 * @returns {Promise<FuzzResult>}
 */
export async function fuzz(program, target, { seconds, runs, seed, corpus }) {
  makeSeeds(corpus, seed);
  const findings = path.join(FOLDER, 'findings');
  mkdirSync(findings, { recursive: true });
  const args = [
    `--target=${target}`,
    runs === undefined ? `-max_total_time=${seconds}` : `-runs=${runs}`,
    `-seed=${seed}`,
    `-max_len=${MAX_INPUT_BYTES}`,
    '-len_control=0',
    '-timeout=60',
    '-rss_limit_mb=2048',
    `-artifact_prefix=${findings}/${target}-`,
    corpus,
  ];
  const started = performance.now();
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let output = '';
  child.stderr.setEncoding('utf8').on('data', (text) => {
    output = (output + text).slice(-200_000);
  });
  const status = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve));
  const done = /^Done (\d+) runs/m.exec(output);
  const failed = status !== 0 || !done;
  return {
    target,
    runs: Number(done?.[1] ?? 0),
    seconds: (performance.now() - started) / 1000,
    finding: failed ? output.slice(Math.max(0, output.search(/FINDING|==ERROR|runtime error/))) : undefined,
  };
}

async function command() {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '60' },
      runs: { type: 'string' },
      target: { type: 'string', multiple: true },
      seed: { type: 'string', default: '1' },
      replay: { type: 'string' },
      list: { type: 'boolean' },
      help: { type: 'boolean' },
    },
  });
  if (values.help) {
    process.stdout.write(HELP);
    return 0;
  }
  await build({ quiet: true });
  let clang = findFuzzingClang();
  if (!clang && canInstall()) {
    await aptInstall(DEBIAN_PACKAGES, 'fuzzing');
    clang = findFuzzingClang();
  }
  if (!clang) {
    throw new SetupError(
      `fuzzing needs a Clang with libFuzzer: on Debian and Ubuntu  apt-get install ${DEBIAN_PACKAGES.join(' ')}` +
        '  , on macOS  brew install llvm  ; FUZZ_CC can name one',
    );
  }
  const program = await buildFuzzer(clang);
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

  const number = (/** @type {string} */ name, /** @type {string} */ text) => {
    if (!/^\d+$/.test(text)) throw new SetupError(`--${name} must be a whole number, got ${text}`);
    return Number(text);
  };
  const options = {
    seconds: number('seconds', values.seconds),
    runs: values.runs === undefined ? undefined : number('runs', values.runs),
    seed: number('seed', values.seed),
  };
  let nFindings = 0;
  for (const target of targets) {
    const corpus = path.join(FOLDER, 'corpus', target);
    const { runs, seconds, finding } = await fuzz(program, target, { ...options, corpus });
    const outcome = finding ? 'FINDING' : 'nothing found';
    process.stdout.write(`${target.padEnd(34)}${runs} executions in ${seconds.toFixed(0)} s: ${outcome}\n`);
    if (!finding) continue;
    nFindings++;
    process.stderr.write(
      `${finding.slice(0, 6000)}\n  npm run fuzz -- --target ${target} --replay build/fuzz/findings/${target}-...\n`,
    );
  }
  return nFindings === 0 ? 0 : 1;
}

/** @param {string} program @param {string[]} targets @param {string} file @returns {Promise<number>} */
async function replay(program, targets, file) {
  if (targets.length !== 1 || !existsSync(file))
    throw new SetupError('--replay needs one --target, and a file that is there');
  const child = spawn(program, [`--target=${targets[0]}`, path.resolve(file)], { stdio: 'inherit' });
  return new Promise((resolve) => child.on('close', (code) => resolve(code ?? 1)));
}

if (isMain(import.meta.url)) await main(command);
