/**
 * Answers divided into thoughts, text and calls of tools: the formats of the models, however the text
 * is cut into pieces, and texts that only look like them.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pythonCalls } from '../../js/openai/python.js';
import { Splitter } from '../../js/openai/splitter.js';
import { openingOf } from '../../js/openai/tool-calls.js';
import { Prng } from '../helpers/prng.js';

const TOOLS = new Map([
  ['get_weather', ['city', 'days']],
  ['add', ['a', 'b']],
  ['now', []],
]);

/** @typedef {{ content?: string, reasoning?: string, calls?: [string, object][] }} Whole */

/**
 * @param {readonly string[]} pieces
 * @param {{ tools?: Map<string, string[]>, inThought?: boolean }} [options]
 * @returns {Whole}
 */
function split(pieces, { tools = TOOLS, inThought = false } = {}) {
  const splitter = new Splitter(tools, inThought);
  const parts = [...pieces.flatMap((piece) => splitter.push(piece)), ...splitter.end()];
  /** @type {Whole} */
  const whole = {};
  for (const part of parts) {
    if ('content' in part) whole.content = (whole.content ?? '') + part.content;
    else if ('reasoning' in part) whole.reasoning = (whole.reasoning ?? '') + part.reasoning;
    else {
      whole.calls ??= [];
      whole.calls.push([part.call.name, JSON.parse(part.call.arguments)]);
    }
  }
  return whole;
}

/** @type {[string, object]} */
const PARIS = ['get_weather', { city: 'Paris', days: 3 }];
/** @type {[string, object]} */
const SUM = ['add', { a: 1, b: -2.5 }];
const json = (/** @type {[string, object]} */ [name, args], key = 'arguments') =>
  JSON.stringify({ name, [key]: args });

/** Answers in the format of each family. @type {[string, string, Whole][]} */
const FORMATS = [
  ['Hermes and Qwen', `<tool_call>\n${json(PARIS)}\n</tool_call>`, { calls: [PARIS] }],
  [
    'Qwen, several, after thoughts and text',
    `<think>\nThe user asks.\n\nSo two calls.\n</think>\n\nLet me look.\n<tool_call>\n${json(PARIS)}\n</tool_call>\n<tool_call>\n${json(SUM)}\n</tool_call>`,
    { reasoning: 'The user asks.\n\nSo two calls.', content: 'Let me look.\n', calls: [PARIS, SUM] },
  ],
  ['Hermes without its end mark', `<tool_call>\n${json(PARIS)}`, { calls: [PARIS] }],
  ['Llama 3.1', json(PARIS, 'parameters'), { calls: [PARIS] }],
  ['Llama 3.1 with its mark', `<|python_tag|>${json(PARIS, 'parameters')}`, { calls: [PARIS] }],
  ['Llama 3.1, several', `${json(PARIS, 'parameters')}; ${json(SUM, 'parameters')}`, { calls: [PARIS, SUM] }],
  [
    'Llama 3.1, with a type',
    `{"type": "function", "name": "now", "parameters": {}}`,
    { calls: [['now', {}]] },
  ],
  ['Llama 3.1, named', `<function=add>{"a": 1, "b": -2.5}</function>`, { calls: [SUM] }],
  ['Llama 3.2, as Python', `[get_weather(city='Paris', days=3), add(a=1, b=-2.5)]`, { calls: [PARIS, SUM] }],
  ['Mistral', `[TOOL_CALLS][${json(PARIS)}, ${json(SUM)}]`, { calls: [PARIS, SUM] }],
  [
    'Mistral, with ids',
    `[TOOL_CALLS] [{"name":"now","arguments":{},"id":"abcdefghi"}]`,
    { calls: [['now', {}]] },
  ],
  [
    'Mistral, later models',
    `[TOOL_CALLS]get_weather[ARGS]{"city": "Paris", "days": 3}[TOOL_CALLS]add[CALL_ID]x1[ARGS]{"a": 1, "b": -2.5}`,
    { calls: [PARIS, SUM] },
  ],
  ['Gemma, as Python', "```tool_code\nprint(get_weather(city='Paris', days=3))\n```", { calls: [PARIS] }],
  ['Gemma, without names', '```tool_code\nget_weather("Paris", 3)\n```', { calls: [PARIS] }],
  ['Gemma, as JSON', `\`\`\`json\n${json(PARIS, 'parameters')}\n\`\`\``, { calls: [PARIS] }],
  [
    'Gemma, JSON after text',
    `Sure!\n\`\`\`tool_call\n${json(SUM)}\n\`\`\``,
    { content: 'Sure!\n', calls: [SUM] },
  ],
  [
    'LFM2',
    `<|tool_call_start|>[get_weather(city="Paris", days=3)]<|tool_call_end|>Checking the weather.`,
    { calls: [PARIS], content: 'Checking the weather.' },
  ],
  [
    'signs of JSON in texts',
    `[TOOL_CALLS][{"name": "add", "arguments": {"a": "]}} \\" {[", "b": 1}}]`,
    { calls: [['add', { a: ']}} " {[', b: 1 }]] },
  ],
  ['LFM2, as JSON', `<|tool_call_start|>[${json(SUM)}]<|tool_call_end|>`, { calls: [SUM] }],
  ['Phi 4', `<|tool_call|>[${json(PARIS)}]<|/tool_call|>`, { calls: [PARIS] }],
  ['Granite 3', `<|tool_call|>[${json(PARIS)}]`, { calls: [PARIS] }],
  ['Magistral', `[THINK]Hm.[/THINK]Done.`, { reasoning: 'Hm.', content: 'Done.' }],
  ['nested as OpenAI has it', `<tool_call>{"function": ${json(SUM)}}</tool_call>`, { calls: [SUM] }],
  [
    'arguments as JSON in a text',
    `<tool_call>{"name":"add","arguments":"{\\"a\\":1}"}</tool_call>`,
    { calls: [['add', { a: 1 }]] },
  ],
];

/** Texts that are no calls. @type {[string, string][]} */
const TEXTS = [
  ['plain text', ' Once upon a time, there was a {curly} [fox].\n\nThe end. '],
  ['an unknown tool', `<tool_call>\n${json(['rm', { path: '/' }])}\n</tool_call>`],
  ['one unknown tool of two', `[TOOL_CALLS][${json(PARIS)}, ${json(['rm', {}])}]`],
  ['JSON that is broken', '<tool_call>{"name": "add", "arguments": {"a": 1</tool_call> and more'],
  ['JSON that is cut off', '{"name": "add", "arguments": {"a": 1'],
  ['JSON that is an answer', '{"name": "Fox", "age": 3}'],
  ['JSON with other keys', '{"city": "Paris"}'],
  ['a list', '[1, 2, 3] are numbers, and so are [4, 5, 6], and [7, 8, 9], and others that follow them.'],
  ['code in another language', '```js\nadd(1, 2)\n```\nand ```python\nadd(1, 2)\n```'],
  ['code that is no call', '```tool_code\nx = add(1, 2)\n```'],
  ['an expression as an argument', '[add(a=1 + 2, b=3)]'],
  ['arguments that are no object', '<tool_call>{"name": "add", "arguments": [1, 2]}</tool_call>'],
  ['a mark and nothing', 'The mark is <tool_call>'],
  ['the beginning of a mark', 'a <tool_cal'],
  ['a mark of thoughts in the middle', 'Write <think> before </think> you speak.'],
  ['too many arguments', '[now(1)]'],
];

/** @param {string} text @param {Prng} prng */
function cut(text, prng) {
  const pieces = [];
  for (let at = 0; at < text.length; ) {
    const n = prng.int(1, prng.pick([1, 3, 30]));
    pieces.push(text.slice(at, at + n));
    at += n;
  }
  return pieces;
}

for (const [name, text, expected] of FORMATS) {
  test(`splitter: ${name}`, () => {
    const prng = new Prng(text.length);
    assert.deepEqual(split([text]), expected);
    assert.deepEqual(split([...text]), expected, 'letter by letter');
    for (let round = 0; round < 50; round++) {
      const pieces = cut(text, prng);
      assert.deepEqual(split(pieces), expected, JSON.stringify(pieces));
    }
    const { content = '' } = split([text], { tools: new Map() });
    if (expected.calls) assert.ok(text.endsWith(content.trim()), 'without tools it is text');
  });
}

for (const [name, text] of TEXTS) {
  test(`splitter: ${name} stays text`, () => {
    const prng = new Prng(text.length);
    for (let round = 0; round < 50; round++) {
      const pieces = round === 0 ? [text] : cut(text, prng);
      assert.deepEqual(split(pieces), { content: text }, JSON.stringify(pieces));
      assert.deepEqual(split(pieces, { tools: new Map() }), { content: text }, 'without tools');
    }
  });
}

test('splitter: thoughts that the prompt has begun, that are empty, or never end', () => {
  const prng = new Prng(3);
  /** @type {[string, boolean, Whole][]} */
  const cases = [
    ['\nHm, 2 < 3 </ no.\n\n</think>\n\nTwo.', true, { reasoning: 'Hm, 2 < 3 </ no.', content: 'Two.' }],
    ['</think>\n\nTwo.', true, { content: 'Two.' }],
    ['Hm', true, { reasoning: 'Hm' }],
    ['<think>\n\n</think>\n\nTwo. ', false, { content: 'Two. ' }],
    ['\n<think>Hm </think', false, { reasoning: 'Hm </think' }],
    [`</think>\n\n${json(SUM)}`, true, { calls: [SUM] }],
    ['<think>a</think><think>b</think>', false, { reasoning: 'a', content: '<think>b</think>' }],
  ];
  for (const [text, inThought, expected] of cases)
    for (let round = 0; round < 50; round++)
      assert.deepEqual(split(cut(text, prng), { inThought }), expected, JSON.stringify(text));
});

test('splitter: text is given out at once unless it may become a mark', () => {
  const splitter = new Splitter(TOOLS, false);
  assert.deepEqual(splitter.push('Hello'), [{ content: 'Hello' }]);
  assert.deepEqual(splitter.push(', <'), [{ content: ', ' }]);
  assert.deepEqual(splitter.push('b>bold'), [{ content: '<b>bold' }]);
  assert.deepEqual(splitter.push('<tool_call>{"name": "now", "arguments": {}}'), []);
  assert.deepEqual(splitter.push('</tool_call>'), [{ call: { name: 'now', arguments: '{}' } }]);
});

test('python: literals of every kind, and nothing else', () => {
  /** @type {[string, unknown][]} */
  const literals = [
    ['"a\\n\\"b\\" \\u00e9"', 'a\n"b" é'],
    ["'it''s'", undefined],
    ["'''a 'b' c'''", "a 'b' c"],
    ['True', true],
    ['None', null],
    ['-1_000.5e-1', -100.05],
    ['[1, (2, 3), []]', [1, [2, 3], []]],
    ["{'a': {'b': False}, 'c': 1,}", { a: { b: false }, c: 1 }],
    ['1 + 2', undefined],
    ['name', undefined],
    ['__import__("os")', undefined],
    ['"open', undefined],
    ['['.repeat(100), undefined],
  ];
  for (const [text, value] of literals) {
    const calls = pythonCalls(`f(x=${text})`);
    if (value === undefined) assert.equal(calls, undefined, text);
    else assert.deepEqual(calls, [{ name: 'f', args: { x: value }, positional: [] }], text);
  }
  assert.deepEqual(pythonCalls('a.b(1, c="2")\nprint(d())'), [
    { name: 'a.b', args: { c: '2' }, positional: [1] },
    { name: 'd', args: {}, positional: [] },
  ]);
  for (const text of [
    '',
    'f',
    'f(',
    'f(1',
    'f(1) g',
    'f(,)',
    'x = f(1)',
    'f(x={{}: 1})',
    'f(x={{"toString": 1}: 2})',
  ])
    assert.equal(pythonCalls(text), undefined, text);
});

test('openings: the text with which a call begins, by the prompt', () => {
  const opening = openingOf('... within <tool_call></tool_call> XML tags', 'add') ?? '';
  assert.deepEqual(split([opening, '{"a": 1, "b": -2.5}}\n</tool_call>']), { calls: [SUM] });
  const any = openingOf('[AVAILABLE_TOOLS][]', undefined) ?? '';
  assert.deepEqual(split([any, 'add", "arguments": {"a": 1, "b": -2.5}}]']), { calls: [SUM] });
  const lfm2 = openingOf('<|tool_list_start|>[]', 'add') ?? '';
  assert.deepEqual(split([lfm2, 'a=1, b=-2.5)]<|tool_call_end|>']), { calls: [SUM] });
  const llama = openingOf('Respond in the format {"name": function name, "parameters": ...}', 'add') ?? '';
  assert.deepEqual(split([llama, '{"a": 1, "b": -2.5}}']), { calls: [SUM] });
  assert.equal(openingOf('You are a storyteller.', 'add'), undefined);
});
