/**
 * Unigram vocabularies: small ones, compared with a search through all divisions of a text, and with
 * results that follow from llama.cpp's rules for normalisation.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ModelError } from '../../js/llama/index.js';
import { Charsmap } from '../../js/llama/tokenizer/charsmap.js';
import { Tokenizer } from '../../js/llama/tokenizer/tokenizer.js';
import { Trie } from '../../js/llama/tokenizer/trie.js';
import { countCalls } from '../helpers/calls.js';
import { charsmap } from '../helpers/charsmap.js';
import { Prng } from '../helpers/prng.js';

const [NORMAL, CONTROL, USER_DEFINED, UNUSED, BYTE] = [1, 3, 4, 5, 6];
const [EOS, UNKNOWN] = [1, 2];
const plain = { eos: false };

/**
 * @param {[text: string, score: number, type?: number][]} tokens  those after <pad>, </s> and <unk>
 * @param {Record<string, any>} [changes]
 */
const vocabulary = (tokens, changes = {}) => ({
  'tokenizer.ggml.model': 't5',
  'tokenizer.ggml.tokens': ['<pad>', '</s>', '<unk>', ...tokens.map(([text]) => text)],
  'tokenizer.ggml.scores': [0, 0, 0, ...tokens.map(([, score]) => score)],
  'tokenizer.ggml.token_type': [CONTROL, CONTROL, 2, ...tokens.map(([, , type = NORMAL]) => type)],
  'tokenizer.ggml.add_space_prefix': true,
  'tokenizer.ggml.remove_extra_whitespaces': true,
  ...changes,
});

/** A vocabulary of single characters. @param {string} chars @param {Record<string, any>} [changes] */
const letters = (chars, changes) =>
  new Tokenizer(
    vocabulary(
      Array.from(chars, (char) => [char, -1]),
      changes,
    ),
  );

/** The tokens' spelling, with _ for U+2581. @param {Tokenizer} tokenizer @param {string} text */
const spell = (tokenizer, text) =>
  tokenizer.encode(text, plain).map((id) => tokenizer.spelling(id).replaceAll('▁', '_'));

/**
 * The best divisions of a text, found by trying all: more than one, if their sums are equal.
 * @param {string[]} chars
 * @param {Map<string, { id: number, score: number }>} pieces
 * @param {number} unknownScore
 */
function best(chars, pieces, unknownScore) {
  /** @type {{ score: number, ids: number[] }[]} */
  const all = [];
  const search = (/** @type {number} */ at, /** @type {number} */ score, /** @type {number[]} */ ids) => {
    if (at === chars.length) all.push({ score, ids });
    for (let end = at + 1; end <= chars.length; end++) {
      const piece = pieces.get(chars.slice(at, end).join(''));
      if (piece) search(end, score + piece.score, [...ids, piece.id]);
    }
    if (at < chars.length && !pieces.has(chars[at])) search(at + 1, score + unknownScore, [...ids, UNKNOWN]);
  };
  search(0, 0, []);
  const greatest = Math.max(...all.map(({ score }) => score));
  return all
    .filter(({ score }) => score > greatest - 1e-6)
    .map(({ ids }) => ids.filter((id, i) => id !== UNKNOWN || ids[i - 1] !== UNKNOWN));
}

test('unigrams: the division with the greatest sum, of all', () => {
  const prng = new Prng(3);
  const alphabet = [...'aabbcd \u{1f680}é'];
  const make = (/** @type {number} */ most) =>
    Array.from({ length: prng.int(1, most) }, () => prng.pick(alphabet)).join('');
  let unknowns = 0;
  for (let round = 0; round < 40; round++) {
    const texts = new Set(Array.from({ length: 24 }, () => make(4).replaceAll(' ', '▁')));
    const tokens = /** @type {[string, number, number][]} */ (
      Array.from(texts, (text) => [text, Math.fround(-12 * prng.unit()), prng.pick([NORMAL, NORMAL, UNUSED])])
    );
    const tokenizer = new Tokenizer(vocabulary(tokens, { 'tokenizer.ggml.remove_extra_whitespaces': false }));
    const pieces = new Map(tokens.map(([text, score], i) => [text, { id: 3 + i, score }]));
    const least = Math.min(...tokens.filter(([, , type]) => type === NORMAL).map(([, score]) => score));
    for (let i = 0; i < 30; i++) {
      const text = make(9);
      // The space in front is put before the first character that is none.
      const normal = text.replaceAll(' ', '▁').replace(/(?=[^▁])/, '▁');
      const expected = best([...normal], pieces, Math.fround(least - 10));
      const got = tokenizer.encode(text, plain);
      unknowns += got.includes(UNKNOWN) ? 1 : 0;
      const found = expected.find((ids) => ids.join() === got.join());
      assert.deepEqual(got, found ?? expected[0], `round ${round}: ${JSON.stringify(text)}`);
    }
  }
  assert.ok(unknowns > 100);
});

test('unigrams: of equal sums, the one whose last token begins first', () => {
  const tokenizer = new Tokenizer(
    vocabulary([
      ['▁', -1],
      ['b', -2],
      ['bb', -3],
    ]),
  );
  assert.deepEqual(spell(tokenizer, 'bbb'), ['_', 'b', 'bb']);
});

test('unigrams: BOS, EOS, and the ids that a file does not name', () => {
  const tokenizer = letters('▁ab');
  assert.deepEqual(tokenizer.encode('ab'), [3, 4, 5, EOS]);
  assert.deepEqual(tokenizer.encode(''), [EOS]);
  assert.deepEqual([tokenizer.bos, tokenizer.addBos, tokenizer.eos], [undefined, false, EOS]);
  assert.deepEqual(tokenizer.encode('azz zb', plain), [3, 4, UNKNOWN, 3, UNKNOWN, 5]);
  const named = letters('▁ab', {
    'tokenizer.ggml.unknown_token_id': 5,
    'tokenizer.ggml.bos_token_id': 0,
    'tokenizer.ggml.eos_token_id': 4,
    'tokenizer.ggml.add_bos_token': true,
    'tokenizer.ggml.add_eos_token': false,
  });
  assert.deepEqual(named.encode('az'), [0, 3, 4, 5]);
  assert.equal(named.eos, 4);
  assert.deepEqual(letters('▁a', { 'tokenizer.ggml.bos_token_id': 0 }).encode('a'), [3, 4, EOS]);
});

test('unigrams: the types of tokens', () => {
  const tokenizer = new Tokenizer(
    vocabulary(
      [
        ['▁', -2],
        ['a', -3],
        ['▁a', -9],
        ['▁aa', 0, CONTROL],
        ['aa', 0, BYTE],
        ['<x>', -50, USER_DEFINED],
        ['▁b', -1, UNUSED],
        ['ß', -50, USER_DEFINED],
        ['<0x41>', 0, BYTE],
        ['ßa', -4],
        ['aq', -25, UNUSED],
        ['w', -100, UNUSED],
      ],
      { 'tokenizer.ggml.precompiled_charsmap': charsmap([['S', 'ß']]) },
    ),
  );
  assert.deepEqual(spell(tokenizer, 'aa'), ['_', 'a', 'a']);
  assert.deepEqual(spell(tokenizer, 'b'), ['_b']);
  assert.deepEqual(spell(tokenizer, 'a<x>a'), ['_', 'a', '<x>', '_', 'a']);
  assert.deepEqual(spell(tokenizer, 'SSa'), ['_', 'ß', 'ß', 'a']);
  // A character that is a token is never unknown.
  assert.deepEqual(spell(tokenizer, 'w'), ['_', 'w']);
  // A user-defined token counts nothing.
  assert.deepEqual(spell(tokenizer, 'Sa'), ['_', 'ß', 'a']);
  // An unknown character counts 10 less than the worst normal token, -9 here.
  assert.deepEqual(spell(tokenizer, 'aq'), ['_', 'a', '<unk>']);
  assert.equal(tokenizer.decode([3, 4, 11, 5]), 'aA a');
});

test('unigrams: spaces', () => {
  const spelt = (/** @type {boolean} */ prefix, /** @type {boolean} */ merge, /** @type {string} */ text) =>
    spell(
      letters('▁ab\t', {
        'tokenizer.ggml.add_space_prefix': prefix,
        'tokenizer.ggml.remove_extra_whitespaces': merge,
      }),
      text,
    ).join('');
  for (const [prefix, merge, expected] of /** @type {[boolean, boolean, string][]} */ ([
    [true, true, '_a_b'],
    [true, false, '___a__b_'],
    // llama.cpp puts a space before every word here, also before the first.
    [false, true, '_a_b'],
    [false, false, '__a__b_'],
  ])) {
    assert.equal(spelt(prefix, merge, '  a  b '), expected);
    assert.equal(spelt(prefix, merge, ''), '');
    assert.equal(spelt(prefix, merge, '  '), merge ? '' : '__');
  }
  assert.equal(spelt(true, true, 'a\tb'), '_a\tb', 'only spaces count');
  assert.equal(letters('▁a').decode([3, 4, 3, 4]), 'a a');
  const bare = letters('▁a', { 'tokenizer.ggml.add_space_prefix': undefined });
  assert.equal(bare.decode([3, 4]), ' a');
});

test('unigrams: a charsmap replaces the longest sequence', () => {
  const pairs = /** @type {[string, string][]} */ ([
    ['Ａ', 'A'],
    ['e\u0301', 'é'],
    ['e\u0301\u0301', '!'],
    ['\u00a0', ' '],
    ['\t', ' '],
    ['\u00ad', ''],
    ['ﷺ', 'صلى الله عليه وسلم'],
    ['\u{1f600}', ':)'],
    ['xy', 'z'],
  ]);
  const chars = 'aAeéz!▁:)xyصسلىاهعيوم😁\u0301\ufffd';
  const tokenizer = letters(chars, { 'tokenizer.ggml.precompiled_charsmap': charsmap(pairs) });
  const cases = /** @type {[string, string][]} */ ([
    ['aＡ', '_aA'],
    ['e\u0301e', '_ée'],
    ['e\u0301\u0301\u0301', '_!\u0301'],
    ['a\u00a0\ta', '_a_a'],
    ['a\u00ada', '_aa'],
    ['ﷺ', '_صلى_الله_عليه_وسلم'],
    ['\u{1f600}\u{1f601}', '_:)\u{1f601}'],
    ['xxyx', '_xzx'],
    ['a\ud800', '_a\ufffd'],
    ['\u0000a', '[0]a'],
    ['\u0000xy', '[0]z'],
  ]);
  for (const [text, expected] of cases)
    assert.equal(spell(tokenizer, text).join('').replace('_<unk>', '[0]'), expected, JSON.stringify(text));
  // A unit that holds a place is no child, even if its low byte is the next byte.
  const units = Uint32Array.from({ length: 64 }, (_, i) => (i === 0x21 ? 0x80000161 : i ? 0 : 0x40 << 10));
  const head = [0, 1, 0, 0];
  assert.equal(
    new Charsmap([...head, ...new Uint8Array(units.buffer), 0]).find(Uint8Array.of(0x61), 0),
    undefined,
  );
  const map = new Charsmap(charsmap(pairs));
  for (const [from, to] of pairs) {
    const found = map.find(new TextEncoder().encode(`${from}q`), 0);
    assert.equal(new TextDecoder().decode(found?.text), to);
    assert.equal(found?.length, new TextEncoder().encode(from).length);
  }
});

test('unigrams: a damaged charsmap is refused', () => {
  const refused = (/** @type {number[]} */ values, /** @type {RegExp} */ message, text = 'a') =>
    assert.throws(
      () => letters('▁a', { 'tokenizer.ggml.precompiled_charsmap': values }).encode(text),
      (error) => error instanceof ModelError && message.test(error.message),
    );
  refused([1, 2], /precompiled_charsmap has 2 bytes for an array of 0/);
  refused([8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], /has 12 bytes for an array of 8/);
  refused([255, 255, 255, 255, 0, 0, 0, 0, 0], /has 9 bytes for an array of 4294967295/);
  refused([4, 0, 0, 0, 0, 0, 0, 0, 0], /no unit 97: there are 1/);
  const whole = charsmap([['a', 'b']]);
  refused(whole.slice(0, -1), /no text at 0/);
  // Any bytes give tokens or a typed error.
  const prng = new Prng(9);
  let errors = 0;
  for (let i = 0; i < 300; i++) {
    const values = whole.map((value) => (prng.unit() < 0.01 ? prng.int(-128, 127) : value));
    try {
      letters('▁ab', { 'tokenizer.ggml.precompiled_charsmap': values }).encode('abaé\u{1f680} a');
    } catch (error) {
      assert.ok(error instanceof ModelError, String(error));
      errors += 1;
    }
  }
  assert.ok(errors > 20 && errors < 300, `${errors} errors`);
});

test('unigrams: scores of any value, and hostile vocabularies', () => {
  assert.throws(
    () => letters('a', { 'tokenizer.ggml.scores': undefined }),
    /tokenizer.ggml.scores has no values for 4 tokens/,
  );
  for (const score of [NaN, Infinity, -Infinity, 1e300]) {
    const tokenizer = new Tokenizer(
      vocabulary([
        ['a', score],
        ['▁', score],
        ['ab', score],
        ['', -1],
      ]),
    );
    for (const text of ['ab', 'aab b', '']) assert.ok(tokenizer.encode(text).length < 9, String(score));
  }
  const never = new Tokenizer(
    vocabulary([
      ['▁', -1],
      ['a', -Infinity],
    ]),
  );
  assert.deepEqual(never.encode('a', plain), [UNKNOWN]);
  const none = new Tokenizer(vocabulary([['a', -1, CONTROL]]));
  assert.deepEqual(none.encode('b', plain), [UNKNOWN]);
});

test('unigrams: long texts take steps in proportion to their length', () => {
  const tokenizer = new Tokenizer(
    vocabulary([
      ['▁', -1],
      ['a', -1],
      ['aaaa', -2],
    ]),
  );
  const { result, calls } = countCalls(Trie.prototype, 'child', () => tokenizer.encode('a'.repeat(100_000)));
  assert.equal(result.length, 25_002);
  assert.ok(calls < 6 * 100_000, `${calls} steps`);
});

test('unigrams: <mask> takes the space before it in models that were trained so', () => {
  const encode = (/** @type {string} */ architecture) =>
    new Tokenizer(
      vocabulary(
        [
          ['▁', -1],
          ['a', -1],
          ['<mask>', 0, CONTROL],
        ],
        {
          'general.architecture': architecture,
          'tokenizer.ggml.remove_extra_whitespaces': false,
        },
      ),
    ).encode('a <mask>', plain);
  assert.deepEqual(encode('bert'), [3, 4, 3, 5]);
  for (const name of ['nomic-bert-moe', 'jina-bert-v3']) assert.deepEqual(encode(name), [3, 4, 5]);
});
