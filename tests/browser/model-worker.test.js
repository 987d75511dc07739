/** A model in a worker of a page without a bundler or an import map: it writes, stops and ends while the page stays free. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { projectRoot } from '../helpers/test-data.js';
import { LONG_TASK_MS, longestTask, TRACED } from './calm.js';
import { launchChromium, openPage, serveFolder, skipWithoutChromium } from './helpers.js';
import { ISOLATION } from './library-page.js';

const PAGE = 'tests/browser/fixtures/model.html';
const skip = skipWithoutChromium();
/** @type {import('playwright-core').Browser} */
let browser;

before(async () => {
  if (!skip) browser = await launchChromium();
});
after(() => browser?.close());

for (const isolated of [true, false]) {
  test(`a model in a worker, ${isolated ? 'isolated' : 'not isolated'}`, { skip }, async (t) => {
    const server = await serveFolder(projectRoot, { headers: isolated ? ISOLATION : {} });
    t.after(() => server.close());
    const { page, problems, close } = await openPage(browser, server.url + PAGE);
    t.after(() => close());
    await page.waitForFunction('globalThis.ready === true');
    const { threads, last, ahead } = /** @type {any} */ (
      await page.evaluate(
        `({ threads: model.info.kernels.threads, last: progress.at(-1), ahead: progress.length })`,
      )
    );
    assert.equal(threads > 1, isolated);
    assert.equal(last, 1);
    assert.ok(ahead >= 1);
    const stats = /** @type {any} */ (await page.evaluate('write({ maxTokens: 20 })'));
    assert.equal(stats.finishReason, 'length');
    assert.match(String(await page.textContent('#story')), /^, there was a /);

    // The page's own thread answers while the worker computes.
    const busy = /** @type {any} */ (
      await page.evaluate(`(async () => {
        const writing = write({ maxTokens: 4000, ignoreEnd: true, signal: stop.signal }).catch((error) => error.name);
        let longest = 0, last = performance.now();
        for (let i = 0; i < 20; i++) {
          await new Promise((resolve) => setTimeout(resolve, 5));
          longest = Math.max(longest, performance.now() - last);
          last = performance.now();
        }
        document.querySelector('#stop').click();
        return { name: await writing, longest };
      })()`)
    );
    assert.equal(busy.name, 'AbortError');
    t.diagnostic(`the page waited ${busy.longest.toFixed(0)} ms at most`);
    const again = await page.evaluate(`model.generate('Once upon', { maxTokens: 3, temperature: 0 }).text()`);
    assert.equal(again, ' a time,');
    const stopped = await page.evaluate(`(async () => {
      const run = model.generate('Once', { maxTokens: 4000, ignoreEnd: true });
      let [text, next] = [''];
      for await (const piece of run) {
        text += piece;
        next ??= model.generate('Once upon', { maxTokens: 3, temperature: 0, queue: true }).text();
        if (run.tokens.length > 5) run.stop();
      }
      return [text.length > 5 && text === run.written, run.stats.finishReason, await next];
    })()`);
    assert.deepEqual(stopped, [true, 'stopped', ' a time,']);
    const answered = await page.evaluate(`(async () => {
      const { createOpenAI } = await import('/js/openai/index.js');
      const openai = createOpenAI(model, { template: 'chatml' });
      const request = { messages: [{ role: 'user', content: 'A fox' }], max_tokens: 9, temperature: 0 };
      const { choices } = await openai.chat.completions.create(request);
      const body = JSON.stringify({ ...request, stream: true });
      const response = await openai.fetch('http://model/v1/chat/completions', { method: 'POST', body });
      const events = (await response.text()).trim().split('\\n\\n').map((event) => event.slice(6));
      const text = events.slice(0, -1).map((event) => JSON.parse(event).choices[0].delta.content ?? '').join('');
      return [text.length > 5 && text === choices[0].message.content, events.at(-1)];
    })()`);
    assert.deepEqual(answered, [true, '[DONE]']);
    const requests = /** @type {string[]} */ ([]);
    page.on('request', (request) => requests.push(new URL(request.url()).pathname));
    const structured = await page.evaluate(`(async () => {
      const schema = { type: 'object', properties: { n: { type: 'integer' } }, required: ['n'] };
      const options = { responseFormat: { type: 'json_schema', schema }, seed: 3, temperature: 2 };
      const { Llama } = await import('/js/llama/index.js');
      const here = await Llama.load('/web/public/tiny-tales-Q4_K_M.gguf', { threads: 1 });
      const texts = [];
      for (const one of [model, here]) texts.push(await one.generate('A', options).text());
      here.dispose();
      return texts.map((text) => Number.isInteger(JSON.parse(text).n));
    })()`);
    assert.deepEqual(structured, [true, true], 'in the worker and in the page');
    assert.ok(requests.includes('/dist/grammar-engine.js'), 'the grammar engine is fetched when it is used');
    await page.evaluate('model.dispose()');
    for (let i = 0; i < 1000 && page.workers().length > 0; i++) await page.waitForTimeout(20);
    assert.equal(page.workers().length, 0);
    assert.deepEqual(problems, []);
  });
}

test('a worker that is terminated, and a script that is not there', { skip }, async (t) => {
  const server = await serveFolder(projectRoot);
  t.after(() => server.close());
  const { page, close } = await openPage(browser, server.url + PAGE);
  t.after(() => close());
  await page.waitForFunction('globalThis.ready === true');
  const outcome = /** @type {any} */ (
    await page.evaluate(`(async () => {
      const { createWorkerLlama } = await import('/js/llama/index.js');
      // A promise that never settles is told from the others.
      const limit = (ms) => new Promise((resolve) => setTimeout(() => resolve('not settled'), ms));
      const name = (promise) =>
        Promise.race([promise.then(() => 'done', (error) => error.name + ': ' + error.message), limit(60_000)]);
      const missing = await name(createWorkerLlama('/web/public/tiny-tales-Q4_K_M.gguf', { worker: '/none.js' }));
      const noFile = await name(createWorkerLlama('/none.gguf', { retries: 0 }));
      const worker = new Worker('/dist/llama-host.js', { type: 'module' });
      const model = await createWorkerLlama('/web/public/tiny-tales-Q4_K_M.gguf', { worker });
      const writing = name(model.generate('Once', { maxTokens: 4000, ignoreEnd: true }).text());
      worker.terminate();
      return { missing, noFile, ended: await writing, disposed: model.disposed };
    })()`)
  );
  assert.match(outcome.missing, /^LoadError: the worker cannot be started/);
  assert.match(outcome.noFile, /^GgufError: .*404/);
  assert.match(outcome.ended, /^WorkerError/);
  assert.equal(outcome.disposed, true);
});

/** FM_TEST_DEEP: with the self-test of the GPU. */
const DEEP = Boolean(process.env.FM_TEST_DEEP);

/** In the page: a model with these options, what it writes, and what is said of its device; or its error. */
const TRY = `async (options) => {
  const { createWorkerLlama } = await import('/js/llama/index.js');
  const { GpuError } = await import('/js/gpu/index.js');
  try {
    const model = await createWorkerLlama('/web/public/tiny-tales-Q4_K_M.gguf', { activation: 'f32', ...options });
    const { backend, gpu } = model.info;
    const text = await model.generate('Once upon a time', { temperature: 0, maxTokens: 12 }).text();
    const embedding = await model.embed('a fox');
    await model.dispose();
    return { text, backend, gpu, embedding: [...embedding] };
  } catch (error) {
    const { name, code, reason } = error;
    return { name, code, reason, isGpuError: error instanceof GpuError };
  }
}`;

test('a model in a worker on a GPU writes what the CPU writes, and the page stays calm', {
  skip,
}, async (t) => {
  const withGpu = await launchChromium({ gpu: true });
  t.after(() => withGpu.close());
  const server = await serveFolder(projectRoot);
  t.after(() => server.close());
  const { page, problems, close } = await openPage(withGpu, server.url + PAGE);
  t.after(() => close());
  await page.waitForFunction('globalThis.ready === true');
  /** @type {string[]} */
  const scripts = [];
  page.on('worker', (worker) => scripts.push(new URL(worker.url()).pathname));
  const attempt = (/** @type {object} */ options) =>
    /** @type {Promise<any>} */ (page.evaluate(`(${TRY})(${JSON.stringify(options)})`));

  const cpu = await attempt({});
  // The trace has to have the page's beginning.
  await withGpu.startTracing(page, { categories: TRACED });
  await page.reload();
  await page.waitForFunction('globalThis.ready === true');
  scripts.length = 0;
  // The self-test compiles for a minute on a driver without a GPU.
  const gpu = await attempt({ backend: 'gpu', gpu: { allowSoftware: true, selfTest: DEEP } });
  const longest = longestTask(await withGpu.stopTracing(), server.url);
  assert.equal(cpu.backend.name, 'cpu');
  assert.equal(gpu.backend?.name, 'gpu', JSON.stringify(gpu));
  assert.match(gpu.backend.steps.join(), /was opened/);
  assert.equal(gpu.gpu.software, true);
  assert.match(cpu.text, /^, there was /);
  assert.equal(gpu.text, cpu.text);
  const apart = Math.max(
    ...cpu.embedding.map((/** @type {number} */ value, /** @type {number} */ i) =>
      Math.abs(value - gpu.embedding[i]),
    ),
  );
  // Vectors of length 1, computed in f32 in another order on both sides.
  assert.ok(apart < 1e-4, `embeddings differ by ${apart}`);
  assert.ok(longest < LONG_TASK_MS, `a task of the page took ${longest} ms of processor time`);
  const refused = await attempt({ backend: 'gpu' });
  assert.deepEqual(refused, { name: 'GpuError', code: 'FM_GPU', reason: 'software', isGpuError: true });
  assert.deepEqual(scripts, ['/dist/llama-host-gpu.js', '/dist/llama-host-gpu.js']);
  assert.deepEqual(problems, []);
  t.diagnostic(`ran: a model in a worker on ${gpu.gpu.adapter.name}`);
});

test("without a GPU, 'auto' is the CPU and says why, and 'gpu' is refused", { skip }, async (t) => {
  const server = await serveFolder(projectRoot);
  t.after(() => server.close());
  const { page, problems, close } = await openPage(browser, server.url + PAGE);
  t.after(() => close());
  await page.waitForFunction('globalThis.ready === true');
  const { auto, refused } = /** @type {any} */ (
    await page.evaluate(`(async () => {
      const attempt = ${TRY};
      return { auto: await attempt({ backend: 'auto' }), refused: await attempt({ backend: 'gpu' }) };
    })()`)
  );
  assert.equal(auto.backend.name, 'cpu');
  assert.match(auto.backend.reason, /^the GPU cannot be used: WebGPU has no adapter here/);
  assert.match(auto.text, /^, there was /);
  assert.deepEqual(refused, { name: 'GpuError', code: 'FM_GPU', reason: 'adapter', isGpuError: true });
  assert.deepEqual(problems, []);
});
