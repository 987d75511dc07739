/** Views of tensors: they share memory, their bounds are checked, and they own nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createKernels, HandleError, ShapeError } from '../../js/layer-index.js';
import { viewOf } from '../../js/wasm/tensor-view.js';

test('tensor view: rows, other shapes, bounds and lifetime', async (t) => {
  const fm = await createKernels({ threads: 1 });
  t.after(() => fm.dispose());
  const data = Float32Array.from({ length: 24 }, (_, i) => i);
  const tensor = fm.tensor({ nRows: 4, nCols: 6, data });
  const { handles } = fm.memory();
  const rows = viewOf(tensor, { start: 1, nRows: 2 });
  assert.deepEqual([rows.nRows, rows.nCols, rows.length], [2, 6, 12]);
  assert.deepEqual(rows.toArray(), data.slice(6, 18));
  const shaped = viewOf(tensor, { start: 2, nRows: 3, nCols: 4 });
  assert.deepEqual(shaped.toArray(), data.slice(8, 20));
  fm.add(shaped, shaped, { out: shaped });
  assert.equal(tensor.toArray()[8], 16, 'the same memory');
  assert.deepEqual(
    viewOf(rows, { start: 1, nRows: 1 }).toArray(),
    tensor.toArray().slice(12, 18),
    'a view of a view',
  );
  for (const shape of [
    { nRows: 5 },
    { start: 3, nRows: 2 },
    { nRows: 0 },
    { nRows: 1.5 },
    { start: -1, nRows: 1 },
    { nRows: 1, nCols: 25 },
  ])
    assert.throws(() => viewOf(tensor, shape), ShapeError, JSON.stringify(shape));
  assert.throws(() => viewOf(tensor, { nRows: 5 }), /end at 30 of 24 values/);
  assert.throws(
    () => rows.free(),
    (error) => error instanceof HandleError && error.reason === 'view',
  );
  assert.equal(fm.memory().handles, handles, 'views are no handles of their own');
  tensor.free();
  assert.equal(rows.freed, true);
  assert.throws(() => rows.toArray(), HandleError);
});
