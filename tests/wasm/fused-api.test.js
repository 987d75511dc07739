/**
 * The JavaScript API of the fused operations: products compared with the sequences they replace,
 * attention with float64; arrays and tensors as inputs and as outputs.
 */
import assert from 'node:assert/strict';
import { KvCache, ShapeError } from '../../js/layer-index.js';
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
