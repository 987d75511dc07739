/**
 * The GPU kernels on another driver without a GPU: Mesa's lavapipe, which has shader-f16, subgroups
 * of another size, and bindings of 128 MiB, the least that WebGPU promises. Its compiler is slow,
 * so only some tests run on it, in processes of their own.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { describe, test } from 'node:test';
import { ensureMesa } from '../../scripts/setup/mesa.js';
import { root } from '../../scripts/setup/run.js';
import { SEED, sampled } from '../helpers/gpu.js';
import { GPU_TYPES } from '../helpers/gpu-weights.js';

/**
 * A file that takes longer has failed; most of it is compiling, which Mesa remembers in `cache`.
 */
const MS = 240_000;
const MIB = 2 ** 20;

/** Tests of products and attention, of which one is drawn. @type {[string, RegExp, number][]} */
const PRODUCTS = [
  ['matvec', /subgroups|parts/, 3],
  ['matmul', /f16 in/, 1],
  ['attention', /8\/2 heads of 64|longest/, 2],
];
/** Weight types, of which some are drawn; each has two tests. */
const types = sampled(GPU_TYPES, 8);
/** Tests of this folder, the least number that must pass. @type {[string, RegExp, number][]} */
const TESTS = [
  ['types', new RegExp(`(?<!\\w)(?:${types.join('|')}): `), 2 * types.length],
  .../** @type {typeof PRODUCTS} */ (sampled(PRODUCTS, 1)),
  // These compile for minutes.
  .../** @type {[string, RegExp, number][]} */ (
    process.env.FM_TEST_DEEP
      ? [
          ['matvec', /1 to 8/, 1],
          ['choice', /"f16":true/, 1],
          ['selftest', /f16/, 1],
        ]
      : []
  ),
];

const mesa = await ensureMesa();

/** @param {string[]} args */
function runOnLavapipe(args) {
  const { libraries, lavapipe } = /** @type {import('../../scripts/setup/mesa.js').Mesa} */ (mesa);
  // Inside of a test, Node's runner would report to the one that runs this file.
  const { NODE_TEST_CONTEXT: _, ...environment } = process.env;
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: root,
    encoding: 'utf8',
    timeout: MS,
    env: {
      ...environment,
      FM_TEST_VULKAN: lavapipe,
      LD_LIBRARY_PATH: libraries,
      MESA_SHADER_CACHE_DIR: path.join(root, '.toolchain/mesa/cache'),
    },
  });
  assert.equal(status, 0, `${args.at(-1)} on lavapipe:\n${stdout}\n${stderr}`);
  return stdout;
}

describe('lavapipe', { skip: typeof mesa === 'string' && mesa }, () => {
  test('lavapipe: f16, subgroups, and a weight larger than a binding', (t) => {
    const { skip, ...info } = JSON.parse(runOnLavapipe(['tests/gpu/lavapipe-large.js']));
    if (skip) return t.skip(skip);
    assert.deepEqual(info.features, ['shader-f16', 'subgroups', 'dot4I8Packed']);
    assert.equal(info.limits.bindingBytes, 128 * MIB);
    assert.equal(info.parts, 2);
    t.diagnostic(
      `ran: GPU kernels in Node ${process.versions.node} on ${info.adapter.name}, ${info.features.join(', ')}`,
    );
  });

  for (const [name, tests, least] of TESTS) {
    test(`lavapipe: tests/gpu/${name}.test.js, seed ${SEED}`, (t) => {
      const pattern = `--test-name-pattern=${tests.source}`;
      const output = runOnLavapipe(['--test', '--test-reporter=tap', pattern, `tests/gpu/${name}.test.js`]);
      const passed = [...output.matchAll(/^ *ok \d+ - (.*)$/gm)].map(([, title]) => title);
      const lacks = passed.map((title) => / # SKIP (?!test name)(.*)/.exec(title)?.[1]).find(Boolean);
      if (lacks) return t.skip(lacks);
      const nPassed = passed.filter((title) => !title.includes(' # SKIP') && tests.test(title)).length;
      assert.ok(nPassed >= least, `${nPassed} tests passed, not ${least}:\n${output}`);
    });
  }
});
