/**
 * A short run of every fuzz target, with the same inputs each time. `npm run fuzz` is the long run.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { buildFuzzer, findFuzzingClang, fuzz, fuzzTargets, Results } from '../../scripts/fuzz.js';
import { root } from '../../scripts/setup/run.js';

const RUNS = 1000;
/** Exports that are called by a target of another name. */
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
  /* The thread pool exists only in WebAssembly, and takes no pointers. */
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

test('fuzz: a target runs for its processor seconds, or until it is interrupted', { skip }, async () => {
  const file = await program();
  const corpus = path.join(folder, 'timed');
  const timed = await fuzz(file, 'fm_select', { seconds: 0.5, seed: 1, corpus });
  assert.deepEqual(timed.findings, []);
  assert.ok(timed.cpuSeconds >= 0.5 && timed.executions > 100 && timed.edges > 5, JSON.stringify(timed));
  for (const after of [0, 1500]) {
    const interruption = new AbortController();
    setTimeout(() => interruption.abort(), after);
    const cut = await fuzz(file, 'fm_select', { seconds: 600, seed: 1, corpus, signal: interruption.signal });
    assert.deepEqual(cut.findings, []);
    assert.ok(cut.cpuSeconds < 60, JSON.stringify(cut));
  }
});

test('fuzz: what was done with a build adds up, and is done when it has its time and its executions', () => {
  const at = { folder: path.join(folder, 'results') };
  const wanted = { seconds: 10, atLeast: 1000 };
  const some = { executions: 600, cpuSeconds: 8.5, edges: 40, findings: [] };
  const results = new Results('a', at);
  assert.ok(results.isOpen('x', wanted));
  results.add('x', some);
  assert.ok(results.isOpen('x', wanted));
  assert.ok(!results.isOpen('x', { seconds: 8, atLeast: 600 }));
  assert.ok(
    results.isOpen('x', { seconds: 9, atLeast: 600 }) && results.isOpen('x', { seconds: 8, atLeast: 601 }),
  );
  const continued = new Results('a', at);
  const beside = new Results('a', at);
  continued.add('x', { ...some, edges: 30 });
  beside.add('z', some);
  continued.add('z', some);
  assert.equal(new Results('a', at).of('z').executions, 1200, 'two at work');
  assert.deepEqual(continued.of('x'), { executions: 1200, cpuSeconds: 17, edges: 40, findings: [] });
  assert.ok(!continued.isOpen('x', wanted));
  assert.match(continued.table(['x', 'y']), /^x +1200 +17 +40 +0\ny +0 +0 +0 +0$/m);
  continued.add('y', { ...some, findings: ['crash'] });
  assert.ok(!continued.isOpen('y', wanted), 'a finding is to be mended first');
  for (const other of [new Results('b', at), new Results('a', { ...at, again: true })])
    assert.ok(other.isOpen('x', wanted) && other.of('y').findings.length === 0);
});
