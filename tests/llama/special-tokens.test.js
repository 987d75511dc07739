/**
 * Control and user-defined tokens: how they are found in a text, whatever their text is and however
 * many there are.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SpecialTokens } from '../../js/llama/tokenizer/special-tokens.js';
import { Tokenizer } from '../../js/llama/tokenizer/tokenizer.js';
import { Prng } from '../helpers/prng.js';

/** @import { SpecialToken } from '../../js/llama/tokenizer/special-tokens.js' */

const [CONTROL, USER_DEFINED] = [3, 4];
const utf8 = new TextEncoder();

/**
 * A SentencePiece vocabulary with all bytes, and without a space in front of texts.
 * @param {[text: string, type: number][]} special
 * @param {Record<string, any>} [changes]
 */
function vocabulary(special, changes = {}) {
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`);
  const tokens = ['<unk>', '<s>', '</s>', ...bytes, ...special.map(([text]) => text), '▁'];
  const types = [2, 3, 3, ...bytes.map(() => 6), ...special.map(([, type]) => type), 1];
  return {
    'tokenizer.ggml.model': 'llama',
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.scores': tokens.map(() => 0),
    'tokenizer.ggml.token_type': types,
    'tokenizer.ggml.add_space_prefix': false,
    'tokenizer.ggml.add_bos_token': false,
    ...changes,
  };
}

/**
 * The spelling of a text's tokens, without bytes.
 * @param {Tokenizer} tokenizer @param {string} text @param {object} [options]
 */
const cutsOf = (tokenizer, text, options) =>
  tokenizer
    .encode(text, options)
    .map((id) => tokenizer.spelling(id))
    .filter((spelling) => !spelling.startsWith('<0x'));

/**
 * The rule, step by step: for each token, the longest first, every remaining piece of text is
 * searched from its beginning.
 * @param {SpecialToken[]} tokens
 * @param {string} text
 * @param {boolean} control
 */
function cutByRule(tokens, text, control) {
  const size = (/** @type {SpecialToken} */ { text: spelling }) => utf8.encode(spelling).length;
  const isSpace = (/** @type {string | undefined} */ char) =>
    char !== undefined && ' \t\n\v\f\r'.includes(char);
  const order = [...tokens].sort((a, b) => size(b) - size(a) || a.id - b.id);
  /** @type {(string | number)[]} */
  let pieces = [text];
  for (const { id, text: spelling, always, stripLeft, stripRight } of order) {
    if (!control && !always) continue;
    pieces = pieces.flatMap((piece) => {
      if (typeof piece === 'number') return [piece];
      /** @type {(string | number)[]} */
      const out = [];
      let rest = piece;
      for (let at = rest.indexOf(spelling); at >= 0; at = rest.indexOf(spelling)) {
        let left = rest.slice(0, at);
        rest = rest.slice(at + spelling.length);
        while (stripLeft && isSpace(left.at(-1))) left = left.slice(0, -1);
        while (stripRight && isSpace(rest[0])) rest = rest.slice(1);
        out.push(left, id);
      }
      return [...out, rest];
    });
  }
  return pieces.filter((piece) => piece !== '');
}

/** @param {SpecialToken[]} tokens @param {string} text @param {boolean} control */
function cut(tokens, text, control) {
  let at = 0;
  /** @type {(string | number)[]} */
  const pieces = [];
  for (const { from, to, id } of new SpecialTokens(tokens).find(text, control)) {
    pieces.push(text.slice(at, from), id);
    at = to;
  }
  return [...pieces, text.slice(at)].filter((piece) => piece !== '');
}

test('special tokens: cut as the rule says, on random tokens and texts', () => {
  const prng = new Prng(15);
  let cuts = 0;
  for (let round = 0; round < 3000; round++) {
    const letters = prng.pick([
      ['a'],
      ['a', 'b'],
      ['a', 'b', ' '],
      ['a', 'é', '🚀', '\n'],
      ['<', '|', '-', '>', 'x', '\\'],
    ]);
    const word = (/** @type {number} */ most) =>
      Array.from({ length: prng.int(1, most) }, () => prng.pick(letters)).join('');
    const texts = new Set(Array.from({ length: prng.int(1, 8) }, () => word(5)));
    const tokens = [...texts].map((text, id) => ({
      ...{ id, text, always: prng.unit() < 0.5 },
      ...{ stripLeft: prng.unit() < 0.2, stripRight: prng.unit() < 0.2 },
    }));
    const text = word(40);
    for (const control of [true, false]) {
      const expected = cutByRule(tokens, text, control);
      assert.deepEqual(cut(tokens, text, control), expected, JSON.stringify({ tokens, text, control }));
      cuts += expected.length;
    }
  }
  assert.ok(cuts > 10_000);
});

test('special tokens: the longest of two that overlap wins, in UTF-8 bytes, wherever it begins', () => {
  for (const [texts, text, expected] of /** @type {[string[], string, string[]][]} */ ([
    [['<|x|>', '<|x|>y'], '<|x|>y<|x|>', ['<|x|>y', '<|x|>']],
    [['<|x|>y', '<|x|>'], '<|x|>y<|x|>', ['<|x|>y', '<|x|>']],
    [['=', '==', '==='], '=====', ['===', '==']],
    [['==', '===', '='], '=======', ['===', '===', '=']],
    [['aX', 'Xbb'], 'aXbb', ['Xbb']],
    [['bcd', 'déé'], 'bcdéé', ['déé']],
    [['abcd', 'd🚀'], 'abcd🚀', ['d🚀']],
  ])) {
    const tokenizer = new Tokenizer(vocabulary(texts.map((one) => [one, CONTROL])));
    assert.deepEqual(cutsOf(tokenizer, text), expected, text);
    assert.equal(tokenizer.decode(tokenizer.encode(text), { special: true }), text);
  }
});

test('special tokens: no text breaks the matcher', () => {
  const texts = [
    ...[
      '<|end-of-turn|>',
      '---',
      '-',
      '<[fim-suffix]>',
      '[a-z]',
      '[^x]',
      '(?:',
      '(',
      ')',
      '*',
      '+?',
      '.',
      '^',
      '$',
    ],
    ...[
      '\\',
      '\\d',
      '\\u{',
      '{2}',
      '|',
      '||',
      '/',
      '\n',
      '\0',
      '\u2028',
      ' ',
      '\ufeff',
      '🚀',
      '👩‍🚀',
      'é',
      '$&',
      '&#45;',
      '__proto__',
    ],
    ...['constructor', '~', '`', "'", '"', '#', '%', ',', ':', ';', '=', '@', '!', '_'],
  ];
  for (const type of [CONTROL, USER_DEFINED]) {
    for (const text of texts) {
      const tokenizer = new Tokenizer(vocabulary([[text, type]]));
      assert.deepEqual(cutsOf(tokenizer, `x${text}y${text}`), [text, text], JSON.stringify(text));
      // Two symbols can be merged into a token of any type.
      if ([...text].length < 3) continue;
      const always = type === USER_DEFINED ? [text] : [];
      assert.deepEqual(cutsOf(tokenizer, `x${text}y`, { special: false }), always, JSON.stringify(text));
    }
    const all = new Tokenizer(vocabulary(texts.map((text) => [text, type])));
    assert.equal(cutsOf(all, texts.join('x')).join('x'), texts.join('x'));
  }
  const one = new Tokenizer(
    vocabulary([
      ['', CONTROL],
      ['<a>', CONTROL],
      ['<a>', USER_DEFINED],
    ]),
  );
  assert.deepEqual(one.encode('<a>'), [260], 'an empty token is no token; of two alike the first is found');
});

test('special tokens: white space beside them, where a model takes it', () => {
  const special = /** @type {[string, number][]} */ ([
    ['<mask>', CONTROL],
    ['[MASK]', CONTROL],
    ['<|user|>', CONTROL],
    ['<|endoftext|>', CONTROL],
  ]);
  const text = 'a \n<mask> b [MASK] c <|user|>\n d <|endoftext|> <s> e';
  const cuts = (/** @type {object} */ changes) => {
    const tokenizer = new Tokenizer(vocabulary(special, changes));
    return tokenizer.decode(tokenizer.encode(text), { special: true });
  };
  assert.equal(cuts({}), text);
  assert.equal(cuts({ 'general.name': 'Story' }), text);
  for (const pre of ['jina-v2-de', 'jina-v2-es', 'jina-v2-code']) {
    const merges = { 'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': pre, 'tokenizer.ggml.merges': [] };
    const tokenizer = new Tokenizer(vocabulary(special, merges));
    const spaced = '<|user|> \t<mask> \n<|user|>';
    const spellings = tokenizer.encode(spaced).map((id) => tokenizer.spelling(id));
    assert.deepEqual(spellings, ['<|user|>', '<mask>', '<|user|>'], pre);
  }
  assert.equal(
    cuts({ 'general.name': 'Phi-3 mini' }),
    'a \n<mask>b [MASK]c <|user|>d <|endoftext|> <s> e',
    'after all but three',
  );
  assert.equal(cuts({ 'general.name': 'Phi3' }), cuts({ 'general.name': 'a PHI-3' }));
  assert.equal(
    cuts({ 'general.name': 'My Modern-BERT' }),
    'a \n<mask> b[MASK] c <|user|>\n d <|endoftext|> <s> e',
  );
});

test('special tokens: 20,000 of them in a vocabulary of 262,144 are no burden', (t) => {
  const [nVocab, nSpecial] = [262_144, 20_000];
  const tokens = Array.from({ length: nVocab }, (_, id) => {
    if (id < 3) return ['<unk>', '<s>', '</s>'][id];
    return id < nSpecial + 3 ? `<|user-defined-${id}|>` : `t${id.toString(36)}`;
  });
  const types = tokens.map((_, id) => [2, 3, 3][id] ?? (id < nSpecial + 3 ? USER_DEFINED : 1));
  const metadata = {
    'tokenizer.ggml.model': 'llama',
    'tokenizer.ggml.tokens': tokens,
    'tokenizer.ggml.scores': tokens.map(() => 0),
    'tokenizer.ggml.token_type': types,
  };
  const text = Array.from(
    { length: 5000 },
    (_, i) => `words <|user-defined-${i + 3}|> <|user-defined-x|>`,
  ).join('');
  const spent = (/** @type {NodeJS.CpuUsage} */ since) => process.cpuUsage(since).user / 1000;
  const [made, encoded] = [0, 1, 2]
    .map(() => {
      const start = process.cpuUsage();
      const tokenizer = new Tokenizer(metadata);
      const middle = process.cpuUsage();
      const times = [spent(start), 0];
      assert.ok(tokenizer.encode(text).includes(5002));
      times[1] = spent(middle);
      return times;
    })
    .reduce((best, times) => best.map((value, i) => Math.min(value, times[i])));
  t.diagnostic(
    `made in ${made.toFixed()} ms, ${text.length} characters in ${encoded.toFixed()} ms of the processor`,
  );
  assert.ok(made < 1000, `${made} ms`);
  assert.ok(encoded < 1000, `${encoded} ms`);
});

test('special tokens: tokens within tokens take no quadratic time', () => {
  const tokens = Array.from({ length: 2000 }, (_, id) => ({ id, text: 'a'.repeat(id + 1), always: true }));
  const special = new SpecialTokens(tokens);
  const start = process.cpuUsage();
  // Without links between the nodes this would take 10^9 steps.
  const cuts = special.find('a'.repeat(500_999), true);
  assert.deepEqual([cuts.length, cuts[0].id, cuts.at(-1)?.id], [251, 1999, 998]);
  const ms = process.cpuUsage(start).user / 1000;
  assert.ok(ms < 5000, `${ms} ms`);
});
