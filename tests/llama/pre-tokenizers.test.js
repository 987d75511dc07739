/**
 * Pre-tokenizers: cuts that follow by hand from the expressions of the models, and byte pairs over
 * lines, as Gemma 4 has them.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PRE_TOKENIZERS, RULE_OF } from '../../js/llama/tokenizer/pre-tokenizer-names.js';
import { preTokenizer } from '../../js/llama/tokenizer/pre-tokenizers.js';
import { Tokenizer } from '../../js/llama/tokenizer/tokenizer.js';

/** Cuts by rule; ⏐ stands where the text is cut. @type {Record<string, string[]>} */
const CUTS = {
  default: ['a⏐ ⏐123⏐45⏐!', 'a⏐ `⏐b', '½½½½'],
  'gpt-2': ["don⏐'t⏐ 1234⏐ ⏐ x⏐  "],
  smollm: ['x⏐ ⏐1⏐2⏐3'],
  'llama-bpe': ['x⏐ ⏐123⏐45', 'x⏐ ⏐ ⏐1', 'a⏐      ⏐ b'],
  'smaug-bpe': ["DON⏐'T⏐ ⏐123⏐4"],
  qwen2: ["DON⏐'T⏐ ⏐1⏐2⏐3⏐4", 'ka⏐\u0301b⏐!\n\n⏐ b', "Ankara⏐'d⏐a", 'a⏐ \n\n⏐ b', '\u0085⏐\u0085b⏐\ufeff!⏐b'],
  qwen35: ['ka\u0301b⏐ !⏐\u0301x', 'x⏐ ⏐1⏐2'],
  'gpt-4o': ["Hello⏐World's⏐ ⏐123⏐45⏐ #⏐a⏐/\n", 'Éa⏐Éb', 'a\u0301b', 'AB⏐ CDe⏐F中Gh', 'x⏐!\n/'],
  'granite-embed-multi-97m': ["Hello⏐World's⏐ ⏐123⏐45"],
  tekken: ["Hello⏐World⏐'s⏐ ⏐1⏐2", 'Éa⏐Éb', 'x⏐!\n/'],
  youtu: ["한국어⏐World's⏐，！⏐ab⏐ ⏐1⏐2⏐ ⏐中⏐ㄅㄯ", 'a⏐!/\n'],
  tiny_aya: ['a⏐1⏐234⏐567⏐ ⏐123⏐4⏐b', '12⏐345⏐!⏐ Ab⏐Cd', '123⏐4⏐_x', '٣⏐٣٣٣'],
  'kimi-k2': ["Hello⏐中文⏐World's⏐ ⏐ ⏐中⏐ ⏐123⏐45⏐!\n⏐/", 'Ab⏐Cd', '⺀⏐!'],
  'deepseek-coder': ['int⏐ x⏐=⏐1⏐;⏐\n⏐中⏐a⏐ ⏐2⏐3'],
  // The second class holds all from : to ~, so the third step cuts ASCII letters again.
  'deepseek-llm': ['H⏐é⏐ x⏐=⏐1⏐;⏐\n⏐中⏐a⏐ ⏐23⏐ ⏐ა', 'x⏐ ⏐ y', '\ua791⏐  ', '\ua791⏐Α', 'ա⏐Հ', 'é\u0295é'],
  'deepseek-v3': ['a⏐.b⏐ ⏐123⏐45⏐中文かな⏐!\n\n⏐ x⏐ ⏐ y', 'a\u0301b⏐ +!'],
  spark2_5: ['a⏐.b⏐ ⏐1⏐2⏐3⏐4⏐!⏐\n⏐\n⏐x'],
  afmoe: ['a⏐1⏐234⏐567⏐ ⏐中文가⏐.b⏐ ⏐12⏐!', '123⏐456', '½⏐123', '12⏐ab', 'x⏐  ⏐12'],
  falcon: ['a⏐ ⏐`⏐b⏐ ⏐123⏐45⏐ ⏐+='],
  bloom: ['Hello⏐,⏐ wor⏐(⏐ld⏐),⏐ 12'],
  viking: ['Hello⏐,⏐ wor⏐(⏐ld⏐),⏐ ⏐1⏐2'],
  chameleon: ['a⏐\t⏐b⏐    ⏐c⏐ ⏐1⏐2⏐ x⏐.⏐y', 'x⏐IMGIMGABZ⏐y', 'x⏐.⏐.⏐y'],
  superbpe: [
    'ab cd ⏐1⏐234⏐567⏐ x',
    '½⏐123',
    '123½',
    '1⏐234½5⏐678',
    'a⏐12⏐b',
    '\u{1d7d8}⏐\u{1d7d8}\u{1d7d8}\u{1d7d8}',
  ],
  'seed-coder': ['a⏐!⏐\n\n⏐b⏐ ⏐1⏐2'],
  'exaone-moe': ['the big dog⏐ ⏐1⏐2⏐ a⏐!\n⏐/', 'a\u0301 b⏐ ⏐ ⏐1', 'a⏐!\n⏐\n⏐b'],
  'jais-2': ['a⏐    ⏐  ⏐ b⏐ ⏐123⏐4', 'a⏐  ⏐ ⏐ b'],
  minicpm5: ['x⏐  ⏐1', 'x⏐ ⏐123⏐45'],
  ufakzeka: ["Ankara⏐'da⏐ ⏐1⏐2"],
  laguna: ['a⏐ ⏐\n\n⏐ b⏐!⏐\n⏐1⏐2'],
  gemma4: ['a b⏐\n\n⏐c 12'],
  'sarvam-moe': ['a b⏐\n\n⏐c 12'],
};

for (const [rule, cuts] of Object.entries(CUTS)) {
  test(`pre-tokenizer: ${rule}`, () => {
    for (const cut of cuts) assert.equal(preTokenizer(rule).split(cut.replaceAll('⏐', '')).join('⏐'), cut);
  });
}

/** Names of a rule besides its own. @type {Record<string, string[]>} */
const ALIASES = {
  'gpt-2': [
    ...['phi-2', 'mpt', 'olmo', 'jais', 'roberta-bpe', 'exaone4', 'trillion', 'granite-docling', 'gigachat'],
    ...['a.x-4.0', 'mellum', 'modern-bert', 'jina-v1-en', 'jina-es', 'jina-de', 'jina-v2-es', 'jina-v2-de'],
    'jina-v2-code',
  ],
  smollm: ['starcoder', 'refact', 'command-r', 'codeshell', 'exaone', 'minerva-7b', 'mellum2'],
  'llama-bpe': [
    ...['llama3', 'llama-v3', 'falcon3', 'falcon-h1', 'pixtral', 'midm-2.0', 'lfm2', 'jina-v5-nano'],
  ],
  'smaug-bpe': ['dbrx', 'glm4', 'chatglm-bpe'],
  qwen2: [
    ...['deepseek-r1-qwen', 'stablelm2', 'megrez', 'kormo', 'f2llmv2', 'hunyuan', 'solar-open', 'grok-2'],
    ...['bailingmoe', 'bailingmoe2', 'llada-moe'],
  ],
  'gpt-4o': ['llama4', 'kanana2', 'talkie', 'minimax-m2'],
  tiny_aya: ['cohere2moe'],
  'deepseek-v3': ['hunyuan-dense', 'joyai-llm', 'hy_v4'],
  bloom: ['poro-chat', 'gpt3-finnish'],
  gemma4: ['granite-embed-multi-311m'],
};
/** Rules that take a word whole if it is a token, and those that begin a text with BOS. */
const WHOLE = ['llama-bpe', 'tekken', 'youtu', 'granite-embed-multi-97m', 'minicpm5'];
const BOS = ['llama-bpe', 'tekken', 'chameleon', 'gemma4'];

/** @param {any} pre @param {Record<string, any>} [changes] */
const vocabulary = (pre, changes = {}) => ({
  'tokenizer.ggml.model': 'gpt2',
  'tokenizer.ggml.pre': pre,
  'tokenizer.ggml.tokens': ['<s>', 'a', 'b', 'c', 'bc', 'abc'],
  'tokenizer.ggml.token_type': [3, 1, 1, 1, 1, 1],
  'tokenizer.ggml.merges': ['b c'],
  'tokenizer.ggml.bos_token_id': 0,
  ...changes,
});

test('pre-tokenizers: each of their names', () => {
  const texts = Object.values(CUTS).flat();
  /** @type {string[]} */
  const names = [];
  for (const rule of Object.keys(CUTS)) {
    const { split } = preTokenizer(rule);
    for (const name of [rule, ...(ALIASES[rule] ?? [])]) {
      names.push(name);
      assert.equal(RULE_OF.get(name), rule);
      for (const text of texts) assert.deepEqual(preTokenizer(name).split(text), split(text), name);
      const expected = [...(BOS.includes(rule) ? [0] : []), ...(WHOLE.includes(rule) ? [5] : [1, 4])];
      assert.deepEqual(new Tokenizer(vocabulary(name)).encode('abc'), expected, name);
    }
  }
  assert.deepEqual([...PRE_TOKENIZERS].sort(), names.sort());
  for (const missing of [undefined, '']) assert.equal(new Tokenizer(vocabulary(missing)).pre, 'default');
});

test('pre-tokenizers: no two rules are the same', () => {
  const texts = Object.values(CUTS)
    .flat()
    .map((text) => text.replaceAll('⏐', ''));
  const seen = new Map();
  for (const rule of Object.keys(CUTS)) {
    const { split, ...flags } = preTokenizer(rule);
    const key = JSON.stringify([texts.map(split), flags]);
    assert.equal(seen.get(key), undefined, rule);
    seen.set(key, rule);
  }
});

test('pre-tokenizers: no character is lost, also in long texts without a break', () => {
  const text = "It's 12345 o'clock\u0085 in Köln,\r\n\n  \tДом 東京!!! \u{1f680}\ufeff don'T ABcd/ef\ud800  ";
  // An expression whose time grows with the square of the length would not end.
  const long = ['a', 'A', '1', ' ', '\n', '!', 'a\u0301', ' a', '中', 'A中', '\u{1d7d8}'].map(
    (part) => `${part.repeat(20_000)}x`,
  );
  for (const name of Object.keys(CUTS))
    for (const one of [text, ...long]) assert.ok(preTokenizer(name).split(one).join('') === one, name);
});

/** @param {Record<string, any>} [changes] */
const lines = (changes = {}) => ({
  'tokenizer.ggml.model': 'gemma4',
  'tokenizer.ggml.pre': 'default',
  'tokenizer.ggml.tokens': [
    ...['<bos>', '<eos>', '▁', 'a', 'b', '▁a', '▁a▁b', '▁b', '\n', '\n\n', '<0xC3>', '<0xA9>', 'é▁'],
    '\n\n\n',
  ],
  'tokenizer.ggml.token_type': [3, 3, 1, 1, 1, 1, 1, 1, 1, 1, 6, 6, 1, 1],
  'tokenizer.ggml.merges': ['▁ a', '▁ b', '▁a ▁b', 'x y', '\n \n'],
  'tokenizer.ggml.bos_token_id': 0,
  'tokenizer.ggml.eos_token_id': 1,
  ...changes,
});

test('byte pairs over lines: spaces are characters, words are lines', () => {
  const tokenizer = new Tokenizer(lines());
  const spell = (/** @type {string} */ text) =>
    tokenizer.encode(text, { bos: false }).map((id) => tokenizer.spelling(id));
  assert.deepEqual(tokenizer.encode(' a b'), [0, 6]);
  assert.deepEqual(spell(' a bb'), ['▁a▁b', 'b']);
  assert.deepEqual(spell('a\n\n a'), ['a', '\n\n', '▁a']);
  // A run of newlines is a token as a whole, although no merge makes it.
  assert.deepEqual(spell('\n\n\n'), ['\n\n\n']);
  assert.deepEqual(spell('\n\n\n\n'), ['\n\n', '\n\n']);
  assert.deepEqual(spell('é'), ['<0xC3>', '<0xA9>'], 'bytes where there is no token');
  assert.deepEqual(spell('zé'), ['<0xC3>', '<0xA9>'], 'bytes that are no tokens are left out');
  assert.equal(tokenizer.decode([0, 5, 10, 11, 12]), ' aéé ');
  assert.equal(tokenizer.decode(tokenizer.encode(' a b\na')), ' a b\na');
  assert.equal(tokenizer.pre, 'gemma4', 'whatever the file says');
});

test('byte pairs over lines: Gemma 4 begins with BOS, whatever the file says', () => {
  const off = { 'tokenizer.ggml.add_bos_token': false };
  assert.equal(new Tokenizer(lines(off)).addBos, true);
  const named = (/** @type {string} */ pre) =>
    new Tokenizer(lines({ ...off, 'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': pre }));
  assert.deepEqual(named('granite-embed-multi-311m').encode(' a b\n\n\n'), [0, 6, 13]);
  assert.deepEqual(named('sarvam-moe').encode(' a b\n\n\n'), [6, 9, 8]);
  assert.deepEqual(named('gpt-2').encode('ab'), [3, 4]);
});
