/**
 * Machine code of the GPU kernels for an AMD GPU, compiled without one: no kernel grows unnoticed,
 * none runs out of registers.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { countLoop, expectedCounts, FAMILY, machineCode } from './isa/count.js';
import { SHADERS } from './isa/shaders.js';

/** A change that is noticed, as a part of what was there before. */
const CHANGE = 0.05;
const WRITE = 'node tests/gpu/isa/count.js --write';

const expected = expectedCounts();
const found = await machineCode();

function whyNot() {
  if ('skip' in found) return found.skip;
  if (found.driver === expected.driver) return false;
  return `the counts are those of "${expected.driver}", this is "${found.driver}": they change with the compiler`;
}

describe('machine code', { skip: whyNot() }, () => {
  const text = 'skip' in found ? {} : found.text;

  test('every kernel is counted, and compiled', (t) => {
    assert.deepEqual(
      Object.keys(expected.counts),
      Object.keys(SHADERS),
      `after a change of the list: ${WRITE}`,
    );
    assert.deepEqual(Object.keys(text), Object.keys(SHADERS));
    t.diagnostic(
      `ran: machine code of ${Object.keys(text).length} GPU kernels for ${FAMILY}, ${expected.driver}`,
    );
  });

  for (const name of Object.keys(text)) {
    test(`machine code of ${name}`, () => {
      const count = countLoop(text[name]);
      assert.equal(count.spilled, 0, `${name}: ${count.spilled} registers go to memory`);
      const before = expected.counts[name];
      assert.ok(before, `${name} has no count yet: ${WRITE}`);
      for (const what of /** @type {const} */ (['loop', 'instructions'])) {
        const [was, is] = [before[what], count[what]];
        const numbers = `${name}: ${what === 'loop' ? 'instructions of its loop' : what}: ${is}, before ${was}`;
        assert.ok(is <= was * (1 + CHANGE), `${numbers}. If this is what it costs: ${WRITE}`);
        assert.ok(is >= was * (1 - CHANGE), `${numbers}. Keep what was won: ${WRITE}`);
      }
    });
  }
});
