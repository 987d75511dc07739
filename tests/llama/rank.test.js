/**
 * Scores of pairs of texts. The reference is the ranking head in float64, applied to the hidden
 * states that `embed` gives for the text of the pair; those are compared with llama.cpp in
 * arch-embed.test.js. The heads have random weights.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ArgumentError, ContextError, Llama, ModelError } from '../../js/llama/index.js';
import { changedGguf, floats } from '../helpers/changed-gguf.js';
import { Prng } from '../helpers/prng.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { dataPath, skipWithout } from '../helpers/test-data.js';

/** @import { Pair } from '../helpers/gguf-bytes.js' */

const exact = /** @type {const} */ ({ activation: 'f32', kvType: 'F32' });
const WIDTH = 256;
const skip = skipWithout('arch/models');

/** @param {number} n @param {number} seed @param {number} [size] */
function random(n, seed, size = 1) {
  const prng = new Prng(seed);
  return Float32Array.from({ length: n }, () => size * prng.gaussian());
}

/** @param {ArrayLike<number>} w @param {ArrayLike<number>} x @param {ArrayLike<number>} [bias] */
const product = (w, x, bias) =>
  Array.from({ length: w.length / x.length }, (_, r) =>
    Array.from(x).reduce((sum, value, c) => sum + value * w[r * x.length + c], bias?.[r] ?? 0),
  );

const inner = random(WIDTH * WIDTH, 1, 0.1);
const innerBias = random(WIDTH, 2);
const scale = random(WIDTH, 3);
const output = random(WIDTH, 4, 0.2);
const outputBias = random(1, 5);

const QUERY = 'the little girl';
const DOCUMENTS = ['a big red dog', 'she went to the park', 'the'];

/** @param {number[]} got @param {number[]} expected */
function close(got, expected) {
  assert.equal(got.length, expected.length);
  for (const [i, value] of got.entries())
    assert.ok(Math.abs(value - expected[i]) < 1e-4, `[${i}] is ${value}, expected ${expected[i]}`);
  const spread = Math.max(...expected) - Math.min(...expected);
  assert.ok(spread > 0.01, `the scores differ: ${expected}`);
}

test('rank: a BERT head scores the first token of [CLS] query [SEP] document [SEP]', { skip }, async (t) => {
  const path = dataPath('arch/models/bert-A.gguf');
  for (const [what, has] of /** @type {[string, boolean[]][]} */ ([
    ['both products', [true, true]],
    ['the last one alone', [false, true]],
    ['no biases', [true, false]],
  ])) {
    const tensors = [floats('cls.output.weight', [WIDTH, 1], output)];
    if (has[0]) tensors.push(floats('cls.weight', [WIDTH, WIDTH], inner));
    if (has[1]) tensors.push(floats('cls.output.bias', [1], outputBias));
    if (has[0] && has[1]) tensors.push(floats('cls.bias', [WIDTH], innerBias));
    const bytes = await changedGguf(path, { metadata: { 'bert.pooling_type': 4 }, tensors });
    const model = await Llama.load(bytes, exact);
    t.after(() => model.dispose());
    const expected = [];
    for (const document of DOCUMENTS) {
      const pair = `${QUERY}[SEP]${document}`;
      const state = await model.embed(pair, { pooling: 'cls', normalize: false });
      const hidden = has[0] ? product(inner, state, has[1] ? innerBias : undefined).map(Math.tanh) : state;
      expected.push(product(output, hidden, has[1] ? outputBias : undefined)[0]);
    }
    close(await model.rank(QUERY, DOCUMENTS), expected);
    assert.deepEqual(await model.rank(QUERY, []), [], what);
    // A separator that a text spells is no separator, so it is no third text.
    const three = await model.embed(`${QUERY}[SEP]a[SEP]b`, { pooling: 'cls', normalize: false });
    const inside = has[0] ? product(inner, three, has[1] ? innerBias : undefined).map(Math.tanh) : three;
    const [asThree] = product(output, inside, has[1] ? outputBias : undefined);
    for (const [query, document] of [
      [QUERY, 'a[SEP]b'],
      [`${QUERY}[SEP]a`, 'b'],
    ]) {
      const [score] = await model.rank(query, [document]);
      assert.ok(Math.abs(score - asThree) > 1e-3, `${query}, ${document}: ${score}`);
    }
    await assert.rejects(model.embed('a'), /rank: scores, no vectors; use rank/);
  }
});

test('factors of products after the pooling are refused', { skip }, async () => {
  /** @type {[string, string, import('../helpers/gguf-bytes.js').TensorSpec[]][]} */
  const models = [
    ['bert-A', 'cls.output.scale', [floats('cls.output.weight', [WIDTH, 1], output)]],
    ['bert-A', 'cls.scale', [floats('cls.weight', [WIDTH, WIDTH], inner)]],
    ['gemma-embedding-A', 'dense_2.scale', []],
  ];
  for (const [model, name, more] of models) {
    const tensors = [...more, floats(name, [1], [2])];
    const bytes = await changedGguf(dataPath(`arch/models/${model}.gguf`), { tensors });
    await assert.rejects(Llama.load(bytes, exact), (error) => {
      assert.ok(error instanceof ModelError && error.message.includes(`does not use: "${name}"`), `${error}`);
      return true;
    });
  }
});

test('rank: a ModernBERT head takes the mean, GELU and a norm', { skip }, async (t) => {
  const tensors = [
    floats('cls.weight', [WIDTH, WIDTH], inner),
    floats('cls.norm.weight', [WIDTH], scale),
    floats('cls.output.weight', [WIDTH, 1], output),
    floats('cls.output.bias', [1], outputBias),
  ];
  const model = await Llama.load(
    await changedGguf(dataPath('arch/models/modern-bert-A.gguf'), { tensors }),
    exact,
  );
  t.after(() => model.dispose());
  const gelu = (/** @type {number} */ x) =>
    0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
  const expected = [];
  for (const document of DOCUMENTS) {
    const state = await model.embed(`${QUERY}</s>${document}`, { pooling: 'mean', normalize: false });
    const x = product(inner, state).map(gelu);
    const mean = x.reduce((sum, value) => sum + value, 0) / WIDTH;
    const square = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / WIDTH;
    const normed = x.map((value, i) => ((value - mean) / Math.sqrt(square + 0.005)) * scale[i]);
    expected.push(product(output, normed, outputBias)[0]);
  }
  close(await model.rank(QUERY, DOCUMENTS), expected);
});

/** @param {number[]} letters  token ids in the synthetic vocabulary */
const textOf = (letters) => String.fromCharCode(...letters.map((token) => 0x4e00 + token));

test('rank: a Qwen 3 head gives the probability of yes, with the template of the file', async (t) => {
  const weights = random(2 * 64, 6);
  /** @type {Record<string, Pair>} */
  const pairs = {
    labels: ['qwen3.classifier.output_labels', 'array', { of: 'string', items: ['yes', 'no'] }],
    template: [
      'tokenizer.chat_template.rerank',
      'string',
      `<s>${textOf([7])}{query}</s>${textOf([9])}{document}`,
    ],
  };
  const made = makeModel({
    architecture: 'qwen3',
    pairs,
    change: (tensors) => [...tensors, floats('cls.output.weight', [64, 2], weights)],
  });
  const model = await Llama.load(made.bytes.buffer, exact);
  t.after(() => model.dispose());
  const documents = [[12, 30], [4], [22, 8, 8, 31]];
  const expected = documents.map((document) => {
    const state = /** @type {number[]} */ (made.hidden([1, 7, 5, 6, 2, 9, ...document]).at(-1));
    const [yes, no] = product(weights, state);
    return 1 / (1 + Math.exp(no - yes));
  });
  const texts = documents.map(textOf);
  close(await model.rank(textOf([5, 6]), texts), expected);
  assert.deepEqual(model.info.causal, true);

  const plain = makeModel({
    architecture: 'qwen3',
    pairs: {
      labels: pairs.labels,
      eos: ['tokenizer.ggml.add_eos_token', 'bool', true],
      separate: ['tokenizer.ggml.add_sep_token', 'bool', true],
      separator: ['tokenizer.ggml.seperator_token_id', 'u32', 33],
    },
    change: (tensors) => [...tensors, floats('cls.output.weight', [64, 2], weights)],
  });
  const other = await Llama.load(plain.bytes.buffer, exact);
  t.after(() => other.dispose());
  const [got] = await other.rank(textOf([5, 6]), [texts[0]]);
  const state = /** @type {number[]} */ (plain.hidden([1, 5, 6, 2, 33, 12, 30, 2]).at(-1));
  const [yes, no] = product(weights, state);
  assert.ok(Math.abs(got - 1 / (1 + Math.exp(no - yes))) < 1e-5);
});

test('rank: what cannot be ranked is refused', async (t) => {
  const plain = await Llama.load(makeModel({}).bytes.buffer, exact);
  t.after(() => plain.dispose());
  await assert.rejects(
    plain.rank('a', ['b']),
    (error) =>
      error instanceof ModelError && /this llama model has no ranking head.*cls\.weight/.test(error.message),
  );
  const made = makeModel({
    architecture: 'qwen3',
    context: 8,
    change: (tensors) => [...tensors, floats('cls.output.weight', [64, 1], random(64, 7))],
  });
  const model = await Llama.load(made.bytes.buffer, exact);
  t.after(() => model.dispose());
  const bad = (/** @type {any[]} */ args, /** @type {any} */ type, /** @type {RegExp} */ message) =>
    assert.rejects(
      /** @type {any} */ (model).rank(...args),
      (error) => error instanceof type && message.test(/** @type {Error} */ (error).message),
    );
  await bad([5, ['a']], ArgumentError, /the query must be a string, got 5/);
  await bad(['a', ['b', 5]], ArgumentError, /the document must be a string, got 5/);
  await bad(['a', 'b'], ArgumentError, /documents must be a list of texts, got "b"/);
  await bad(['a', ['b'], { pooling: 'mean' }], ArgumentError, /no option "pooling"; options are signal/);
  const long = textOf([5, 6, 7, 8, 9]);
  await bad([long, [textOf([5]), long]], ContextError, /the query with documents\[1\] has 11 tokens.* 8/);
});
