/**
 * Tokenizers: real vocabularies compared with llama.cpp's tokens, small ones with expected results
 * and with @huggingface/tokenizers.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import * as library from '@huggingface/tokenizers';
import { ModelError, openGguf } from '../../js/llama/index.js';
import { mergeSymbols } from '../../js/llama/tokenizer/merge.js';
import { Tokenizer } from '../../js/llama/tokenizer/tokenizer.js';
import { TINY_TALES } from '../helpers/llama.js';
import { Prng } from '../helpers/prng.js';
import { dataPath, listData, skipWithout } from '../helpers/test-data.js';

const VOCABULARIES = ['llama-spm', 'gpt-2', 'qwen2', 'llama-bpe'];
const plain = { bos: false, special: false };

/** @param {string} name */
async function readVocabulary(name) {
  const path = dataPath(`vocab/ggml-vocab-${name}.gguf`);
  const { metadata } = await openGguf(path);
  const texts = readFileSync(`${path}.inp`, 'utf8').split('\n__ggml_vocab_test__\n').slice(0, -1);
  const expected = readFileSync(`${path}.out`, 'utf8')
    .split('\n')
    .slice(0, texts.length)
    .map((line) => line.trim().split(' ').filter(Boolean).map(Number));
  return { metadata, tokenizer: new Tokenizer(metadata), texts, expected };
}

for (const name of VOCABULARIES) {
  const skip = skipWithout(`vocab/ggml-vocab-${name}.gguf`);
  test(`tokenizer: ${name}, every case of llama.cpp`, { skip }, async (t) => {
    const { tokenizer, texts, expected, metadata } = await readVocabulary(name);
    assert.equal(texts.length, 46);
    for (const [i, text] of texts.entries()) {
      assert.deepEqual(tokenizer.encode(text, plain), expected[i], JSON.stringify(text));
      assert.equal(tokenizer.decode(expected[i]), text, 'and back');
    }
    const whole = texts.join('\n');
    assert.equal(tokenizer.decode(tokenizer.encode(whole, plain)), whole);
    assert.deepEqual(tokenizer.encode(texts[3], { special: false }), [
      ...(tokenizer.addBos ? [metadata['tokenizer.ggml.bos_token_id']] : []),
      ...expected[3],
    ]);
    t.diagnostic(`ran: ${texts.length} texts of ${name}, ${tokenizer.size} tokens`);
  });

  test(`tokenizer: ${name}, any text comes back`, { skip }, async () => {
    const { tokenizer } = await readVocabulary(name);
    const prng = new Prng(7);
    const ranges = [
      ...[
        [32, 126],
        [9, 13],
        [0xa0, 0x24f],
        [0x400, 0x4ff],
        [0x600, 0x6ff],
        [0x900, 0x97f],
      ],
      ...[
        [0x2000, 0x206f],
        [0x4e00, 0x4fff],
        [0x1f300, 0x1f6ff],
        [0xe000, 0xe0ff],
      ],
    ];
    for (let i = 0; i < 300; i++) {
      const length = prng.int(1, 60);
      const text = Array.from({ length }, () => {
        const [low, high] = prng.pick(prng.unit() < 0.5 ? ranges.slice(0, 1) : ranges);
        return String.fromCodePoint(prng.int(low, high));
      }).join('');
      assert.equal(
        tokenizer.decode(tokenizer.encode(text, plain)),
        text,
        `text ${i}: ${JSON.stringify(text)}`,
      );
    }
  });
}

test('tokenizer: merges as another implementation makes them', {
  skip: skipWithout('vocab/ggml-vocab-gpt-2.gguf'),
}, async () => {
  const { metadata } = await readVocabulary('gpt-2');
  const tokens = /** @type {string[]} */ (metadata['tokenizer.ggml.tokens']);
  const merges = /** @type {string[]} */ (metadata['tokenizer.ggml.merges']);
  // The types of the package do not have all of its exports.
  const { BPE } = /** @type {any} */ (library);
  const theirs = new BPE({ vocab: new Map(tokens.map((token, id) => [token, id])), merges });
  const ranks = new Map(merges.map((pair, rank) => [pair, rank]));
  const prng = new Prng(11);
  const letters = [...'etaoinshrdlucmfwypvbgkjqxzETAOIN.,0123456789', 'Ġ', 'Ġ', 'Ċ'];
  for (let i = 0; i < 3000; i++) {
    const word = Array.from({ length: prng.int(1, i % 100 === 0 ? 400 : 24) }, () => prng.pick(letters)).join(
      '',
    );
    let start = 0;
    const ours = mergeSymbols(word, (text, from, middle, to) =>
      ranks.get(`${text.slice(from, middle)} ${text.slice(middle, to)}`),
    ).map((end) => {
      const symbol = word.slice(start, end);
      start = end;
      return symbol;
    });
    assert.deepEqual(ours, theirs.bpe(word), word);
  }
});

test('tokenizer: long texts without a break take no quadratic time to merge', () => {
  // Every pair merges: a quadratic loop over 200,000 characters would take minutes.
  const text = 'ab'.repeat(100_000);
  let calls = 0;
  const ends = mergeSymbols(text, (_, start, __, end) => {
    calls += 1;
    return end - start <= 16 ? end - start : undefined;
  });
  assert.equal(ends.at(-1), text.length);
  assert.ok(calls < 10 * text.length, `${calls} calls`);
});

const ARCH = listData('arch', 'models');

test('tokenizer: the vocabulary of every model of arch, as llama.cpp does it', {
  skip: skipWithout('arch'),
}, async (t) => {
  for (const file of ARCH) {
    const { metadata } = await openGguf(dataPath('arch', 'models', file));
    const reference = JSON.parse(
      readFileSync(dataPath('arch', 'logits', file.replace('.gguf', '.json')), 'utf8'),
    );
    const tokenizer = new Tokenizer(metadata);
    const { addBos, bos, eos } = tokenizer;
    assert.deepEqual([addBos, bos, eos], [reference.add_bos, reference.bos, reference.eos], file);
    for (const { text, tokens } of reference.texts ?? reference.prompts)
      assert.deepEqual(tokenizer.encode(text), tokens, `${file}: ${text}`);
  }
  t.diagnostic(`ran: the texts of ${ARCH.length} models of arch`);
});

/** @param {Record<string, any>} [changes] */
const pieces = (changes = {}) => ({
  'tokenizer.ggml.model': 'llama',
  'tokenizer.ggml.tokens': [
    '<unk>',
    '<s>',
    '</s>',
    '<0xC3>',
    '<0xA9>',
    '\u2581',
    'a',
    'b',
    'ab',
    '\u2581ab',
    '<|x|>',
    '<user>',
  ],
  'tokenizer.ggml.scores': [0, 0, 0, 0, 0, -5, -6, -7, -1, -2, 0, 0],
  'tokenizer.ggml.token_type': [2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 3, 4],
  'tokenizer.ggml.bos_token_id': 1,
  'tokenizer.ggml.eos_token_id': 2,
  ...changes,
});

test('tokenizer: sentence pieces', () => {
  const tokenizer = new Tokenizer(pieces());
  assert.deepEqual(tokenizer.encode('ab'), [1, 9]);
  assert.deepEqual(tokenizer.encode('ab', { bos: false }), [9]);
  assert.deepEqual(tokenizer.encode('', { bos: false }), []);
  assert.deepEqual(tokenizer.encode('aé', plain), [5, 6, 3, 4], 'bytes where no piece fits');
  assert.deepEqual(tokenizer.encode('z', plain), [5, 0], 'unknown where there is no byte');
  assert.deepEqual(
    tokenizer.encode('ab<|x|>ab'),
    [1, 9, 10, 9],
    'after a control token a space is put again',
  );
  assert.equal(tokenizer.encode('<|x|>', plain).includes(10), false, 'plain text is no control token');
  assert.deepEqual(tokenizer.encode('ab<user>', plain), [9, 11], 'user-defined tokens are found in any text');
  assert.deepEqual(tokenizer.encode('<s>ab'), [1, 9], 'no second BOS');
  assert.equal(tokenizer.decode([1, 9, 10, 9]), 'ab ab');
  assert.equal(tokenizer.decode([1, 9, 10], { special: true }), '<s> ab<|x|>');
  assert.equal(tokenizer.decode([3]), '\ufffd', 'half a character');
  const bare = new Tokenizer(
    pieces({ 'tokenizer.ggml.add_space_prefix': false, 'tokenizer.ggml.add_bos_token': false }),
  );
  assert.deepEqual(bare.encode('ab ab'), [8, 9]);
  assert.equal(bare.decode(bare.encode(' ab')), ' ab');
});

test('tokenizer: control tokens of a chat template', {
  skip: skipWithout('vocab/ggml-vocab-qwen2.gguf'),
}, async () => {
  const { tokenizer } = await readVocabulary('qwen2');
  const text = '<|im_start|>user\nHi<|im_end|>\n';
  assert.deepEqual(tokenizer.encode(text), [151644, 872, 198, 13048, 151645, 198]);
  assert.equal(tokenizer.decode(tokenizer.encode(text), { special: true }), text);
  assert.ok(tokenizer.encode(text, { special: false }).length > 6);
  assert.ok(tokenizer.ends.has(151645), '<|im_end|> ends a text');
});

test('tokenizer: what is not supported is refused, with the list', () => {
  const refused = (/** @type {Record<string, any>} */ changes, /** @type {RegExp} */ message) =>
    assert.throws(
      () => new Tokenizer(pieces(changes)),
      (error) => error instanceof ModelError && message.test(error.message),
    );
  for (const kind of ['rwkv', 'plamo2', 'toString', undefined]) {
    refused(
      { 'tokenizer.ggml.model': kind },
      /is not supported; supported are llama \(SentencePiece\), gpt2 \(byte pairs\), gemma4 .*, bert \(WordPiece\)/,
    );
  }
  refused({ 'tokenizer.ggml.tokens': undefined }, /tokenizer.ggml.tokens is missing/);
  refused({ 'tokenizer.ggml.scores': [1] }, /1 values for 12 tokens/);
  refused({ 'tokenizer.ggml.model': 'gpt2' }, /merges is missing/);
  refused(
    { 'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': 'new' },
    /"new" is not supported; .*gpt-2.*qwen2/,
  );
  assert.throws(() => new Tokenizer(pieces()).decode([12]), /no token 12: the vocabulary has 12/);
});

test('tokenizer: the embedded model', async () => {
  const { metadata } = await openGguf(TINY_TALES);
  const tokenizer = new Tokenizer(metadata);
  assert.deepEqual(tokenizer.encode('Once upon a time'), [1, 441, 591, 261, 590]);
  assert.equal(tokenizer.decode([1, 441, 591, 261, 590]), 'Once upon a time');
});
