/**
 * Threads from start to end: their number and its reason, engines without threads, and that none is
 * left over.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { createKernels } from '../../js/index.js';
import { createKernels as createLayerKernels } from '../../js/layer-index.js';
import { nodeModule } from '../../js/node.js';
import { testActivations, testWeights } from '../../js/wasm/selftest.js';
import { defaultThreads } from '../../js/wasm/thread-plan.js';
import { planThreads } from '../../js/wasm/threads.js';
import { projectRoot } from '../helpers/test-data.js';

const workerThreads = await nodeModule('worker_threads');
const NodeWorker = workerThreads.Worker;
/** Every worker of this file that has not ended. @type {Set<any>} */
const live = new Set();
/**
 * Makes the workers instead of the default constructor.
 * @type {((url: URL, options: object) => any) | undefined}
 */
let replacement;
workerThreads.Worker = class extends NodeWorker {
  /** @param {URL} url @param {object} options */
  constructor(url, options) {
    super(replacement ? replacement(url, options) : url, options);
    live.add(this);
    this.once('exit', () => live.delete(this));
  }
};

/** @param {() => boolean} done */
async function until(done) {
  for (let i = 0; i < 500 && !done(); i++) await sleep(20);
  return done();
}

/** @param {{ weight: Function, fusedMatmul: Function }} fm */
function product(fm) {
  const w = fm.weight({ type: 'Q4_K', nRows: 1024, nCols: 512, data: testWeights('Q4_K', 1024) });
  const y = fm.fusedMatmul(w, testActivations());
  w.free();
  return y;
}

test('threads: how many are the default', () => {
  const rule = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 32, 128].map((n) => [n, defaultThreads(n)]);
  assert.deepEqual(Object.fromEntries(rule), {
    ...{ 1: 1, 2: 2, 3: 3, 4: 4, 5: 4, 6: 4, 8: 4, 10: 5, 12: 6, 16: 8, 32: 8, 128: 8 },
  });
  assert.equal(defaultThreads(0), 1);
});

test('threads: the plan says why', async () => {
  const features = { simd: true, relaxedSimd: true, threads: true, memory64: true };
  assert.deepEqual(await planThreads(1, features), { count: 1, reason: 'one thread was asked for' });
  assert.deepEqual(await planThreads(6, features), { count: 6, reason: '6 threads were asked for' });
  const none = await planThreads(6, { ...features, threads: false });
  assert.deepEqual(none, { count: 1, reason: 'one thread: this engine has no WebAssembly threads' });
  assert.match((await planThreads(undefined, features)).reason, /\d+ processor/);
});

test('threads: info, and results that are nobody else’s', async (t) => {
  const [one, two] = [await createLayerKernels({ threads: 1 }), await createLayerKernels({ threads: 2 })];
  t.after(() => one.dispose());
  t.after(() => two.dispose());
  assert.deepEqual([one.info.threads, two.info.threads], [1, 2]);
  assert.equal(two.info.threadsReason, '2 threads were asked for');
  assert.ok(two.info.steps.every(({ ok, module }) => !ok || module?.endsWith('-mt')));
  assert.deepEqual(product(two), product(one));
  const w = two.weight({ type: 'F32', nRows: 2, nCols: 4, data: new Float32Array(8).fill(2) });
  const tensor = two.tensor({ nRows: 1, nCols: 4, data: Float32Array.of(1, 2, 3, 4) });
  for (const result of [
    two.fusedMatmul(w, Float32Array.of(1, 2, 3, 4)),
    two.dequantize(w),
    two.quantize('Q8_0', new Float32Array(32), 1, 32),
    tensor.toArray(),
    two.fusedMatmulMany([w], Float32Array.of(1, 2, 3, 4))[0],
    two.softmax(Float32Array.of(1, 2, 3, 4)),
    two.embed(w, [1]),
  ]) {
    assert.ok(result.buffer instanceof ArrayBuffer, 'not shared');
    assert.equal(new TextDecoder().decode(result).length > 0, true);
  }
  // The memory that the threads see grows too.
  const big = two.tensor({ nRows: 1024, nCols: 4096 });
  big.set(new Float32Array(big.length).fill(0.5));
  const sum = two.add(big, big).toArray();
  assert.ok(sum.every((value) => value === 1));
});

test('threads: dispose ends them, twice does no harm, and instances do not meet', async () => {
  assert.ok(await until(() => live.size === 0));
  const [a, b] = await Promise.all([createKernels({ threads: 3 }), createKernels({ threads: 2 })]);
  assert.equal(live.size, 3);
  const expected = product(a);
  // By then the threads sleep.
  await sleep(20);
  a.dispose();
  a.dispose();
  assert.deepEqual(product(b), expected);
  assert.ok(await until(() => live.size === 1));
  product(b);
  b.dispose();
  assert.ok(await until(() => live.size === 0));
});

test('threads: what cannot be started is one thread, and the reason', async (t) => {
  t.after(() => {
    replacement = undefined;
  });
  const script = (/** @type {string} */ code) => new URL(`data:text/javascript,${encodeURIComponent(code)}`);
  for (const [what, reason] of /** @type {[() => any, RegExp][]} */ ([
    [() => assert.fail('no workers today'), /one thread: no workers today/],
    [
      () => new URL('./no-such-file.js', import.meta.url),
      /one thread: a thread could not be run: .*no-such-file/,
    ],
    [() => script('process.exit(3)'), /one thread: a thread ended \(exit code 3\)/],
    [() => script('throw new Error("broken")'), /one thread: a thread could not be run: broken/],
  ])) {
    replacement = what;
    const fm = await createKernels({ threads: 3 });
    assert.equal(fm.info.threads, 1);
    assert.match(fm.info.threadsReason, reason);
    replacement = undefined;
    const one = await createKernels({ threads: 1 });
    assert.deepEqual(product(fm), product(one));
    for (const kernels of [fm, one]) kernels.dispose();
    assert.ok(await until(() => live.size === 0), 'those that did start are ended');
  }
});

test('threads: one that dies later leaves one thread, and right results', async () => {
  const fm = await createKernels({ threads: 3 });
  const expected = product(fm);
  const [first] = live;
  await first.terminate();
  assert.deepEqual(product(fm), expected);
  assert.ok(await until(() => fm.info.threads === 1));
  assert.match(fm.info.threadsReason, /one thread: a thread ended/);
  assert.deepEqual(product(fm), expected);
  assert.ok(await until(() => live.size === 0));
  fm.dispose();
});

test('threads: one that faults with work in its hands ends that call, and nobody waits for it', async (t) => {
  t.after(() => {
    replacement = undefined;
  });
  const script = readFileSync(`${projectRoot}/js/thread.js`, 'utf8');
  // Without a stack, the thread faults in the first chunk it takes, mostly during the self-test.
  const broken = script.replace(
    '_emscripten_stack_restore(stack)',
    '_emscripten_stack_restore(stack.constructor(0))',
  );
  assert.notEqual(broken, script);
  replacement = () => new URL(`data:text/javascript,${encodeURIComponent(broken)}`);
  const fm = await createKernels({ threads: 3 });
  t.after(() => fm.dispose());
  // On a busy machine the caller may have run the self-test alone; the fault then comes in a later
  // call.
  for (let i = 0; i < 1000 && fm.info.threads > 1; i++) {
    try {
      product(fm);
    } catch (error) {
      assert.ok(error instanceof WebAssembly.RuntimeError, String(error));
    }
    await sleep(1);
  }
  assert.equal(fm.info.threads, 1);
  assert.match(
    fm.info.threadsReason,
    /^one thread: (unreachable|a thread could not be run: memory access out of bounds)/,
  );
  replacement = undefined;
  const one = await createKernels({ threads: 1 });
  t.after(() => one.dispose());
  assert.deepEqual(product(fm), product(one));
  assert.ok(await until(() => live.size === 0));
});

test('threads: modules that were given', async (t) => {
  const bytes = (/** @type {string} */ name) => readFileSync(`${projectRoot}/dist/fused-${name}.wasm`);
  const cases = /** @type {const} */ ([
    [{ simd128: bytes('simd128') }, 1, /one thread: wasm has no simd128-mt/],
    [bytes('simd128'), 1, /one thread: the given module has none/],
    [bytes('simd128-mt'), 2, /2 threads were asked for/],
    [
      { simd128: bytes('simd128'), 'simd128-mt': new Uint8Array(8) },
      1,
      /one thread: simd128-mt: cannot compile/,
    ],
    [{ scalar: bytes('scalar') }, 1, /there is no scalar module with threads/],
  ]);
  for (const [wasm, threads, reason] of cases) {
    const fm = await createKernels({ wasm, threads: 2, isa: 'scalar' in wasm ? undefined : 'simd128' });
    t.after(() => fm.dispose());
    assert.equal(fm.info.threads, threads);
    assert.match(fm.info.threadsReason, reason);
    assert.ok(product(fm).every(Number.isFinite));
  }
  const alone = await createKernels({ wasm: bytes('simd128-mt'), threads: 1 });
  t.after(() => alone.dispose());
  assert.equal(alone.info.threads, 1);
  assert.ok(product(alone).every(Number.isFinite));
});

test('threads: kernels that nobody holds any more', async () => {
  assert.ok(await until(() => live.size === 0));
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc');
  await (async () => {
    product(await createKernels({ threads: 2 }));
  })();
  assert.equal(live.size, 1);
  assert.ok(
    await until(() => {
      gc();
      return live.size === 0;
    }),
  );
});

test('threads: a process ends by itself, with kernels that were not disposed', {
  timeout: 60_000,
}, async () => {
  const code = `import { createKernels } from './js/index.js';
    const fm = await createKernels({ threads: 4 });
    console.log(fm.info.threads);`;
  const { NODE_TEST_CONTEXT: _, NODE_OPTIONS: __, ...env } = process.env;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', code], { cwd: projectRoot, env });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      output += data;
    });
  }
  const status = await new Promise((resolve) => child.on('close', resolve));
  assert.deepEqual([status, output], [0, '4\n']);
});
