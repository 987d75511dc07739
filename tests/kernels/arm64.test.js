/**
 * Tests of the kernels on 64-bit Arm, where V8 compiles the modules to other instructions, and where
 * the relaxed ones may give other results: in Node for arm64, which QEMU runs. That is slow, so weight
 * types and models are drawn; FM_TEST_DEEP=1 runs the files as a whole.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { describe, test } from 'node:test';
import { ensureArm64Node } from '../../scripts/setup/arm64.js';
import { ask } from '../../scripts/setup/run.js';
import { DEEP, SEED, sampled } from '../helpers/drawn.js';
import { referenceTypes } from '../helpers/reference.js';
import { projectRoot } from '../helpers/test-data.js';

/** Weight types that are drawn. */
const DRAWN = 2;

const types = sampled(referenceTypes, DRAWN).map(({ name }) => name);
const drawn = `(?:${types.join('|')})\\b`;

/**
 * Files, what is tested of them, and what is left out of that: patterns of names, in which the name of
 * a test begins with those of the tests around it.
 * @type {{ file: string, only?: string, skip?: string, env?: Record<string, string> }[]}
 */
const SAMPLE = [
  {
    // This module has every instruction set.
    file: 'kernels/kernels',
    only: '/^kernels: relaxed module/',
    skip: `/^kernels: relaxed module, (?:scalar|simd128|relaxed i\\d+) (?!${drawn})/`,
  },
  {
    file: 'kernels/abi',
    only: '/^abi: relaxed module/',
    skip: `/^abi: \\w+ module (?:(?!${drawn})\\S+: invalid|nothing is read)/`,
  },
  { file: 'kernels/golden' },
  { file: 'kernels/matmul', only: '/relaxed i32/' },
  {
    file: 'kernels/attention',
    only: '/^(test_fused|flash attention: (large|special|weights|sinks of)|attention: )/',
    skip: '/module, scalar|simd128 module/',
  },
  {
    file: 'wasm/threads',
    only: '/they take part, relaxed-mt$|thousands of small jobs/',
    // Threads start slowly there, and are given ten seconds.
    env: { FM_TEST_THREADS: '3', ...(DEEP ? {} : { FM_STRESS: '500' }) },
  },
  { file: 'llama/logits', only: '/tiny-tales.*int8, relaxed i32/' },
  {
    file: 'llama/arch',
    only: '/^arch: [^,]*, (int8|16-bit)/',
    env: DEEP ? {} : { FM_ARCH_DRAWN: '1', FM_ARCH_SEED: `${SEED}` },
  },
];

const command = await ensureArm64Node();

/**
 * @param {string[]} node  a command
 * @param {typeof SAMPLE[0]} what
 * @returns {Promise<{ status: number | null, output: string }>} output: TAP
 */
async function run([program, ...first], { file, only, skip, env: more }) {
  const { NODE_TEST_CONTEXT: _, NODE_OPTIONS: __, ...env } = process.env;
  const names = [only && `--test-name-pattern=${only}`, skip && `--test-skip-pattern=${skip}`].filter(
    Boolean,
  );
  // Without --test, since QEMU does not run the processes that it would start.
  const args = [...first, '--test-reporter=tap', ...(DEEP ? [] : names), `tests/${file}.test.js`];
  const child = spawn(program, /** @type {string[]} */ (args), {
    cwd: projectRoot,
    env: { ...env, ...more },
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text) => {
      output += text;
    });
  const status = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve));
  return { status, output };
}

describe('arm64', { skip: typeof command === 'string' && command }, () => {
  test('arm64: the tests of the kernels run there', async (t) => {
    if (process.arch === 'arm64') {
      t.diagnostic('ran: the kernels on arm64, in all tests of this run');
      return;
    }
    const [program, ...args] = /** @type {string[]} */ (command);
    const version = `Node ${ask(program, [...args, '-p', 'process.versions.node'])}`;
    const which = DEEP ? 'all tests' : `seed ${SEED}: ${types.join(', ')}`;
    for (const one of SAMPLE)
      await t.test(`${one.file}, ${which}`, async (sub) => {
        const { status, output } = await run(/** @type {string[]} */ (command), one);
        const count = (/** @type {string} */ what) =>
          Number(new RegExp(`^# ${what} (\\d+)$`, 'm').exec(output)?.[1]);
        const failures = output.split('\n').filter((line) => /^\s*not ok /.test(line));
        const [passed, skipped] = [count('pass'), count('skipped')];
        const reasons = [...output.matchAll(/# SKIP (.*)/g)].map(([, reason]) => reason);
        for (const reason of new Set(reasons)) sub.diagnostic(`skipped: ${reason}`);
        assert.equal(status, 0, `${failures.join('\n')}\n${output.slice(-4000)}`);
        assert.equal(count('fail'), 0, failures.join('\n'));
        assert.ok(
          passed > 0,
          `no test of ${one.file} passed: ${skipped} were skipped\n${output.slice(-4000)}`,
        );
        sub.diagnostic(`ran: ${one.file} on arm64, ${version}: ${passed} tests passed, ${skipped} skipped`);
      });
  });
});
