/** Engines other than Chromium's: Firefox, and WebKit, which is Safari's. Every kernel, and what engines differ in. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { createKernels, openGguf } from '../../js/layer-index.js';
import { Llama } from '../../js/llama/index.js';
import { rangeHandler } from '../helpers/range-server.js';
import { projectRoot } from '../helpers/test-data.js';
import { modelPath } from '../helpers/workers.js';
import { checkAnswer, makeCases, VARIANTS } from './kernel-cases.js';
import { ISOLATION, PAGE, PRODUCT } from './library-page.js';
import { FIREFOX, openSelfDriven, orSkip, WEBKIT, WEBKIT_RELAXED } from './self-driven.js';
import './fixtures/kernels.js'; // what the page runs, here too

/** @import { TestContext } from 'node:test' */
/** @import { Opened } from './self-driven.js' */

const { runKernels, servedTypes } = /** @type {any} */ (globalThis);
const model = readFileSync(modelPath);

const POLICY = "default-src 'self'; img-src data:; script-src 'self' 'nonce-fixture'";
/**
 * @type {{ what: string, headers: Record<string, string>, check: (found: { page: any, worker: any }) => void }[]}
 *   check: what a page and a worker get there
 */
const HOSTS = [
  {
    what: 'a page that is not isolated has one thread, and the two headers in info',
    headers: {},
    check({ page, worker }) {
      for (const { info, y } of [page, worker]) {
        assert.deepEqual([info.threads, y], [1, PRODUCT]);
        assert.match(
          info.threadsReason,
          /Cross-Origin-Opener-Policy: same-origin.*Cross-Origin-Embedder-Policy: require-corp/,
        );
      }
    },
  },
  {
    what: "under a strict policy with 'wasm-unsafe-eval' all is well",
    headers: { 'Content-Security-Policy': `${POLICY} 'wasm-unsafe-eval'` },
    check: ({ page, worker }) => assert.deepEqual([page.y, worker.y], [PRODUCT, PRODUCT]),
  },
  {
    what: "a strict policy without 'wasm-unsafe-eval' gives a LoadError that names it, once",
    headers: { 'Content-Security-Policy': POLICY },
    check({ page, worker }) {
      for (const { error } of [page, worker]) {
        assert.equal(error?.code, 'FM_LOAD');
        assert.match(error.message, /needs 'wasm-unsafe-eval' in script-src/);
        assert.equal(error.message.split('wasm-unsafe-eval').length, 2, error.message);
      }
    },
  },
  {
    what: 'a policy without worker-src gives a LoadError that names it, and the page can compute',
    headers: { 'Content-Security-Policy': `${POLICY} 'wasm-unsafe-eval'; worker-src 'none'` },
    check({ page, worker }) {
      assert.equal(worker.error?.code, 'FM_LOAD');
      assert.match(worker.error.message, /worker-src/);
      assert.deepEqual(page.y, PRODUCT);
    },
  },
];

for (const engine of [FIREFOX, WEBKIT]) {
  const { name, version, lacks } = engine;
  const skip = version ? false : lacks;

  describe(name, { skip }, () => {
    /** @type {Opened} */
    let opened;
    /** @type {unknown} */
    let failure;
    /** One of the page that all of these share. @param {string} title @param {(t: TestContext) => Promise<void>} body */
    const pageTest = (title, body) =>
      test(
        `${name}: ${title}`,
        orSkip(async (t) => {
          if (failure) throw failure;
          await body(t);
        }),
      );
    const { handler, requests } = rangeHandler(model, { etag: '"1"' });
    /** @type {Record<string, string>} */
    let headers;

    before(async () => {
      headers = { ...ISOLATION };
      const routes = { '/model.gguf': handler };
      try {
        opened = await openSelfDriven(engine, { folder: projectRoot, page: PAGE, headers, routes });
      } catch (error) {
        failure = error;
      }
    });
    after(() => opened?.close());

    pageTest('every type and activation mode against float64, the same bits as in Node', async (t) => {
      await opened.evaluate("await import('/tests/browser/fixtures/kernels.js');");
      const cases = makeCases(servedTypes);
      const ran = [];
      for (const variant of VARIANTS) {
        const task = { ...variant, cases: cases.map(({ sent }) => sent) };
        const answer = await opened.evaluate(
          `return runKernels(${JSON.stringify(task)}).catch((error) => ({ lacks: error.code + ' ' + error.message }));`,
        );
        if (answer.lacks) {
          assert.equal(answer.lacks, 'FM_ISA relaxed: this engine has no relaxed SIMD');
          continue;
        }
        checkAnswer(answer, variant, cases);
        // What relaxed instructions give is the engine's to choose, within the bound.
        if (variant.isa !== 'relaxed') assert.deepEqual(answer.results, (await runKernels(task)).results);
        ran.push([variant.isa, variant.dot].filter(Boolean).join(' '));
      }
      assert.deepEqual(ran.slice(0, 2), ['scalar', 'simd128']);
      t.diagnostic(`ran: ${ran.join(', ')} in ${name} ${version}`);
    });

    pageTest('threads in the page and in a worker', async (t) => {
      const { isa, reason, ...found } = await opened.evaluate(`
        const data = new Uint8Array(1024 * 2 * 144).map((_, i) => (i % 144 === 1 || i % 144 === 3 ? 0x24 : (i * 37) & 0x7f));
        const x = Float32Array.from({ length: 24 * 512 }, (_, i) => Math.sin(i));
        const run = async (create, threads) => {
          const fm = await library[create]({ threads });
          const w = await fm.weight({ type: 'Q4_K', nRows: 1024, nCols: 512, data });
          const y = String(await fm.fusedMatmul(w, x));
          await fm.dispose();
          return { y, info: fm.info };
        };
        const one = await run('createKernels', 1);
        const two = await run('createKernels', 2);
        const worker = await run('createWorkerKernels', 2);
        return {
          counts: [one, two, worker].map(({ info }) => info.threads),
          same: one.y === two.y && one.y === worker.y,
          reason: worker.info.threadsReason,
          isa: worker.info.isa,
        };`);
      assert.deepEqual(found, { counts: [1, 2, 2], same: true }, reason);
      t.diagnostic(`ran: 2 threads, ${isa}, in ${name} ${version}`);
    });

    pageTest('64-bit memory where there is one, else the usual', async () => {
      const { info, y, error } = await opened.evaluate("return run('createKernels', { memory64: true });");
      assert.equal(error, undefined);
      assert.deepEqual([info.memory64, y], [engine === FIREFOX, PRODUCT], info.memory64Reason);
    });

    pageTest('a file by its address, as a Blob, as bytes, from the cache', async (t) => {
      const fm = await createKernels({ isa: 'scalar' });
      t.after(() => fm.dispose());
      const w = await fm.loadWeight(await openGguf(model), 'blk.0.ffn_gate.weight');
      const expected = String(fm.dequantize(w, { end: 1 }));
      const read = `
        const address = location.origin + '/model.gguf';
        const fm = await library.createWorkerKernels();
        const firstRow = async (source, options) => {
          const w = await fm.loadWeight(await library.openGguf(source, options), 'blk.0.ffn_gate.weight');
          return String(await fm.dequantize(w, { end: 1 }));
        };`;
      const rows = await opened.evaluate(`${read}
        const blob = await (await fetch(address)).blob();
        const rows = [await firstRow(address), await firstRow(blob), await firstRow(await blob.arrayBuffer())];
        rows.push(await firstRow(address, { cache: true }));
        await fm.dispose();
        return rows;`);
      assert.deepEqual(rows, Array(4).fill(expected));
      const nRequests = requests.length;
      const again = await opened.evaluate(`${read}
        const row = await firstRow(address, { cache: true });
        await fm.dispose();
        return row;`);
      assert.equal(again, expected);
      // Whether the file has changed is asked with the smallest of reads.
      const bodies = requests.slice(nRequests).filter(({ range }) => range !== 'bytes=0-0');
      assert.deepEqual(bodies, [], 'the cached file was read from the server');
    });

    pageTest('aborted and disposed in the middle of work', async () => {
      const end = await opened.evaluate(`
        const fm = await library.createWorkerKernels();
        const n = 2048;
        const w = await fm.weight({ type: 'F32', nRows: n, nCols: n });
        const [x, y] = await Promise.all([1, 2].map(() => fm.tensor({ nRows: 8, nCols: n })));
        const work = (signal) => fm.sequence(
          (ops) => { for (let i = 0; i < 4000; i++) ops.fusedMatmul(w, x, { out: y }); }, { signal });
        const abort = new AbortController();
        const aborted = work(abort.signal).catch((reason) => reason);
        setTimeout(() => abort.abort('enough'), 100);
        const caught = await aborted;
        const result = await product(fm);
        const pending = work().catch(describe);
        await fm.dispose();
        return { caught, result, disposed: await pending, after: await fm.memory().catch(describe) };`);
      assert.deepEqual([end.caught, end.result], ['enough', PRODUCT]);
      assert.deepEqual([end.disposed.reason, end.after.reason], ['disposed', 'disposed']);
    });

    pageTest('text as in Node', async (t) => {
      const options = { maxTokens: 60, temperature: 0 };
      const kernels = await createKernels({ isa: 'simd128' });
      t.after(() => kernels.dispose());
      const llama = await Llama.load(modelPath, { kernels, activation: 'f32' });
      let expected = '';
      for await (const piece of llama.generate('Once upon a time', options)) expected += piece;
      llama.dispose();
      const text = await opened.evaluate(`
        const { Llama } = await import('/js/llama/index.js');
        const kernels = await library.createKernels({ isa: 'simd128' });
        const llama = await Llama.load(location.origin + '/model.gguf', { kernels, activation: 'f32' });
        let text = '';
        for await (const piece of llama.generate('Once upon a time', ${JSON.stringify(options)})) text += piece;
        llama.dispose();
        kernels.dispose();
        return text;`);
      assert.ok(text.length > 100, text);
      assert.equal(text, expected);
    });

    pageTest('nothing of this was reported on the console', async () => {
      assert.deepEqual(opened.problems, []);
    });

    pageTest('what cannot be started is a typed error, and others go on', async () => {
      const { errors, y } = await opened.evaluate(`
        const broken = URL.createObjectURL(new Blob(['this is no JavaScript'], { type: 'text/javascript' }));
        const make = (options) => library.createWorkerKernels(options).catch(describe);
        return {
          errors: [
            await make({ worker: '/dist/no-such-file.js' }),
            await make({ worker: broken }),
            await make({ wasm: new Uint8Array([0, 97, 115, 109, 9, 9, 9, 9]) }),
            await make({ wasm: '/dist/no-such-file.wasm' }),
            await library.openGguf('/no-such.gguf').catch(describe),
          ],
          y: (await run('createWorkerKernels')).y,
        };`);
      assert.deepEqual(
        errors.map((/** @type {any} */ error) => error.code),
        ['FM_LOAD', 'FM_LOAD', 'FM_LOAD', 'FM_LOAD', 'FM_GGUF'],
        JSON.stringify(errors),
      );
      assert.deepEqual(y, PRODUCT);
    });

    for (const host of HOSTS) {
      pageTest(host.what, async () => {
        for (const header of Object.keys(headers)) delete headers[header];
        Object.assign(headers, host.headers);
        await opened.reload('location.reload();');
        const found = await opened.evaluate(
          "return { page: await run('createKernels'), worker: await run('createWorkerKernels') };",
        );
        host.check(found);
      });
    }
  });
}

test(
  'WebKit with its unfinished relaxed SIMD switched on: SIMD128, and why',
  {
    skip: WEBKIT.version ? false : WEBKIT.lacks,
  },
  orSkip(async (t) => {
    const opened = await openSelfDriven(WEBKIT_RELAXED, { folder: projectRoot, page: PAGE });
    t.after(() => opened.close());
    const { info, y } = await opened.evaluate("return run('createKernels')");
    assert.deepEqual([info.features.relaxedSimd, info.isa, y], [true, 'simd128', PRODUCT]);
    assert.match(info.reason, /relaxed: cannot compile .*invalid extended simd op/);
  }),
);
