/** Messages as OpenAI-style clients send them, tools, and templates by name. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { namedTemplate, TEMPLATE_NAMES } from '../../js/llama/chat/names.js';
import { takesSystem, withSystem } from '../../js/llama/chat/system.js';
import { formatMessages, renderChat } from '../../js/llama/chat.js';
import { ArgumentError, ModelError } from '../../js/llama/index.js';
import { byteTokenizer } from '../helpers/byte-tokenizer.js';

/** @typedef {import('../../js/llama/chat.js').ChatFormat} ChatFormat */

const SPELLINGS = { bos: '<s>', eos: '</s>' };
/** @param {any} messages @param {string} template @param {ChatFormat} [format] */
const shown = (messages, template, format = {}) =>
  formatMessages(messages, undefined, { template, ...format }, SPELLINGS);

const user = { role: 'user', content: 'hi' };
/** @param {unknown} args */
const call = (args) => ({ id: 'c1', type: 'function', function: { name: 'f', arguments: args } });

test('chat: content may be null or absent beside tool calls', async () => {
  const template =
    '{% for m in messages %}{{ m.role }}:{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% else %}{{ m.content }}{% endif %};{% endfor %}';
  const expected =
    'user:hi;assistant:[{"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}];';
  for (const said of [{ content: null }, {}, { content: undefined }, { content: '' }]) {
    const message = { role: 'assistant', ...said, tool_calls: [call({ a: 1 })] };
    assert.equal(await shown([user, message], template), expected);
  }
  for (const bad of [
    { content: null },
    {},
    { content: null, tool_calls: [] },
    { content: 5 },
    { content: {} },
  ]) {
    await assert.rejects(
      shown([{ role: 'assistant', ...bad }], template),
      (error) =>
        error instanceof ArgumentError && /messages\[0\] must be \{ role, content \}/.test(error.message),
    );
  }
  await assert.rejects(shown([{ content: 'x' }], template), /with role undefined/);
  await assert.rejects(shown([null], template), /messages\[0\] must be/);
  await assert.rejects(shown([], template), /messages must be a list/);
});

test('chat: no template prints None for a content of null', async () => {
  const message = { role: 'assistant', content: null, tool_calls: [call({})] };
  for (const [template, expected] of [
    ['[{{ messages[0].content }}]', '[]'],
    ['[{{ messages[0].content | trim }}]', '[]'],
    ["{{ '[' + messages[0].content + ']' }}", '[]'],
    ["{{ '[' ~ messages[0].content ~ ']' }}", '[]'],
    ['{% if messages[0].content is none %}none{% endif %}', 'none'],
    ["{% if messages[0]['content'] is string %}text{% else %}no text{% endif %}", 'no text'],
  ])
    assert.equal(await shown([message], template), expected, template);
});

test('chat: parts of text are joined, others refused by name', async () => {
  const parts = [
    { type: 'text', text: 'a ' },
    { type: 'text', text: 'b' },
  ];
  const template = '{{ messages[0].content }}|{{ messages[0].content is string }}';
  assert.equal(await shown([{ role: 'user', content: parts }], template), 'a b|True');
  assert.equal(await shown([{ role: 'user', content: [] }], template), '|True');
  const image = { type: 'image_url', image_url: { url: 'data:' } };
  await assert.rejects(
    shown([user, { role: 'user', content: [...parts, image] }], template),
    (error) =>
      error instanceof ArgumentError &&
      /messages\[1\]\.content\[2\] is of type "image_url": only parts of type "text"/.test(error.message),
  );
  for (const bad of [{ type: 'text' }, { type: 'text', text: 5 }, {}, null, 7])
    await assert.rejects(shown([{ role: 'user', content: [bad] }], template), ArgumentError);
});

test('chat: templates that take the content only as parts get it so', async () => {
  const template =
    "{% for m in messages %}{{ m.role }}:{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %};{% endfor %}";
  assert.equal(
    await shown([user, { role: 'assistant', content: 'yes' }], template),
    'user:hi;assistant:yes;',
  );
  const either =
    '{% if messages[0].content is string %}{{ messages[0].content }}{% else %}{% for p in messages[0].content %}{{ p.text }}!{% endfor %}{% endif %}';
  assert.equal(await shown([user], either), 'hi');
});

test('chat: arguments of calls are objects, or JSON where the template puts them into a text', async () => {
  const printed = "{{ 'args: ' + messages[0].tool_calls[0].function.arguments }}";
  const concatenated = '{{ messages[0].tool_calls[0].function.arguments }}';
  const items =
    '{% for k, v in messages[0].tool_calls[0].function.arguments.items() %}{{ k }}={{ v }};{% endfor %}';
  const json = '{{ messages[0].tool_calls[0].function.arguments | tojson }}';
  for (const args of ['{"a": 1, "b": "x"}', { a: 1, b: 'x' }]) {
    const messages = [{ role: 'assistant', tool_calls: [call(args)] }];
    assert.equal(await shown(messages, json), '{"a": 1, "b": "x"}');
    assert.equal(await shown(messages, items), 'a=1;b=x;');
    const text = typeof args === 'string' ? args : JSON.stringify(args);
    assert.equal(await shown(messages, printed), `args: ${text}`);
    assert.equal(await shown(messages, concatenated), text);
  }
  const broken = [{ role: 'assistant', tool_calls: [call('{"a": ')] }];
  assert.equal(await shown(broken, concatenated), '{"a": ', 'what is no JSON stays a text');
  assert.equal(await shown([{ role: 'assistant', tool_calls: [call('')] }], json), '{}');
  for (const bad of [[{}], [{ function: {} }], [{ function: { name: 'f', arguments: 5 } }], [null], 'x'])
    await assert.rejects(
      shown([{ role: 'assistant', tool_calls: bad }], json),
      (error) => error instanceof ArgumentError && /messages\[0\]\.tool_calls/.test(error.message),
    );
});

test('chat: tool messages, names and tools reach the template; what holds nothing does not', async () => {
  const messages = [
    { role: 'user', content: 'hi', name: 'Ann', tool_calls: null },
    { role: 'assistant', content: 'x', tool_calls: [], refusal: null },
    { role: 'tool', content: [{ type: 'text', text: '{}' }], tool_call_id: 'c1', name: 'f' },
  ];
  const template =
    "{% for m in messages %}{{ m.keys() | join(',') }};{% endfor %}{{ messages[2].tool_call_id }}";
  assert.equal(
    await shown(messages, template),
    'role,content,name;role,content;role,content,tool_call_id,name;c1',
  );
  const tools = [{ type: 'function', function: { name: 'f', parameters: { type: 'object' } } }];
  const state =
    '{{ tools is defined }}{{ tools is none }}{% if tools %}{{ tools[0].function.name }}{% endif %}';
  assert.equal(await shown([user], state), 'TrueTrue');
  assert.equal(await shown([user], state, { tools: [] }), 'TrueTrue');
  assert.equal(await shown([user], state, { tools }), 'TrueFalsef');
  for (const bad of [5, 'x', {}, [5], [null]])
    await assert.rejects(shown([user], state, /** @type {any} */ ({ tools: bad })), ArgumentError);
  await assert.rejects(shown([user], state, /** @type {any} */ ({ tool: [] })), /no option "tool"/);
});

test('chat: a file may have a template of its own for tools', async () => {
  const { metadata, tokenizer } = byteTokenizer([], {
    'tokenizer.chat_template': 'usual {{ eos_token }}{{ pad_token }}',
    'tokenizer.chat_template.tool_use': 'tools',
    'tokenizer.ggml.padding_token_id': 0,
  });
  const text = async (/** @type {ChatFormat} */ format) =>
    (await renderChat([user], format, metadata, tokenizer)).text;
  assert.equal(await text({}), 'usual </s><unk>');
  assert.equal(await text({ tools: [{ name: 'f' }] }), 'tools');
  assert.equal(await text({ tools: [{ name: 'f' }], template: '{{ 1 }}' }), '1');
});

test('chat: variables, also functions; a template that refuses is a ModelError', async () => {
  const double = (/** @type {any} */ x) => ({ twice: [x.n * 2, 'y'] });
  assert.equal(await shown([user], '{{ f({"n": 4}).twice }}', { variables: { f: double } }), "[8, 'y']");
  await assert.rejects(
    shown([user], "{{ raise_exception('roles must alternate') }}"),
    (error) => error instanceof ModelError && error.message === 'the chat template: roles must alternate',
  );
  await assert.rejects(shown([user], '{{ x.y }}'), ModelError);
  await assert.rejects(shown([user], '{% if %}'), ModelError);
  for (const bad of [
    { variables: 5 },
    { variables: [] },
    { addGenerationPrompt: 1 },
    { signal: {} },
    { template: 5 },
  ])
    await assert.rejects(formatMessages([user], 'x', /** @type {any} */ (bad), SPELLINGS), ArgumentError);
});

test('chat: a template may be given by its name; other names are refused with the list', async () => {
  const talk = [{ role: 'system', content: 'S' }, user, { role: 'assistant', content: 'yo' }, user];
  assert.equal(
    await shown(talk, 'chatml'),
    '<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n',
  );
  assert.equal(
    await shown(talk, 'llama3'),
    '<s><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nyo<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n',
  );
  assert.equal(
    await shown(talk, 'gemma'),
    '<s><start_of_turn>user\nS\n\nhi<end_of_turn>\n<start_of_turn>model\nyo<end_of_turn>\n<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n',
  );
  assert.equal(
    await shown(talk, 'mistral-v7'),
    '<s>[SYSTEM_PROMPT] S[/SYSTEM_PROMPT][INST] hi[/INST] yo</s>[INST] hi[/INST]',
  );
  assert.equal(await shown(talk, 'mistral-v3'), '<s>[INST] S\n\nhi[/INST]yo</s>[INST] hi[/INST]');
  assert.equal(
    await shown(talk, 'llama2'),
    '<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nhi [/INST] yo </s><s>[INST] hi [/INST]',
  );
  for (const name of TEMPLATE_NAMES) {
    const text = await shown(talk, name);
    assert.ok(text.includes('S') && text.split('hi').length === 3 && text.includes('yo'), `${name}: ${text}`);
    assert.ok(!(await shown([user], name)).includes('None'), name);
    assert.equal(await formatMessages(talk, name, {}, SPELLINGS), text, 'a file may name one, too');
  }
  assert.equal(namedTemplate('constructor'), undefined);
  for (const name of ['chat-ml', 'llama4', 'ChatML', '', 'user/repo', 'toString'])
    await assert.rejects(
      shown([user], name),
      (error) =>
        error instanceof ArgumentError && /template must be .*chatml, .*zephyr, got/.test(error.message),
    );
  assert.equal(await formatMessages([user], 'x', {}, SPELLINGS), 'x', 'of a file it is a text');
});

test('chat: a system text for templates without a system role', async () => {
  const of = (/** @type {string} */ template) => (/** @type {any} */ messages) => shown(messages, template);
  const refusing =
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ m.content }}{% endfor %}";
  const silent = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}";
  assert.equal(
    await takesSystem('Be kind.', of('{% for m in messages %}{{ m.content | trim }}{% endfor %}')),
    true,
  );
  assert.equal(await takesSystem('Be kind.', of(refusing)), false);
  assert.equal(await takesSystem('Be kind.', of(silent)), false);
  await assert.rejects(takesSystem('Be kind.', of("{{ raise_exception('never') }}")), /never/);
  assert.deepEqual(withSystem('S', [{ role: 'assistant', content: 'a' }, user, user]), [
    { role: 'assistant', content: 'a' },
    { role: 'user', content: 'S\n\nhi' },
    user,
  ]);
});

test('chat: the answer begins with a given text, whose marks are control tokens', async () => {
  const template = '{{ messages[0].content }}:';
  const tokenizer = byteTokenizer([]).tokenizer;
  const { text, outside } = await renderChat([user], { template, answerStart: '{"a"' }, {}, tokenizer);
  assert.equal(text, 'hi:{"a"');
  assert.deepEqual(outside, [0, 2], 'it is no text of a message');
  const not = /** @type {any} */ ({ template, answerStart: 5 });
  await assert.rejects(renderChat([user], not, {}, tokenizer), /answerStart must be a text, got 5/);
});
