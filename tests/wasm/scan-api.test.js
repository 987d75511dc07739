/**
 * The JavaScript API of the selective scan: arrays and tensors as inputs and outputs, the meaning of
 * each argument compared with float64, and the arguments that it refuses.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArgumentError, createKernels, HandleError, ShapeError } from '../../js/layer-index.js';
import { close, everywhere, toArray } from '../helpers/layer-api.js';
import { Prng } from '../helpers/prng.js';
import { makeScan, referenceScan, scanCols } from '../helpers/scan.js';

const SHAPE = { nTokens: 6, nHeads: 6, nGroups: 2, headSize: 8, stateSize: 5 };

everywhere('selective scan', (fm) => {
  const given = makeScan(SHAPE, new Prng(61));
  const { dt, dtBias, a, d } = given;
  const expected = referenceScan(given);
  const nCols = SHAPE.nHeads * SHAPE.headSize;
  const state = fm.tensor({ nRows: SHAPE.nHeads * SHAPE.stateSize, nCols: SHAPE.headSize });
  const xTensor = fm.tensor({ nRows: SHAPE.nTokens, nCols: scanCols(SHAPE), data: given.x });
  const dtTensor = fm.tensor({ nRows: SHAPE.nTokens, nCols: SHAPE.nHeads, data: dt });
  const [array, tensor] = [
    new Float32Array(SHAPE.nTokens * nCols),
    fm.tensor({ nRows: SHAPE.nTokens, nCols }),
  ];
  for (const x of [given.x, xTensor]) {
    for (const steps of [
      { dt, dtBias, a, d },
      { dt: dtTensor, dtBias, a, d },
    ]) {
      for (const out of [undefined, array, tensor]) {
        state.set(given.state);
        const y = fm.ssmScan(x, steps, state, { nGroups: 2, out });
        if (out) assert.equal(y, out);
        else assert.equal(y instanceof Float32Array, x instanceof Float32Array);
        if ('nCols' in y) assert.deepEqual([y.nRows, y.nCols], [SHAPE.nTokens, nCols]);
        close(y, expected.y, 'y');
        close(state, expected.state, 'state');
        if (!out && 'free' in y) y.free();
      }
    }
  }
  assert.deepEqual(toArray(xTensor), given.x, 'x is as it was');
  // Without nGroups there is one group.
  const single = makeScan({ ...SHAPE, nGroups: 1 }, new Prng(62));
  state.set(single.state);
  const { x: x1, shape: _, state: __, ...steps } = single;
  close(fm.ssmScan(x1, steps, state), referenceScan(single).y, 'one group');
});

test('scan api: what cannot be is refused, with both numbers, and leaves nothing behind', async (t) => {
  const [fm, other] = [await createKernels(), await createKernels({ isa: 'scalar' })];
  t.after(() => [fm, other].map((one) => one.dispose()));
  const f = (/** @type {number} */ n) => new Float32Array(n);
  // Two heads of 8, one group of 5.
  const state = fm.tensor({ nRows: 10, nCols: 8 });
  const foreign = other.tensor({ nRows: 10, nCols: 8 });
  const freed = fm.tensor({ nRows: 10, nCols: 8 });
  freed.free();
  const steps = { dt: f(6), dtBias: f(2), a: f(2), d: f(2) };
  const x = f(3 * 26);
  const any = /** @type {any} */ (fm);
  const before = fm.memory();
  /** @type {[() => unknown, Function, RegExp][]} */
  const cases = [
    [() => any.ssmScan([1], steps, state), ArgumentError, /x must be a Float32Array or a Tensor, got Array/],
    [() => fm.ssmScan(f(75), steps, state), ShapeError, /75 values.*26 columns of a token of 2 head/],
    [
      () => fm.ssmScan(fm.tensor({ nRows: 1, nCols: 3 }), steps, state),
      ShapeError,
      /3 columns.*1 group\(s\) of 5 has 26/,
    ],
    [() => fm.ssmScan(x, { ...steps, dt: f(5) }, state), ShapeError, /steps.dt: 5 values, expected 6/],
    [
      () => fm.ssmScan(x, { ...steps, dtBias: f(3) }, state),
      ShapeError,
      /steps.dtBias: 3 values, expected 2/,
    ],
    [() => fm.ssmScan(x, { ...steps, d: f(1) }, state), ShapeError, /steps.d: 1 values, expected 2/],
    [() => fm.ssmScan(x, { ...steps, a: f(3) }, state), ShapeError, /10 rows.*3 heads/],
    [() => any.ssmScan(x, { ...steps, a: undefined }, state), ArgumentError, /steps.a must be/],
    [() => any.ssmScan(x, undefined, state), ArgumentError, /steps must be an object/],
    [() => any.ssmScan(x, { ...steps, bias: f(2) }, state), ArgumentError, /step "bias"/],
    [() => any.ssmScan(x, steps, f(80)), ArgumentError, /state must be a Tensor, got Float32Array/],
    [() => fm.ssmScan(x, steps, freed), HandleError, /is freed/],
    [() => fm.ssmScan(x, steps, foreign), HandleError, /other kernels/],
    [() => fm.ssmScan(x, steps, state, { nGroups: 3 }), ShapeError, /nGroups is 3.*2 heads/],
    [() => fm.ssmScan(x, steps, state, { nGroups: 0 }), ShapeError, /nGroups is 0.*2 heads/],
    [() => fm.ssmScan(x, steps, state, { nGroups: 2 }), ShapeError, /78 values.*36 columns/],
    [() => fm.ssmScan(x, steps, state, { out: f(47) }), ShapeError, /47.*48/],
    [() => any.ssmScan(x, steps, state, { groups: 2 }), ArgumentError, /"groups"/],
    [() => fm.ssmScan(x, { ...steps, dt: state }, state), ShapeError, /80 values, expected 6/],
  ];
  for (const [call, type, message] of cases) {
    assert.throws(call, (error) => {
      assert.ok(error instanceof type, `${error}`);
      assert.match(/** @type {Error} */ (error).message, message);
      return true;
    });
  }
  assert.equal(fm.memory().handles, before.handles + 1);
});
