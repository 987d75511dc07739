/** The runner from the user's side: sources, generation, conversations, options, aborts, memory. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  ArgumentError,
  BusyError,
  ContextError,
  createKernels,
  HandleError,
  Llama,
  ModelError,
  openGguf,
} from '../../js/llama/index.js';
import { largest } from '../../js/llama/sampler.js';
import { TINY_TALES } from '../helpers/llama.js';
import { startServer } from '../helpers/range-server.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { libraryVariants } from '../helpers/variants.js';

/** @import { LlamaOptions } from '../../js/llama/model.js' */

const PROMPT = 'Once upon a time';
const exact = /** @type {const} */ ({ activation: 'f32', kvType: 'F32' });
const greedy = { temperature: 0, maxTokens: 24 };
const bytes = () => new Uint8Array(readFileSync(TINY_TALES));

/** @param {LlamaOptions} [options] */
const load = (options) => Llama.load(TINY_TALES, options);
/** @param {import('node:test').TestContext} t @param {LlamaOptions} [options] */
async function open(t, options) {
  const model = await load(options);
  t.after(() => model.dispose());
  return model;
}

/**
 * Results of llama.cpp for the embedded model in f32: the largest logits after the first and the
 * last token, and the continuation.
 */
const KNOWN = {
  tokens: [1, 441, 591, 261, 590],
  first: [
    [441, 11.317003],
    [611, 10.359755],
    [379, 10.335739],
  ],
  last: [
    [737, 17.791359],
    [722, 4.347354],
    [738, 3.277307],
    [541, 2.652653],
    [288, 2.542733],
  ],
  text: ', there was a clever boy named Max. Max lived near the forest with his mother. Max liked to eat berries and play with his paper star. One windy day, Max went to the forest',
};

for (const { isa, dot, label, skip } of libraryVariants) {
  test(`llama: the embedded model, known tokens, logits and text, ${label}`, { skip }, async (t) => {
    const model = await open(t, { ...exact, isa, dot });
    assert.equal(model.info.kernels.isa, isa);
    assert.deepEqual(model.tokenize(PROMPT), KNOWN.tokens);
    assert.equal(model.detokenize(KNOWN.tokens), PROMPT);
    const nVocab = 768;
    const logits = await model.logits(KNOWN.tokens);
    assert.equal(logits.length, 5 * nVocab);
    for (const [row, known] of /** @type {const} */ ([
      [0, KNOWN.first],
      [4, KNOWN.last],
    ])) {
      const values = logits.subarray(row * nVocab, (row + 1) * nVocab);
      for (const [i, id] of largest(values, known.length).entries()) {
        assert.equal(id, known[i][0]);
        assert.ok(Math.abs(values[id] - known[i][1]) <= 2e-4, `${values[id]}, expected ${known[i][1]}`);
      }
    }
    assert.equal(await model.generate(PROMPT, { temperature: 0, maxTokens: 48 }).text(), KNOWN.text);
  });
}

test('llama: pieces, statistics, reasons to end', async (t) => {
  const model = await open(t, exact);
  const run = model.generate(PROMPT, greedy);
  assert.equal(run.stats.tokens, 0);
  /** @type {string[]} */
  const pieces = [];
  for await (const piece of run) pieces.push(piece);
  assert.ok(pieces.length > 5 && pieces.every((piece) => piece !== ''));
  const { stats } = run;
  assert.equal(stats.finishReason, 'length');
  assert.deepEqual([stats.promptTokens, stats.reusedTokens, stats.tokens], [5, 0, 24]);
  assert.equal(run.tokens.length, 24);
  for (const [name, value] of Object.entries(stats)) {
    if (/Ms|Second|time/i.test(name)) assert.ok(Number(value) > 0, name);
  }
  assert.ok(stats.timeToFirstToken >= stats.promptMs);
  assert.equal(
    await model
      .generate(run.tokens.slice(0, 3), greedy)
      .text()
      .then((text) => typeof text),
    'string',
  );

  const ended = model.generate(PROMPT, { temperature: 0, maxTokens: 250 });
  const story = await ended.text();
  assert.equal(ended.stats.finishReason, 'end', story);
  assert.ok(story.startsWith(pieces.join('')));
  const cut = model.generate(PROMPT, { temperature: 0, stop: ['lived near', 'never'] });
  assert.equal(await cut.text(), story.slice(0, story.indexOf('lived near')));
  assert.equal(cut.stats.finishReason, 'stop');
  assert.equal(
    await model.generate(PROMPT, { temperature: 0, stop: '.' }).text(),
    story.slice(0, story.indexOf('.')),
  );
  const on = model.generate(PROMPT, { temperature: 0, maxTokens: 240, ignoreEnd: true });
  assert.ok((await on.text()).startsWith(story));
  assert.equal(on.tokens.length, 240);
  const done = await run.next();
  assert.equal(done.done, true);
});

test('llama: the context ends a text, and too long a prompt is refused', async (t) => {
  const model = await open(t, { contextLength: 16, ...exact });
  const run = model.generate(PROMPT, greedy);
  await run.text();
  assert.equal(run.stats.finishReason, 'context');
  assert.equal(run.stats.tokens, 16 - 5 + 1);
  const long = Array.from({ length: 17 }, () => 441);
  assert.throws(
    () => model.generate(long),
    (error) =>
      error instanceof ContextError &&
      error.got === 17 &&
      error.expected === 16 &&
      /17 tokens.*16/.test(error.message),
  );
  await assert.rejects(model.logits(long), ContextError);
  await assert.rejects(model.embed('Once '.repeat(40)), ContextError);
  assert.equal((await model.generate(long.slice(1), greedy).text()).length > 0, true);
});

test('llama: seeds, and what is drawn', async (t) => {
  const model = await open(t);
  const write = (/** @type {object} */ options) =>
    model.generate(PROMPT, { maxTokens: 30, ...options }).text();
  assert.equal(await write({ seed: 7 }), await write({ seed: 7 }));
  assert.notEqual(await write({ seed: 7 }), await write({ seed: 8 }));
  assert.equal(await write({ topK: 1, temperature: 2 }), await write({ temperature: 0 }));
  const { seed } = model.generate(PROMPT).stats;
  assert.ok(Number.isInteger(seed));
});

test('llama: a prompt that goes on where the last one ended is not computed again', async (t) => {
  const model = await open(t, exact);
  const first = model.generate(PROMPT, greedy);
  const text = await first.text();
  const next = [...model.tokenize(PROMPT), ...first.tokens, 441, 591];
  const again = model.generate(next, greedy);
  const continued = await again.text();
  assert.equal(again.stats.reusedTokens, 5 + 24 - 1, 'all but the last token, which was never read');
  const other = await open(t, exact);
  assert.equal(await other.generate(next, greedy).text(), continued);
  // A different beginning: nothing of the old context may show.
  const fresh = model.generate('Long ago', greedy);
  const told = await fresh.text();
  assert.equal(fresh.stats.reusedTokens, 1, 'BOS');
  assert.equal(await (await open(t, exact)).generate('Long ago', greedy).text(), told);
  const rows = await model.logits(model.tokenize(PROMPT));
  assert.equal(await model.generate(PROMPT, greedy).text(), text, 'after logits, from the start');
  assert.deepEqual(await model.logits(model.tokenize(PROMPT)), rows);
});

test('llama: aborts, in the middle of a text and of a prompt', async (t) => {
  const model = await open(t);
  const controller = new AbortController();
  let text = '';
  const run = model.generate(PROMPT, { maxTokens: 200, temperature: 0, signal: controller.signal });
  await assert.rejects(async () => {
    for await (const piece of run) {
      text += piece;
      if (text.length > 20) controller.abort(new Error('enough'));
    }
  }, /enough/);
  assert.equal(run.stats.finishReason, undefined);
  assert.ok(run.tokens.length < 20);
  await assert.rejects(
    model.generate(PROMPT, { signal: AbortSignal.abort(new Error('before')) }).text(),
    /before/,
  );
  await assert.rejects(model.logits(KNOWN.tokens, { signal: AbortSignal.abort(new Error('too')) }), /too/);
  // Leaving the loop ends the generation too.
  for await (const _ of model.generate(PROMPT, { maxTokens: 200 })) break;
  assert.ok(await model.generate(PROMPT, greedy).text());

  const large = makeModel({ nEmbd: 256, nFf: 1024, nLayers: 8, context: 2048, type: 'Q8_0' });
  const slow = await Llama.load(large.bytes.buffer);
  t.after(() => slow.dispose());
  const tokens = Array.from({ length: 2000 }, (_, i) => 3 + (i % 37));
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  const soon = new AbortController();
  setTimeout(() => soon.abort(new Error('while it reads')), 40);
  const reading = slow.generate(tokens, { signal: soon.signal });
  await assert.rejects(reading.text(), /while it reads/);
  clearInterval(timer);
  assert.ok(ticks >= 1, `${ticks} timers ran`);
  assert.equal(reading.stats.promptMs, 0);
  const after = await slow.generate(tokens.slice(0, 50), { ...greedy }).text();
  const untouched = await Llama.load(large.bytes.buffer);
  t.after(() => untouched.dispose());
  assert.equal(
    await untouched.generate(tokens.slice(0, 50), greedy).text(),
    after,
    'nothing half-read is left',
  );
});

test('llama: one generation at a time', async (t) => {
  const model = await open(t);
  const run = model.generate(PROMPT, greedy);
  await run.next();
  await assert.rejects(model.generate(PROMPT).next(), BusyError);
  await assert.rejects(
    model.logits([1]),
    (error) => error instanceof BusyError && /busy with generate/.test(error.message),
  );
  await run.return();
  assert.equal((await model.logits([1])).length, model.info.nVocab);
  const waiting = model.logits(KNOWN.tokens);
  await assert.rejects(model.embed(PROMPT), BusyError);
  await waiting;
});

test('llama: no memory is taken while it writes', async (t) => {
  const model = await open(t);
  await model.generate(PROMPT, { maxTokens: 2 }).text();
  const before = model.kernels.memory();
  for await (const _ of model.generate(PROMPT, { maxTokens: 50, repeatPenalty: 1.1 })) {
    assert.deepEqual({ ...model.kernels.memory(), peak: 0 }, { ...before, peak: 0 });
  }
  const { memory } = model.info;
  assert.ok(memory.linear <= memory.weights + memory.kvCache + 32e6);
  assert.ok(memory.weights + memory.kvCache <= memory.linear);
});

test('llama: sources', async (t) => {
  const server = await startServer(bytes());
  t.after(() => server.close());
  const gguf = await openGguf(TINY_TALES);
  /** @type {Record<string, any>} */
  const sources = {
    path: TINY_TALES,
    url: server.url,
    buffer: bytes().buffer,
    view: bytes(),
    blob: new Blob([bytes()]),
    gguf,
  };
  const texts = [];
  for (const [name, source] of Object.entries(sources)) {
    /** @type {{ loaded: number, total: number }[]} */
    const seen = [];
    const model = await Llama.load(source, { onProgress: (progress) => seen.push(progress) });
    texts.push(await model.generate(PROMPT, greedy).text());
    const { loaded, total } = /** @type {typeof seen[0]} */ (seen.at(-1));
    assert.equal(loaded, total, name);
    assert.equal(total, model.info.memory.weights);
    assert.ok(seen.every((one, i) => i === 0 || one.loaded >= seen[i - 1].loaded));
    model.dispose();
  }
  assert.equal(new Set(texts).size, 1);
  assert.ok((await gguf.read('output_norm.weight')).length > 0, 'an open file stays open');
});

test('llama: given kernels outlive the model, and get all memory back', async (t) => {
  const kernels = await createKernels();
  t.after(() => kernels.dispose());
  const empty = kernels.memory();
  const model = await load({ kernels });
  assert.equal(model.kernels, kernels);
  await model.generate(PROMPT, greedy).text();
  model.dispose();
  model.dispose();
  assert.equal(kernels.disposed, false);
  const { handles, weights, tensors } = kernels.memory();
  assert.deepEqual({ handles, weights, tensors }, { handles: 0, weights: 0, tensors: 0 });
  const controller = new AbortController();
  const onProgress = (/** @type {{ loaded: number }} */ { loaded }) =>
    loaded > 500_000 && controller.abort(new Error('stop'));
  await assert.rejects(load({ kernels, signal: controller.signal, onProgress }), /stop/);
  assert.deepEqual([kernels.memory().handles, kernels.memory().weights], [0, 0], 'after an aborted load');
  await assert.rejects(load({ kernels, contextLength: 2 ** 22, kvType: 'F32' }), /4294967296/);
  assert.equal(kernels.memory().handles, empty.handles);
});

test('llama: a disposed model says so', async () => {
  const model = await load();
  const { kernels } = model;
  const run = model.generate(PROMPT, { maxTokens: 100 });
  await run.next();
  model.dispose();
  assert.equal(kernels.disposed, true);
  assert.equal(model.disposed, true);
  await assert.rejects(run.text(), HandleError);
  assert.throws(() => model.generate(PROMPT), HandleError);
  assert.throws(() => model.info, HandleError);
  assert.throws(() => model.tokenize('a'), HandleError);
  await assert.rejects(model.logits([1]), HandleError);
});

test('llama: options that are none are named, with what they were', async (t) => {
  const model = await open(t);
  const refused = (/** @type {any} */ options, /** @type {RegExp} */ message) =>
    assert.throws(
      () => model.generate(PROMPT, options),
      (error) => error instanceof ArgumentError && message.test(error.message),
      JSON.stringify(options),
    );
  refused({ temperature: -1 }, /temperature must be a number from 0 to 100, got -1/);
  refused({ temperature: Number.NaN }, /temperature .* NaN/);
  refused({ topK: 1.5 }, /topK must be an integer .* got 1.5/);
  refused({ topP: 1.1 }, /topP must be a number from 0 to 1, got 1.1/);
  refused({ minP: '0.1' }, /minP .* got "0.1"/);
  refused({ maxTokens: 0 }, /maxTokens must be an integer 1 or more, got 0/);
  refused({ seed: -1 }, /seed/);
  refused({ repeatPenalty: 0 }, /repeatPenalty/);
  refused({ stop: [''] }, /stop must be/);
  refused({ ignoreEnd: 1 }, /ignoreEnd must be true or false, got 1/);
  refused({ stop: 3 }, /stop must be/);
  refused({ signal: {} }, /signal must be an AbortSignal/);
  refused({ max_tokens: 5 }, /no option "max_tokens"; options are maxTokens/);
  refused(null, /options must be an object/);
  model.generate(PROMPT, { maxTokens: Number.POSITIVE_INFINITY });
  assert.throws(() => model.generate([]), /no tokens/);
  assert.throws(() => model.generate([1, 768]), /prompt\[1\] is 768, the vocabulary has 768 tokens/);
  assert.throws(() => new /** @type {any} */ (Llama)(), /made by Llama\.load\(source, options\), not by new/);
  assert.throws(() => model.generate(/** @type {any} */ (5)), /prompt must be a text or a list of token ids/);
  await assert.rejects(model.logits([]), /tokens is empty/);
  await assert.rejects(model.logits([-1]), /tokens\[0\] is -1/);
  const bad = (/** @type {any} */ options, /** @type {RegExp} */ message) =>
    assert.rejects(load(options), (error) => error instanceof ArgumentError && message.test(error.message));
  await bad({ contextLength: 0 }, /contextLength must be an integer from 1 to \d+, got 0/);
  await bad({ kvType: 'Q4_0' }, /kvType must be one of F32, F16, Q8_0, got "Q4_0"/);
  await bad({ activation: 'int4' }, /activation must be one of/);
  await bad({ contextSize: 5 }, /no option "contextSize"; options are kernels/);
  await bad({ kernels: {} }, /kernels must come from createKernels or createGpuKernels, got/);
  const kernels = await createKernels();
  await bad({ kernels, isa: 'simd128' }, /isa belong/);
  kernels.dispose();
  await assert.rejects(Llama.load('/nowhere/model.gguf'), /cannot read .*nowhere/);
});

test('llama: what it says about itself', async (t) => {
  const { info } = await open(t, { contextLength: 100, kvType: 'Q8_0', activation: 'int16' });
  assert.deepEqual([info.architecture, info.name, info.nLayers, info.nEmbd], ['llama', 'tiny-tales', 3, 256]);
  assert.deepEqual(
    [info.contextLength, info.trainedContext, info.kvType, info.activation],
    [100, 256, 'Q8_0', 'int16'],
  );
  assert.equal(info.tied, true);
  assert.deepEqual(Object.fromEntries(Object.entries(info.types).map(([name, { count }]) => [name, count])), {
    F32: 7,
    Q6_K: 3,
    Q4_K: 19,
  });
  assert.equal(info.types.Q4_K.activation, 'int16');
  assert.equal(info.memory.kvCache, 2 * 3 * 100 * 2 * 64 * (34 / 32));
  assert.ok(Object.values(info.timings).every((ms) => ms >= 0));
});

test('llama: embeddings are the mean of the hidden states, of length 1', async (t) => {
  const made = makeModel({ architecture: 'qwen3' });
  const model = await Llama.load(made.bytes.buffer, exact);
  t.after(() => model.dispose());
  const text = String.fromCharCode(0x4e00 + 8, 0x4e00 + 30, 0x4e00 + 11);
  assert.deepEqual(model.tokenize(text), [1, 8, 30, 11]);
  const hidden = made.hidden([1, 8, 30, 11]);
  const mean = hidden[0].map((_, i) => hidden.reduce((sum, row) => sum + row[i], 0) / 4);
  const length = Math.hypot(...mean);
  const got = await model.embed(text);
  assert.equal(got.length, 64);
  for (const [i, value] of got.entries()) assert.ok(Math.abs(value - mean[i] / length) < 1e-5, `[${i}]`);
  await assert.rejects(
    model.embed(/** @type {any} */ (5)),
    /texts must be a string or a list of strings, got 5/,
  );
});

const TEMPLATE =
  '{{ bos_token }}{% for message in messages %}[{{ message.role }}]{{ message.content | trim }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}{% if loud %}!{% endif %}';

test('llama: conversations, by the template of the file', async (t) => {
  const pairs = {
    'tokenizer.chat_template': /** @type {any} */ (['tokenizer.chat_template', 'string', TEMPLATE]),
  };
  const model = await Llama.load(makeModel({ pairs }).bytes.buffer, exact);
  t.after(() => model.dispose());
  const messages = [{ role: 'user', content: ' \u4e05\u4e06 ' }];
  assert.equal(await model.formatChat(messages), '<s>[user]\u4e05\u4e06[assistant]');
  assert.equal(
    await model.formatChat(messages, { addGenerationPrompt: false, variables: { loud: true } }),
    '<s>[user]\u4e05\u4e06!',
  );
  assert.equal(await model.formatChat(messages, { template: '{{ messages | length }}' }), '1');
  const run = await model.chat(messages, greedy);
  assert.equal(model.tokenize(await model.formatChat(messages))[0], 1, 'BOS once');
  const answer = await run.text();
  const second = await model.chat(
    [...messages, { role: 'assistant', content: answer }, { role: 'user', content: '\u4e07' }],
    greedy,
  );
  await second.text();
  assert.ok(second.stats.reusedTokens >= run.stats.promptTokens - 1, 'the first turn is not read again');
  await assert.rejects(model.formatChat([]), /messages must be a list/);
  await assert.rejects(
    model.formatChat([/** @type {any} */ ({ role: 'user' })]),
    /messages\[0\] must be \{ role, content \}/,
  );
  await assert.rejects(
    model.formatChat(messages, { template: "{{ raise_exception('no such role') }}" }),
    (error) => error instanceof ModelError && /no such role/.test(error.message),
  );
  await assert.rejects(model.chat(messages, /** @type {any} */ ({ topk: 1 })), /no option "topk"/);
  const without = await open(t);
  await assert.rejects(
    without.formatChat(messages),
    (error) => error instanceof ModelError && /no chat template/.test(error.message),
  );
});
