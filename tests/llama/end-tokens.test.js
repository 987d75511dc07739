/**
 * The tokens that end a generation: by their texts, whatever their types, and by the ids that a
 * file names.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Tokenizer } from '../../js/llama/tokenizer/tokenizer.js';
import { generate, letter, renamed } from '../helpers/renamed-tokens.js';

const BESIDE = [
  'a',
  'b',
  '<|im_start|>',
  '<|user|>',
  '<|assistant|>',
  '<start_of_turn>',
  '<|eot|>',
  'im_end',
];

/**
 * @param {string[]} texts  texts of the tokens from 11 on
 * @param {Record<string, any>} [changes]
 * @param {number} [type]  type of all these tokens
 */
function vocabulary(texts, changes = {}, type = 1) {
  const tokens = ['<unk>', '<bos>', '<end>', ...BESIDE, ...texts];
  return {
    'tokenizer.ggml.model': 'llama',
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.scores': tokens.map(() => 0),
    'tokenizer.ggml.token_type': [
      2,
      3,
      3,
      ...BESIDE.map((_, i) => (i < 2 ? 1 : 3)),
      ...texts.map(() => type),
    ],
    'tokenizer.ggml.add_space_prefix': false,
    'tokenizer.ggml.add_bos_token': false,
    ...changes,
  };
}
const FIRST = 3 + BESIDE.length;

/**
 * The texts of the tokens that end a generation, without the default one.
 * @param {Tokenizer} tokenizer
 */
const endsOf = (tokenizer) =>
  [...tokenizer.ends].map((id) => tokenizer.spelling(id)).filter((text) => text !== '<end>');

const ENDS = [
  ...[
    '<|eot_id|>',
    '<|im_end|>',
    '<|end|>',
    '<|return|>',
    '<|call|>',
    '<|flush|>',
    '<|calls|>',
    '<end_of_turn>',
  ],
  ...['<|endoftext|>', '</s>', '<|eom_id|>', '<EOT>', '_<EOT>', '[EOT]', '[EOS]', '<|end_of_text|>', '<eos>'],
  ...['<end_of_utterance>', '<turn|>', '<|tool_response>', '<｜end▁of▁sentence｜>', '[e~['],
  ...[
    '<|fim_pad|>',
    '<fim-pad>',
    '<fim_pad>',
    '<PAD>',
    '[PAD]',
    '<|fim_repo|>',
    '<|repo_name|>',
    '<fim-repo>',
  ],
  ...['<REPO>', '<reponame>', '<|file_sep|>'],
];
/** Tokens that are control tokens whatever the file says, but end nothing. */
const INFILL = [
  ...[
    '<|fim_prefix|>',
    '<fim-prefix>',
    '<fim_prefix>',
    '<｜fim▁begin｜>',
    '<PRE>',
    '▁<PRE>',
    '<|code_prefix|>',
    '<|prefix|>',
  ],
  ...[
    '<|fim_suffix|>',
    '<fim-suffix>',
    '<fim_suffix>',
    '<｜fim▁hole｜>',
    '<SUF>',
    '▁<SUF>',
    '<|code_suffix|>',
    '<|suffix|>',
  ],
  ...[
    '<|fim_middle|>',
    '<fim-middle>',
    '<fim_middle>',
    '<｜fim▁end｜>',
    '<MID>',
    '▁<MID>',
    '<|code_middle|>',
    '<|middle|>',
  ],
];

test('end tokens: by their texts, of any type', () => {
  for (const type of [1, 2, 3, 4, 5]) {
    for (const text of [...ENDS, ...INFILL]) {
      const tokenizer = new Tokenizer(vocabulary([text], {}, type));
      assert.deepEqual(endsOf(tokenizer), ENDS.includes(text) ? [text] : [], `${text} of type ${type}`);
      assert.deepEqual(tokenizer.encode(`a${text}b`), [3, FIRST, 4], text);
      assert.ok(!tokenizer.encode(`a${text}b`, { special: false }).includes(FIRST), `${text} in plain text`);
      assert.equal(tokenizer.decode([3, FIRST, 4]), 'ab', `${text} is not shown`);
      assert.equal(tokenizer.decode([3, FIRST, 4], { special: true }), `a${text}b`);
    }
  }
  const { 'tokenizer.ggml.token_type': _, ...untyped } = vocabulary(['<|im_end|>']);
  assert.deepEqual(endsOf(new Tokenizer(untyped)), ['<|im_end|>'], 'also where the file has no types');
  assert.deepEqual(endsOf(new Tokenizer(vocabulary(['im_end|>', '<|im_end', '<|IM_END|>'], {}, 3))), []);
});

test('end tokens: two that only look like ends', () => {
  const ends = (/** @type {string[]} */ ...texts) => endsOf(new Tokenizer(vocabulary(texts, {}, 3))).sort();
  assert.deepEqual(ends('<|end|>', '<|return|>', '<|call|>'), ['<|call|>', '<|return|>']);
  assert.deepEqual(ends('<|end|>', '<|flush|>', '<|calls|>'), ['<|calls|>', '<|flush|>']);
  assert.deepEqual(ends('<|end|>', '<|return|>'), ['<|end|>', '<|return|>']);
  assert.deepEqual(ends('<|end|>', '<|call|>'), ['<|call|>', '<|end|>']);
  assert.deepEqual(ends('<|end|>', '<|return|>', '<|flush|>'), ['<|end|>', '<|flush|>', '<|return|>']);
  assert.deepEqual(ends('</s>', '<|tool_response>'), ['<|tool_response>']);
  const plain = new Tokenizer(vocabulary(['</s>', '<|tool_response>']));
  assert.equal(plain.decode([3, FIRST]), 'a</s>', 'a tag keeps the type that the file gives it');
});

test('end tokens: by the ids that the file names, one or several', () => {
  const ends = (/** @type {Record<string, any>} */ keys, /** @type {string[]} */ texts = []) => {
    const named = Object.entries(keys).map(([key, value]) => [`tokenizer.ggml.${key}`, value]);
    return [...new Tokenizer(vocabulary(texts, Object.fromEntries(named))).ends].sort((a, b) => a - b);
  };
  assert.deepEqual(ends({}), [2], 'the default of this kind');
  assert.deepEqual(ends({ eos_token_id: 4 }), [4]);
  for (const name of ['eot', 'eom', 'eog']) assert.deepEqual(ends({ [`${name}_token_id`]: 4 }), [2, 4], name);
  assert.deepEqual(ends({ eos_token_id: [4, 5] }), [4, 5], 'a list under the key of one');
  for (const name of ['eot', 'eom', 'eog']) {
    assert.deepEqual(ends({ [`${name}_token_id`]: [4, 5] }), [2, 4, 5], name);
    assert.deepEqual(ends({ [`${name}_token_ids`]: [4, 5] }), [2, 4, 5], name);
  }
  assert.deepEqual(ends({ eos_token_ids: [5, 6], eos_token_id: 4 }), [4, 5, 6]);
  assert.deepEqual(ends({ eos_token_id: 99 }), [2], 'outside the vocabulary: the default');
  assert.deepEqual(ends({ eot_token_ids: [-1, 4, 99, 2.5] }), [2, 4]);
  for (const value of ['4', true, null, 4n])
    assert.deepEqual(ends({ eot_token_id: value }), [2], String(value));
  for (const name of ['fim_pad', 'fim_rep', 'fim_sep'])
    assert.deepEqual(ends({ [`${name}_token_id`]: 4 }), [2, 4], name);
  for (const name of ['fim_pre', 'fim_suf', 'fim_mid', 'prefix', 'suffix', 'middle', 'padding'])
    assert.deepEqual(ends({ [`${name}_token_id`]: 4 }), [2], name);
  assert.deepEqual(
    ends({ fim_pad_token_id: 4 }, ['<PAD>']),
    [2, 4],
    'a named one stands for those of a text',
  );
  assert.equal(new Tokenizer(vocabulary([], { 'tokenizer.ggml.eos_token_id': [4, 5] })).eos, 4);
});

test('end tokens: a generation ends with each', async () => {
  const { tokens } = await generate({}, { ignoreEnd: true });
  const at = tokens.findIndex((id, i) => i > 2 && !tokens.slice(0, i).includes(id));
  assert.ok(at > 2 && !tokens.includes(2), `${tokens}`);
  const before = tokens.slice(0, at).map(letter).join('');
  for (const spelling of ['<|im_end|>', '<end_of_utterance>', '[EOT]']) {
    for (const type of [1, 3, 4]) {
      const run = await generate(renamed({ [tokens[at]]: [spelling, type] }));
      assert.deepEqual([run.text, run.finish, run.tokens], [before, 'end', tokens.slice(0, at)], spelling);
    }
  }
  const key = 'tokenizer.ggml.eot_token_id';
  const named = await generate({ [key]: [key, 'array', { of: 'u32', items: [2, tokens[at]] }] });
  assert.deepEqual([named.text, named.finish], [before, 'end']);
});
