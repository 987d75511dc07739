/**
 * fused_attention_score and fm_flash_attention of every module and instruction set, compared with
 * float64: shapes, masks, KV types, poison, special values, memory, arguments.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { floatsOf } from '../helpers/activations.js';
import {
  attend,
  attentionScore,
  checkWithin,
  KV,
  makeCache,
  makeCase,
  makeShape,
  referenceAttention,
  referenceWeights,
  seenBy,
} from '../helpers/attention.js';
import { once } from '../helpers/drawn.js';
import { Prng } from '../helpers/prng.js';
import { openModules, STATUS } from '../helpers/raw.js';

/** @import { Case, Shape } from '../helpers/attention.js' */
/** @import { RawModule } from '../helpers/raw.js' */

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`attention: ${name} module`, { skip: reason }, () => {});
/** One variant of each instruction set, since attention does not use the int8 dot. */
const variants = modules.flatMap((module) =>
  module.variants
    .filter(({ dot }) => dot === 0)
    .map((variant) => ({ module, variant, label: variant.label })),
);

/**
 * @param {string} name
 * @param {(module: RawModule, label: string) => void} body  run for every instruction set
 */
function everywhere(name, body) {
  test(name, async (t) => {
    for (const { module, variant, label } of variants) {
      await t.test(label, () => {
        module.select(variant);
        body(module, label);
      });
    }
  });
}

/** @param {number} n @param {Prng} prng @param {number} [sigma] */
const gaussian = (n, prng, sigma = 1) => floatsOf(n, () => sigma * prng.gaussian());

/**
 * @param {Float32Array} q @param {Float32Array} k @param {number} headSize @param {number} scale
 * @param {number} causal
 */
function referenceScores(q, k, headSize, scale, causal) {
  const [nQ, nK] = [q.length / headSize, k.length / headSize];
  const out = new Float64Array(nQ * nK);
  const bound = new Float64Array(nQ * nK);
  for (let i = 0; i < nQ; i++) {
    const end = causal ? Math.max(0, i + nK - nQ + 1) : nK;
    const key = (/** @type {number} */ j) => k.subarray(j * headSize, (j + 1) * headSize);
    const row = q.subarray(i * headSize, (i + 1) * headSize);
    const { p, eta, gamma } = referenceWeights(row, key, 0, end, { scale, softcap: 0 });
    const drift = p.reduce((sum, w, j) => sum + w * eta[j], gamma);
    p.forEach((w, j) => {
      out[i * nK + j] = w;
      bound[i * nK + j] = w * (eta[j] + drift) + 2 ** -140;
    });
  }
  return { out, bound };
}

/* Attention scores: basic tests. */

everywhere('test_fused_attention_score_properties', (module) => {
  const prng = new Prng(1);
  for (const causal of [0, 1]) {
    const [nQ, nK, headSize] = [5, 9, 64];
    const q = gaussian(nQ * headSize, prng);
    const k = gaussian(nK * headSize, prng);
    const scores = attentionScore(module, q, k, headSize, 0.125, causal);
    for (let i = 0; i < nQ; i++) {
      const row = scores.subarray(i * nK, (i + 1) * nK);
      for (const p of row) assert.ok(p >= 0 && p <= 1, `weight ${p}`);
      const sum = row.reduce((a, b) => a + b, 0);
      assert.ok(Math.abs(sum - 1) < 1e-6, `row ${i} sums to ${sum}`);
    }
  }
});

everywhere('test_fused_attention_score_no_mask', (module) => {
  const prng = new Prng(2);
  const same = new Float32Array(4 * 8).fill(0.5);
  for (const p of attentionScore(module, same, same, 8, 1, 0)) assert.ok(Math.abs(p - 0.25) < 1e-7);
  const [q, k] = [gaussian(4 * 32, prng), gaussian(4 * 32, prng)];
  const scores = attentionScore(module, q, k, 32, 1 / Math.sqrt(32), 0);
  for (const p of scores) assert.ok(p > 0, 'nothing is masked');
  checkWithin(scores, referenceScores(q, k, 32, 1 / Math.sqrt(32), 0), 'no mask');
});

everywhere('test_fused_attention_score_with_causal_mask', (module) => {
  const prng = new Prng(3);
  for (const [nQ, nK] of [
    [6, 6],
    [3, 8],
    [8, 3],
  ]) {
    const [q, k] = [gaussian(nQ * 16, prng), gaussian(nK * 16, prng)];
    const scores = attentionScore(module, q, k, 16, 0.25, 1);
    for (let i = 0; i < nQ; i++) {
      for (let j = 0; j < nK; j++) {
        const masked = j > i + nK - nQ;
        assert.equal(
          Object.is(scores[i * nK + j], 0),
          masked,
          `${nQ} x ${nK}: [${i}][${j}] ${scores[i * nK + j]}`,
        );
      }
    }
    checkWithin(scores, referenceScores(q, k, 16, 0.25, 1), `${nQ} x ${nK}`);
  }
});

everywhere('fused_attention_score: sizes', (module) => {
  const prng = new Prng(4);
  for (const headSize of [1, 2, 3, 4, 5, 7, 8, 12, 20, 33, 64, 80, 100, 128, 255, 256, 576]) {
    for (const [nQ, nK] of [
      [1, 1],
      [2, 3],
      [5, 31],
      [4, 32],
      [3, 33],
      [9, 67],
    ]) {
      const [q, k] = [gaussian(nQ * headSize, prng, 2), gaussian(nK * headSize, prng)];
      const scale = prng.pick([1 / Math.sqrt(headSize), 1, -0.5, 0]);
      const causal = prng.int(0, 1);
      const scores = attentionScore(module, q, k, headSize, scale, causal);
      checkWithin(
        scores,
        referenceScores(q, k, headSize, scale, causal),
        `${nQ} x ${nK} x ${headSize}, scale ${scale}, causal ${causal}`,
      );
    }
  }
});

everywhere('fused_attention_score: large scores, NaN and Inf', (module) => {
  const one = (/** @type {number[]} */ keys, query = 1) => [
    ...attentionScore(module, Float32Array.of(query), Float32Array.from(keys), 1, 1, 0),
  ];
  assert.deepEqual(one([1e30, -1e30, 5]), [1, 0, 0]);
  assert.deepEqual(one([-1e38, -1e38]), [0.5, 0.5]);
  assert.deepEqual(one([-Infinity, 3, -Infinity]), [0, 1, 0]);
  assert.deepEqual(one([-Infinity, -Infinity]), [0, 0], 'a row of -Inf counts as masked');
  for (const special of [NaN, Infinity]) {
    const scores = attentionScore(module, Float32Array.of(1, 1, 1), Float32Array.of(1, 2, special), 1, 1, 1);
    const e = 1 / (1 + Math.E);
    assert.ok(
      Math.abs(scores[3] - e) < 1e-6 && Math.abs(scores[4] - 1 + e) < 1e-6,
      'a masked key changes nothing',
    );
    assert.ok(Object.is(scores[5], 0) && Object.is(scores[0], 1));
    assert.ok(scores.subarray(6).some(Number.isNaN), `a visible ${special} makes NaN`);
    const queries = attentionScore(module, Float32Array.of(special, 1), Float32Array.of(1, 1), 1, 1, 0);
    assert.ok(Number.isNaN(queries[0]) && queries[2] === 0.5, 'only the row of its own');
  }
});

/* Flash attention. */

/** @type {Partial<Shape>[]} */
const GROUPS = [
  { nHeads: 1, nKvHeads: 1 },
  { nHeads: 4, nKvHeads: 4 },
  { nHeads: 6, nKvHeads: 3 },
  { nHeads: 9, nKvHeads: 3 },
  { nHeads: 8, nKvHeads: 2 },
  { nHeads: 5, nKvHeads: 1 },
  { nHeads: 16, nKvHeads: 2 },
  { nHeads: 36, nKvHeads: 9 },
];

const HEAD_SIZES = [
  1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 20, 31, 33, 36, 40, 72, 80, 100, 128, 160, 192, 255, 256, 576,
];

/** @param {Case} made @param {string} name */
const describe = ({ shape: s }, name) =>
  `${name}: ${s.nTokens} tokens, ${s.nHeads}/${s.nKvHeads} heads of ${s.headSize}, ${s.nPositions} positions from ` +
  `${s.firstPosition}, type ${s.kvType}, causal ${s.causal}, window ${s.window}, softcap ${s.softcap}`;

/** @param {() => Iterable<Case>} cases  made when the test runs @param {string} name */
function checkCases(cases, name) {
  const prepared = once(() => [...cases()].map((made) => ({ made, reference: referenceAttention(made) })));
  everywhere(`flash attention: ${name}`, (module, label) => {
    for (const { made, reference } of prepared()) {
      const { status, y } = attend(module, made);
      const what = describe(made, label);
      assert.equal(status, STATUS.OK, what);
      checkWithin(y, reference, what);
    }
  });
}

checkCases(
  () =>
    Object.values(KV).flatMap((kvType) => {
      const prng = new Prng(10 + kvType);
      return GROUPS.flatMap((group) =>
        [1, 2, 7].flatMap((nTokens) =>
          [1, 7, 16, 17, 33, 70].map((nPositions) => {
            const headSize = prng.pick([32, 64, 96]);
            const causal = prng.int(0, 1);
            const firstPosition = Math.max(0, nPositions - nTokens);
            return makeCase(
              makeShape({ ...group, nTokens, nPositions, headSize, causal, firstPosition, kvType }),
              prng,
            );
          }),
        ),
      );
    }),
  'groups of heads and lengths',
);

checkCases(
  () =>
    HEAD_SIZES.flatMap((headSize) => {
      const prng = new Prng(1000 + headSize);
      const types = headSize % 32 === 0 ? Object.values(KV) : [KV.F32, KV.F16];
      return types.flatMap((kvType) =>
        [1, 3].map((nTokens) =>
          makeCase(
            makeShape({ nHeads: 4, nKvHeads: prng.pick([1, 4]), headSize, nTokens, nPositions: 21, kvType }),
            prng,
          ),
        ),
      );
    }),
  'head sizes 1..576',
);

checkCases(function* () {
  const prng = new Prng(20);
  for (const kvType of Object.values(KV)) {
    for (const nTokens of [1, 5, 13]) {
      for (const window of [0, 1, 5, 32, 100]) {
        for (const softcap of [0, 30]) {
          for (const [causal, firstPosition] of [
            [1, 0],
            [1, 40],
            [1, 4000000000],
            [0, 3],
            [0, 58],
            [0, 4000000000],
          ]) {
            const options = { kvType, nTokens, window, softcap, causal, firstPosition };
            yield makeCase(makeShape({ ...options, nPositions: 61, headSize: 32 }), prng, { q: 3 });
          }
        }
      }
    }
  }
}, 'masks, windows, offsets and soft caps');

checkCases(
  () =>
    [1, 4].flatMap((nTokens) =>
      Object.values(KV).flatMap((kvType) => {
        const prng = new Prng(30);
        const shape = { nTokens, kvType, nPositions: 100, headSize: 64 };
        return [
          makeCase(makeShape(shape), prng, { q: 100 }),
          makeCase(makeShape(shape), prng, { q: 1e-30, v: 1e-6 }),
          makeCase(makeShape({ ...shape, scale: 0 }), prng),
          makeCase(makeShape({ ...shape, scale: -1 }), prng),
          makeCase(makeShape({ ...shape, softcap: 0.01 }), prng, { q: 100 }),
        ];
      }),
    ),
  'large logits, tiny values, scales',
);

checkCases(
  () => [
    makeCase(
      makeShape({ nTokens: 70, nPositions: 70, causal: 1, nHeads: 6, nKvHeads: 2, headSize: 32 }),
      new Prng(40),
    ),
    makeCase(
      makeShape({ nTokens: 37, nPositions: 100, causal: 1, firstPosition: 63, window: 9 }),
      new Prng(41),
    ),
    makeCase(
      makeShape({ nTokens: 90, nPositions: 90, window: 9, nHeads: 3, nKvHeads: 1, headSize: 32 }),
      new Prng(43),
    ),
    makeCase(
      makeShape({ nTokens: 37, nPositions: 200, firstPosition: 101, window: 128, kvType: KV.F16 }),
      new Prng(44),
    ),
    makeCase(
      makeShape({ nTokens: 300, nPositions: 300, causal: 1, nHeads: 2, nKvHeads: 1, kvType: 1 }),
      new Prng(42),
    ),
  ],
  'prompt blocks',
);

checkCases(function* () {
  const prng = new Prng(60);
  for (const kvType of Object.values(KV)) {
    for (const [nTokens, nHeads, nKvHeads] of [
      [1, 4, 2],
      [1, 9, 3],
      [1, 72, 8],
      [2, 5, 1],
      [7, 6, 3],
      [70, 8, 2],
    ]) {
      for (const [window, softcap, causal] of [
        [0, 0, 1],
        [9, 0, 1],
        [0, 5, 0],
      ]) {
        // Sinks far below and far above the scores, and near them.
        const sinks = Float32Array.from(
          { length: nHeads },
          (_, h) => [0, -30, 3, 12][h % 4] * prng.gaussian(),
        );
        const options = { kvType, nTokens, nHeads, nKvHeads, window, softcap, causal, sinks };
        yield makeCase(makeShape({ ...options, nPositions: 75, firstPosition: 5, headSize: 32 }), prng);
      }
    }
  }
}, 'sinks');

everywhere('flash attention: sinks of infinity and NaN, and without positions', (module) => {
  const prng = new Prng(61);
  for (const nTokens of [1, 3]) {
    const shape = makeShape({ nTokens, nHeads: 4, nKvHeads: 2, headSize: 8 });
    const made = makeCase(shape, prng);
    const without = attend(module, made).y;
    const sinks = Float32Array.of(-Infinity, Number.NaN, Infinity, -Infinity);
    const { y } = attend(module, { ...made, shape: { ...shape, sinks } });
    for (let t = 0; t < nTokens; t++) {
      for (let h = 0; h < 4; h++) {
        const at = (4 * t + h) * 8;
        const [got, expected] = [y.subarray(at, at + 8), without.subarray(at, at + 8)];
        if (h % 3 === 0) assert.deepEqual(got, expected, 'a sink of -Inf is none');
        else assert.ok(got.every(Number.isNaN), `a sink of ${sinks[h]}`);
      }
    }
    const unseen = { ...shape, window: 3, firstPosition: 1000, sinks: new Float32Array(4) };
    assert.ok(attend(module, { ...made, shape: unseen }).y.every((value) => value === 0));
  }
});

test('flash attention: weights come from the whole history, not from the last tile', () => {
  const prng = new Prng(50);
  const shape = makeShape({ nPositions: 500, headSize: 8, nHeads: 1, nKvHeads: 1 });
  const made = makeCase(shape, prng);
  /* logits that rise and fall with the position */
  const rising = Float32Array.from({ length: 500 * 8 }, (_, i) => 20 * Math.sin(Math.floor(i / 8) / 60));
  made.k = makeCache(KV.F32, rising);
  made.q.fill(0.5);
  const reference = referenceAttention(made);
  for (const { module, variant, label } of variants) {
    module.select(variant);
    checkWithin(attend(module, made).y, reference, label);
  }
});

everywhere('flash attention: f16 Inf and NaN as the slow conversion takes them', (module) => {
  for (const headSize of [64, 20]) {
    for (const nTokens of [1, 3]) {
      for (const [nHeads, nKvHeads] of [
        [8, 2],
        [4, 4],
      ]) {
        const prng = new Prng(60);
        const shape = makeShape({ nTokens, nHeads, nKvHeads, headSize, nPositions: 50, kvType: KV.F16 });
        for (const [special, where] of [
          [Infinity, 'v'],
          [-Infinity, 'v'],
          [NaN, 'v'],
          [NaN, 'k'],
        ]) {
          const made = makeCase(shape, prng);
          const at = ((41 * nKvHeads + 1) * headSize + 3) | 0;
          const cache = made[/** @type {'k' | 'v'} */ (where)];
          new Uint16Array(cache.bytes.buffer)[at] = Number.isNaN(special)
            ? 0x7e01
            : Number(special) > 0
              ? 0x7c00
              : 0xfc00;
          const reference = referenceAttention(made);
          const { y } = attend(module, made);
          for (let i = 0; i < y.length; i++) {
            const head = Math.floor(i / headSize) % nHeads;
            const isHit =
              Math.floor(head / (nHeads / nKvHeads)) === 1 && (where === 'k' || i % headSize === 3);
            const what = `${where} ${special}, ${headSize}, ${nTokens} tokens, [${i}] ${y[i]}`;
            if (isHit) assert.ok(Number.isNaN(special) ? Number.isNaN(y[i]) : y[i] === special, what);
            else assert.ok(Math.abs(y[i] - reference.out[i]) <= reference.bound[i], what);
          }
        }
      }
    }
  }
});

everywhere('flash attention: what a token does not see changes nothing, whatever it is', (module, label) => {
  const prng = new Prng(70);
  for (const kvType of Object.values(KV)) {
    for (const special of [NaN, Infinity, -Infinity, 1e30]) {
      for (const nTokens of [1, 6, 40]) {
        const shape = makeShape({
          nTokens,
          kvType,
          nPositions: 90,
          firstPosition: 45,
          causal: 1,
          window: 20,
          headSize: 32,
        });
        const made = makeCase(shape, prng);
        const reference = referenceAttention(made);
        const rowBytes = made.k.bytes.length / shape.nPositions;
        const hidden = makeCache(kvType, new Float32Array(64).fill(special)).bytes;
        const lastSeen = seenBy(shape, nTokens - 1)[1];
        /* hidden from all tokens: before the window of the first, after the last */
        for (const j of [0, 10, seenBy(shape, 0)[0] - 1, lastSeen, 89]) {
          for (const cache of [made.k, made.v])
            if (j >= lastSeen || j < 26) cache.bytes.set(hidden, j * rowBytes);
        }
        checkWithin(attend(module, made).y, reference, `${label}, type ${kvType}, ${special}`);
        /* the last token's own position, hidden from all others */
        for (const cache of [made.k, made.v]) cache.bytes.set(hidden, (lastSeen - 1) * rowBytes);
        const { y } = attend(module, made);
        const others = (nTokens - 1) * shape.nHeads * shape.headSize;
        const { out, bound } = reference;
        checkWithin(
          y.subarray(0, others),
          { out: out.subarray(0, others), bound: bound.subarray(0, others) },
          `${label}, type ${kvType}, ${special}, others`,
        );
        if (Number.isNaN(special))
          assert.ok(y.subarray(others).every(Number.isNaN), 'the last token sees it');
      }
    }
  }
});

everywhere('flash attention: special queries and scores', (module) => {
  for (const nTokens of [1, 2]) {
    const shape = makeShape({ nTokens, nHeads: 4, nKvHeads: 1, nPositions: 20, headSize: 8 });
    const made = makeCase(shape, new Prng(80));
    const reference = referenceAttention(made);
    made.q[8] = NaN; /* head 1 of token 0 */
    const { y } = attend(module, made);
    for (let i = 0; i < y.length; i++) {
      if (i >= 8 && i < 16) assert.ok(Number.isNaN(y[i]), `[${i}] ${y[i]}`);
      else assert.ok(Math.abs(y[i] - reference.out[i]) <= reference.bound[i], `[${i}] ${y[i]}`);
    }
    /* scores of -Inf count as masked, a score of +Inf makes NaN, a soft cap bounds both */
    const one = makeShape({ nTokens, nHeads: 1, nKvHeads: 1, nPositions: 2, headSize: 1, scale: 1 });
    const values = makeCache(KV.F32, [3, 5]);
    const ask = (/** @type {number[]} */ keys, softcap = 0) =>
      attend(module, {
        shape: { ...one, softcap },
        q: new Float32Array(nTokens).fill(1),
        k: makeCache(KV.F32, keys),
        v: values,
      }).y[nTokens - 1];
    assert.equal(ask([-Infinity, 0]), 5);
    assert.equal(ask([-Infinity, -Infinity]), 0);
    assert.ok(Number.isNaN(ask([0, Infinity])));
    assert.ok(Math.abs(ask([-Infinity, Infinity], 1) - (3 + 5 * Math.E ** 2) / (1 + Math.E ** 2)) < 1e-5);
    assert.equal(ask([3e38, -3e38]), 3);
  }
});

everywhere('attention: what a call leaves in scratch changes nothing in the next one', (module, label) => {
  const prng = new Prng(90);
  for (const kvType of [KV.F32, KV.F16]) {
    for (const nTokens of [1, 2]) {
      const shape = makeShape({ nTokens, kvType, nPositions: 32, nHeads: 4, nKvHeads: 1, headSize: 5 });
      const nan = makeCase({ ...shape, headSize: 16 }, prng);
      nan.k = makeCache(kvType, new Float32Array(nan.k.values.length).fill(NaN));
      nan.v = nan.k;
      const made = makeCase(shape, prng);
      attend(module, { ...nan, shape: { ...nan.shape, nTokens: 2 }, q: new Float32Array(2 * 4 * 16) });
      checkWithin(attend(module, made).y, referenceAttention(made), label);
      attend(module, { ...nan, shape: { ...nan.shape, nTokens: 2 }, q: new Float32Array(2 * 4 * 16) });
      const [q, k] = [gaussian(4 * 5, prng), gaussian(9 * 5, prng)];
      checkWithin(attentionScore(module, q, k, 5, 1, 0), referenceScores(q, k, 5, 1, 0), label);
    }
  }
});
