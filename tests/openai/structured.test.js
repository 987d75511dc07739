/**
 * Answers that must be JSON, and calls whose arguments follow the schema of their function.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createWorkerLlama } from '../../js/llama/index.js';
import { createOpenAI } from '../../js/openai/index.js';
import { TINY_TALES } from '../helpers/llama.js';
import { all, KERNELS, messages, open, TEMPLATE } from '../helpers/openai.js';
import { validator } from '../helpers/schemas.js';
import { rejection } from '../helpers/workers.js';

const SCHEMA = {
  type: 'object',
  properties: { animal: { enum: ['fox', 'bear'] }, legs: { type: 'integer', minimum: 2, maximum: 8 } },
  required: ['animal', 'legs'],
  additionalProperties: false,
};
const check = validator(SCHEMA);
const response_format = {
  type: 'json_schema',
  json_schema: { name: 'animal', strict: true, schema: SCHEMA },
};

/** A function with other arguments. */
const paint = {
  type: 'function',
  function: {
    name: 'paint',
    parameters: { type: 'object', properties: { colour: { enum: ['red', 'blue'] } }, required: ['colour'] },
  },
};
const describe = { type: 'function', function: { name: 'describe', parameters: SCHEMA } };

test('openai: response_format: answers are JSON of the schema, as a whole, in chunks and from a worker', async (t) => {
  const here = await open(t);
  const there = await createWorkerLlama(TINY_TALES, KERNELS);
  t.after(() => there.dispose());
  for (const model of [here, there]) {
    const api = createOpenAI(model, { template: TEMPLATE });
    const request = { messages, response_format, seed: 4, temperature: 1.5 };
    const { choices } = await api.chat.completions.create(request);
    assert.equal(check(JSON.parse(choices[0].message.content ?? '')), '');
    assert.equal(choices[0].finish_reason, 'stop');
    const chunks = await all(await api.chat.completions.create({ ...request, stream: true }));
    const text = chunks.map((chunk) => chunk.choices[0].delta.content ?? '').join('');
    assert.equal(text, choices[0].message.content);
  }
  const api = createOpenAI(here, { template: TEMPLATE });
  const cut = await api.chat.completions.create({ messages, response_format, max_tokens: 2 });
  assert.equal(cut.choices[0].finish_reason, 'length');
  const object = await api.chat.completions.create({
    messages,
    response_format: { type: 'json_object' },
    max_tokens: 20,
  });
  assert.match(object.choices[0].message.content ?? '', /^\{/);
  const thinking = await api.chat.completions.create({
    messages,
    response_format,
    chat_template_kwargs: { thinking: true },
  });
  const { message } = thinking.choices[0];
  assert.equal(check(JSON.parse(message.content ?? '')), '', 'the answer is no thought');
  assert.equal(message.reasoning, undefined);
  const bad = { type: 'json_schema', json_schema: { name: 'x', schema: { not: {} } } };
  const error = await rejection(api.chat.completions.create({ messages, response_format: bad }));
  assert.match(error.message, /responseFormat\.schema: the keyword "not" is not supported/);
});

test('openai: a call that must be made has arguments of the schema', async (t) => {
  const model = await open(t);
  const api = createOpenAI(model, { template: TEMPLATE });
  const checks = { describe: check, paint: validator(paint.function.parameters) };
  const seen = new Set();
  for (const tool_choice of [{ type: 'function', function: { name: 'describe' } }, 'required'])
    for (let seed = 0; seed < 8; seed++) {
      const { choices } = await api.chat.completions.create({
        ...{ messages, tools: [describe, paint], tool_choice: /** @type {any} */ (tool_choice) },
        ...{ seed, temperature: 2, top_k: 0, top_p: 1, min_p: 0 },
      });
      const calls = choices[0].message.tool_calls ?? [];
      assert.equal(calls.length, 1, JSON.stringify(choices[0]));
      const { name, arguments: args } = calls[0].function;
      seen.add(name);
      if (tool_choice !== 'required') assert.equal(name, 'describe');
      assert.equal(checks[/** @type {'paint'} */ (name)](JSON.parse(args)), '');
      assert.equal(choices[0].finish_reason, 'tool_calls');
    }
  assert.deepEqual([...seen].sort(), ['describe', 'paint']);
  const odd = { type: 'function', function: { name: 'odd', parameters: { not: {} } } };
  const request = { messages, tools: [odd], tool_choice: /** @type {const} */ ('required') };
  const error = await rejection(api.chat.completions.create(request));
  assert.match(error.message, /parameters of the tool odd: the keyword "not" is not supported/);
  const text = { type: 'string', maxLength: 19_000 };
  const long = {
    type: 'function',
    function: { name: 'long', parameters: { properties: { text, more: text } } },
  };
  const tooLong = await rejection(
    api.chat.completions.create({ messages, tools: [long], tool_choice: 'required' }),
  );
  assert.match(tooLong.message, /counts more than 20000 characters and items, got 38000/);
  const free = { ...odd, function: { ...odd.function, strict: false } };
  await api.chat.completions.create({ ...request, tools: [free], max_tokens: 5 });
});
