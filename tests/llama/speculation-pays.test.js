/**
 * Speculation drafts as many tokens as pay: simulated texts on a device whose passes take given times.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Llama } from '../../js/llama/index.js';
import { Lookup } from '../../js/llama/lookup.js';
import { Speculation } from '../../js/llama/speculation.js';
import { TINY_TALES } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';

/** @import { TestContext } from 'node:test' */

/**
 * A text on a device whose passes take given times: steps of a draft that is right with some chance.
 * @param {(length: number) => number} msOf
 * @param {(at: number) => { chance: number, matched: number } | undefined} drafts
 * @param {TestContext} t
 * @param {number} nTokens
 */
async function simulate(t, msOf, drafts, nTokens) {
  let now = 0;
  const clock = t.mock.method(performance, 'now', () => now);
  const prng = new Prng(3);
  /** @type {number[]} */
  const lengths = [];
  const nVocab = 4;
  const decoder = /** @type {any} */ ({
    checked: 16,
    backend: { alone: 16 },
    async check(/** @type {number[]} */ { length }) {
      lengths.push(length);
      now += msOf(length);
      return new Float32Array(length * nVocab);
    },
  });
  const find = t.mock.method(
    Lookup.prototype,
    'find',
    /** @this {Lookup} @param {number} most */ function (most) {
      const here = drafts(this.length);
      return (
        here && {
          tokens: Array.from({ length: most }, () => (prng.unit() < here.chance ? 0 : 1)),
          matched: here.matched,
        }
      );
    },
  );
  const speculation = new Speculation([1, 2]);
  assert.ok(speculation.serves(decoder));
  // The sampler always chooses token 0.
  const sampler = /** @type {any} */ ({ next: () => 0 });
  const pace = /** @type {any} */ ({ check() {} });
  for (let i = 0; i < nTokens; i++) {
    if (speculation.take(0)) {
      speculation.choose(sampler, []);
      continue;
    }
    if (await speculation.compute(0, { decoder, position: i, most: 16, pace }))
      speculation.choose(sampler, []);
    else {
      lengths.push(1);
      now += msOf(1);
      speculation.noteSingle(msOf(1));
    }
  }
  clock.mock.restore();
  find.mock.restore();
  return { ms: now, lengths, speedup: (nTokens * msOf(1)) / now };
}

test('speculation: the length of a draft follows from the times of passes and from right drafts', async (t) => {
  /** Passes that cost as much as their tokens, but for a part that they share. @param {number} share */
  const sharing = (share) => (/** @type {number} */ n) => share + (1 - share) * n;
  const right = () => ({ chance: 1, matched: 12 });
  const cheap = await simulate(t, sharing(0.9), right, 200);
  assert.ok(cheap.speedup > 4, `${cheap.speedup}: ${cheap.lengths}`);
  assert.equal(Math.max(...cheap.lengths), 16);
  // 8 tokens in one pass cost as much as 4.5, and 16 as much as one by one.
  const steps = await simulate(t, (n) => (n <= 8 ? 1 + 0.5 * (n - 1) : n), right, 400);
  assert.ok(steps.speedup > 1.6, `${steps.speedup}: ${steps.lengths}`);
  assert.ok(steps.lengths.filter((n) => n === 8).length > 30, `${steps.lengths}`);
  assert.ok(steps.lengths.filter((n) => n > 8).length < 8, `${steps.lengths}`);
  // Half of the drafts are right: short ones pay.
  const half = await simulate(t, sharing(0.9), () => ({ chance: 0.5, matched: 4 }), 400);
  assert.ok(half.speedup > 1.3, `${half.speedup}: ${half.lengths}`);
});

test('speculation: where drafts do not pay, hardly anything is lost', async (t) => {
  const sharing = (/** @type {number} */ share) => (/** @type {number} */ n) => share + (1 - share) * n;
  for (const share of [0, 0.3, 0.6, 0.9]) {
    for (const matched of [2, 3, 5, 12]) {
      const { speedup, lengths } = await simulate(t, sharing(share), () => ({ chance: 0.02, matched }), 300);
      assert.ok(speedup >= 0.97, `${speedup} with ${share} shared, ${matched} matched: ${lengths}`);
    }
    const none = await simulate(t, sharing(share), () => undefined, 300);
    assert.equal(none.speedup, 1);
  }
  // Long matches promise much, and are all wrong in a short text.
  const short = await simulate(t, sharing(0), () => ({ chance: 0, matched: 12 }), 100);
  assert.ok(short.speedup >= 0.96, `${short.speedup}: ${short.lengths}`);
  // Right drafts do not pay either where a pass shares nothing.
  const { speedup } = await simulate(
    t,
    (n) => 1.05 * n - 0.05,
    () => ({ chance: 1, matched: 12 }),
    300,
  );
  assert.ok(speedup >= 0.97, `${speedup}`);
  // A text that begins to repeat itself late.
  const late = await simulate(
    t,
    sharing(0.9),
    (at) => ({ chance: at < 200 ? 0 : 1, matched: at < 200 ? 3 : 12 }),
    500,
  );
  assert.ok(late.speedup > 1.8, `${late.speedup}: ${late.lengths}`);
});

test('speculation: the time of a single step leaves out the sampler, as that of drafts does', async (t) => {
  let now = 0;
  t.mock.method(performance, 'now', () => now);
  const note = t.mock.method(Speculation.prototype, 'noteSingle');
  const model = await Llama.load(TINY_TALES, { threads: 1, contextLength: 64 });
  t.after(() => model.dispose());
  const logits = () => {
    now += 50;
  };
  const run = model.generate('Once', { speculate: 'lookup', maxTokens: 6, ignoreEnd: true, logits });
  await run.text();
  assert.ok(note.mock.callCount() > 2);
  assert.deepEqual(new Set(note.mock.calls.map((call) => call.arguments[0])), new Set([0]));
});
