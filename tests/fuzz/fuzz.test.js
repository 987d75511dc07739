/**
 * A short run of every fuzz target, from the same inputs each time. `npm run fuzz` is the long one.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { buildFuzzer, findFuzzingClang, fuzz, fuzzTargets } from '../../scripts/fuzz.js';
import { root } from '../../scripts/setup/run.js';

const RUNS = 1000;
/** Exports that a target of another name calls. */
const WITH_OTHERS = {
  fm_served_by: ['fm_type_block_values', 'fm_type_block_bytes', 'fm_type_alignment'],
  fm_select: ['fm_isa', 'fm_version'],
  fm_alloc: ['fm_free'],
};

const clang = findFuzzingClang();
const skip = !clang && 'no Clang with libFuzzer (Debian: apt-get install clang libclang-rt-dev)';
const folder = mkdtempSync(path.join(tmpdir(), 'fm-fuzz-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/** @type {Promise<string> | undefined} */
let building;
const program = () => {
  building ??= buildFuzzer(/** @type {string} */ (clang));
  return building;
};

test('fuzz: every export of fused.h has a target', { skip }, async () => {
  const code = readFileSync(path.join(root, 'src/fused.h'), 'utf8').replace(/\/\*[\s\S]*?\*\//g, '');
  /* The pool of threads is in WebAssembly only, and takes no pointers. */
  const declared = [...code.matchAll(/\b((?:fm|fused)_[a-z0-9_]+)\s*\(/g)]
    .map(([, name]) => name)
    .filter((name) => !/^fm_threads?_/.test(name));
  const covered = [...fuzzTargets(await program()), ...Object.values(WITH_OTHERS).flat()];
  assert.deepEqual(covered.sort(), declared.sort());
});

test('fuzz: a short run of every target finds nothing', { skip }, async (t) => {
  const file = await program();
  const targets = fuzzTargets(file);
  let total = 0;
  for (const target of targets) {
    const result = await fuzz(file, target, { runs: RUNS, seed: 1, corpus: path.join(folder, target) });
    assert.deepEqual(result.findings, [], target);
    assert.ok(result.executions >= RUNS, `${target}: ${result.executions} executions`);
    total += result.executions;
  }
  t.diagnostic(`ran: fuzz smoke, ${targets.length} targets, ${total} executions (libFuzzer, ASan, UBSan)`);
});
