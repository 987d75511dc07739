/**
 * A generation from its first read to its end, and every way to leave it. The model is free at
 * once, and the next computation gives the results of a new model. Also the whole text, however and
 * whenever it is asked for.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { BusyError, HandleError, Llama } from '../../js/llama/index.js';
import { TINY_TALES } from '../helpers/llama.js';
import { makeModel } from '../helpers/synthetic-llama.js';

/** @import { Generation } from '../../js/llama/index.js' */

const PROMPT = 'Once upon a time';
const OTHER = 'The little dog';
const long = { temperature: 0, maxTokens: 200 };
const short = { temperature: 0, maxTokens: 8 };

/** @param {import('node:test').TestContext} t */
async function open(t) {
  const model = await Llama.load(TINY_TALES, { threads: 1 });
  t.after(() => model.dispose());
  return model;
}

const expected = (async () => {
  const model = await Llama.load(TINY_TALES, { threads: 1 });
  const text = await model.generate(OTHER, short).text();
  const whole = await model.generate(PROMPT, { ...short, maxTokens: 40 }).text();
  model.dispose();
  return { text, whole };
})();

/**
 * Starts the next generation at this very moment, and checks its results.
 * @param {Llama} model @param {string} after
 */
async function checkFree(model, after) {
  assert.equal(await model.generate(OTHER, short).text(), (await expected).text, after);
}

const task = () => new Promise((resolve) => setTimeout(resolve));

/** A read that pauses often, and a signal to end it. @param {import('node:test').TestContext} t */
async function slowModel(t) {
  const spec = { nEmbd: 256, nFf: 1024, nLayers: 6, context: 1024, type: 'Q8_0' };
  const model = await Llama.load(makeModel(spec).bytes.buffer, { threads: 1 });
  t.after(() => model.dispose());
  return { model, tokens: Array.from({ length: 900 }, (_, i) => 3 + (i % 37)) };
}

test('generation: an abort frees the model at once, whoever reads', async (t) => {
  const model = await open(t);
  const abortable = () => {
    const controller = new AbortController();
    return { controller, run: model.generate(PROMPT, { ...long, signal: controller.signal }) };
  };
  await t.test('before the first read', async () => {
    const { controller, run } = abortable();
    controller.abort(new Error('early'));
    await checkFree(model, 'before');
    await assert.rejects(run.next(), /early/);
    assert.deepEqual((await run.next()).done, true);
    await assert.rejects(run.text(), /early/);
    await checkFree(model, 'after');
  });
  await t.test('between reads, and nobody reads on', async () => {
    const { controller, run } = abortable();
    await run.next();
    controller.abort(new Error('between'));
    await checkFree(model, 'in the same moment');
    await assert.rejects(run.next(), /between/);
    await checkFree(model, 'after the late read');
  });
  await t.test('while a read is pending', async () => {
    const { controller, run } = abortable();
    const reading = run.text();
    controller.abort(new Error('pending'));
    const next = checkFree(model, 'in the same moment');
    await assert.rejects(reading, /pending/);
    await next;
  });
  await t.test('in any microtask of a read', async () => {
    for (let hops = 0; hops < 30; hops++) {
      const { controller, run } = abortable();
      const reading = run.text().catch((error) => error.message);
      for (let i = 0; i < hops; i++) await undefined;
      controller.abort(new Error('hop'));
      await checkFree(model, `after ${hops} microtasks`);
      assert.equal(await reading, 'hop');
      assert.ok((await expected).whole.startsWith(run.written), `after ${hops}: ${run.written}`);
    }
  });
  await t.test('from a loop, and in an earlier listener of the signal', async () => {
    const controller = new AbortController();
    /** @type {Promise<void> | undefined} */
    let next;
    controller.signal.addEventListener('abort', () => {
      next = checkFree(model, 'in the listener');
    });
    const reading = (async () => {
      for await (const _ of model.generate(PROMPT, { ...long, signal: controller.signal }));
    })();
    setTimeout(() => controller.abort(new Error('listener')), 20);
    await assert.rejects(reading, /listener/);
    assert.ok(next);
    await next;
  });
  await t.test('after the end it changes nothing', async () => {
    const controller = new AbortController();
    const run = model.generate(OTHER, { ...short, signal: controller.signal });
    const text = await run.text();
    controller.abort();
    assert.equal(await run.text(), text);
    assert.equal(run.stats.finishReason, 'length');
  });
});

test('generation: an abort in the middle of a long prompt, or of logits and embed', async (t) => {
  const { model, tokens } = await slowModel(t);
  const untouched = await model.generate(tokens.slice(0, 20), short).text();
  /** @type {Record<string, (signal: AbortSignal) => Promise<unknown>>} */
  const calls = {
    generate: (signal) => model.generate(tokens, { signal }).text(),
    logits: (signal) => model.logits(tokens, { signal }),
    embed: (signal) => model.embed(String.fromCharCode(...tokens.map((id) => 0x4e00 + id)), { signal }),
  };
  for (const [name, call] of Object.entries(calls)) {
    const controller = new AbortController();
    const pending = call(controller.signal);
    await task();
    await assert.rejects(
      model.logits([1]),
      (error) =>
        error instanceof BusyError && error.holder === name && error.message.includes(`busy with ${name}`),
    );
    controller.abort(new Error(`no ${name}`));
    const next = model.generate(tokens.slice(0, 20), short).text();
    await assert.rejects(pending, new RegExp(`no ${name}`));
    assert.equal(await next, untouched, name);
  }
});

test('generation: an abort right after the call, while its code may still be fetched', async (t) => {
  const model = await open(t);
  const untouched = await model.generate(PROMPT, short).text();
  for (let hops = 0; hops < 30; hops++) {
    const controller = new AbortController();
    const pending = model.embed('abc', { signal: controller.signal });
    controller.abort(new Error('at once'));
    const run = model.generate(PROMPT, short);
    for (let i = 0; i < hops; i++) await undefined;
    const next = run.text();
    await assert.rejects(pending, /at once/);
    assert.equal(await next, untouched, `after ${hops} microtasks`);
  }
});

test('generation: leaving it in other ways frees the model at once', async (t) => {
  const model = await open(t);
  const started = async () => {
    const run = model.generate(PROMPT, long);
    await run.next();
    return run;
  };
  await t.test('break, and an error in the loop', async () => {
    for await (const _ of model.generate(PROMPT, long)) break;
    await checkFree(model, 'break');
    const loop = async () => {
      for await (const piece of model.generate(PROMPT, long)) throw new Error(`of the reader: ${piece}`);
    };
    await assert.rejects(loop, /of the reader/);
    await checkFree(model, 'error');
  });
  await t.test('return(), throw() and cancel(), which nobody waits for', async () => {
    let run = await started();
    const returned = run.return();
    await checkFree(model, 'return');
    const { done, value } = await returned;
    assert.deepEqual([done, value], [true, run.stats]);
    run = await started();
    const thrown = run.throw(new Error('thrown'));
    thrown.catch(() => {});
    await checkFree(model, 'throw');
    await assert.rejects(thrown, /thrown/);
    run = await started();
    run.cancel();
    await checkFree(model, 'cancel');
    run.cancel();
    assert.equal((await run.next()).done, true);
    assert.equal(run.stats.finishReason, undefined);
  });
  await t.test('the same while a read is pending: it is done then', async () => {
    for (const leave of /** @type {const} */ (['cancel', 'return'])) {
      const run = await started();
      const reading = run.text();
      await Promise.resolve();
      run[leave]();
      await checkFree(model, leave);
      assert.equal(await reading, run.written);
      assert.equal(model.detokenize(run.tokens).trim(), run.written.trim());
      assert.ok(run.tokens.length < 50);
    }
  });
  await t.test('before the first read', async () => {
    for (const leave of /** @type {const} */ (['cancel', 'return'])) {
      const run = model.generate(PROMPT, long);
      run[leave]();
      assert.equal((await run.next()).done, true);
      assert.equal(await run.text(), '');
      await checkFree(model, leave);
    }
    const run = model.generate(PROMPT, long);
    await assert.rejects(run.throw(new Error('at once')), /at once/);
    await assert.rejects(run.text(), /at once/);
    await checkFree(model, 'throw');
  });
  await t.test('with its last piece, though the end is never read', async () => {
    const run = model.generate(PROMPT, { temperature: 0, maxTokens: 1 });
    assert.equal((await run.next()).done, false);
    assert.equal(run.stats.finishReason, 'length');
    await checkFree(model, 'last piece');
    assert.equal((await run.next()).done, true);
    const text = await run.text();
    await assert.rejects(run.throw(new Error('too late')), /too late/);
    assert.equal(await run.text(), text);
  });
});

test('generation: one that is made and not read takes nothing; a busy model says who has it, and the read may be repeated', async (t) => {
  const model = await open(t);
  const [first, second] = [model.generate(PROMPT, long), model.generate(OTHER, short)];
  await checkFree(model, 'two are made');
  await first.next();
  await assert.rejects(second.next(), (error) => {
    assert.ok(error instanceof BusyError);
    assert.equal(error.holder, 'generate');
    assert.match(error.message, /busy with generate \(5 tokens\).*cancel\(\)/);
    return true;
  });
  await assert.rejects(second.text(), BusyError);
  await first.return();
  assert.equal(await second.text(), (await expected).text, 'the same one, later');
});

test('generation: one that nobody can read any more frees the model', async (t) => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc');
  const model = await open(t);
  const controller = new AbortController();
  await (async () => {
    await model.generate(PROMPT, { ...long, signal: controller.signal }).next();
  })();
  for (let i = 0; i < 50; i++) {
    await task();
    collect();
    try {
      await checkFree(model, 'dropped');
      return;
    } catch (error) {
      if (!(error instanceof BusyError)) throw error;
    }
  }
  assert.fail('it is still held');
});

test('generation: dispose ends it, read or not', async (t) => {
  const { model, tokens } = await slowModel(t);
  const kept = await open(t);
  const run = kept.generate(PROMPT, long);
  await run.next();
  kept.dispose();
  const disposed = (/** @type {Error} */ error) =>
    error instanceof HandleError && /this model is disposed/.test(error.message);
  await assert.rejects(run.next(), disposed);
  await assert.rejects(run.text(), disposed);
  const reading = model.generate(tokens);
  const text = reading.text();
  await task();
  model.dispose();
  await assert.rejects(text, disposed);
  await assert.rejects(reading.text(), disposed, 'again');
});

test('generation: text() is the whole text, whatever was read before', async (t) => {
  const model = await open(t);
  const { whole } = await expected;
  const options = { temperature: 0, maxTokens: 40 };
  const read = async (/** @type {Generation} */ run, /** @type {number} */ n) => {
    const pieces = [];
    for (let i = 0; i < n; i++) pieces.push((await run.next()).value);
    return pieces.join('');
  };
  for (const n of [0, 1, 5]) {
    const run = model.generate(PROMPT, options);
    const start = await read(run, n);
    assert.equal(run.written, start);
    assert.ok(whole.startsWith(start));
    assert.equal(await run.text(), whole, `after ${n} pieces`);
    assert.equal(await run.text(), whole, 'again');
    assert.equal(run.written, whole);
  }
  const looped = model.generate(PROMPT, options);
  for await (const _ of looped);
  assert.equal(await looped.text(), whole, 'after the loop');
  const twice = model.generate(PROMPT, options);
  assert.deepEqual(await Promise.all([twice.text(), twice.text()]), [whole, whole], 'both at once');

  const left = model.generate(PROMPT, options);
  let start = '';
  for await (const piece of left) {
    start += piece;
    if (start.length > 12) break;
  }
  assert.deepEqual([await left.text(), await left.text(), left.written], [start, start, start]);

  // During writing, half a character or the beginning of a possible stop string is held back. At
  // the end it is given out.
  const stop = `${whole.slice(-3)}zzz`;
  const held = model.generate(PROMPT, { ...options, stop });
  await held.next();
  assert.equal(await held.text(), whole);
  assert.equal(held.written, whole);

  const controller = new AbortController();
  const aborted = model.generate(PROMPT, { ...options, signal: controller.signal });
  const before = await read(aborted, 3);
  controller.abort(new Error('enough'));
  for (let i = 0; i < 2; i++) await assert.rejects(aborted.text(), /enough/);
  assert.equal(aborted.written, before);
  assert.ok(aborted.tokens.length >= 3);
  assert.equal(aborted.stats.tokens, aborted.tokens.length);
});
