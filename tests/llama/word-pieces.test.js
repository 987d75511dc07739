/**
 * WordPiece: the vocabularies of arch compared with llama.cpp's tokens (tokenizer.test.js), and small
 * ones with results that follow from llama.cpp's rule.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Tokenizer } from '../../js/llama/tokenizer/tokenizer.js';
import { Trie } from '../../js/llama/tokenizer/trie.js';
import { countCalls } from '../helpers/calls.js';
import { Prng } from '../helpers/prng.js';

const SPECIAL = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'];
const [UNKNOWN, CLS, SEP, MASK] = [1, 2, 3, 4];

/**
 * @param {string[]} tokens  tokens after the five special ones
 * @param {Record<string, any>} [changes]
 */
const vocabulary = (tokens, changes = {}) => ({
  'tokenizer.ggml.model': 'bert',
  'tokenizer.ggml.tokens': [...SPECIAL, ...tokens],
  'tokenizer.ggml.token_type': [3, 2, 3, 3, 3, ...tokens.map(() => 1)],
  'tokenizer.ggml.unknown_token_id': UNKNOWN,
  'tokenizer.ggml.bos_token_id': CLS,
  'tokenizer.ggml.seperator_token_id': SEP,
  ...changes,
});

/**
 * The spelling of a text's tokens, without CLS and SEP.
 * @param {Tokenizer} tokenizer
 * @param {string} text
 */
const spell = (tokenizer, text) =>
  tokenizer.encode(text, { bos: false, eos: false }).map((id) => tokenizer.spelling(id).replace('▁', '_'));

/** A tokenizer that has every character of `chars` at the start of a word and inside. @param {string} chars */
const letters = (chars, changes = {}) =>
  new Tokenizer(
    vocabulary(
      [...new Set(chars)].flatMap((char) => [`▁${char}`, char]),
      changes,
    ),
  );

test('word pieces: the longest piece from the left, or unknown', () => {
  const tokenizer = new Tokenizer(vocabulary(['▁un', '▁una', 'ffable', 'aff', 'able', '▁a', 'b']));
  const cases = /** @type {[string, string[]][]} */ ([
    ['unaffable', ['_una', 'ffable']],
    ['unaff', ['[UNK]']],
    ['a', ['_a']],
    ['  a \n\t ab ', ['_a', '_a', 'b']],
    ['unable', ['[UNK]']],
    ['ab abx ab', ['_a', 'b', '[UNK]', '_a', 'b']],
    ['b', ['[UNK]']],
    ['', []],
    [' \u3000\u0085\u00a0', []],
  ]);
  for (const [text, expected] of cases) assert.deepEqual(spell(tokenizer, text), expected, text);
});

test('word pieces: CLS and SEP surround every text', () => {
  const tokenizer = new Tokenizer(vocabulary(['▁a']));
  const A = 5;
  assert.deepEqual(tokenizer.encode('a'), [CLS, A, SEP]);
  assert.deepEqual(tokenizer.encode(''), [CLS, SEP]);
  assert.deepEqual(tokenizer.encode('a', { eos: false }), [CLS, A]);
  assert.deepEqual(tokenizer.encode('a', { bos: false }), [A, SEP]);
  assert.deepEqual(tokenizer.encode('[CLS] a [SEP]'), [CLS, A, SEP], 'a text that has them');
  assert.deepEqual(tokenizer.encode('a[MASK] A'), [CLS, A, MASK, A, SEP]);
  assert.deepEqual(
    [tokenizer.bos, tokenizer.eos, tokenizer.addBos, tokenizer.addEos],
    [CLS, SEP, true, true],
  );
  assert.ok(tokenizer.ends.has(SEP));
  // llama.cpp does not look at these keys.
  const off = new Tokenizer(
    vocabulary(['▁a'], { 'tokenizer.ggml.add_bos_token': false, 'tokenizer.ggml.add_eos_token': false }),
  );
  assert.deepEqual(off.encode('a'), [CLS, A, SEP]);
});

test('word pieces: the ids that a file does not name are those of BERT', () => {
  const filler = Array.from({ length: 100 }, (_, i) => `filler${i}`);
  const tokens = [...filler, '▁a'];
  const unnamed = {
    'tokenizer.ggml.unknown_token_id': undefined,
    'tokenizer.ggml.bos_token_id': undefined,
    'tokenizer.ggml.seperator_token_id': undefined,
  };
  const tokenizer = new Tokenizer(vocabulary(tokens, unnamed));
  assert.deepEqual(tokenizer.encode('a b'), [101, 105, 100, 102]);
  const small = new Tokenizer(vocabulary(['▁a'], unnamed));
  assert.deepEqual(small.encode('a b'), [5], 'a small vocabulary does not have them');
});

test('word pieces: characters become as the vocabulary has them', () => {
  const tokenizer = letters('\ufb01\u{2b820}abeioußσ.,$+中文가\u1100\u0915\u212b~\u00a3\ufa0e\u03c3');
  const cases = /** @type {[string, string[]][]} */ ([
    ['ABE', ['_a', 'b', 'e']],
    ['ÀB\u0301é', ['_a', 'b', 'e']],
    ['İ', ['_i']],
    ['Σσ', ['_σ', 'σ']],
    ['ß', ['_ß']],
    ['a.b,a', ['_a', '_.', '_b', '_,', '_a']],
    ['a$b+', ['_a', '_$', '_b', '_+']],
    // A symbol outside of ASCII is a part of the word.
    ['a\u00a3b', ['_a', '\u00a3', 'b']],
    ['a中文b', ['_a', '_中', '_文', '_b']],
    ['a\u0000\u200d\ufffdb\u00ad', ['_a', 'b']],
    ['a\ud800b\udc00', ['_a', 'b']],
    ['a\u2000b\u2028a\u0085b', ['_a', '_b', '_a', '_b']],
    ['\ue000a', ['_a']],
    // Of a decomposition llama.cpp keeps the first character.
    ['가', ['_\u1100']],
    ['a\ufa0eb', ['_a', '_\ufa0e', '_b']],
    // The range ends where the one of the original tokenizer does.
    ['a\u{2b820}b', ['_a', '\u{2b820}', 'b']],
    ['\ufb01', ['_\ufb01']],
    ['\u212b', ['_a']],
    ['\u0301', []],
  ]);
  for (const [text, expected] of cases)
    assert.deepEqual(spell(tokenizer, text), expected, JSON.stringify(text));
  for (const char of '!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~')
    assert.deepEqual(spell(letters(`ab${char}`), `a${char}b`), ['_a', `_${char}`, '_b'], char);
});

test('word pieces: a file may keep case and accents', () => {
  const options = (/** @type {boolean} */ lower, /** @type {boolean | undefined} */ strip) => ({
    'tokenizer.ggml.normalizer.lowercase': lower,
    ...(strip === undefined ? {} : { 'tokenizer.ggml.normalizer.strip_accents': strip }),
  });
  const spelt = (/** @type {boolean} */ lower, /** @type {boolean | undefined} */ strip) =>
    spell(letters('eEéÉ', options(lower, strip)), 'É');
  assert.deepEqual(spelt(true, undefined), ['_e']);
  assert.deepEqual(spelt(false, undefined), ['_É']);
  assert.deepEqual(spelt(false, true), ['_E']);
  assert.deepEqual(spelt(true, false), ['_é']);
  const accents = letters('eéi\u0301', options(true, false));
  assert.deepEqual(spell(accents, 'e\u0301 \u0130'), ['_e', '\u0301', '_i']);
});

test('word pieces: decoding puts the spaces between words', () => {
  const tokenizer = new Tokenizer(vocabulary(['▁play', 'ing', '▁.']));
  const tokens = tokenizer.encode('Playing play.');
  assert.equal(tokenizer.decode(tokens), 'playing play .');
  assert.equal(tokenizer.decode(tokens, { special: true }), '[CLS] playing play .[SEP]');
});

/**
 * The rule of llama.cpp, step by step, on a map of the pieces.
 * @param {string} text
 * @param {Map<string, number>} pieces
 */
function encodeByRule(text, pieces) {
  /** @type {string[][]} */
  const words = [[]];
  for (const char of text) {
    const first = [...char.normalize('NFD')][0];
    if (/^[\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]$/.test(first)) {
      words.push([]);
    } else if (!/^[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{M}]$/u.test(first)) {
      const lower = [...first.toLowerCase()][0];
      const code = /** @type {number} */ (first.codePointAt(0));
      const alone = /^\p{P}$/u.test(first) || (code < 127 && /^\p{S}$/u.test(first));
      if (alone || (code >= 0x4e00 && code <= 0x9fff)) words.push([lower], []);
      else words.at(-1)?.push(lower);
    }
  }
  return words.flatMap((chars) => {
    if (chars.length === 0) return [];
    const word = ['▁', ...chars];
    const out = [];
    for (let i = 0; i < word.length; ) {
      let j = word.length;
      while (j > i && !pieces.has(word.slice(i, j).join(''))) j -= 1;
      if (j === i) return [UNKNOWN];
      out.push(/** @type {number} */ (pieces.get(word.slice(i, j).join(''))));
      i = j;
    }
    return out;
  });
}

test('word pieces: random vocabularies and texts, by the rule', () => {
  const prng = new Prng(5);
  const alphabet = [...'aabbcdÄéÅ. ,$~中\u0301\u{1f680}\u{10400}\u00ad가\t'];
  const lower = [...'aabbcdae.,$~中\u{1f680}\u{10428}\u1100'];
  const make = (/** @type {string[]} */ from, /** @type {number} */ length) =>
    Array.from({ length: prng.int(1, length) }, () => prng.pick(from)).join('');
  for (let round = 0; round < 60; round++) {
    const tokens = [...new Set(Array.from({ length: 60 }, () => prng.pick(['▁', '']) + make(lower, 3)))];
    const tokenizer = new Tokenizer(vocabulary(tokens));
    const pieces = new Map(tokens.map((token, i) => [token, SPECIAL.length + i]));
    for (let i = 0; i < 40; i++) {
      const text = make(alphabet, 24);
      const expected = encodeByRule(text, pieces);
      const got = tokenizer.encode(text, { bos: false, eos: false });
      assert.deepEqual(got, expected, `round ${round}: ${JSON.stringify(text)}`);
    }
  }
});

test('word pieces: a long word takes steps in proportion to its length', () => {
  const tokenizer = letters('ab');
  const text = 'ab'.repeat(50_000);
  const { result, calls } = countCalls(Trie.prototype, 'child', () => spell(tokenizer, text));
  assert.equal(result.length, text.length);
  assert.ok(calls < 6 * text.length, `${calls} steps`);
});
