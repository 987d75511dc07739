/**
 * Workers that die, never start, are disposed in the middle of work, or are two: each gives a clear
 * error, and leaves no worker behind.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { ArgumentError, createWorkerKernels, HandleError, LoadError, WorkerError } from '../../js/index.js';
import { projectRoot } from '../helpers/test-data.js';
import { hostUrl, pause, rejection, untilAlive, workerKernels, workersAlive } from '../helpers/workers.js';

/** @import { TestContext } from 'node:test' */

/** @param {TestContext} t @param {string} code  run in the worker beside the library's script */
async function hostWith(t, code) {
  const folder = await mkdtemp(path.join(tmpdir(), 'fused-matmul-worker-'));
  t.after(() => rm(folder, { recursive: true }));
  const file = path.join(folder, 'host.mjs');
  await writeFile(file, `import ${JSON.stringify(hostUrl.href)};\n${code}`);
  return pathToFileURL(file);
}

/**
 * Keeps the worker busy for seconds.
 * @param {Awaited<ReturnType<typeof createWorkerKernels>>} fm
 */
async function busy(fm) {
  const w = await fm.weight({ type: 'F32', nRows: 2048, nCols: 2048 });
  const x = await fm.tensor({ nRows: 64, nCols: 2048 });
  return fm.sequence((ops) => {
    for (let i = 0; i < 500; i++) ops.fusedMatmul(w, x).free();
  });
}

test('dispose in the middle of work: what is pending rejects, the worker ends, a second dispose does nothing', async () => {
  const fm = await createWorkerKernels();
  assert.equal(workersAlive(), 1);
  const x = await fm.tensor({ nRows: 1, nCols: 1 });
  const work = busy(fm);
  await pause(100);
  const pending = [work, x.toArray(), fm.memory()].map(rejection);
  const started = performance.now();
  const first = fm.dispose();
  for (const error of await Promise.all(pending)) {
    assert.ok(error instanceof HandleError && error.reason === 'disposed', String(error));
  }
  assert.equal(fm.dispose(), first);
  await first;
  assert.ok(performance.now() - started < 3000, 'it does not wait for the work');
  await untilAlive(0);
  assert.ok(fm.disposed && x.freed);
  for (const call of [fm.memory(), fm.sequence(() => {}), x.toArray()]) {
    const error = await rejection(call);
    assert.ok(error instanceof HandleError && error.reason === 'disposed');
  }
  assert.throws(() => x.free(), HandleError);
  assert.equal(fm.info.version.length > 0, true, 'what is known stays known');
});

test('using and await using', async () => {
  const asyncDispose = Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose');
  const fm = await createWorkerKernels();
  await /** @type {any} */ (fm)[asyncDispose]();
  assert.equal(fm.disposed, true);
  await untilAlive(0);
});

test('terminated from outside', async () => {
  const worker = new Worker(hostUrl);
  const fm = await createWorkerKernels({ worker: /** @type {any} */ (worker) });
  const x = await fm.tensor({ nRows: 1, nCols: 1 });
  const pending = rejection(busy(fm));
  await pause(50);
  await worker.terminate();
  const error = await pending;
  assert.ok(error instanceof WorkerError && error.code === 'FM_WORKER', String(error));
  assert.match(error.message, /the worker ended: exit code 1/);
  assert.ok(fm.disposed && x.freed);
  assert.equal(await rejection(fm.memory()), error);
  await assert.rejects(x.toArray(), WorkerError);
  await fm.dispose();
  await fm.dispose();
  await untilAlive(0);
});

test('an uncaught error in the worker, with its cause; a heap that is full; a worker that leaves', async (t) => {
  for (const [code, check] of /** @type {[string, (error: any) => boolean][]} */ ([
    [
      "const end = () => { throw new TypeError('boom'); };",
      (e) => /boom/.test(e.message) && e.cause instanceof TypeError,
    ],
    [
      'const end = () => { for (let all; ; ) all = { all }; }; // in small steps: Node 24 does not survive large ones',
      (e) => e.cause?.code === 'ERR_WORKER_OUT_OF_MEMORY',
    ],
    ['const end = () => process.exit(7);', (e) => /exit code 7/.test(e.message)],
  ])) {
    const onRun =
      "import { parentPort } from 'node:worker_threads';\nparentPort.on('message', ({ kind }) => kind === 'run' && setTimeout(end));";
    const url = await hostWith(t, `${onRun}\n${code}`);
    const worker = () => new Worker(url, { resourceLimits: { maxOldGenerationSizeMb: 24 } });
    const fm = await createWorkerKernels({ worker: /** @type {any} */ (worker) });
    const error = await rejection(
      (async () => {
        for (;;) await pause(20).then(() => fm.memory());
      })(),
    );
    assert.ok(error instanceof WorkerError && check(error), `${code}: ${error} ${error.cause}`);
    await untilAlive(0);
  }
});

test('a worker that cannot be started: LoadError, and nothing left', async (t) => {
  /** @type {any} */
  const wrong = {};
  for (const [worker, kind] of /** @type {[any, any][]} */ ([
    [new URL('no-such-file.js', hostUrl), LoadError],
    [await hostWith(t, "throw new Error('at start');"), LoadError],
    [await hostWith(t, 'process.exit(3);'), LoadError],
    [await hostWith(t, 'this is no JavaScript'), LoadError],
    [
      () => {
        throw new RangeError('no more workers');
      },
      LoadError,
    ],
    [wrong, ArgumentError],
  ])) {
    const error = await rejection(createWorkerKernels({ worker }));
    assert.ok(error instanceof kind, `${worker}: ${error}`);
    if (kind === LoadError) assert.match(error.message, /worker cannot be started/);
    await untilAlive(0);
  }
});

test('a creation that fails, or is aborted, leaves no worker', async () => {
  const wasm = new Uint8Array([0, 97, 115, 109, 9, 9, 9, 9]);
  assert.ok((await rejection(createWorkerKernels({ wasm }))) instanceof LoadError);
  await untilAlive(0);
  const error = await rejection(createWorkerKernels({ isa: /** @type {any} */ ('avx2') }));
  assert.ok(error instanceof ArgumentError);
  await untilAlive(0);
  const reason = new Error('enough');
  assert.equal(await rejection(createWorkerKernels({ signal: AbortSignal.abort(reason) })), reason);
  assert.equal(workersAlive(), 0);
  const abort = new AbortController();
  const creation = rejection(createWorkerKernels({ signal: abort.signal }));
  await pause(5);
  abort.abort(reason);
  assert.equal(await creation, reason);
  await untilAlive(0);
});

test('two at once do not know of each other', async (t) => {
  const [a, b] = [await workerKernels(t), await workerKernels(t)];
  assert.equal(workersAlive(), 2);
  const [x, y] = await Promise.all(
    [a, b].map((fm, i) => fm.tensor({ nRows: 1, nCols: 1, data: Float32Array.of(i) })),
  );
  await a.dispose();
  assert.equal(x.freed, true);
  assert.deepEqual(await y.toArray(), Float32Array.of(1));
  await untilAlive(1);
  await b.dispose();
  await untilAlive(0);
});

/**
 * @param {string} code @returns {Promise<{ status: number | null, output: string, ms: number }>}
 */
async function runNode(code) {
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], { cwd: projectRoot });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (chunk) => {
      output += chunk;
    });
  const started = performance.now();
  const timer = setTimeout(() => child.kill('SIGKILL'), 20_000);
  const status = await new Promise((resolve) => child.on('close', resolve));
  clearTimeout(timer);
  return { status, output, ms: performance.now() - started };
}

test('the process ends by itself, with and without dispose; it waits for what is pending', async () => {
  const start =
    "import { createWorkerKernels } from './js/index.js';\nconst fm = await createWorkerKernels();\n";
  for (const [code, expected] of [
    [`${start}console.log('idle');`, 'idle'],
    [`${start}fm.dispose(); console.log('disposed');`, 'disposed'],
    [`${start}fm.memory().then(({ inUse }) => console.log('answered', typeof inUse));`, 'answered number'],
    [
      `${start}const a = new AbortController();\nfm.memory({ signal: a.signal }).catch((e) => console.log(e.message)); a.abort(new Error('aborted'));`,
      'aborted',
    ],
    [
      "import { createWorkerKernels } from './js/index.js';\nawait createWorkerKernels({ worker: '/no/such/file.js' }).catch((e) => console.log(e.name));",
      'LoadError',
    ],
  ]) {
    const { status, output } = await runNode(code);
    assert.deepEqual([status, output.trim()], [0, expected], code);
  }
});
