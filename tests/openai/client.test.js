/** The `openai` client against the functions that answer it as a server would. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OpenAI } from 'openai';
import { createOpenAI } from '../../js/openai/index.js';
import { open, scripted, TEMPLATE } from '../helpers/openai.js';

test('the openai client: answers, streams, tools, logprobs, embeddings, models, errors and aborts', async (t) => {
  const model = await open(t);
  const api = createOpenAI(model, { name: 'tales', template: TEMPLATE });
  const client = new OpenAI({ apiKey: 'none', baseURL: 'http://model/v1', fetch: api.fetch, maxRetries: 0 });
  /** @type {OpenAI.ChatCompletionCreateParamsNonStreaming} */
  const request = {
    model: 'tales',
    messages: [{ role: 'user', content: 'Tell me of a fox' }],
    max_completion_tokens: 20,
    temperature: 0,
  };
  // The types of the client's requests fit the library's.
  const own = await api.chat.completions.create(request);
  const answer = await client.chat.completions.create({ ...request, logprobs: true });
  assert.equal(answer.choices[0].message.content, own.choices[0].message.content);
  assert.equal(answer.choices[0].logprobs?.content?.length, 20);
  assert.equal(answer.usage?.completion_tokens, 20);
  let text = '';
  for await (const chunk of await client.chat.completions.create({ ...request, stream: true }))
    text += chunk.choices[0]?.delta.content ?? '';
  assert.equal(text, own.choices[0].message.content);
  const helper = client.chat.completions.stream({ ...request, stream: true });
  assert.equal((await helper.finalChatCompletion()).choices[0].message.content, text);
  const vectors = await client.embeddings.create({ model: 'tales', input: ['a fox', 'a bear'] });
  assert.deepEqual(
    vectors.data.map(({ embedding }) => [...embedding]),
    (await model.embed(['a fox', 'a bear'])).map((one) => [...one]),
    'as base64, which the client asks for',
  );
  const names = [];
  for await (const { id } of client.models.list()) names.push(id);
  assert.deepEqual(names, ['tales']);
  assert.equal((await client.models.retrieve('tales')).id, 'tales');
  await assert.rejects(client.models.retrieve('gpt'), OpenAI.NotFoundError);
  await assert.rejects(client.chat.completions.create({ ...request, n: 2 }), OpenAI.BadRequestError);
  const long = {
    ...request,
    messages: [{ role: /** @type {const} */ ('user'), content: 'fox '.repeat(400) }],
  };
  await assert.rejects(
    client.chat.completions.create(long),
    (error) =>
      error instanceof OpenAI.BadRequestError &&
      error.code === 'context_length_exceeded' &&
      /\d+ tokens, the context has room for 512/.test(error.message),
  );
  const controller = new AbortController();
  const endless = { ...request, max_completion_tokens: 200, stream: /** @type {const} */ (true) };
  const stream = await client.chat.completions.create(endless, { signal: controller.signal });
  let chunks = 0;
  for await (const _ of stream) if (++chunks === 4) controller.abort();
  assert.ok(chunks < 100);
  assert.equal(
    (await client.chat.completions.create(request)).choices[0].message.content,
    text,
    'the model is free',
  );
  const other = await api.fetch('http://model/v1/completions', { method: 'POST' });
  assert.equal(other.status, 404);
  assert.equal((await api.fetch('http://model/v1/embeddings')).status, 405);
  const broken = await api.fetch('http://model/v1/embeddings', { method: 'POST', body: '{' });
  assert.equal(broken.status, 400);
  assert.match((await broken.json()).error.message, /must be a JSON object/);
  assert.equal((await api.fetch('http://model/v1/models/%E0')).status, 404);
  const none = { model: 'x', input: 'a fox', dimensions: null, encoding_format: null };
  const plain = await api.fetch('http://model/v1/embeddings', {
    method: 'POST',
    body: JSON.stringify(none),
  });
  assert.equal(plain.status, 200);
});

test('the openai client: a loop that calls a tool by its helper', async (t) => {
  const base = await open(t);
  const { model } = scripted(
    base,
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>',
  );
  let asked = 0;
  const answering = createOpenAI(scripted(base, 'It is sunny.').model, { template: TEMPLATE });
  const calling = createOpenAI(model, { template: TEMPLATE });
  const client = new OpenAI({
    apiKey: 'none',
    baseURL: 'http://model/v1',
    fetch: (input, init) => (asked++ === 0 ? calling : answering).fetch(/** @type {any} */ (input), init),
  });
  /** @type {string[]} */
  const cities = [];
  const run = client.chat.completions.runTools({
    model: 'tales',
    messages: [{ role: 'user', content: 'What is the weather?' }],
    tools: [
      {
        type: 'function',
        function: {
          name: 'get_weather',
          description: 'Weather',
          parameters: { type: 'object', properties: { city: { type: 'string' } } },
          parse: JSON.parse,
          function: (/** @type {{ city: string }} */ { city }) => {
            cities.push(city);
            return 'sunny';
          },
        },
      },
    ],
  });
  const final = await run.finalContent();
  assert.deepEqual(cities, ['Paris']);
  assert.equal(asked, 2);
  assert.equal(final?.trim(), 'It is sunny.');
});
