/** The command serve, asked by the `openai` client, by pages of others, and by too many at once. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { request } from 'node:http';
import path from 'node:path';
import { test } from 'node:test';
import { OpenAI } from 'openai';
import { makeServer } from '../../js/cli/http.js';
import { Llama } from '../../js/llama/index.js';
import { TINY_TALES } from '../helpers/llama.js';
import { projectRoot } from '../helpers/test-data.js';
import { pause } from '../helpers/workers.js';

const MAIN = path.join(projectRoot, 'js/cli/main.js');
const KERNELS = ['--threads', '1', '--template', 'chatml'];
const messages = [{ role: /** @type {const} */ ('user'), content: 'Tell me of a fox' }];
const greedy = { model: 'x', messages, max_tokens: 20, temperature: 0 };

/** @param {import('node:test').TestContext} t @param {string[]} args */
async function start(t, ...args) {
  const child = spawn(process.execPath, [MAIN, 'serve', TINY_TALES, '--port', '0', ...KERNELS, ...args]);
  let [out, err] = ['', ''];
  child.stderr.setEncoding('utf8').on('data', (text) => {
    err += text;
  });
  const ended = new Promise((resolve) => child.on('close', resolve));
  t.after(() => child.kill('SIGKILL'));
  await new Promise((resolve) => {
    child.on('close', resolve);
    child.stdout.setEncoding('utf8').on('data', (text) => {
      out += text;
      if (out.includes('\n')) resolve(undefined);
    });
  });
  const [url] = /http:\/\/127\.0\.0\.1:\d+\/v1/.exec(out) ?? assert.fail(`${out}${err}`);
  const client = new OpenAI({ apiKey: 'none', baseURL: url, maxRetries: 0 });
  return { child, client, url, out, errors: () => err, ended };
}

/**
 * @param {string} url @param {Record<string, string>} headers @param {string} [method]
 * @returns {Promise<{ status: number, headers: import('node:http').IncomingHttpHeaders, body: string }>}
 */
const ask = (url, headers, method = 'POST', body = JSON.stringify(greedy)) =>
  new Promise((resolve, reject) => {
    const asked = request(url, { method, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (more) => {
        text += more;
      });
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }),
      );
    });
    asked.on('error', reject);
    asked.end(method === 'POST' ? body : undefined);
  });
const JSON_TYPE = { 'content-type': 'application/json' };

test('serve: the client gets answers, streams, vectors and models; Ctrl-C ends it', async (t) => {
  const { child, client, out, errors, ended } = await start(t, '--name', 'tales');
  assert.match(out, /^http:\/\/127\.0\.0\.1:\d+\/v1 answers with tales; Ctrl-C ends it\n$/);
  const model = await Llama.load(TINY_TALES, { threads: 1 });
  t.after(() => model.dispose());
  const run = await model.chat(messages, { template: 'chatml', maxTokens: 20, temperature: 0 });
  const expected = await run.text();
  const answer = await client.chat.completions.create(greedy);
  assert.equal(answer.choices[0].message.content, expected);
  assert.equal(answer.model, 'tales');
  let [text, chunks] = ['', 0];
  for await (const chunk of await client.chat.completions.create({ ...greedy, stream: true })) {
    text += chunk.choices[0].delta.content ?? '';
    chunks += 1;
  }
  assert.equal(text, expected);
  assert.ok(chunks > 10);
  const { data } = await client.embeddings.create({ model: 'x', input: 'a fox' });
  assert.deepEqual([...data[0].embedding], [...(await model.embed('a fox'))]);
  assert.deepEqual(
    (await client.models.list()).data.map(({ id }) => id),
    ['tales'],
  );
  await assert.rejects(client.chat.completions.create({ ...greedy, n: 3 }), OpenAI.BadRequestError);
  // A text that is being written does not keep it.
  const stream = await client.chat.completions.create({ ...greedy, max_tokens: 200, stream: true });
  const reading = (async () => {
    for await (const _ of stream);
  })();
  reading.catch(() => {});
  child.kill('SIGINT');
  assert.equal(await ended, 130);
  assert.match(errors(), /^memory: .*\ninstruction set: .*\n$/);
});

/** @param {unknown} error */
const isFull = (error) =>
  error instanceof OpenAI.InternalServerError &&
  error.status === 503 &&
  error.headers.get('retry-after') === '1' &&
  /^503 [12] requests are answered or wait already/.test(error.message);

test('serve: more requests than the queue takes are refused, and those who leave free their place', async (t) => {
  /** Functions that answer the requests which have arrived. @type {(() => void)[]} */
  const held = [];
  const server = makeServer({
    queue: 2,
    fetch: (_, { signal }) =>
      new Promise((resolve, reject) => {
        held.push(() => resolve(Response.json({ choices: [] })));
        signal?.addEventListener('abort', () => reject(signal.reason));
      }),
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
  t.after(() => server.close());
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  const client = new OpenAI({ apiKey: 'none', baseURL: `http://127.0.0.1:${port}/v1`, maxRetries: 0 });
  const arrived = async (/** @type {number} */ n) => {
    for (let wait = 0; wait < 500 && held.length < n; wait++) await pause(10);
    assert.equal(held.length, n);
  };
  const leaving = new AbortController();
  const first = client.chat.completions.create(greedy, { signal: leaving.signal });
  const second = client.chat.completions.create(greedy);
  await arrived(2);
  await assert.rejects(client.chat.completions.create(greedy), isFull);
  leaving.abort();
  await assert.rejects(first);
  // The server hears of it a little later.
  let third = client.chat.completions.create(greedy);
  for (let tries = 0; tries < 100 && held.length < 3; tries++) {
    third.catch(() => {});
    await pause(20);
    if (held.length < 3) third = client.chat.completions.create(greedy);
  }
  await arrived(3);
  await assert.rejects(client.chat.completions.create(greedy), isFull);
  for (const answer of held) answer();
  assert.deepEqual([(await second).choices, (await third).choices], [[], []]);
});

test('serve: --queue says how many requests may wait', async (t) => {
  const { client } = await start(t, '--queue', '1');
  const asked = Array.from({ length: 8 }, () =>
    client.chat.completions.create({ ...greedy, max_tokens: 200 }),
  );
  const answers = await Promise.allSettled(asked);
  const refused = answers.filter(({ status }) => status === 'rejected');
  assert.ok(refused.length > 0 && refused.length < asked.length, `${refused.length} of 8 refused`);
  for (const { reason } of /** @type {PromiseRejectedResult[]} */ (refused))
    assert.ok(isFull(reason), reason);
  assert.ok((await client.chat.completions.create(greedy)).choices[0].message.content);
});

test('serve: a client that leaves aborts its request, whole or in chunks', async (t) => {
  let nAborted = 0;
  const server = makeServer({
    queue: 1,
    fetch: (_, { signal }) =>
      new Promise((_, reject) => {
        signal?.addEventListener('abort', () => {
          nAborted += 1;
          reject(signal.reason);
        });
      }),
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
  t.after(() => server.close());
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  for (const [before, body] of ['{}', '{"stream":true}'].entries()) {
    const asked = request({ port, method: 'POST', headers: JSON_TYPE });
    asked.on('error', () => {});
    asked.end(body);
    await pause(50);
    asked.destroy();
    for (let wait = 0; wait < 100 && nAborted === before; wait++) await pause(10);
    assert.equal(nAborted, before + 1);
  }
});

test('serve: pages of others, other names of the host, and other types are refused', async (t) => {
  const { url } = await start(t);
  const chat = `${url}/chat/completions`;
  const page = { ...JSON_TYPE, origin: 'https://example.com' };
  const refused = await ask(chat, page);
  assert.equal(refused.status, 403);
  assert.match(refused.body, /pages of https:\/\/example.com may not ask; --cors/);
  assert.equal(refused.headers['access-control-allow-origin'], undefined);
  assert.equal((await ask(chat, page, 'OPTIONS')).status, 403);
  assert.equal((await ask(chat, { ...JSON_TYPE, host: 'evil.example:8080' })).status, 403);
  assert.equal((await ask(chat, { 'content-type': 'text/plain' })).status, 415);
  assert.equal((await ask(chat, {})).status, 415);
  const large = await ask(chat, JSON_TYPE, 'POST', ' '.repeat(17 << 20));
  assert.equal(large.status, 413);
  assert.match(large.body, /the body has 17825792 bytes, the most are 16777216/);
  assert.equal((await ask(`${url}/models`, {}, 'GET')).status, 200);
  assert.equal((await ask(`${url}/nothing`, {}, 'GET')).status, 404);
  assert.equal((await ask(chat, JSON_TYPE)).status, 200);
});

test('serve: --cors lets the pages of an origin ask', async (t) => {
  const { url } = await start(t, '--cors', 'https://example.com');
  const chat = `${url}/chat/completions`;
  const page = { ...JSON_TYPE, origin: 'https://example.com' };
  const before = await ask(
    chat,
    { ...page, 'access-control-request-headers': 'content-type,x-own' },
    'OPTIONS',
  );
  assert.equal(before.status, 204);
  assert.match(String(before.headers['access-control-allow-headers']), /content-type,x-own/);
  const answer = await ask(chat, page);
  assert.equal(answer.status, 200);
  assert.equal(answer.headers['access-control-allow-origin'], 'https://example.com');
  assert.equal((await ask(chat, { ...page, origin: 'https://other.example' })).status, 403);
});

test('serve: mistakes are said before the model is loaded', async (t) => {
  const { url } = await start(t);
  const { port } = new URL(url);
  for (const [args, message] of /** @type {[string[], RegExp][]} */ ([
    [
      ['--port', port],
      /^fused-matmul: --port \d+ is in use or not allowed; choose another one, or 0 for any\n$/,
    ],
    [['--port', '70000'], /--port must be an integer from 0 to 65535, got 70000/],
    [['--queue', '0'], /--queue must be an integer from 1 to 10000, got 0/],
  ])) {
    const child = spawn(process.execPath, [MAIN, 'serve', 'missing.gguf', '--threads', '1', ...args]);
    let err = '';
    child.stderr.setEncoding('utf8').on('data', (text) => {
      err += text;
    });
    assert.equal(await new Promise((resolve) => child.on('close', resolve)), 2, err);
    assert.match(err, message);
  }
});
