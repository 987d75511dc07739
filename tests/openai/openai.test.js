/**
 * A model with the interface of OpenAI's API, in this thread and in a worker. The lint run checks the
 * objects against the types of the `openai` client.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OpenAI } from 'openai';
import { ArgumentError, createWorkerLlama } from '../../js/llama/index.js';
import { createOpenAI } from '../../js/openai/index.js';
import { readCases } from '../helpers/chat-cases.js';
import { TINY_TALES } from '../helpers/llama.js';
import { added, all, KERNELS, messages, open, scripted, TEMPLATE, weather } from '../helpers/openai.js';
import { rejection } from '../helpers/workers.js';

/** @import { TestContext } from 'node:test' */

for (const place of ['in this thread', 'in a worker']) {
  /** @param {TestContext} t */
  const load = async (t) => {
    const model = place === 'in this thread' ? await open(t) : await createWorkerLlama(TINY_TALES, KERNELS);
    t.after(() => model.dispose());
    return model;
  };

  test(`openai, ${place}: an answer, whole and in chunks, is that of chat`, async (t) => {
    const model = await load(t);
    const api = createOpenAI(model, { name: 'tales', template: TEMPLATE });
    const plain = await model.chat(messages, {
      template: TEMPLATE,
      maxTokens: 20,
      seed: 5,
      temperature: 0.9,
    });
    const text = await plain.text();
    const request = { messages, max_tokens: 20, seed: 5, temperature: 0.9 };
    /** @type {OpenAI.ChatCompletion} */
    const answer = await api.chat.completions.create(request);
    assert.match(answer.id, /^chatcmpl-\w{24}$/);
    assert.ok(Math.abs(answer.created - Date.now() / 1000) < 100);
    const { promptTokens } = plain.stats;
    assert.deepEqual(
      { ...answer, id: '', created: 0 },
      {
        id: '',
        created: 0,
        object: 'chat.completion',
        model: 'tales',
        choices: [
          {
            index: 0,
            message: { role: 'assistant', content: text, refusal: null },
            finish_reason: 'length',
            logprobs: null,
          },
        ],
        usage: {
          prompt_tokens: promptTokens,
          completion_tokens: 20,
          total_tokens: promptTokens + 20,
          prompt_tokens_details: { cached_tokens: promptTokens - 1 },
        },
      },
    );
    /** @type {AsyncIterable<OpenAI.ChatCompletionChunk>} */
    const stream = await api.chat.completions.create({
      ...request,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = await all(stream);
    assert.ok(chunks.length > 10, `${chunks.length} chunks`);
    assert.equal(new Set(chunks.map(({ id }) => id)).size, 1);
    assert.deepEqual(chunks[0].choices[0].delta, { role: 'assistant', content: '' });
    assert.equal(added(chunks).content, text);
    assert.deepEqual(chunks.map(({ choices, usage }) => [choices[0]?.finish_reason, usage]).slice(-3), [
      [null, null],
      ['length', null],
      [undefined, answer.usage],
    ]);
    const stopped = await api.chat.completions.create({ ...request, stop: [text.slice(8, 12)] });
    assert.equal(stopped.choices[0].message.content, text.slice(0, text.indexOf(text.slice(8, 12))));
    assert.equal(stopped.choices[0].finish_reason, 'stop');
  });

  test(`openai, ${place}: calls at the same time wait for one another; abort and break free the model`, async (t) => {
    const api = createOpenAI(await load(t), { template: TEMPLATE });
    const request = { messages, max_tokens: 12, temperature: 0 };
    const answers = await Promise.all([1, 2, 3].map(() => api.chat.completions.create(request)));
    assert.equal(new Set(answers.map(({ choices }) => choices[0].message.content)).size, 1);
    const long = { ...request, max_tokens: 200, stream: /** @type {const} */ (true) };
    for await (const _ of await api.chat.completions.create(long)) break;
    const stream = await api.chat.completions.create(long);
    let chunks = 0;
    for await (const _ of stream) if (++chunks === 5) stream.controller.abort();
    assert.ok(chunks < 190, `${chunks} chunks`);
    const controller = new AbortController();
    const aborted = rejection(
      api.chat.completions.create({ ...long, stream: false }, { signal: controller.signal }),
    );
    controller.abort(new Error('enough'));
    assert.match((await aborted).message, /enough/);
    const again = await api.chat.completions.create(request);
    assert.equal(again.choices[0].message.content, answers[0].choices[0].message.content);
  });

  test(`openai, ${place}: log probabilities are those of the tokens`, async (t) => {
    const model = await load(t);
    const api = createOpenAI(model, { template: TEMPLATE });
    const request = { messages, max_tokens: 8, temperature: 0, logprobs: true, top_logprobs: 2 };
    const answer = await api.chat.completions.create(request);
    const { message, logprobs } = answer.choices[0];
    const content = logprobs?.content ?? [];
    assert.equal(content.length, 8);
    const bytes = Uint8Array.from(content.flatMap((one) => one.bytes ?? []));
    assert.equal(new TextDecoder().decode(bytes).trim(), message.content?.trim());
    for (const { token, logprob, top_logprobs } of content) {
      assert.equal(top_logprobs.length, 2);
      assert.deepEqual([top_logprobs[0].token, top_logprobs[0].logprob], [token, logprob]);
      assert.ok(logprob <= 0 && top_logprobs[1].logprob <= logprob);
    }
    const chunks = await all(await api.chat.completions.create({ ...request, stream: true }));
    // The prompt is computed in another way when it is known, which changes the last digits.
    const rounded = (/** @type {any[]} */ list) =>
      list.map(({ token, logprob }) => [token, Math.round(1e4 * logprob)]);
    assert.deepEqual(rounded(chunks.flatMap(({ choices }) => choices[0].logprobs.content)), rounded(content));
  });
}

test('openai: calls of tools, and their results, in a conversation', async (t) => {
  const base = await open(t);
  const said = 'I look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>';
  const { model, prompts } = scripted(base, said);
  const api = createOpenAI(model, { template: TEMPLATE });
  const question = [{ role: 'developer', content: 'Be brief' }, ...messages];
  const request = { messages: question, tools: [weather], temperature: 0 };
  const answer = await api.chat.completions.create(request);
  const [{ message, finish_reason }] = answer.choices;
  assert.match(prompts[0], /^Tools in .*"name": "get_weather".*system: Be brief\nuser: Tell me/s);
  assert.equal(finish_reason, 'tool_calls');
  assert.equal(message.content?.trim(), 'I look.');
  const [call] = message.tool_calls ?? [];
  assert.match(call.id, /^\w{9}$/);
  assert.deepEqual(
    { ...call, id: '' },
    { id: '', type: 'function', function: { name: 'get_weather', arguments: '{"city":"Paris"}' } },
  );
  const chunks = await all(await api.chat.completions.create({ ...request, stream: true }));
  assert.deepEqual(
    added(chunks).tool_calls.map((/** @type {any} */ one) => one.function),
    [call.function],
  );
  assert.equal(chunks.at(-1).choices[0].finish_reason, 'tool_calls');
  // The message goes back as it came, with the tool's result.
  await api.chat.completions.create({
    ...request,
    messages: [
      ...question,
      { ...message, reasoning: 'Hm' },
      { role: 'tool', tool_call_id: call.id, content: '20 degrees' },
    ],
  });
  assert.match(
    prompts[2],
    /assistant: .*I look.*\(Hm\).*calls get_weather\(.*Paris.*\)\s+tool: 20 degrees\n/s,
  );
  const none = await api.chat.completions.create({ ...request, tool_choice: 'none' });
  assert.doesNotMatch(prompts[3], /Tools in/);
  assert.match(none.choices[0].message.content ?? '', /<tool_call>/);
  assert.equal(none.choices[0].finish_reason, 'stop');
});

test('openai: tool_choice makes the answer begin with a call', async (t) => {
  const base = await open(t);
  const add = { type: 'function', function: { name: 'add' } };
  const { model, prompts } = scripted(base, '{"city": "Oslo"}}');
  const api = createOpenAI(model, { template: TEMPLATE });
  const named = { type: 'function', function: { name: 'get_weather' } };
  const request = { messages, tools: [weather, add], tool_choice: named };
  const { choices } = await api.chat.completions.create(request);
  assert.deepEqual(choices[0].message.content, null);
  assert.deepEqual(
    choices[0].message.tool_calls?.map((one) => one.function),
    [{ name: 'get_weather', arguments: '{"city":"Oslo"}' }],
  );
  assert.equal(choices[0].finish_reason, 'tool_calls');
  assert.doesNotMatch(prompts[0], /"add"/, 'only the tool that must be called');
  assert.match(prompts[0], /assistant:<tool_call>\n\{"name": "get_weather", "arguments": $/);
  const any = scripted(base, 'add", "arguments": {}}');
  const free = createOpenAI(any.model, { template: TEMPLATE });
  const required = await free.chat.completions.create({ ...request, tool_choice: 'required' });
  assert.deepEqual(
    required.choices[0].message.tool_calls?.map((one) => one.function.name),
    ['add'],
    JSON.stringify(required),
  );
  const unknown = createOpenAI(base, { template: 'chatml' });
  const error = await rejection(unknown.chat.completions.create(request));
  assert.ok(error instanceof ArgumentError);
  assert.match(
    error.message,
    /tool_choice for a certain function needs a model whose template has a known format/,
  );
});

test('openai: parallel_tool_calls: false keeps the first call', async (t) => {
  const calls =
    '{"name": "get_weather", "arguments": {"city": "A"}}, {"name": "get_weather", "arguments": {}}';
  const { model } = scripted(await open(t), `[TOOL_CALLS][${calls}]`);
  const api = createOpenAI(model, { template: TEMPLATE });
  for (const [parallel_tool_calls, n] of /** @type {const} */ ([
    [false, 1],
    [true, 2],
  ])) {
    const { choices } = await api.chat.completions.create({
      messages,
      tools: [weather],
      parallel_tool_calls,
    });
    assert.equal(choices[0].message.tool_calls?.length, n);
    assert.equal(choices[0].message.tool_calls?.[0].function.arguments, '{"city":"A"}');
  }
});

test('openai: templates of models show the format of a call that must be made', async (t) => {
  const base = await open(t);
  const templates = new Map(readCases('chat-templates.jsonl').map(({ name, template }) => [name, template]));
  const short = { type: 'function', function: { name: 'now', description: '', parameters: {} } };
  // Marks of another format in a message change nothing.
  const marked = [{ role: 'user', content: 'x <tool_call> [AVAILABLE_TOOLS]' }];
  for (const [name, begin, rest] of [
    ['qwen2.5', '<tool_call>\n{"name": "now", "arguments": ', '{}}'],
    ['qwen3', '<think>\n\n</think>\n\n<tool_call>\n{"name": "now", "arguments": ', '{}}'],
    ['mistral-nemo', '[TOOL_CALLS][{"name": "now", "arguments": ', '{}}]'],
    ['lfm2', '<|tool_call_start|>[now(', ')]<|tool_call_end|>'],
  ]) {
    const { model, prompts } = scripted(base, rest);
    const api = createOpenAI(model, { template: templates.get(name) ?? assert.fail(name) });
    const tool_choice = { type: 'function', function: { name: 'now' } };
    const request = { messages: marked, tools: [short], tool_choice };
    const { choices } = await api.chat.completions.create(request);
    assert.ok(prompts[0].endsWith(begin), `${name}: ${prompts[0]}`);
    const calls = choices[0].message.tool_calls?.map((one) => one.function);
    assert.deepEqual(calls, [{ name: 'now', arguments: '{}' }], name);
    assert.equal(choices[0].message.content, null);
  }
});

test('openai: thoughts are apart from the answer', async (t) => {
  const base = await open(t);
  const open_ = scripted(base, '<think>\nHm.\n</think>\n\nA fox.');
  const begun = scripted(base, 'Hm.\n</think>\n\nA fox.');
  for (const [{ model }, more] of /** @type {[any, object][]} */ ([
    [open_, {}],
    [begun, { chat_template_kwargs: { thinking: true } }],
  ])) {
    const api = createOpenAI(model, { template: TEMPLATE });
    const { choices } = await api.chat.completions.create({ messages, ...more });
    assert.deepEqual(choices[0].message, {
      role: 'assistant',
      content: 'A fox.',
      refusal: null,
      reasoning: 'Hm.',
    });
    const message = added(await all(await api.chat.completions.create({ messages, ...more, stream: true })));
    assert.deepEqual(message, { content: 'A fox.', reasoning: 'Hm.' });
  }
});

test('openai: embeddings and models', async (t) => {
  const model = await open(t);
  const api = createOpenAI(model, { name: 'tales' });
  const texts = ['a fox', 'a bear'];
  /** @type {OpenAI.CreateEmbeddingResponse} */
  const { data, usage } = await api.embeddings.create({ input: texts });
  const vectors = await model.embed(texts);
  assert.deepEqual(
    data.map(({ embedding, index }) => [index, embedding]),
    vectors.map((one, i) => [i, [...one]]),
  );
  assert.equal(usage.prompt_tokens, model.tokenize('a fox').length + model.tokenize('a bear').length);
  const short = await api.embeddings.create({ input: 'a fox', dimensions: 16 });
  assert.equal(short.data[0].embedding.length, 16);
  const { data: list } = await api.models.list();
  assert.deepEqual(
    list.map(({ id, object }) => [id, object]),
    [['tales', 'model']],
  );
});

test('openai: mistakes are errors that name the field', async (t) => {
  const model = await open(t);
  const api = createOpenAI(model, { template: TEMPLATE });
  /** @type {[object, RegExp][]} */
  const mistakes = [
    [{ max_token: 1 }, /there is no field "max_token".*did you mean "max_tokens"/],
    [{ message: [] }, /fields are messages, [a-z_, ]*repeat_penalty; did you mean "messages"\?$/],
    [{ chat_template_kwargs: 5 }, /chat_template_kwargs must be an object, got 5/],
    [{ max_tokens: 0 }, /max_tokens must be an integer 1 or more, got 0/],
    [{ temperature: -1 }, /temperature must be a number from 0 to 100, got -1/],
    [{ n: 2 }, /n is not supported, got 2/],
    [{ frequency_penalty: 2.5 }, /frequency_penalty must be a number from -2 to 2, got 2.5/],
    [{ logit_bias: { 5: 1 } }, /logit_bias is not supported/],
    [{ response_format: { type: 'json_schema' } }, /response_format must be .* got type "json_schema"/],
    [{ response_format: { type: 'xml' } }, /response_format must be .* got type "xml"/],
    [
      { response_format: { type: 'json_object' }, tools: [weather] },
      /response_format "json_object" leaves no room for a call of the 1 tools/,
    ],
    [{ messages: [] }, /messages must be a list/],
    [
      { messages: [{ role: 'user', content: [{ type: 'image_url' }] }] },
      /only parts of type "text" are supported/,
    ],
    [{ tools: [{ type: 'custom' }] }, /tools\[0\] must be/],
    [
      { tools: [weather], tool_choice: { type: 'function', function: { name: 'x' } } },
      /asks for "x"; the tools are get_weather/,
    ],
    [{ tool_choice: 'required' }, /there are no tools/],
    [{ tool_choice: 'maybe' }, /tool_choice must be 'none'.*got "maybe"/],
    [{ top_logprobs: 2 }, /top_logprobs needs logprobs: true/],
    [{ stream: 'yes' }, /stream must be true or false/],
  ];
  for (const [more, message] of mistakes) {
    const request = /** @type {any} */ ({ messages, ...more });
    const error = await rejection(api.chat.completions.create(request));
    assert.ok(error instanceof ArgumentError, `${JSON.stringify(more)}: ${error}`);
    assert.match(error.message, message);
  }
  const none = /** @type {any} */ (undefined);
  assert.match((await rejection(api.chat.completions.create(none))).message, /request must be an object/);
  const neutral = {
    n: 1,
    frequency_penalty: 0,
    logit_bias: {},
    response_format: { type: 'text' },
    user: 'me',
    seed: null,
    stop: null,
  };
  await api.chat.completions.create(/** @type {any} */ ({ messages, max_tokens: 1, ...neutral }));
  const not = /** @type {any} */ (Promise.resolve(model));
  assert.throws(
    () => createOpenAI(not),
    /model must be a model of Llama.load.*got Promise; is an await missing/,
  );
  const slip = /** @type {any} */ ({ nmae: 'x' });
  assert.throws(() => createOpenAI(model, slip), /did you mean "name"/);
  assert.match(
    (await rejection(api.embeddings.create(/** @type {any} */ ({ input: [1] })))).message,
    /input must be a text/,
  );
});
