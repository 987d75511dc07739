/**
 * The scalar C code, compiled natively with AddressSanitizer and UndefinedBehaviorSanitizer
 * (tests/native/), by the native target of CMake.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { buildNative } from '../../scripts/build.js';
import { which } from '../../scripts/setup/run.js';
import { DEEP, SEED } from '../helpers/drawn.js';

/** Small jobs of the fork-join. */
const JOBS = DEEP ? 10_000 : 1000;

const lacking = () => {
  if (!process.env.CC && !['cc', 'gcc', 'clang'].some(which))
    return 'no native C compiler (cc, gcc or clang)';
  return which('cmake') ? undefined : 'no cmake';
};

test('native: every export under ASan and UBSan', async (t) => {
  const reason = lacking();
  if (reason) {
    assert.ok(!process.env.CI, `in CI this must run: ${reason}`);
    t.skip(reason);
    return;
  }
  const { status, signal, stdout, stderr } = spawnSync(await buildNative(), { encoding: 'utf8' });
  assert.equal(status, 0, `${signal ?? ''}\n${stdout}\n${stderr.slice(0, 8000)}`);
  const [, checks, types] = /^(\d+) checks, (\d+) types, 0 failures$/m.exec(stdout) ?? assert.fail(stdout);
  t.diagnostic(`ran: native C under ASan and UBSan, ${checks} checks of ${types} types`);
  assert.ok(Number(types) >= 3);
});

test(`native: the fork-join under ThreadSanitizer, ${JOBS} jobs of seed ${SEED}`, async (t) => {
  const reason = lacking();
  if (reason) {
    assert.ok(!process.env.CI, `in CI this must run: ${reason}`);
    t.skip(reason);
    return;
  }
  const { status, signal, stdout, stderr } = spawnSync(
    await buildNative('fm_thread_tests'),
    [`${JOBS}`, `${SEED}`],
    { encoding: 'utf8' },
  );
  assert.equal(status, 0, `${signal ?? ''}\n${stdout}\n${stderr.slice(0, 8000)}`);
  assert.match(stdout, new RegExp(`^${JOBS} jobs, 0 failures$`, 'm'));
});
