/**
 * The table of types in JavaScript, compared with the tables in the wasm modules and with ggml's
 * values.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArgumentError, createKernels, types } from '../../js/index.js';
import { findType, servedType, weightBytes } from '../../js/types.js';
import { ISA_NAMES, openModule } from '../helpers/raw.js';
import { readData, skipWithout } from '../helpers/test-data.js';

for (const isa of ISA_NAMES) {
  const { module, reason } = openModule(isa);
  test(`the table equals the ${isa} module's`, { skip: reason ?? false }, () => {
    const served = types
      .filter((type) => type.served)
      .map(({ id, blockValues, blockBytes }) => ({ id, blockValues, blockBytes }));
    const inModule = module?.types.map(({ id, blockValues, blockBytes }) => ({
      id,
      blockValues,
      blockBytes,
    }));
    assert.deepEqual(served, inModule);
  });
}

test('names and ids are unique and in order', () => {
  assert.equal(new Set(types.map((type) => type.name)).size, types.length);
  const ids = types.map((type) => type.id);
  assert.deepEqual(
    ids,
    [...new Set(ids)].sort((a, b) => a - b),
  );
  for (const type of types) {
    assert.equal(findType(type.name), type);
    assert.equal(findType(type.id), type);
  }
});

test('block sizes are those of the golden files', { skip: skipWithout('golden', 'README.md') }, () => {
  const table = Buffer.from(readData('golden', 'README.md')).toString();
  const rows = [...table.matchAll(/^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| \d+ \|$/gm)];
  assert.equal(rows.length, 25);
  for (const [, name, ...numbers] of rows) {
    const [id, blockValues, blockBytes] = numbers.map(Number);
    const { served: _, ...row } = findType(id) ?? assert.fail(`no type ${id}`);
    assert.deepEqual(row, { name: name.toUpperCase(), id, blockValues, blockBytes });
  }
});

test('a weight of whole blocks takes their bytes', () => {
  assert.equal(weightBytes(servedType('Q4_K'), 3, 512), 3 * 2 * 144);
  assert.equal(weightBytes(servedType(0), 3, 5), 60);
});

test('unknown types and types without kernels are told apart', () => {
  assert.throws(() => servedType('Q9_Z'), { name: 'ArgumentError', message: /no type "Q9_Z".*Q4_K/ });
  assert.throws(() => servedType('Q8_1'), { name: 'ArgumentError', message: /Q8_1 has no kernels.*Q4_K/ });
  assert.throws(() => servedType(4), ArgumentError);
  assert.throws(() => servedType(/** @type {any} */ (undefined)), ArgumentError);
});

test('kernels list the types of their module with the alignment', async (t) => {
  const fm = await createKernels({ isa: 'scalar' });
  t.after(() => fm.dispose());
  assert.deepEqual(
    fm.types.map((type) => type.name),
    types.filter((type) => type.served).map((type) => type.name),
  );
  for (const type of fm.types) assert.ok([1, 2, 4].includes(type.alignment), type.name);
  assert.equal(Object.isFrozen(fm.types) && Object.isFrozen(fm.types[0]), true);
});
