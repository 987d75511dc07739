/** Sampling and streaming of text, without a model. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { argmax, candidates, largest, Sampler } from '../../js/llama/sampler.js';
import { TextStream } from '../../js/llama/text-stream.js';
import { GREEDY } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';

const OFF = { ...GREEDY, temperature: 1 };

/** @param {number} n @param {number} seed @param {number} [scale] */
const randomLogits = (n, seed, scale = 3) => {
  const prng = new Prng(seed);
  return Float32Array.from({ length: n }, () => scale * prng.gaussian());
};

/**
 * The textbook definition: probabilities of all tokens, sorted, and the tokens that are kept.
 * @param {Float32Array} logits
 */
function textbook(logits, topK = 0, topP = 1, minP = 0) {
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a] || a - b).slice(0, topK || undefined);
  const weights = order.map((id) => Math.exp(logits[id] - logits[order[0]]));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let mass = 0;
  return order.filter((_, i) => {
    const before = mass;
    mass += weights[i];
    return i === 0 || (before < topP * total && weights[i] >= minP);
  });
}

test('sampler: the largest values, whichever way they are found', () => {
  for (const n of [1, 2, 7, 40, 1000, 5000]) {
    const logits = randomLogits(n, n);
    if (n > 8) logits.set(logits.subarray(0, 3), 4);
    const sorted = [...logits.keys()].sort((a, b) => logits[b] - logits[a] || a - b);
    assert.equal(argmax(logits), sorted[0]);
    for (const k of [1, 2, 3, 40, 128, n])
      assert.deepEqual([...largest(logits, Math.min(k, n))], sorted.slice(0, k), `${k} of ${n}`);
  }
});

test('sampler: candidates are those of the textbook', () => {
  for (const n of [5, 300, 4000]) {
    for (const scale of [0.1, 3]) {
      const logits = randomLogits(n, n + 1, scale);
      for (const topK of [0, 1, 5, 40]) {
        for (const topP of [1, 0.95, 0.5, 0]) {
          for (const minP of [0, 0.05, 0.9, 1]) {
            const got = candidates(logits, topK, topP, minP);
            const expected = textbook(logits, topK, topP, minP);
            if (got) assert.deepEqual([...got], expected, `${n} ${scale} ${topK} ${topP} ${minP}`);
            else assert.equal(expected.length, n);
          }
        }
      }
    }
  }
});

test('sampler: draws with the probabilities of the softmax', () => {
  const logits = Float32Array.of(2, 1, 0, -1, Number.NEGATIVE_INFINITY);
  const draws = 20_000;
  for (const [change, allowed] of /** @type {[Partial<typeof OFF>, number][]} */ ([
    [{}, 4],
    [{ topK: 3 }, 3],
    [{ temperature: 0.5 }, 4],
    [{ temperature: 3, topK: 4 }, 4],
    [{ minP: 0.3 }, 2],
  ])) {
    const options = { ...OFF, ...change };
    const sampler = new Sampler(options);
    const counts = new Float64Array(5);
    for (let i = 0; i < draws; i++) counts[sampler.next(logits.slice(), [])] += 1;
    const weights = [...logits].map((value, i) => (i < allowed ? Math.exp(value / options.temperature) : 0));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    for (const [i, weight] of weights.entries()) {
      const p = weight / total;
      // Five standard deviations of a binomial count.
      const limit = 5 * Math.sqrt(draws * p * (1 - p));
      assert.ok(
        Math.abs(counts[i] - draws * p) <= limit,
        `${JSON.stringify(change)}: ${counts[i]} of ${draws * p} for ${i}`,
      );
    }
  }
});

test('sampler: a temperature of 0 and a top-k of 1 take the most likely', () => {
  const logits = randomLogits(3000, 4);
  for (const change of [{ temperature: 0 }, { topK: 1 }, { topP: 0 }, { minP: 1 }]) {
    const sampler = new Sampler({ ...OFF, ...change });
    for (let i = 0; i < 20; i++) assert.equal(sampler.next(logits, []), argmax(logits));
  }
});

test('sampler: a seed gives the same draws, another one others', () => {
  const draw = (/** @type {number} */ seed) => {
    const sampler = new Sampler({ ...OFF, seed });
    return Array.from({ length: 40 }, () => sampler.next(randomLogits(500, 9), []));
  };
  assert.deepEqual(draw(5), draw(5));
  assert.notDeepEqual(draw(5), draw(6));
  assert.notDeepEqual(draw(5), draw(5 + 2 ** 32), 'seeds have 53 bits');
});

test('sampler: the largest logits are enough for the same choice', () => {
  const prng = new Prng(11);
  for (const nVocab of [3, 40, 700, 5000]) {
    for (let i = 0; i < 60; i++) {
      const logits = randomLogits(nVocab, prng.u32(), prng.pick([0.1, 3, 30]));
      // Equal numbers, in the order of their ids, and both zeros.
      if (i % 3 === 0) for (let j = 0; j < nVocab; j++) logits[j] = Math.round(logits[j]);
      const topK = prng.pick([1, 2, 40, 64, 128]);
      const topP = prng.pick([1, 0.95, 0.5, 0]);
      const minP = prng.pick([0, 0.05, 0.9, 1]);
      const options = { ...OFF, topK, topP, minP, temperature: prng.pick([0.3, 1, 2]), seed: i };
      const n = Math.min(nVocab, topK <= 64 ? 64 : 128);
      const ids = largest(logits, n);
      const [whole, few] = [new Sampler(options), new Sampler(options)];
      const values = Float32Array.from(ids, (id) => logits[id]);
      for (let draw = 0; draw < 5; draw++) {
        const expected = whole.next(logits, []);
        assert.equal(few.among(ids, values, nVocab), expected, JSON.stringify({ nVocab, ...options }));
      }
    }
  }
});

test('sampler: penalties of the tokens of the window', () => {
  const logits = () => Float32Array.of(3, -1, 2.9, 0);
  const penalise = (/** @type {number[]} */ history, repeatWindow = 64, others = {}) => {
    const changed = logits();
    new Sampler({ ...GREEDY, repeatPenalty: 2, repeatWindow, ...others }).next(changed, history);
    return [...changed];
  };
  assert.deepEqual(penalise([]), [...logits()]);
  assert.deepEqual(penalise([0, 0, 1]), [1.5, -2, ...logits().subarray(2)]);
  assert.deepEqual(penalise([0, 1], 1), [3, -2, ...logits().subarray(2)]);
  assert.deepEqual(penalise([0, 1], 0), [...logits()]);
  const both = { frequencyPenalty: 0.25, presencePenalty: -1 };
  assert.deepEqual(penalise([2, 0, 0, 1], 3, both), [2, -1.25, ...logits().subarray(2)]);
  assert.deepEqual(penalise([0, 0, 3], 64, { repeatPenalty: 1, frequencyPenalty: 0.5 }), [
    2,
    ...logits().subarray(1, 3),
    -0.5,
  ]);
  assert.deepEqual(penalise([0, 0], 0, both), [...logits()]);
});

/** The text up to the first stop string. @param {string} text @param {string[]} stops */
const upTo = (text, stops) =>
  text.slice(0, Math.min(text.length, ...stops.map((stop) => text.indexOf(stop)).filter((at) => at >= 0)));

test('text stream: any cut of the bytes gives the same text, in whole characters', () => {
  const prng = new Prng(3);
  const text = 'a€é🚀🇩🇪 once, stop here: STOPPED x STOP\ny日本語';
  const bytes = new TextEncoder().encode(text);
  for (const stops of [[], ['STOP'], ['STOPPED x', 'here: STOPPEDx'], ['語'], ['🚀', '日本'], ['nothing']]) {
    for (let i = 0; i < 200; i++) {
      const stream = new TextStream(stops);
      let got = '';
      for (let at = 0; at < bytes.length && !stream.stopped; ) {
        const n = prng.int(1, 5);
        const piece = stream.push(bytes.subarray(at, at + n));
        assert.equal(Buffer.from(piece).toString(), piece, 'no half of a pair');
        assert.ok(!piece.includes('\ufffd'));
        got += piece;
        assert.ok(upTo(text, stops).startsWith(got), 'nothing of a stop string is given out');
        at += n;
      }
      got += stream.end();
      assert.equal(got, upTo(text, stops), JSON.stringify(stops));
      assert.equal(stream.stopped, got !== text);
    }
  }
});

test('text stream: half a character at the end, and text held back for a stop string', () => {
  const stream = new TextStream(['</s>']);
  assert.equal(stream.push(Uint8Array.of(0x61, 0xe2, 0x82)), 'a');
  assert.equal(stream.end(), '\ufffd');
  const other = new TextStream(['</s>']);
  assert.equal(other.push(new TextEncoder().encode('x</')), 'x');
  assert.equal(other.end(), '</');
});
