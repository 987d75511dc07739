/**
 * Runs the kernel tests in Node 24, where relaxed SIMD is on by default, if this engine lacks it.
 * The results are asserted here, so that one `npm test` covers every instruction set.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { relaxedNode } from '../../scripts/setup/engines.js';
import { SetupError } from '../../scripts/setup/run.js';
import { DEEP, SEED, sampled } from '../helpers/drawn.js';
import { openModule } from '../helpers/raw.js';
import { projectRoot } from '../helpers/test-data.js';

const FILES = [
  ...[
    ...['kernels', 'abi', 'golden', 'matmul', 'robust-blocks', 'layer', 'layer-rows', 'layer-abi'],
    ...['fused', 'fused-abi', 'attention', 'attention-abi', 'experts', 'experts-abi'],
    ...['recurrent', 'delta', 'delta-abi', 'scan', 'alone'],
  ].map((name) => `kernels/${name}`),
  ...['loader', 'layer-api', 'fused-api', 'threads', 'thread-lifecycle', 'memory64'].map(
    (name) => `wasm/${name}`,
  ),
  'gguf/models',
  ...['logits', 'arch', 'model'].map((name) => `llama/${name}`),
].map((name) => `tests/${name}.test.js`);
/**
 * How many models tests/llama/arch.test.js draws, about half of them for relaxed SIMD. This engine has
 * run all of them without.
 */
const ARCHITECTURES = DEEP ? {} : { FM_ARCH_DRAWN: '12' };
/** The sets that the relaxed module has besides relaxed SIMD, as other modules do; one is drawn. */
const SETS = ['scalar', 'simd128'];
const drawn = sampled(SETS, 1);
/** Tests that are left out: this engine has tested the other modules, and the references in JavaScript. */
const LEFT_OUT = [
  '/^(?!.*relaxed).*[:,] (scalar|simd128)/',
  '/^arch: (.*, float64 JavaScript|a setting that is ignored)/',
  ...SETS.filter((set) => !drawn.includes(set)).map((set) => `/relaxed module, ${set}/`),
];
/** Tests that run only in an engine with relaxed SIMD. */
const MUST_RUN = [
  'kernels: relaxed module, relaxed i16',
  'kernels: relaxed module, relaxed i32',
  'fused_dequant_matmul_q4k_basic: relaxed i16',
  'fused_dequant_matmul_q4k_correctness: relaxed i16',
  'fused_dequant_matmul_q4k_batch: relaxed i32',
  'fused_dequant_matmul_q4k_validation: relaxed i32',
  'abi: relaxed module',
  'layer: relaxed module, softmax',
];

/**
 * @param {string} node  path of the executable
 * @returns {Promise<{ status: number | null, output: string }>} output: TAP
 */
async function runTests(node) {
  const { NODE_TEST_CONTEXT: _, NODE_OPTIONS: __, ...env } = process.env;
  const skipped = LEFT_OUT.map((pattern) => `--test-skip-pattern=${pattern}`);
  const args = ['--test', '--test-reporter=tap', ...skipped, ...FILES];
  const child = spawn(node, args, { cwd: projectRoot, env: { ...ARCHITECTURES, ...env } });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => {
      output += text;
    });
  }
  const status = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve));
  return { status, output };
}

test('isa: every test file of the kernels exists', () => {
  for (const file of FILES) assert.ok(existsSync(join(projectRoot, file)), file);
});

test(`isa: the kernel tests pass on relaxed SIMD, seed ${SEED}`, async (t) => {
  if (!openModule('relaxed').reason) {
    t.diagnostic(`Node ${process.version} has relaxed SIMD: the kernel tests of this very run covered it`);
    return;
  }
  let node;
  try {
    node = await relaxedNode();
  } catch (error) {
    if (process.env.CI || !(error instanceof SetupError)) throw error;
    t.skip(`no Node with relaxed SIMD: ${error.message}`);
    return;
  }
  const { status, output } = await runTests(node);
  const count = (/** @type {string} */ what) =>
    Number(new RegExp(`^# ${what} (\\d+)$`, 'm').exec(output)?.[1]);
  const failures = output.split('\n').filter((line) => /^\s*not ok /.test(line));
  const summary = `${count('tests')} tests, ${count('pass')} passed, ${count('fail')} failed, ${count('skipped')} skipped`;
  for (const ran of new Set(output.match(/ran: .* module, .*/g))) t.diagnostic(ran);
  t.diagnostic(summary);
  assert.equal(count('fail'), 0, `${summary}\n${failures.join('\n')}\n${output.slice(-4000)}`);
  assert.equal(status, 0, output.slice(-4000));
  for (const name of MUST_RUN) {
    const line = output.split('\n').find((candidate) => candidate.endsWith(` - ${name}`));
    assert.ok(line?.startsWith('ok '), `"${name}" did not run: ${line}`);
  }
  const skippedRelaxed = output
    .split('\n')
    .filter((line) => /relaxed.*# SKIP/i.test(line) && !/no test data/.test(line));
  assert.deepEqual(skippedRelaxed, []);
});
