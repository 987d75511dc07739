/**
 * The five quantisers that all GGUF producers share, compared byte for byte with a reference
 * written from their definition. The inputs go beyond the golden file: equal magnitudes, half
 * steps, constants, one sign, large and small blocks.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Prng } from '../helpers/prng.js';
import { quantize, sharedQuantizers } from '../helpers/quantizers.js';
import { openModules, STATUS } from '../helpers/raw.js';
import { referenceByName } from '../helpers/reference.js';
import { readData, skipWithout } from '../helpers/test-data.js';

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`quantize bytes: ${name} module`, { skip: reason }, () => {});

const N_ROWS = 3;
const N_COLS = 1280;

/** @returns {[string, Float32Array<ArrayBuffer>][]} */
function inputs() {
  const prng = new Prng(20251021);
  /** @type {Record<string, (i: number) => number>} */
  const makers = {
    gaussian: () => 0.04 * prng.gaussian(),
    outliers: () => prng.gaussian() * (prng.int(0, 63) ? 0.01 : 3),
    'one sign': () => -Math.abs(prng.gaussian()),
    'equal magnitudes': () => prng.pick([-0.3, 0.3]),
    constant: (i) => Math.floor(i / 256) - 2,
    'half steps': () => prng.int(-16, 16) / 2,
    'large and small blocks': (i) => prng.gaussian() * 10 ** ((Math.floor(i / 32) % 9) - 4),
  };
  return Object.entries(makers).map(([what, value]) => [
    what,
    Float32Array.from({ length: N_ROWS * N_COLS }, (_, i) => value(i)),
  ]);
}

for (const name of sharedQuantizers) {
  const type = referenceByName.get(name);
  assert.ok(type, name);
  const golden = `${name.toLowerCase()}.q`;

  test(`quantize bytes ${name}: the reference makes ggml's`, { skip: skipWithout('golden', golden) }, () => {
    const x = new Float32Array(readData('golden', 'input.f32').buffer);
    assert.deepEqual(quantize(name, x), readData('golden', golden));
  });

  for (const module of modules) {
    test(`quantize bytes ${name}: ${module.name} module`, () => {
      for (const [what, x] of inputs()) {
        const expected = quantize(name, x);
        const { status, output } = module.guardedBytes(
          [{ bytes: new Uint8Array(x.buffer), alignment: 4 }],
          { bytes: expected.length, alignment: 2 },
          ([xAt], wAt) => module.exports.fm_quantize_rows(type.id, xAt, wAt, N_ROWS, N_COLS),
        );
        assert.equal(status, STATUS.OK, what);
        const at = output.findIndex((byte, i) => byte !== expected[i]);
        const block = Math.floor(at / type.blockBytes);
        assert.equal(
          at,
          -1,
          `${what}: block ${block}: byte ${at % type.blockBytes} is ${output[at]}, not ${expected[at]}`,
        );
      }
    });
  }
}
