/**
 * The JavaScript API of the layer operations that are not products: arrays and tensors as inputs
 * and outputs, in place; the meaning of each argument, compared with plain float64 JavaScript; the
 * arguments that every layer call refuses.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArgumentError, createKernels, HandleError, MemoryError, ShapeError } from '../../js/layer-index.js';
import { bothKinds, byRow, close, everywhere, gaussian, softmax, sum, weight } from '../helpers/layer-api.js';

everywhere('norms, softmax, add, scaled add, scale, gated', (fm) => {
  const [nRows, nCols] = [3, 10];
  const x = gaussian(nRows * nCols, 1);
  const [w, b, up] = [gaussian(nCols, 2), gaussian(nCols, 3), gaussian(x.length, 4)];
  const wt = fm.tensor({ nRows: 1, nCols, data: w });
  const rms = (/** @type {number[]} */ row, eps = 1e-5) =>
    Math.sqrt(sum(row.map((v) => v * v)) / row.length + eps);
  for (const norm of [w, wt]) {
    const expected = byRow(x, nCols, (row) => row.map((v, i) => (v / rms(row)) * w[i]));
    bothKinds(fm, x, nCols, (at, o) => fm.rmsNorm(at, norm, o), expected, nCols, { what: 'rmsNorm' });
  }
  const bare = byRow(x, x.length, (row) => row.map((v) => v / rms(row, 0.5)));
  bothKinds(fm, x, x.length, (at, o) => fm.rmsNorm(at, null, { eps: 0.5, ...o }), bare, x.length, {
    what: 'rmsNorm, bare',
  });

  for (const [scale, shift] of [
    [w, b],
    [w, null],
    [null, b],
    [null, null],
  ]) {
    const cols = scale || shift ? nCols : x.length;
    const expected = byRow(x, cols, (row) => {
      const mean = sum(row) / cols;
      const deviation = Math.sqrt(sum(row.map((v) => (v - mean) ** 2)) / cols + 0.25);
      return row.map((v, i) => ((v - mean) / deviation) * (scale?.[i] ?? 1) + (shift?.[i] ?? 0));
    });
    const call = (/** @type {any} */ at, /** @type {object} */ o) =>
      fm.layerNorm(at, scale, shift, { eps: 0.25, ...o });
    bothKinds(fm, x, cols, call, expected, cols, { what: 'layerNorm' });
  }

  bothKinds(fm, x, nCols, (at, o) => fm.softmax(at, { nCols, ...o }), byRow(x, nCols, softmax), nCols, {
    what: 'softmax',
  });
  close(fm.softmax(x), softmax([...x]), 'softmax of a whole array');
  const silu = (/** @type {number} */ v) => v / (1 + Math.exp(-v));
  const gelu = (/** @type {number} */ v) =>
    0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)));
  bothKinds(
    fm,
    x,
    nCols,
    (at, o) => fm.add(at, up, o),
    x.map((v, i) => v + up[i]),
    nCols,
    { what: 'add' },
  );
  const rows = fm.tensor({ nRows: x.length / nCols, nCols, data: x });
  const first = up.slice(0, nCols);
  const summed = x.map((v, i) => v + first[i % nCols]);
  close(fm.add(rows, first).toArray(), summed, 'add of a row');
  assert.equal(fm.add(rows, first, { out: rows }), rows);
  close(rows.toArray(), summed, 'add of a row, in place');
  bothKinds(
    fm,
    x,
    nCols,
    (at, o) => fm.addScaled(at, up, -0.3, o),
    x.map((v, i) => v - 0.3 * up[i]),
    nCols,
    { what: 'addScaled' },
  );
  bothKinds(
    fm,
    x,
    nCols,
    (at, o) => fm.scale(at, Math.sqrt(640), o),
    x.map((v) => v * Math.sqrt(640)),
    nCols,
    { what: 'scale' },
  );
  const into = up.slice();
  assert.equal(fm.addScaled(x, into, 2, { out: into }), into);
  close(
    into,
    x.map((v, i) => v + 2 * up[i]),
    'addScaled into b',
  );
  bothKinds(
    fm,
    x,
    nCols,
    (at, o) => fm.gated(at, up, o),
    x.map((v, i) => silu(v) * up[i]),
    nCols,
    { what: 'silu' },
  );
  bothKinds(
    fm,
    x,
    nCols,
    (at, o) => fm.multiply(at, up, o),
    x.map((v, i) => v * up[i]),
    nCols,
    { what: 'multiply' },
  );
  const geglu = (/** @type {any} */ at, /** @type {object} */ o) => fm.gated(at, up, { act: 'gelu', ...o });
  bothKinds(
    fm,
    x,
    nCols,
    geglu,
    x.map((v, i) => gelu(v) * up[i]),
    nCols,
    { what: 'gelu' },
  );
  const reglu = (/** @type {any} */ at, /** @type {object} */ o) => fm.gated(at, up, { act: 'relu', ...o });
  bothKinds(
    fm,
    x,
    nCols,
    reglu,
    x.map((v, i) => Math.max(v, 0) * up[i]),
    nCols,
    { what: 'relu' },
  );
  bothKinds(
    fm,
    x,
    nCols,
    (at, o) => fm.gated(at, up, { act: 'sigmoid', ...o }),
    x.map((v, i) => up[i] / (1 + Math.exp(-v))),
    nCols,
    { what: 'sigmoid' },
  );
});

everywhere('causal convolution', (fm) => {
  const [nTokens, nChannels, length] = [5, 10, 3];
  const x = gaussian(nTokens * nChannels, 1);
  const [weight, bias] = [gaussian(nChannels * length, 2), gaussian(nChannels, 3)];
  const before = gaussian((length - 1) * nChannels, 4);
  const rows = [...before, ...x];
  const expected = x.map((_, i) => {
    const taps = weight.subarray((i % nChannels) * length, ((i % nChannels) + 1) * length);
    const y = taps.reduce((total, tap, j) => total + tap * rows[i + j * nChannels], bias[i % nChannels]);
    return y / (1 + Math.exp(-y));
  });
  const after = Float32Array.from(rows.slice(-before.length));
  for (const kind of ['array', 'tensor']) {
    const shape = { nRows: length - 1, nCols: nChannels };
    const state = kind === 'array' ? before.slice() : fm.tensor(shape);
    const call = (/** @type {any} */ at, /** @type {object} */ o) => {
      state.set(before);
      const y = fm.causalConv(at, weight, state, { bias, act: 'silu', ...o });
      assert.deepEqual(state instanceof Float32Array ? state : state.toArray(), after, 'the state after x');
      return y;
    };
    bothKinds(fm, x, nChannels, call, expected, nChannels, { what: 'causalConv' });
  }
  const plain = fm.causalConv(x, weight, before.slice(), { bias: null });
  close(plain.subarray(0, 1), [weight[0] * rows[0] + weight[1] * rows[10] + weight[2] * rows[20]], 'plain');
});

everywhere('rope and embed', (fm) => {
  const [nTokens, nHeads, headSize, nDims] = [3, 2, 12, 8];
  const x = gaussian(nTokens * nHeads * headSize, 5);
  const factors = Float32Array.of(1, 2, 3, 4);
  for (const pairing of /** @type {const} */ (['adjacent', 'halves'])) {
    const expected = [...x];
    for (let t = 0; t < nTokens; t++) {
      for (let h = 0; h < nHeads; h++) {
        for (let i = 0; i < nDims / 2; i++) {
          const at = (t * nHeads + h) * headSize + (pairing === 'halves' ? i : 2 * i);
          const to = at + (pairing === 'halves' ? nDims / 2 : 1);
          const angle = (((7 + t) / 2) * 500 ** ((-2 * i) / nDims)) / factors[i];
          const [cosine, sine] = [1.5 * Math.cos(angle), 1.5 * Math.sin(angle)];
          expected[at] = x[at] * cosine - x[to] * sine;
          expected[to] = x[at] * sine + x[to] * cosine;
        }
      }
    }
    const position = 7;
    const scales = { base: 500, linearScale: 2, factors, magnitude: 1.5 };
    const options = { headSize, nHeads, nDims, position, ...scales, pairing };
    const nCols = nHeads * headSize;
    bothKinds(fm, x, nCols, (at, o) => fm.rope(at, { ...options, ...o }), expected, nCols, {
      what: `rope, ${pairing}`,
    });
  }
  const tensor = fm.tensor({ nRows: nTokens, nCols: nHeads * headSize, data: x });
  assert.deepEqual(
    fm.rope(tensor, { headSize }).toArray(),
    fm.rope(x, { headSize, nHeads, position: 0, base: 10000, nDims: 12 }),
  );

  const table = weight(fm, 'Q6_K', 5, 256, 6);
  const rows = fm.dequantize(table);
  const picked = Float32Array.from([4, 0, 4].flatMap((id) => [...rows.subarray(id * 256, (id + 1) * 256)]));
  assert.deepEqual(fm.embed(table, [4, 0, 4]), picked);
  assert.deepEqual(fm.embed(table, Uint32Array.of(4, 0, 4)), picked);
  const out = fm.tensor({ nRows: 3, nCols: 256 });
  assert.equal(fm.embed(table, [4, 0, 4], { out }), out);
  assert.deepEqual(out.toArray(), picked);
});

test('layer api: what cannot be is refused, with both numbers, and leaves nothing behind', async () => {
  const fm = await createKernels();
  const other = await createKernels({ isa: 'scalar' });
  const w = weight(fm, 'Q4_K', 4, 256, 24);
  const wide = weight(fm, 'Q4_K', 4, 512, 25);
  const x = gaussian(512, 26);
  const t = fm.tensor({ nRows: 2, nCols: 256, data: x });
  const freed = fm.tensor({ nRows: 1, nCols: 256 });
  freed.free();
  const foreign = other.tensor({ nRows: 1, nCols: 256 });
  const cache = fm.kvCache({ nPositions: 8, nKvHeads: 2, headSize: 64 });
  const q8 = fm.kvCache({ type: 'Q8_0', nPositions: 8, nKvHeads: 2, headSize: 64 });
  const gone = fm.kvCache({ nPositions: 1, nKvHeads: 1, headSize: 2 });
  gone.free();
  const ffn = { gate: w, up: w, down: weight(fm, 'F32', 256, 4, 27) };
  const head = fm.tensor({ nRows: 8, nCols: 8 });
  const one = new Float32Array(1);
  const gates = { alpha: one, beta: one, dtBias: one, a: one };
  const before = fm.memory();
  const any = /** @type {any} */ (fm);
  const [five, array] = [new Float32Array(5), new Float32Array(256)];
  /** @type {[() => unknown, Function, RegExp][]} */
  const cases = [
    [() => any.rmsNorm([1, 2], five), ArgumentError, /x must be a Float32Array or a Tensor, got Array/],
    [() => fm.rmsNorm(x, five), ShapeError, /512.*5 /],
    [() => fm.rmsNorm(t, five), ShapeError, /256 columns.*5/],
    [() => fm.rmsNorm(t, array, { eps: -1 }), ArgumentError, /eps.*0.*-1/],
    [() => fm.rmsNorm(t, array, { eps: Number.NaN }), ArgumentError, /eps.*NaN/],
    [() => fm.rmsNorm(t, array, { out: five }), ShapeError, /5 values, expected 512/],
    [() => any.rmsNorm(t, array, { out: [] }), ArgumentError, /out must be/],
    [() => fm.rmsNorm(new Float32Array(0), null), ShapeError, /0 values/],
    [() => fm.rmsNorm(freed, null), HandleError, /is freed/],
    [() => fm.rmsNorm(foreign, null), HandleError, /other kernels/],
    [() => fm.rmsNorm(t, foreign), HandleError, /other kernels/],
    [() => fm.layerNorm(t, array, five), ShapeError, /bias: 5 values, expected 256/],
    [() => fm.layerNorm(t, null, five), ShapeError, /256 columns.*5/],
    [() => fm.softmax(x, { nCols: 100 }), ShapeError, /512.*100/],
    [() => fm.softmax(x, { nCols: 0 }), ShapeError, /nCols.* 1 .*got 0/],
    [() => any.softmax(undefined), ArgumentError, /x must be/],
    [() => fm.rope(x, { headSize: 64 }), ArgumentError, /nHeads/],
    [() => fm.rope(t, { headSize: 100 }), ShapeError, /256.*100/],
    [() => fm.rope(t, { headSize: 0 }), ShapeError, /headSize.*0/],
    [() => fm.rope(t, { headSize: 64, nDims: 65 }), ShapeError, /64.*65/],
    [() => fm.rope(t, { headSize: 64, nDims: 66 }), ShapeError, /64.*66/],
    [() => fm.rope(t, { headSize: 64, position: -1 }), ShapeError, /position.*-1/],
    [() => fm.rope(t, { headSize: 64, base: 0 }), ArgumentError, /base.*0/],
    [() => fm.rope(t, { headSize: 64, linearScale: 0 }), ArgumentError, /linearScale/],
    [() => fm.rope(t, { headSize: 64, magnitude: Number.NaN }), ArgumentError, /magnitude/],
    [() => fm.rope(t, { headSize: 64, factors: five }), ShapeError, /5 values, expected 32/],
    [() => any.rope(t, { headSize: 64, pairing: 'odd' }), ArgumentError, /pairing.*"odd"/],
    [() => fm.embed(w, [0, 4]), ShapeError, /ids\[1\] is 4.*4 rows/],
    [() => fm.embed(w, [-1]), ShapeError, /ids\[0\] is -1/],
    [() => fm.embed(w, [0.5]), ShapeError, /ids\[0\] is 0.5/],
    [() => fm.embed(w, []), ArgumentError, /ids/],
    [() => any.embed(t, [0]), ArgumentError, /w must be a Weight, got Tensor/],
    [() => fm.add(x, five), ShapeError, /b, beside a: 5 values, expected 512/],
    [() => fm.addScaled(x, five, 1), ShapeError, /b, beside a: 5 values, expected 512/],
    [() => any.addScaled(x, x), ArgumentError, /scale.*undefined/],
    [() => any.addScaled(x, x, '2'), ArgumentError, /scale.*"2"/],
    [() => fm.addScaled(x, x, Number.NaN), ArgumentError, /scale.*NaN/],
    [() => fm.scale(x, Number.POSITIVE_INFINITY), ArgumentError, /factor.*Infinity/],
    [() => any.scale(x), ArgumentError, /factor.*undefined/],
    [() => any.scale([1], 2), ArgumentError, /x must be/],
    [() => fm.scale(new Float32Array(0), 2), ShapeError, /0 values/],
    [() => fm.scale(x, 2, { out: five }), ShapeError, /5.*512/],
    [() => any.gated(x, x, { act: 'tanh' }), ArgumentError, /act.*"tanh"/],
    [() => fm.multiply(x, five), ShapeError, /b, beside a: 5 values, expected 512/],
    [() => fm.causalConv(x, five, five), ShapeError, /5 values and state 5/],
    [() => fm.causalConv(x, x, five), ShapeError, /512 values and state 5/],
    [() => fm.causalConv(five, x, x.slice(0, 384)), ShapeError, /5 values.*128/],
    [() => fm.causalConv(x, x, x.slice(0, 384), { bias: five }), ShapeError, /bias: 5 values, expected 128/],
    [() => any.causalConv(x, x, x.slice(0, 384), { act: 'tanh' }), ArgumentError, /act.*"tanh"/],
    [() => any.causalConv(x, x, x.slice(0, 384), { act: 'clamped' }), ArgumentError, /act.*"clamped"/],
    [() => any.causalConv(x, x, [0]), ArgumentError, /state must be/],
    [() => fm.fusedMatmulMany([], x), ArgumentError, /weights/],
    [() => any.fusedMatmulMany([w, t], x), ArgumentError, /weights\[1\] must be a Weight, got Tensor/],
    [() => fm.fusedMatmulMany([w, wide], x), ShapeError, /512 columns.*256/],
    [() => fm.fusedMatmulMany([w, w], t, { out: [array] }), ShapeError, /1 entries.*2 weights/],
    [
      () => fm.fusedMatmulMany([w, w], t, { out: [new Float32Array(8), five] }),
      ShapeError,
      /out\[1\].*5 values, expected 8/,
    ],
    [() => any.fusedMatmulMany([w], t, { activation: 'int4' }), ArgumentError, /activation.*int4/],
    [() => fm.fusedMatmulMany([wide], t), ShapeError, /256 columns.*512/],
    [() => fm.fusedRmsNormMatmul([w], t, five), ShapeError, /5 values, expected 256/],
    [() => fm.fusedRmsNormMatmul([w], t, array, { eps: -1 }), ArgumentError, /eps/],
    [() => fm.fusedSwigluMatmul(w, t, five), ShapeError, /5 values.*512/],
    [() => fm.fusedFfn({ ...ffn, up: wide }, t), ShapeError, /4x512.*4x256/],
    [() => fm.fusedFfn({ ...ffn, down: w }, t), ShapeError, /4x256.*256x4/],
    [() => fm.fusedFfn({ ...ffn, norm: five }, t), ShapeError, /5 values, expected 256/],
    [() => fm.fusedFfn(ffn, five), ShapeError, /5 values.*256/],
    [() => fm.fusedAttentionScore(x, x), ArgumentError, /headSize/],
    [() => fm.fusedAttentionScore(x, five, { headSize: 64 }), ShapeError, /5 values.*64/],
    [() => fm.fusedAttentionScore(x, x, { headSize: 577 }), ShapeError, /576.*577/],
    [() => any.kvCache({ type: 'Q4_0', nPositions: 1, nKvHeads: 1, headSize: 32 }), ArgumentError, /Q4_0/],
    [() => fm.kvCache({ nPositions: 0, nKvHeads: 1, headSize: 32 }), ShapeError, /nPositions.*0/],
    [() => fm.kvCache({ nPositions: 1, nKvHeads: 1, headSize: 577 }), ShapeError, /577.*576/],
    [() => fm.kvCache({ type: 'Q8_0', nPositions: 1, nKvHeads: 1, headSize: 48 }), ShapeError, /48.*32/],
    [() => fm.kvCache({ nPositions: 2 ** 31, nKvHeads: 64, headSize: 128 }), MemoryError, /no room/],
    [() => cache.write(x, 5), ShapeError, /4 token\(s\) from position 5.*8/],
    [() => cache.write(x, -1), ShapeError, /-1/],
    [() => cache.write(five, 0), ShapeError, /5 values.*128/],
    [() => gone.write(five, 0), HandleError, /is freed/],
    [() => any.deltaNet(x, gates, x), ArgumentError, /state must be a Tensor/],
    [() => any.deltaNet(x, { ...gates, a: 3 }, t), ArgumentError, /gates\.a must be.*3/],
    [() => fm.deltaNet(x, gates, t), ShapeError, /2 rows for 1 heads.*multiples of 8/],
    [() => fm.deltaNet(x, gates, head, { nKeyHeads: 2 }), ShapeError, /nKeyHeads is 2.*1 value heads/],
    [() => fm.deltaNet(five, gates, head), ShapeError, /5 values.*24/],
    [() => fm.deltaNet(new Float32Array(48), gates, head), ShapeError, /gates\.alpha: 1 values, expected 2/],
    [
      () => fm.deltaNet(new Float32Array(24), gates, head, { gate: five }),
      ShapeError,
      /5 values, expected 8/,
    ],
    [() => fm.deltaNet(x, gates, head, { eps: -1 }), ArgumentError, /eps.*-1/],
    [() => any.flashAttention(t, cache, t), ArgumentError, /vCache must come from kvCache, got Tensor/],
    [() => fm.flashAttention(t, cache, q8), ShapeError, /Q8_0.*F16/],
    [() => fm.flashAttention(t, cache, gone), HandleError, /is freed/],
    [() => fm.flashAttention(t, cache, cache, { nHeads: 3 }), ShapeError, /3 heads.*2 KV heads/],
    [() => fm.flashAttention(x, cache, cache), ArgumentError, /nHeads/],
    [() => fm.flashAttention(t, cache, cache, { firstPosition: 7 }), ShapeError, /nPositions is 9.*8/],
    [() => fm.flashAttention(t, cache, cache, { softcap: -1 }), ArgumentError, /softcap.*-1/],
    [() => fm.flashAttention(t, cache, cache, { out: t }), ArgumentError, /overlaps/],
  ];
  for (const [call, kind, message] of cases) {
    assert.throws(call, (error) => {
      assert.ok(error instanceof kind, `${call}: ${error}`);
      assert.match(/** @type {Error} */ (error).message, message, String(call));
      return true;
    });
  }
  const { tensors, weights, handles } = fm.memory();
  assert.deepEqual(
    { tensors, weights, handles },
    { tensors: before.tensors, weights: before.weights, handles: before.handles },
  );
  assert.deepEqual(t.toArray(), x, 'no input was touched');
  fm.dispose();
  other.dispose();
  assert.throws(() => fm.softmax(x), HandleError);
  assert.throws(() => fm.kvCache({ nPositions: 1, nKvHeads: 1, headSize: 2 }), HandleError);
});

test('layer api: results outlive the growth of the memory, and a tensor that cannot be made leaves nothing', async () => {
  const fm = await createKernels();
  const x = gaussian(1 << 12, 28);
  const y = fm.softmax(x);
  const copy = y.slice();
  const t = fm.tensor({ nRows: 1, nCols: x.length, data: x });
  const size = fm.memory().bytes;
  fm.tensor({ nRows: 4096, nCols: 4096 });
  assert.ok(fm.memory().bytes > size);
  assert.deepEqual(y, copy);
  assert.deepEqual(fm.softmax(t).toArray(), copy);
  const { handles } = fm.memory();
  assert.throws(
    () => fm.embed(fm.weight({ type: 'F32', nRows: 1, nCols: 1 << 20 }), new Uint32Array(1 << 12)),
    MemoryError,
  );
  assert.equal(fm.memory().handles, handles + 1, 'the weight');
  const column = fm.weight({ type: 'F32', nRows: 1 << 20, nCols: 1 });
  const down = fm.weight({ type: 'F32', nRows: 1, nCols: 1 << 20 });
  const tokens = fm.tensor({ nRows: 1 << 10, nCols: 1 });
  const held = fm.memory();
  assert.throws(() => fm.fusedFfn({ gate: column, up: column, down }, tokens), MemoryError);
  assert.deepEqual([fm.memory().handles, fm.memory().tensors], [held.handles, held.tensors]);
  fm.dispose();
});
