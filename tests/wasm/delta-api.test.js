/** deltaNet of the kernels, on arrays and on tensors, against float64; and the states it leaves. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createKernels, Tensor } from '../../js/layer-index.js';
import { checkWithin } from '../helpers/attention.js';
import { deltaCase, deltaCols, deltaShape, referenceDelta } from '../helpers/delta.js';
import { Prng } from '../helpers/prng.js';

test('deltaNet: arrays and tensors, with and without options', async (t) => {
  const fm = await createKernels();
  t.after(() => fm.dispose());
  const prng = new Prng(1);
  for (const nTokens of [1, 12]) {
    for (const gated of [true, false]) {
      const nKeyHeads = gated ? 2 : 4;
      const made = deltaCase(deltaShape({ nTokens, nKeyHeads, eps: 1e-6 }), prng, { gated });
      const { shape, qkv, alpha, beta, dtBias, a, gate, normWeight } = made;
      const cols = deltaCols(shape);
      const reference = referenceDelta(made);
      const gates = { alpha, beta, dtBias, a };
      const options = gated ? { nKeyHeads, gate, normWeight } : {};
      for (const isTensor of [false, true]) {
        const what = `${nTokens} tokens, ${gated ? 'gated, ' : ''}${isTensor ? 'tensor' : 'array'}`;
        const state = fm.tensor({
          nRows: shape.nValueHeads * shape.keySize,
          nCols: shape.valueSize,
          data: made.state,
        });
        const x = isTensor ? fm.tensor({ nRows: nTokens, nCols: cols.qkv, data: qkv }) : qkv;
        const y = fm.deltaNet(x, gates, state, options);
        assert.equal(y instanceof Tensor, isTensor, what);
        const values = y instanceof Tensor ? y.toArray() : y;
        checkWithin(values, reference.out, what);
        checkWithin(state.toArray(), reference.state, `${what}, state`);
        state.set(made.state);
        const out = new Float32Array(nTokens * cols.out);
        assert.equal(fm.deltaNet(x, gates, state, { ...options, out }), out);
        assert.deepEqual(out, values, `${what}: the same again`);
        for (const handle of [state, x, y]) if (handle instanceof Tensor) handle.free();
      }
    }
  }
});
