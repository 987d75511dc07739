/**
 * Golden blocks, quantised and dequantised by ggml itself. The reference of these tests is compared
 * with them first, then every module and instruction set, bit for bit.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openModules, STATUS } from '../helpers/raw.js';
import { dequantizeF32, dequantizeF64, referenceById, referenceTypes } from '../helpers/reference.js';
import { readData, skipWithout } from '../helpers/test-data.js';

/** @import { ReferenceType } from '../helpers/reference.js' */

const N_ROWS = 4;
const N_COLS = 512;

/** Types without a golden file: the floats themselves, and ggml's activation type. */
const WITHOUT_FILE = ['F32', 'F16', 'BF16', 'Q8_K'];
const goldenTypes = referenceTypes.filter(({ name }) => !WITHOUT_FILE.includes(name));

/** @param {ReferenceType} type */
function golden(type) {
  const name = type.name.toLowerCase().replace(/_k$/, '_K');
  return {
    blocks: () => readData('golden', `${name}.q`),
    values: () => readData('golden', `${name}.f32`),
    name,
  };
}

/** @param {ReferenceType} type @returns {string | false} */
const skipReason = (type) => skipWithout('golden', `${golden(type).name}.f32`);

/** @param {Float32Array} got @param {Uint8Array} expectedBytes */
function assertSameBits(got, expectedBytes) {
  const expected = new Uint32Array(expectedBytes.buffer);
  const bits = new Uint32Array(got.buffer, got.byteOffset, got.length);
  assert.equal(got.length, expected.length);
  const values = new Float32Array(expected.buffer);
  for (let i = 0; i < expected.length; i++) {
    if (bits[i] !== expected[i]) assert.fail(`value ${i} is ${got[i]}, ggml's is ${values[i]}`);
  }
}

for (const type of goldenTypes) {
  test(`golden ${type.name}: the reference, bit for bit`, { skip: skipReason(type) }, () => {
    const { blocks, values } = golden(type);
    const bytes = blocks();
    assert.equal(bytes.length, ((N_ROWS * N_COLS) / type.blockValues) * type.blockBytes);
    assertSameBits(dequantizeF32(type, bytes), values());
    const real = dequantizeF64(type, bytes);
    const rounded = new Float32Array(values().buffer);
    for (let i = 0; i < rounded.length; i++) {
      /* at most four roundings of terms whose magnitudes add up to the mass */
      assert.ok(
        Math.abs(real.values[i] - rounded[i]) <= 4 * 2 ** -24 * real.masses[i],
        `value ${i} in float64`,
      );
      assert.ok(real.masses[i] >= Math.abs(real.values[i]), `mass of value ${i}`);
    }
  });
}

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`golden: ${name} module`, { skip: reason }, () => {});

for (const module of modules) {
  for (const variant of module.variants) {
    for (const moduleType of module.types) {
      const type = referenceById.get(moduleType.id);
      if (type && WITHOUT_FILE.includes(type.name)) continue;
      const name = type?.name ?? `type ${moduleType.id}`;
      test(`golden ${name}: ${variant.label}, bit for bit`, { skip: type && skipReason(type) }, () => {
        assert.ok(type, `reference.js has no type ${moduleType.id}, which the module serves`);
        const { blocks, values } = golden(type);
        module.select(variant);
        const { status, y } = module.dequantize(moduleType, blocks(), N_ROWS, N_COLS);
        assert.equal(status, STATUS.OK);
        assertSameBits(y, values());
      });
    }
  }
}
