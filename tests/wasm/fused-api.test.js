/**
 * The JavaScript API of the fused operations: products compared with the sequences they replace,
 * attention with float64; arrays and tensors as inputs and as outputs.
 */
import assert from 'node:assert/strict';
import { ArgumentError, FmError, KvCache, ShapeError } from '../../js/layer-index.js';
import {
  bothKinds,
  close,
  everywhere,
  gaussian,
  softmax,
  sum,
  toArray,
  weight,
} from '../helpers/layer-api.js';

/** @import { Tensor } from '../../js/layer-index.js' */
/** @import { Floats } from '../helpers/layer-api.js' */

everywhere('fused products', (fm) => {
  const [nTokens, nCols] = [3, 512];
  const weights = [
    weight(fm, 'Q4_K', 6, nCols, 7),
    weight(fm, 'Q8_0', 9, nCols, 8),
    weight(fm, 'F32', 2, nCols, 9),
  ];
  const x = gaussian(nTokens * nCols, 10);
  const norm = gaussian(nCols, 11).map((v) => 1 + v / 4);
  const xt = fm.tensor({ nRows: nTokens, nCols, data: x });
  const normed = fm.rmsNorm(x, norm, { eps: 1e-3 });
  for (const activation of /** @type {const} */ (['f32', 'int16', 'int8'])) {
    for (const [
      what,
      from,
      call,
    ] of /** @type {[string, Float32Array, (x: any, options: object) => Floats[]][]} */ ([
      ['many', x, (at, o) => fm.fusedMatmulMany(weights, at, { activation, ...o })],
      [
        'rmsnorm',
        normed,
        (at, o) => fm.fusedRmsNormMatmul(weights, at, norm, { eps: 1e-3, activation, ...o }),
      ],
    ])) {
      const alone = weights.map((w) => fm.fusedMatmul(w, from, { activation }));
      const arrays = call(x, {});
      arrays.forEach((y, i) => {
        close(y, alone[i], `${what}, ${activation}`);
      });
      const tensors = /** @type {Tensor[]} */ (call(xt, {}));
      assert.deepEqual(
        tensors.map((y) => [y.nRows, y.nCols]),
        [
          [3, 6],
          [3, 9],
          [3, 2],
        ],
      );
      assert.deepEqual(tensors.map(toArray), arrays);
      const out = [new Float32Array(18), fm.tensor({ nRows: 3, nCols: 9 }), new Float32Array(6)];
      const given = call(x, { out });
      given.forEach((y, i) => {
        assert.equal(y, out[i]);
      });
      assert.deepEqual(given.map(toArray), arrays, 'arrays and tensors mixed');
    }
    assert.notDeepEqual(
      fm.fusedRmsNormMatmul([weights[2]], x, norm, { eps: 0 }),
      fm.fusedRmsNormMatmul([weights[2]], x, norm, { eps: 0.5 }),
    );

    const [gate, up] = [gaussian(x.length, 12), gaussian(x.length, 13)];
    for (const act of /** @type {const} */ (['silu', 'gelu', 'relu'])) {
      const expected = fm.fusedMatmul(weights[0], fm.gated(gate, up, { act }), { activation });
      const call = (/** @type {any} */ at, /** @type {object} */ o) =>
        fm.fusedSwigluMatmul(weights[0], at, up, { act, activation, ...o });
      bothKinds(fm, gate, nCols, call, expected, 6, { what: `swiglu, ${act}`, inPlace: false });
    }
  }
});

everywhere('fusedFfn', (fm) => {
  const [nTokens, nEmbd, nFf] = [2, 256, 512];
  const parts = {
    gate: weight(fm, 'Q4_K', nFf, nEmbd, 14),
    up: weight(fm, 'Q5_K', nFf, nEmbd, 15),
    down: weight(fm, 'Q6_K', nEmbd, nFf, 16),
  };
  const x = gaussian(nTokens * nEmbd, 17);
  const norm = gaussian(nEmbd, 18);
  for (const residual of [false, true]) {
    for (const normed of [norm, null]) {
      const act = residual ? 'gelu' : 'silu';
      const h = normed ? fm.rmsNorm(x, normed, { eps: 0.01 }) : x;
      const inner = fm.gated(fm.fusedMatmul(parts.gate, h), fm.fusedMatmul(parts.up, h), { act });
      const product = fm.fusedMatmul(parts.down, inner);
      const expected = residual ? fm.add(product, x) : product;
      const call = (/** @type {any} */ at, /** @type {object} */ o) =>
        fm.fusedFfn({ ...parts, norm: normed }, at, { eps: 0.01, act, residual, ...o });
      bothKinds(fm, x, nEmbd, call, expected, nEmbd, { what: `ffn, residual ${residual}` });
    }
  }
});

everywhere('experts', (fm) => {
  const [nTokens, nExperts, nEmbd, nFf] = [5, 6, 256, 64];
  const [gate, up] = [1, 2].map((seed) => weight(fm, 'Q4_K', nExperts * nFf, nEmbd, seed));
  const down = weight(fm, 'Q8_0', nExperts * nEmbd, nFf, 3);
  const [gateBias, downBias] = [gaussian(nExperts * nFf, 4), gaussian(nExperts * nEmbd, 5)];
  const x = gaussian(nTokens * nEmbd, 6);
  const logits = gaussian(nTokens * nExperts, 7);
  const [bias, act] = [gaussian(nExperts, 8), /** @type {const} */ ('gelu')];
  const options = { nUsed: 2, scores: /** @type {const} */ ('sigmoid'), normalize: true, scale: 2, bias };
  const routing = fm.route(logits, { nExperts, ...options });
  const ofTensor = fm.route(fm.tensor({ nRows: nTokens, nCols: nExperts, data: logits }), options);
  assert.deepEqual(ofTensor, routing);
  assert.deepEqual([routing.nTokens, routing.ends.length, routing.rows.length], [5, 6, 10]);
  const expected = new Float32Array(x.length);
  for (let t = 0; t < nTokens; t++) {
    const scores = Array.from({ length: nExperts }, (_, e) => 1 / (1 + Math.exp(-logits[t * nExperts + e])));
    const ranks = scores.map((score, e) => score + bias[e]);
    const chosen = [...ranks.keys()].sort((a, b) => ranks[b] - ranks[a]).slice(0, 2);
    const total = sum(chosen.map((e) => scores[e]));
    const h = x.subarray(t * nEmbd, (t + 1) * nEmbd);
    for (const e of chosen) {
      const ofGate = fm.fusedMatmul(gate.rows(e * nFf, nFf), h).map((v, i) => v + gateBias[e * nFf + i]);
      const inner = fm.gated(ofGate, fm.fusedMatmul(up.rows(e * nFf, nFf), h), { act });
      const y = fm.fusedMatmul(down.rows(e * nEmbd, nEmbd), inner);
      for (const [i, v] of y.entries())
        expected[t * nEmbd + i] += ((2 * scores[e]) / total) * (v + downBias[e * nEmbd + i]);
    }
  }
  const xt = fm.tensor({ nRows: nTokens, nCols: nEmbd, data: x });
  for (const from of [x, xt]) {
    const biases = [gateBias, undefined];
    const [g, u] = fm.fusedMatmulExperts([gate, up], from, routing, { biases });
    const [y] = fm.fusedMatmulExperts([down], g, routing, { act, up: u, biases: [downBias] });
    close(fm.mixRows(y, routing), expected, 'a block of experts');
  }
  const out = [fm.tensor({ nRows: 10, nCols: nFf }), new Float32Array(10 * nFf)];
  const given = fm.fusedMatmulExperts([gate, up], x, routing, { out });
  assert.deepEqual([given[0] === out[0], given[1] === out[1]], [true, true]);
  const any = /** @type {any} */ (fm);
  for (const [call, type, message] of /** @type {[() => unknown, any, RegExp][]} */ ([
    [() => any.route(logits, { nUsed: 2 }), ArgumentError, /nExperts is needed/],
    [() => fm.route(logits, { nExperts, nUsed: 7 }), ShapeError, /nUsed .* 1 to 6, got 7/],
    [() => fm.route(logits, { nExperts, nUsed: 0 }), ShapeError, /nUsed .*got 0/],
    [() => fm.route(logits, { nExperts: 7, nUsed: 1 }), ShapeError, /30 values.*7 /],
    [() => fm.route(logits, { nExperts: 1025, nUsed: 1 }), ShapeError, /nExperts.* 1024, got 1025/],
    [
      () => fm.route(logits, { nExperts, nUsed: 1, nGroups: 4 }),
      ShapeError,
      /nGroups is 4, which does not divide 6 experts/,
    ],
    [() => fm.route(logits, { nExperts, nUsed: 3, nGroups: 3, nGroupsUsed: 1 }), ShapeError, /1 to 2, got 3/],
    [() => fm.route(logits, { nExperts, nUsed: 1, bias: x }), ShapeError, /bias: 1280 values, expected 6/],
    [() => any.route(logits, { nExperts, nUsed: 1, scores: 'max' }), ArgumentError, /scores.*"max"/],
    [() => any.fusedMatmulExperts([gate], x), ArgumentError, /routing must come from route/],
    [() => fm.fusedMatmulExperts([], x, routing), ArgumentError, /weights/],
    [() => fm.fusedMatmulExperts([gate, down], x, routing), ShapeError, /64 columns.*256/],
    [() => fm.fusedMatmulExperts([gate.rows(0, 5)], x, routing), ShapeError, /5 rows.*6 experts/],
    [() => fm.fusedMatmulExperts([gate], gaussian(256, 1), routing), ShapeError, /1 row.*5 tokens/],
    [() => fm.fusedMatmulExperts([gate], x, routing, { act }), ShapeError, /5 row.*10 grouped rows/],
    [() => fm.fusedMatmulExperts([gate], x, routing, { up: x }), ArgumentError, /up needs act/],
    [
      () => fm.fusedMatmulExperts([gate], x, routing, { biases: [bias] }),
      ShapeError,
      /biases\[0\]: 6 values, expected 384/,
    ],
    [() => fm.fusedMatmulExperts([gate], x, routing, { biases: [] }), ShapeError, /biases has 0 entries/],
    [() => fm.mixRows(gaussian(11, 1), routing), ShapeError, /11 values.*10 rows/],
    [() => fm.mixRows(fm.tensor({ nRows: 5, nCols: 20 }), routing), ShapeError, /5 row.*the routing has 10/],
    [() => fm.mixRows(x, { ...routing, nTokens: 2 }), FmError, /mixRows/],
  ]))
    assert.throws(
      call,
      (/** @type {any} */ error) => error instanceof type && message.test(error.message),
      String(message),
    );
});

/**
 * Attention in float64, for one head.
 * @param {number[]} q @param {number[][]} k @param {number[][]} v
 * @param {(j: number) => boolean} sees @param {number} scale @param {number} softcap
 */
function attend(q, k, v, sees, scale, softcap) {
  const scores = k.map((key, j) => {
    const score = scale * sum(key.map((value, i) => value * q[i]));
    return sees(j) ? (softcap ? softcap * Math.tanh(score / softcap) : score) : Number.NEGATIVE_INFINITY;
  });
  const p = softmax(scores);
  return q.map((_, i) => sum(p.map((share, j) => share * v[j][i])));
}

everywhere('attention', (fm) => {
  const [nQ, nK, size] = [3, 5, 20];
  const [q, k] = [gaussian(nQ * size, 19), gaussian(nK * size, 20)];
  for (const causal of [false, true]) {
    for (const scale of [undefined, 0.7]) {
      const expected = Array.from({ length: nQ }, (_, i) =>
        softmax(
          Array.from({ length: nK }, (_row, j) => {
            const score = sum(Array.from({ length: size }, (_col, c) => q[i * size + c] * k[j * size + c]));
            return causal && j > i + nK - nQ
              ? Number.NEGATIVE_INFINITY
              : score * (scale ?? 1 / Math.sqrt(size));
          }),
        ),
      ).flat();
      const call = (/** @type {any} */ at, /** @type {object} */ o) =>
        fm.fusedAttentionScore(at, k, { headSize: size, scale, causal, ...o });
      bothKinds(fm, q, size, call, expected, nK, {
        what: 'scores',
        inPlace: false,
      });
    }
  }

  const [nHeads, nKvHeads, headSize, nPositions] = [4, 2, 32, 11];
  const [first, nTokens] = [6, 3];
  const keys = gaussian(nPositions * nKvHeads * headSize, 21);
  const values = gaussian(keys.length, 22);
  const queries = gaussian(nTokens * nHeads * headSize, 23);
  for (const type of /** @type {const} */ (['F32', 'F16', 'Q8_0'])) {
    const caches = [keys, values].map((data) => {
      const cache = fm.kvCache({ type, nPositions, nKvHeads, headSize });
      assert.ok(cache instanceof KvCache);
      const cols = nKvHeads * headSize;
      cache.write(data.subarray(0, 4 * cols), 0);
      const rest = fm.tensor({ nRows: nPositions - 4, nCols: cols, data: data.subarray(4 * cols) });
      cache.write(rest, 4);
      return cache;
    });
    /* The contents of the cache, read with the module's own converters, which are tested
     * elsewhere. */
    const stored = [keys, values].map((data) => {
      if (type === 'F32') return data;
      if (type === 'F16') return data.map((v) => roundToF16(v));
      return fm.dequantize(
        fm.weight({ type, nRows: 1, nCols: data.length, data: fm.quantize(type, data, 1, data.length) }),
      );
    });
    const row = (/** @type {Float32Array} */ data, /** @type {number} */ at) => [
      ...data.subarray(at * headSize, (at + 1) * headSize),
    ];
    for (const options of [
      {},
      { causal: false },
      { causal: false, nPositions },
      { window: 3 },
      { causal: false, nPositions, window: 3 },
      { softcap: 2, scale: 0.9 },
      { nPositions: 4 },
    ]) {
      const seen = options.nPositions ?? first + nTokens;
      const expected = Array.from({ length: nTokens * nHeads }, (_, i) => {
        const [t, h] = [Math.floor(i / nHeads), Math.floor((i % nHeads) / (nHeads / nKvHeads))];
        const list = (/** @type {Float32Array} */ data) =>
          Array.from({ length: seen }, (_pos, j) => row(data, j * nKvHeads + h));
        const sees = (/** @type {number} */ j) =>
          options.causal === false
            ? Math.abs(j - first - t) <= Math.floor((options.window ?? 2 * seen) / 2)
            : j <= first + t && (!options.window || j > first + t - options.window);
        return attend(
          row(queries, i),
          list(stored[0]),
          list(stored[1]),
          sees,
          options.scale ?? headSize ** -0.5,
          options.softcap ?? 0,
        );
      }).flat();
      const [kCache, vCache] = caches;
      const call = (/** @type {any} */ at, /** @type {object} */ o) =>
        fm.flashAttention(at, kCache, vCache, { nHeads, firstPosition: first, ...options, ...o });
      const nCols = nHeads * headSize;
      bothKinds(fm, queries, nCols, call, expected, nCols, {
        what: `flash ${type} ${JSON.stringify(options)}`,
        inPlace: false,
      });
    }
    // A text in the middle of the caches, and the text alone.
    const [kCache, vCache] = caches;
    const alone = [keys, values].map((data) => {
      const cache = fm.kvCache({ type, nPositions: nPositions - 2, nKvHeads, headSize });
      cache.write(data.subarray(2 * nKvHeads * headSize), 0);
      return cache;
    });
    for (const options of [{}, { causal: false, window: 3 }]) {
      const at = { nHeads, nPositions: 3, ...options };
      assert.deepEqual(
        fm.flashAttention(queries, kCache, vCache, { ...at, start: 2 }),
        fm.flashAttention(queries, alone[0], alone[1], at),
      );
    }
    assert.throws(
      () => fm.flashAttention(queries, kCache, vCache, { nHeads, nPositions: nPositions - 1, start: 2 }),
      (error) => error instanceof ShapeError && / have \d+ from 2 on/.test(error.message),
    );
    for (const cache of [...caches, ...alone]) cache.free();
    assert.ok(caches[0].freed);
  }
});

/** @param {number} value */
function roundToF16(value) {
  const step = 2 ** (Math.max(-14, Math.floor(Math.log2(Math.abs(value)))) - 10);
  const low = Math.floor(value / step);
  const rest = value / step - low;
  return (rest > 0.5 || (rest === 0.5 && low % 2 !== 0) ? low + 1 : low) * step;
}

everywhere('sinks', (fm) => {
  const [nTokens, nHeads, headSize] = [3, 4, 32];
  const cache = fm.kvCache({ type: 'F32', nPositions: nTokens, nKvHeads: 2, headSize });
  cache.write(gaussian(nTokens * 2 * headSize, 1), 0);
  const q = gaussian(nTokens * nHeads * headSize, 2);
  const without = fm.flashAttention(q, cache, cache, { nHeads });
  const none = new Float32Array(nHeads).fill(Number.NEGATIVE_INFINITY);
  assert.deepEqual(fm.flashAttention(q, cache, cache, { nHeads, sinks: none }), without);
  // The first token sees itself only: its weight is e^score / (e^score + e^sink).
  const sinks = fm.tensor({ nRows: 1, nCols: nHeads, data: Float32Array.of(0, 1, -2, 3) });
  const y = fm.flashAttention(q, cache, cache, { nHeads, scale: 0, sinks });
  const expected = [0, 1, -2, 3].flatMap((sink, h) =>
    [...without.subarray(h * headSize, (h + 1) * headSize)].map((value) => value / (1 + Math.exp(sink))),
  );
  close(y.subarray(0, expected.length), expected, 'a sink');
  assert.throws(
    () => fm.flashAttention(q, cache, cache, { nHeads, sinks: q }),
    (/** @type {any} */ error) =>
      error instanceof ShapeError && /sinks: 384 values, expected 4/.test(error.message),
  );
});
