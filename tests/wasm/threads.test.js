/**
 * Operations on several threads, including more than there are cores: the same bits as on one
 * thread, for every operation, instruction set and number of threads, and a check that threads do
 * take part.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { detectFeatures } from '../../js/wasm/features.js';
import { Kernels } from '../../js/wasm/kernels.js';
import { load } from '../../js/wasm/loader.js';
import * as operations from '../../js/wasm/operations.js';
import { gaussian, weight } from '../helpers/layer-api.js';
import { Prng } from '../helpers/prng.js';

/** @import { ModuleName } from '../../js/wasm/loader.js' */

/** FM_TEST_THREADS: fewer of them, for an engine that starts them slowly. */
const MOST = Number(process.env.FM_TEST_THREADS ?? 8);
/**
 * Numbers of threads, and ways to split work: 0 makes chunks of one item; 1 makes chunks of the
 * usual size, with a shorter one at the end.
 */
const WAYS = [
  [2, 0],
  [3, 1],
  [MOST, 0],
  [MOST, 1],
];
const features = detectFeatures();

/**
 * Modules with threads, or the reason why this engine cannot have them.
 * @type {{ name: ModuleName, skip: string | false }[]}
 */
const MODULES = [
  { name: 'simd128-mt', skip: features.simd ? false : 'no SIMD' },
  { name: 'relaxed-mt', skip: features.relaxedSimd ? false : `no relaxed SIMD in Node ${process.version}` },
  {
    name: 'relaxed-mt-64',
    skip: features.memory64 && features.relaxedSimd ? false : `no 64-bit memories in Node ${process.version}`,
  },
];

/**
 * Kernels with a pool, and the pool, with which any job can be split, however small.
 * @param {ModuleName} name @param {number} [threads]
 */
export async function open(name, threads = MOST) {
  const wasm = { [name]: new URL(`../../dist/fused-${name}.wasm`, import.meta.url) };
  const isa = name.startsWith('relaxed') ? 'relaxed' : 'simd128';
  const loaded = await load({ isa, wasm, threads, memory64: name.endsWith('-64') });
  const pool = loaded.pool ?? assert.fail(loaded.threadsReason);
  assert.equal(pool.failure, undefined);
  return { fm: new Kernels(loaded, 'int8', operations), pool, loaded };
}

/** @param {Float32Array | Uint8Array} values */
const bits = (values) => Buffer.from(values.buffer, values.byteOffset, values.byteLength);

/** Row counts around strips of 8 and tiles of 4, and fewer rows than threads. */
const ROWS = [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 33, 129];
const TOKENS = [1, 2, 3, 4, 5, 9, 17, 33, 130];
const ACTIVATIONS = /** @type {const} */ (['f32', 'int16', 'int8']);

/**
 * Every operation on its own inputs. The result is a list of arrays.
 * @type {Record<string, (fm: Kernels) => (Float32Array | Uint8Array)[]>}
 */
const OPERATIONS = {
  fusedMatmul: (fm) => {
    const results = [];
    for (const [i, type] of ['Q4_K', 'Q8_0', 'F16', 'F32', 'Q5_1'].entries()) {
      for (const nRows of ROWS) {
        const nCols = type === 'Q8_0' ? 288 : 512;
        const w = weight(fm, type, nRows, nCols, 1 + i);
        for (const nTokens of TOKENS.filter((n) => n < 40 || nRows < 20)) {
          const x = gaussian(nTokens * nCols, nTokens);
          for (const activation of ACTIVATIONS) results.push(fm.fusedMatmul(w, x, { activation }));
        }
        w.free();
      }
    }
    return results;
  },
  'fusedMatmul, several panels': (fm) =>
    ['Q4_K', 'Q6_K', 'BF16'].flatMap((type) => {
      const w = weight(fm, type, 21, 4352, 3);
      const results = [1, 3, 20].flatMap((nTokens) =>
        ACTIVATIONS.map((activation) => fm.fusedMatmul(w, gaussian(nTokens * 4352, 5), { activation })),
      );
      w.free();
      return results;
    }),
  'many targets': (fm) => {
    const targets = [1, 3, 8, 17, 40, 2].map((nRows, i) =>
      weight(fm, ['Q4_K', 'F16', 'Q6_K'][i % 3], nRows, 2304, i),
    );
    const norm = gaussian(2304, 9);
    return [1, 2, 7, 33, 168].flatMap((nTokens) => {
      const x = gaussian(nTokens * 2304, nTokens);
      return ACTIVATIONS.flatMap((activation) => [
        ...fm.fusedMatmulMany(targets, x, { activation }),
        ...fm.fusedRmsNormMatmul(targets, x, norm, { activation }),
      ]);
    });
  },
  'gated products': (fm) => {
    const [gate, up, down] = [
      weight(fm, 'Q4_K', 2304, 256, 1),
      weight(fm, 'Q4_K', 2304, 256, 2),
      weight(fm, 'Q6_K', 256, 2304, 3),
    ];
    const norm = gaussian(256, 4);
    return [1, 2, 5, 40].flatMap((nTokens) => [
      fm.fusedSwigluMatmul(down, gaussian(nTokens * 2304, 5), gaussian(nTokens * 2304, 6)),
      fm.fusedSwigluMatmul(down, gaussian(nTokens * 2304, 5), gaussian(nTokens * 2304, 6), {
        act: 'gelu',
        activation: 'f32',
      }),
      fm.fusedFfn({ gate, up, down, norm }, gaussian(nTokens * 256, 7), { residual: true }),
    ]);
  },
  fusedDequantMatmulQ4KLegacy: (fm) =>
    [1, 3, 19].map((nRows) => {
      const data = new Uint8Array(nRows * 2 * 140);
      new Prng(nRows).fill(data);
      const scales = gaussian(nRows * 2, 8);
      return fm.fusedDequantMatmulQ4KLegacy({ data, scales, nRows, nCols: 512 }, gaussian(3 * 512, 9));
    }),
  'dequantize and embed': (fm) =>
    ['Q4_K', 'Q8_0', 'F16', 'IQ4_NL', 'TQ1_0'].flatMap((type) => {
      const w = weight(fm, type, 37, 768, 11);
      return [fm.dequantize(w), fm.embed(w, [36, 0, 1, 7, 7, 35, 2])];
    }),
  quantize: (fm) => [
    ...['Q8_0', 'Q4_0', 'Q5_1'].map((type) => fm.quantize(type, gaussian(19 * 96, 12), 19, 96)),
    ...['Q4_K', 'Q6_K'].map((type) => fm.quantize(type, gaussian(5 * 512, 13), 5, 512)),
  ],
  'norms, softmax, rope': (fm) =>
    [1, 2, 7, 65].flatMap((nRows) => {
      const x = gaussian(nRows * 192, nRows);
      const [w, b] = [gaussian(192, 1), gaussian(192, 2)];
      return [
        fm.rmsNorm(x, w),
        fm.layerNorm(x, w, b),
        fm.softmax(x, { nCols: 192 }),
        fm.rope(x, { headSize: 64, nHeads: 3, position: 5 }),
        fm.rope(x, { headSize: 192, nHeads: 1, position: 5, pairing: 'halves' }),
      ];
    }),
  'add, scaled add, scale, gated': (fm) =>
    [1, 1023, 1024, 1025, 5000, 65_537].flatMap((n) => [
      fm.add(gaussian(n, 1), gaussian(n, 2)),
      fm.addScaled(gaussian(n, 1), gaussian(n, 2), -0.3),
      fm.scale(gaussian(n, 1), 62.2),
      fm.gated(gaussian(n, 1), gaussian(n, 2)),
      fm.gated(gaussian(n, 1), gaussian(n, 2), { act: 'gelu' }),
      fm.gated(gaussian(n, 1), gaussian(n, 2), { act: 'relu' }),
      fm.gated(gaussian(n, 1), gaussian(n, 2), { act: 'sigmoid' }),
    ]),
  'experts: choice, products, sums': (fm) => {
    const [gate, down] = [weight(fm, 'Q4_K', 8 * 96, 512, 1), weight(fm, 'MXFP4', 8 * 512, 96, 2)];
    return [1, 2, 33].flatMap((nTokens) =>
      ACTIVATIONS.flatMap((activation) => {
        const routing = fm.route(gaussian(8 * nTokens, 3), { nExperts: 8, nUsed: 2, normalize: true });
        const [inner] = fm.fusedMatmulExperts([gate], gaussian(512 * nTokens, 4), routing, { activation });
        const biases = [gaussian(8 * 512, 5)];
        const options = { act: /** @type {const} */ ('silu'), up: inner, biases, activation };
        const [out] = fm.fusedMatmulExperts([down], inner, routing, options);
        return [routing.weights, inner, out, fm.mixRows(out, routing)];
      }),
    );
  },
  'products of values, convolutions': (fm) =>
    [
      [1, 2048],
      [1, 33],
      [7, 2048],
      [65, 300],
    ].flatMap(([nTokens, n]) => {
      const x = gaussian(nTokens * n, 1);
      const [weight, bias] = [gaussian(n * 4, 2), gaussian(n, 3)];
      const states = [gaussian(n * 3, 4), gaussian(n * 3, 4)];
      return [
        fm.multiply(x, gaussian(x.length, 5)),
        fm.causalConv(x, weight, states[0]),
        fm.causalConv(x, weight, states[1], { bias, act: 'silu' }),
        ...states,
      ];
    }),
  ssmScan: (fm) => {
    const results = [];
    for (const [nHeads, nGroups, headSize, stateSize] of [
      [1, 1, 64, 16],
      [5, 1, 20, 64],
      [12, 4, 64, 128],
    ]) {
      const row = nHeads * headSize + 2 * nGroups * stateSize;
      const state = fm.tensor({ nRows: nHeads * stateSize, nCols: headSize });
      const a = gaussian(nHeads, 1).map((value) => -Math.abs(value));
      const [dtBias, d] = [gaussian(nHeads, 2), gaussian(nHeads, 3)];
      for (const nTokens of [1, 3, 16, 50]) {
        const steps = { dt: gaussian(nTokens * nHeads, 4), dtBias, a, d };
        results.push(fm.ssmScan(gaussian(nTokens * row, nTokens), steps, state, { nGroups }));
        results.push(state.toArray());
      }
      state.free();
    }
    return results;
  },
  fusedAttentionScore: (fm) =>
    [1, 3, 4, 5, 33].flatMap((nQ) =>
      [true, false].map((causal) =>
        fm.fusedAttentionScore(gaussian(nQ * 20, 1), gaussian(45 * 20, 2), { headSize: 20, causal }),
      ),
    ),
  deltaNet: (fm) => {
    const results = [];
    for (const [nKeyHeads, nValueHeads, keySize, valueSize] of [
      [1, 1, 8, 8],
      [2, 6, 32, 24],
      [4, 4, 64, 64],
      [3, 9, 16, 128],
    ]) {
      for (const nTokens of [1, 3, 12, 33, 70]) {
        const [n, nOut] = [nTokens * nValueHeads, nTokens * nValueHeads * valueSize];
        const state = fm.tensor({ nRows: nValueHeads * keySize, nCols: valueSize });
        const gates = {
          alpha: gaussian(n, 1),
          beta: gaussian(n, 2),
          dtBias: gaussian(nValueHeads, 3),
          a: gaussian(nValueHeads, 4).map((x) => -Math.abs(x)),
        };
        const qkv = gaussian(2 * nTokens * nKeyHeads * keySize + nOut, 5);
        const gate = gaussian(nOut, 6);
        results.push(fm.deltaNet(qkv, gates, state, { nKeyHeads, gate }), state.toArray());
        state.free();
      }
    }
    return results;
  },
  flashAttention: (fm) => {
    const results = [];
    const shapes = [
      { nHeads: 4, nKvHeads: 1, headSize: 64 },
      { nHeads: 12, nKvHeads: 4, headSize: 32 },
      { nHeads: 7, nKvHeads: 7, headSize: 48 },
      { nHeads: 72, nKvHeads: 8, headSize: 32 },
      { nHeads: 10, nKvHeads: 2, headSize: 20, types: ['F32'] },
    ];
    for (const { nHeads, nKvHeads, headSize, types = ['F32', 'F16', 'Q8_0'] } of shapes) {
      for (const type of types) {
        if (type === 'Q8_0' && headSize % 32 !== 0) continue;
        const cache = { type: /** @type {any} */ (type), nPositions: 150, nKvHeads, headSize };
        const [k, v] = [fm.kvCache(cache), fm.kvCache(cache)];
        const values = gaussian(150 * nKvHeads * headSize, 3);
        k.write(values, 0);
        // Some values are not finite: kernels then take other paths, and the heads beside them must
        // not change.
        if (type !== 'Q8_0') values[70 * nKvHeads * headSize + 3] = Number.POSITIVE_INFINITY;
        v.write(values, 0);
        for (const [nTokens, firstPosition, window] of [
          [1, 149, 0],
          [1, 40, 0],
          [1, 120, 33],
          [5, 60, 0],
          [70, 10, 0],
          [50, 77, 21],
        ]) {
          const q = gaussian(nTokens * nHeads * headSize, nTokens);
          results.push(fm.flashAttention(q, k, v, { nHeads, firstPosition, window }));
        }
        for (const handle of [k, v]) handle.free();
      }
    }
    return results;
  },
};

/** The instruction sets to compare in a module, if they were not compared in another. */
const SETS = /** @type {const} */ ({
  'simd128-mt': [{ isa: 'scalar' }, { isa: 'simd128' }],
  'relaxed-mt': [
    { isa: 'relaxed', dot: 'i16' },
    { isa: 'relaxed', dot: 'i32' },
  ],
  'relaxed-mt-64': [{ isa: 'relaxed', dot: 'i32' }],
});

for (const { name, skip } of MODULES) {
  for (const set of SETS[/** @type {'relaxed-mt'} */ (name)]) {
    test(`threads: every operation, ${name}, ${Object.values(set).join(' ')}`, { skip }, async (t) => {
      const { fm, pool } = await open(name);
      t.after(() => fm.dispose());
      fm.select(set);
      let compared = 0;
      for (const [operation, run] of Object.entries(OPERATIONS)) {
        pool.use(1);
        const expected = run(fm).map(bits);
        for (const [threads, forkWork] of WAYS) {
          pool.use(threads, forkWork);
          const got = run(fm).map(bits);
          assert.equal(got.length, expected.length);
          for (const [i, result] of got.entries()) {
            assert.ok(result.equals(expected[i]), `${operation}, result ${i}, ${threads} threads`);
          }
          compared += got.length;
        }
      }
      t.diagnostic(`${compared} results`);
    });
  }

  test(`threads: they take part, ${name}`, { skip }, async (t) => {
    const { fm, pool, loaded } = await open(name, 4);
    t.after(() => fm.dispose());
    assert.equal(fm.info.threads, 4);
    const w = weight(fm, 'Q4_K', 1024, 512, 1);
    const x = gaussian(64 * 512, 2);
    const { memory } = loaded.instance;
    // A working thread fills the scratch memory before its stack: the strip of codes.
    const before = new Uint8Array(memory.buffer).slice();
    assert.equal(pool.stacks.length, 3);
    const worked = () => {
      const now = new Uint8Array(memory.buffer);
      return pool.stacks.filter((top) => {
        const [start, end] = [top - 0x10000 - 450_000, top - 0x10000];
        for (let i = start; i < end; i++) if (now[i] !== before[i]) return true;
        return false;
      }).length;
    };
    for (const stack of pool.stacks)
      new Uint8Array(memory.buffer).fill(0xa5, stack - 0x10000 - 100_000, stack - 0x10000);
    before.set(new Uint8Array(memory.buffer).subarray(0, before.length));
    for (let run = 0; run < 2000 && worked() < 3; run++) fm.fusedMatmul(w, x);
    assert.equal(worked(), 3);
  });
}

test('threads: thousands of small jobs, one after another', { timeout: 240_000 }, async (t) => {
  const { fm, pool } = await open(features.relaxedSimd ? 'relaxed-mt' : 'simd128-mt');
  t.after(() => fm.dispose());
  const prng = new Prng(20);
  const jobs = Array.from({ length: 60 }, (_, i) => {
    const [nRows, nTokens] = [prng.int(1, 40), prng.int(1, 6)];
    const w = weight(fm, prng.pick(['Q4_K', 'Q8_0', 'F16']), nRows, 256, i);
    const x = fm.tensor({ nRows: nTokens, nCols: 256, data: gaussian(nTokens * 256, i) });
    const out = fm.tensor({ nRows: nTokens, nCols: nRows });
    const y = fm.tensor({ nRows: nTokens, nCols: 256 });
    const activation = prng.pick(ACTIVATIONS);
    const runs = [
      () => fm.fusedMatmul(w, x, { out, activation }).toArray(),
      () => fm.rmsNorm(x, undefined, { out: y }).toArray(),
      () => fm.gated(x, x, { out: y }).toArray(),
    ];
    const run = runs[i % 6 < 4 ? 0 : (i % 6) - 3];
    pool.use(1);
    return { run, expected: bits(run()) };
  });
  const count = Number(process.env.FM_STRESS ?? 20_000);
  for (let i = 0; i < count; i++) {
    if (i % 16 === 0) pool.use(prng.int(1, MOST), 0);
    // Sometimes long enough for threads to fall asleep.
    if (i % 500 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    const { run, expected } = prng.pick(jobs);
    assert.ok(bits(run()).equals(expected), `job ${i}`);
  }
  t.diagnostic(`ran: up to ${MOST} threads in Node ${process.versions.node}`);
});
