/** Stop strings: in the shown text, and in the text with its control tokens spelt out. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TextStream } from '../../js/llama/text-stream.js';
import { Prng } from '../helpers/prng.js';
import { generate, letter, renamed } from '../helpers/renamed-tokens.js';

const CONTROL = 3;
const utf8 = new TextEncoder();

/**
 * The shown text up to the first stop string, when all tokens are known.
 * @param {[text: string, hidden: boolean][]} tokens
 * @param {string[]} stops
 */
function cutAtStop(tokens, stops) {
  const shown = tokens.map(([text, hidden]) => (hidden ? '' : text)).join('');
  const all = tokens.map(([text]) => text).join('');
  const flags = tokens.flatMap(([text, hidden]) => Array.from({ length: text.length }, () => !hidden));
  let end = shown.length;
  for (const stop of stops) {
    const [inShown, inAll] = [shown.indexOf(stop), all.indexOf(stop)];
    if (inShown >= 0) end = Math.min(end, inShown);
    if (inAll >= 0) end = Math.min(end, flags.slice(0, inAll).filter(Boolean).length);
  }
  return {
    text: shown.slice(0, end),
    stopped: stops.some((stop) => shown.includes(stop) || all.includes(stop)),
  };
}

test('stop strings: random streams of text and control tokens', () => {
  const prng = new Prng(31);
  let stopped = 0;
  for (let round = 0; round < 4000; round++) {
    const letters = prng.pick([
      ['a', 'b', '<|x|>'],
      ['a', 'b', '<|x|>', '<|', '|>', 'x', 'é', '🚀'],
    ]);
    const word = (/** @type {number} */ most) =>
      Array.from({ length: prng.int(1, most) }, () => prng.pick(letters)).join('');
    const tokens = /** @type {[string, boolean][]} */ (
      Array.from({ length: prng.int(1, 10) }, () =>
        prng.unit() < 0.4 ? [prng.pick(['<|x|>', '<|y|>', 'a']), true] : [word(3), false],
      )
    );
    const stops = Array.from({ length: prng.int(0, 3) }, () => word(prng.pick([1, 3])));
    const stream = new TextStream(stops);
    let text = '';
    let all = 0;
    for (const [i, [spelling, hidden]] of tokens.entries()) {
      // Only tokens up to the one that completes a stop string are needed to find it.
      if (stream.stopped) break;
      text += stream.push(utf8.encode(spelling), hidden);
      all = i + 1;
    }
    text += stream.end();
    const expected = cutAtStop(tokens.slice(0, all), stops);
    const why = JSON.stringify({ tokens, stops });
    assert.deepEqual({ text, stopped: stream.stopped }, expected, why);
    if (!expected.stopped) assert.equal(all, tokens.length, why);
    else assert.ok(!cutAtStop(tokens.slice(0, all - 1), stops).stopped, `not later than it could: ${why}`);
    stopped += Number(expected.stopped);
  }
  assert.ok(stopped > 1000);
});

test('stop strings: text is given out as soon as no stop string can begin in it', () => {
  const stream = new TextStream(['ab<|x|>c', 'stop']);
  const push = (/** @type {string} */ text, hidden = false) => stream.push(utf8.encode(text), hidden);
  assert.equal(push('xa'), 'x');
  assert.equal(push('b'), '');
  assert.equal(push('<|x|>', true), '');
  assert.equal(push('d'), 'abd');
  assert.equal(push('<|x|>', true), '');
  assert.equal(push('st'), '');
  assert.equal(push('<|y|>', true), '', 'the shown text may still become the stop string');
  assert.equal(push('o!'), 'sto!');
  assert.equal(push('ab'), '');
  assert.equal(push('<|x|>', true), '');
  assert.equal(stream.end(), 'ab');
  const half = new TextStream(['é<|x|>']);
  assert.equal(half.push(Uint8Array.of(0x61, 0xc3)), 'a');
  assert.equal(half.push(Uint8Array.of(0xa9)), '');
  assert.equal(half.push(utf8.encode('<|x|>'), true), '');
  assert.ok(half.stopped);
  const two = new TextStream(['<|y|>ab', 'a<|x|>']);
  const pieces = [
    ['<|y|>', true],
    ['a', false],
    ['<|x|>', true],
  ].map(([text, hidden]) => two.push(utf8.encode(String(text)), hidden === true));
  assert.deepEqual([pieces.join(''), two.stopped], ['', true], 'a stop string that begins within another');
  const trimmed = new TextStream(['x y'], true);
  assert.equal(trimmed.push(utf8.encode('<|x|>'), true) + trimmed.push(utf8.encode(' a b')), 'a b');
});

test('stop strings: control tokens of a model', async () => {
  const { tokens } = await generate({}, { ignoreEnd: true });
  const first = tokens.findIndex((id, i) => i >= 2 && id > 2 && !tokens.slice(0, i).includes(id));
  assert.ok(first >= 2 && first < 11 && !tokens.slice(0, first + 2).includes(2), `${tokens}`);
  const pairs = renamed({ [tokens[first]]: ['<|x|>', CONTROL] });
  const spell = (/** @type {number} */ id) => (id === tokens[first] ? '' : letter(id));
  const shown = (/** @type {number} */ upTo) => tokens.slice(0, upTo).map(spell).join('');
  const before = letter(tokens[first - 1]);
  const after = letter(tokens[first + 1]);

  const whole = await generate(pairs);
  assert.deepEqual([whole.text, whole.finish], [shown(12), 'length'], 'a control token is not shown');
  for (const [stop, text] of /** @type {[string | string[], string][]} */ ([
    ['<|x|>', shown(first)],
    ['|x', shown(first)],
    [`${before}<|x|>`, shown(first - 1)],
    [`<|x|>${after}`, shown(first)],
    [`${before}<|x|>${after}`, shown(first - 1)],
    [`${before}${after}`, shown(first - 1)],
    [['never', `|>${after}`], shown(first)],
  ])) {
    const run = await generate(pairs, { stop });
    assert.deepEqual([run.text, run.finish], [text, 'stop'], String(stop));
    assert.ok(run.tokens.length <= first + 2, String(stop));
  }
  const never = await generate(pairs, { stop: [`${after}<|x|>`, '<|x|><|x|>', '<|x|>x', 'x<|x|>'] });
  assert.deepEqual([never.text, never.finish], [shown(12), 'length']);

  const ending = renamed({ [tokens[first]]: ['<|im_end|>', CONTROL] });
  const ended = await generate(ending, { stop: `${before}<|im_end|>` });
  assert.deepEqual([ended.text, ended.finish], [shown(first - 1), 'end'], 'the end token counts too');
  const other = await generate(ending, { stop: `${before}<|im_end|>x` });
  assert.deepEqual([other.text, other.finish], [shown(first), 'end'], 'what was held back is given out');
  const on = await generate(ending, { stop: '<|im_end|>', ignoreEnd: true });
  assert.deepEqual([on.text, on.finish], [shown(first), 'stop']);
});
