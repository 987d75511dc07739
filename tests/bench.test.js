/** The benchmark runs, covers every type the modules serve, and checks what it times. Not how fast: that is its own job. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { openModule } from './helpers/raw.js';
import { referenceById } from './helpers/reference.js';
import { projectRoot } from './helpers/test-data.js';

/** @param {string[]} args  @returns {string} stdout; in this very Node, whatever it lacks */
function bench(args) {
  const env = { ...process.env, FM_BENCH_CHILD: '1' };
  const script = join(projectRoot, 'tests/bench/bench.js');
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, ...args], {
    encoding: 'utf8',
    env,
  });
  assert.equal(status, 0, stderr);
  return stdout;
}

test('bench: a case for every type', () => {
  const listed = bench(['--list']);
  for (const { id } of openModule('scalar').module?.types ?? assert.fail('no scalar module')) {
    const name = referenceById.get(id)?.name;
    assert.ok(name, `reference.js has no type ${id}`);
    for (const nTokens of [1, 8, 32, 128]) {
      assert.match(listed, new RegExp(`^${name} 4096x4096 M=${nTokens}$`, 'm'));
    }
  }
});

test('bench: results are checked, and the table and the JSON hold them', () => {
  const folder = mkdtempSync(join(tmpdir(), 'fm-bench-'));
  try {
    const file = join(folder, 'results.json');
    const printed = bench(['--quick', '--filter', '^Q4_K .* M=1$', '--json', file]);
    assert.match(printed, /\| int16 simd128 +\|/);
    const { results, command, engine, machine } = JSON.parse(readFileSync(file, 'utf8'));
    for (const fact of [command, engine, machine]) assert.ok(fact.length > 0);
    const kernels = results.map((/** @type {{ kernel: string }} */ { kernel }) => kernel);
    for (const kernel of ['int16 simd128', 'f32 simd128', 'int8 scalar', 'naive'])
      assert.ok(kernels.includes(kernel));
    assert.equal(
      kernels.includes('baseline'),
      existsSync(join(projectRoot, 'build/wasm/bench-baseline.wasm')),
    );
    for (const { kernel, error, medianMs, minMs, samples, gflops } of results) {
      assert.ok(
        error <= (kernel.startsWith('int8') || kernel === 'baseline' ? 0.02 : 1e-4),
        `${kernel}: ${error}`,
      );
      assert.ok(minMs > 0 && minMs <= medianMs && samples >= 3 && gflops > 0, kernel);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
