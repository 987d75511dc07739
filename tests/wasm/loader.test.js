/**
 * The choice of module and instruction set: detection, self-test, timed choice, fallbacks, and
 * every source of wasm.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import * as detect from 'wasm-feature-detect';
import { ArgumentError, createKernels, IsaError, LoadError, version } from '../../js/index.js';
import { testActivations, testWeights } from '../../js/wasm/selftest.js';
import { sampleGguf } from '../helpers/gguf-bytes.js';
import { startServer } from '../helpers/range-server.js';
import { dequantizeF32, referenceByName } from '../helpers/reference.js';
import { projectRoot } from '../helpers/test-data.js';

/** @import { TestContext } from 'node:test' */
/** @import { ReferenceType } from '../helpers/reference.js' */

const hasRelaxed = await detect.relaxedSimd();
const relaxedOnly = { skip: hasRelaxed ? false : `no relaxed SIMD in Node ${process.version}` };
const run = promisify(execFile);

/** @param {string} isa */
const wasmPath = (isa) => `${projectRoot}/dist/fused-${isa}.wasm`;
/** @param {string} isa */
const wasmBytes = (isa) => new Uint8Array(readFileSync(wasmPath(isa)));

/**
 * A module in which one instruction is replaced by another of the same type, so that it computes
 * what a wrong engine would.
 * @param {string} isa @param {[from: number[], to: number[]][]} changes
 */
function patched(isa, changes) {
  const bytes = wasmBytes(isa);
  for (const [from, to] of changes) {
    let count = 0;
    for (let at = bytes.indexOf(from[0]); at >= 0; at = bytes.indexOf(from[0], at + 1)) {
      if (from.every((byte, i) => bytes[at + i] === byte)) {
        bytes.set(to, at);
        count += 1;
      }
    }
    assert.ok(count > 0, `no ${from} in ${isa}`);
  }
  assert.ok(WebAssembly.validate(bytes));
  return bytes;
}

/** i32x4.dot_i16x8_s becomes i32x4.add. @type {[number[], number[]]} */
const BREAK_DOT_I16X8 = [
  [0xfd, 0xba, 0x01],
  [0xfd, 0xae, 0x01],
];
/** i16x8.relaxed_dot_i8x16_i7x16_s becomes i16x8.q15mulr_sat_s. @type {[number[], number[]]} */
const BREAK_I16 = [
  [0xfd, 0x92, 0x02],
  [0xfd, 0x82, 0x01],
];
/** i32x4.relaxed_dot_i8x16_i7x16_add_s becomes f32x4.relaxed_madd. @type {[number[], number[]]} */
const BREAK_I32 = [
  [0xfd, 0x93, 0x02],
  [0xfd, 0x85, 0x02],
];

/** @param {TestContext} t @param {Parameters<typeof createKernels>[0]} [options] */
async function kernels(t, options) {
  const fm = await createKernels(options);
  t.after(() => fm.dispose());
  return fm;
}

/**
 * Multiplies the test weights. Any broken instruction changes this sum.
 * @param {import('../../js/index.js').Kernels} fm
 */
function product(fm) {
  const w = fm.weight({ type: 'Q4_K', nRows: 9, nCols: 512, data: testWeights('Q4_K', 9) });
  const y = fm.fusedMatmul(w, testActivations().subarray(0, 512), { activation: 'int8' });
  w.free();
  return y;
}

/** The correct product, in float64. */
function expectedProduct() {
  const w = dequantizeF32(/** @type {ReferenceType} */ (referenceByName.get('Q4_K')), testWeights('Q4_K', 9));
  const x = testActivations();
  return Array.from({ length: 9 }, (_, r) => {
    let sum = 0;
    for (let c = 0; c < 512; c++) sum += w[r * 512 + c] * x[c];
    return sum;
  });
}

/** @param {Float32Array} y */
function assertRight(y) {
  for (const [i, right] of expectedProduct().entries())
    assert.ok(Math.abs(y[i] - right) < 5, `${y[i]} for ${right}`);
}

test('by default the best set that this engine has, and it says why', async (t) => {
  const fm = await kernels(t);
  const best = hasRelaxed ? 'relaxed' : 'simd128';
  const { info } = fm;
  assert.equal(fm.isa, info.isa);
  assert.equal(info.version, version);
  assert.equal(info.activation, 'int16');
  assert.deepEqual(info.features, {
    simd: true,
    relaxedSimd: hasRelaxed,
    threads: await detect.threads(),
    memory64: await detect.memory64(),
  });
  assert.ok(info.steps.length > 0 && info.steps.at(-1)?.ok);
  if (hasRelaxed) assert.ok(['relaxed', 'simd128'].includes(fm.isa));
  else assert.equal(fm.isa, best);
  assert.match(info.reason, /passed its self-test/);
  if (!hasRelaxed) assert.match(info.reason, /relaxed: this engine has no relaxed SIMD/);
  const module = info.threads > 1 ? `${fm.isa}-mt` : fm.isa;
  assert.equal(info.wasmBytes, wasmBytes(module).length);
  assert.equal(info.wasmUrl, pathToFileURL(wasmPath(module)).href);
  const { compileMs, selfTestMs, chooseMs, threadsMs, totalMs } = info.timings;
  assert.ok(totalMs > 0 && compileMs + selfTestMs + chooseMs + threadsMs <= totalMs + 1);
  info.steps.length = 0;
  assert.ok(fm.info.steps.length > 0, 'info is a copy');
  assertRight(product(fm));
});

for (const isa of /** @type {const} */ (['scalar', 'simd128', 'relaxed'])) {
  test(`forced: ${isa}`, isa === 'relaxed' ? relaxedOnly : {}, async (t) => {
    const fm = await kernels(t, { isa });
    assert.equal(fm.isa, isa);
    assert.deepEqual(new Set(fm.info.steps.map((step) => step.isa)), new Set([isa]));
    assert.equal(fm.servedBy('F32', 'f32').activation, 'f32');
    assertRight(product(fm));
  });
}

test('forced: a set that this engine lacks', { skip: hasRelaxed && 'this engine has it' }, async () => {
  await assert.rejects(createKernels({ isa: 'relaxed' }), {
    name: 'IsaError',
    isa: 'relaxed',
    message: /no relaxed SIMD/,
  });
});

test('options of the wrong kind', async () => {
  for (const options of [
    { isa: 'avx2' },
    { dot: 'i64' },
    { activation: 'bf16' },
    { wasm: 5 },
    { wasm: {} },
    { threads: 0 },
    { threads: 65 },
    { threads: 1.5 },
    { threads: '2' },
    { threads: null },
    { memory64: 1 },
  ]) {
    await assert.rejects(createKernels(/** @type {any} */ (options)), ArgumentError, JSON.stringify(options));
  }
  await assert.rejects(
    createKernels({ isa: 'scalar', wasm: { simd128: wasmBytes('simd128') } }),
    ArgumentError,
  );
});

test('wasm given as a module, bytes, a path, a URL, a table', async (t) => {
  const bytes = wasmBytes('scalar');
  for (const wasm of [
    new WebAssembly.Module(bytes),
    bytes,
    bytes.buffer,
    wasmPath('scalar'),
    pathToFileURL(wasmPath('scalar')),
    pathToFileURL(wasmPath('scalar')).href,
    { scalar: bytes },
  ]) {
    const fm = await kernels(t, { wasm });
    assert.equal(fm.isa, 'scalar');
    assertRight(product(fm));
  }
  assert.equal((await kernels(t, { wasm: { scalar: bytes, simd128: wasmBytes('simd128') } })).isa, 'simd128');
});

test('wasm over HTTP, with and without its MIME type, fetched once', async (t) => {
  const requests = [];
  for (const type of ['application/wasm', 'text/plain']) {
    const server = await startServer(wasmBytes('simd128'), { type });
    t.after(() => server.close());
    for (let i = 0; i < 2; i++) {
      const fm = await kernels(t, { wasm: server.url });
      assert.deepEqual([fm.isa, fm.info.wasmUrl], ['simd128', server.url]);
      assert.equal(fm.info.wasmBytes, wasmBytes('simd128').length);
      assertRight(product(fm));
    }
    requests.push(server.requests.length);
  }
  assert.deepEqual(requests, [1, 1]);
});

test('wasm that cannot be had is a LoadError that says which and why', async (t) => {
  const server = await startServer(wasmBytes('scalar'), { status: 404 });
  t.after(() => server.close());
  const empty = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]);
  for (const [wasm, message] of /** @type {[any, RegExp][]} */ ([
    [server.url, /HTTP 404/],
    [`${wasmPath('none')}`, /ENOENT/],
    ['http://127.0.0.1:1/x.wasm', /cannot fetch http/],
    [new Uint8Array(100), /cannot compile/],
    [wasmBytes('scalar').subarray(0, 5000), /cannot compile/],
    [empty, /lacks/],
  ])) {
    await assert.rejects(createKernels({ wasm }), (error) => {
      assert.ok(error instanceof LoadError, String(error));
      assert.match(error.message, message);
      return true;
    });
  }
  await assert.rejects(createKernels({ wasm: { simd128: empty, scalar: empty } }), {
    name: 'LoadError',
    message: /simd128: .*lacks.*scalar: .*lacks/,
  });
});

test('a module of another version is refused', async () => {
  // The body of fm_version: i32.const 0x000100, end.
  const other = patched('scalar', [
    [
      [0x41, 0x80, 0x02, 0x0b],
      [0x41, 0x80, 0x04, 0x0b],
    ],
  ]);
  await assert.rejects(createKernels({ wasm: other }), {
    name: 'LoadError',
    message: /version 0\.2\.0.*0\.1\./,
  });
});

test('an engine that computes SIMD wrongly: the loader steps down and says so', async (t) => {
  const wrong = patched('simd128', [BREAK_DOT_I16X8]);
  const fm = await kernels(t, { wasm: { simd128: wrong, scalar: wasmBytes('scalar') } });
  assert.equal(fm.isa, 'scalar');
  const step = fm.info.steps.find(({ isa }) => isa === 'simd128');
  assert.equal(step?.ok, false);
  assert.match(step?.reason ?? '', /self-test failed: Q4_K x int16, .* where .* is right/);
  assert.match(fm.info.reason, /simd128: self-test failed/);
  assertRight(product(fm));
  await assert.rejects(createKernels({ isa: 'simd128', wasm: wrong }), {
    name: 'IsaError',
    message: /self-test failed/,
  });
  const inside = await kernels(t, { wasm: wrong });
  assert.equal(inside.isa, 'scalar');
  assert.throws(() => inside.select({ isa: 'simd128' }), IsaError);
  assertRight(product(inside));
});

test('a relaxed dot product that is wrong: the other one, or a step down', relaxedOnly, async (t) => {
  const table = { simd128: wasmBytes('simd128'), scalar: wasmBytes('scalar') };
  for (const [breaks, expected] of /** @type {const} */ ([
    [[BREAK_I16], ['relaxed', 'i32']],
    [[BREAK_I32], ['relaxed', 'i16']],
    [
      [BREAK_I16, BREAK_I32],
      ['simd128', undefined],
    ],
  ])) {
    const relaxed = patched('relaxed', /** @type {any} */ (breaks));
    const fm = await kernels(t, { wasm: { relaxed, ...table } });
    assert.deepEqual([fm.isa, fm.info.dot], expected);
    const failed = fm.info.steps.filter((step) => !step.ok);
    assert.equal(failed.length, breaks.length);
    for (const step of failed) {
      assert.equal(step.isa, 'relaxed');
      assert.match(step.reason, /self-test failed: Q4_K x int8/);
      assert.ok(fm.info.reason.includes(`relaxed ${step.dot}: self-test failed`));
    }
    assertRight(product(fm));
    // 8-bit codes need an exact i32 dot. Without one, int16 serves them, whatever was chosen.
    if (/** @type {any} */ (breaks).includes(BREAK_I32)) {
      for (const type of /** @type {const} */ (['Q8_0', 'Q8_K', 'IQ4_NL', 'IQ4_XS']))
        assert.deepEqual(fm.servedBy(type, 'int8'), { isa: 'simd128', activation: 'int16' }, type);
    }
    const alone = await kernels(t, { wasm: relaxed });
    assert.equal(alone.isa, expected[0]);
    assertRight(product(alone));
  }
  const noI16 = patched('relaxed', [BREAK_I16]);
  await assert.rejects(createKernels({ isa: 'relaxed', dot: 'i16', wasm: noI16 }), IsaError);
  const chosen = await kernels(t, { wasm: noI16 });
  assert.throws(() => chosen.select({ dot: 'i16' }), IsaError);
  assert.equal(chosen.info.dot, 'i32');
  assertRight(product(chosen));
});

test('the relaxed dot products are timed, once for a module', relaxedOnly, async (t) => {
  const fm = await kernels(t, { isa: 'relaxed' });
  const { dot, dotTimes, steps } = fm.info;
  const passed = steps.filter((step) => step.ok).map((step) => step.dot);
  assert.ok(passed.includes(dot));
  if (passed.length === 2) {
    assert.deepEqual(Object.keys(dotTimes ?? {}), ['i16', 'i32']);
    const times = Object.values(dotTimes ?? {});
    for (const ms of times) assert.ok(ms >= 0 && ms < 10);
    assert.equal(dotTimes?.[String(dot)], Math.min(...times));
    const again = await kernels(t, { isa: 'relaxed' });
    assert.deepEqual(again.info.dotTimes, dotTimes);
    assert.equal(again.info.dot, dot);
  }
  for (const forced of /** @type {const} */ (['i16', 'i32'])) {
    const own = await kernels(t, { isa: 'relaxed', dot: forced });
    assert.deepEqual([own.info.dot, own.info.dotTimes], [forced, undefined]);
    assertRight(product(own));
  }
});

test('select switches between the sets of one module', async (t) => {
  const best = hasRelaxed ? 'relaxed' : 'simd128';
  const fm = await kernels(t, { isa: best });
  const { dot } = fm.info;
  for (const isa of /** @type {const} */ (['scalar', 'simd128'])) {
    fm.select({ isa });
    assert.deepEqual([fm.isa, fm.info.isa, fm.info.dot], [isa, isa, undefined]);
    assert.equal(fm.servedBy('Q4_K', 'f32').isa, isa);
    assertRight(product(fm));
  }
  fm.select({ isa: best, ...(dot && { dot }) });
  assert.deepEqual([fm.isa, fm.info.dot], [best, dot]);
  const lower = await kernels(t, { isa: 'simd128' });
  assert.throws(() => lower.select({ isa: 'relaxed' }), IsaError);
  assert.equal(lower.isa, 'simd128');
  assertRight(product(lower));
});

test('the default activation is the one that was asked for', async (t) => {
  const [int16, int8] = [await kernels(t), await kernels(t, { activation: 'int8' })];
  const data = testWeights('Q4_K', 9);
  const x = testActivations()
    .subarray(0, 512)
    .map((value, i) => value + Math.sin(i));
  const [a, b] = [int16, int8].map((fm) => fm.weight({ type: 'Q4_K', nRows: 9, nCols: 512, data }));
  assert.deepEqual(int16.fusedMatmul(a, x), int16.fusedMatmul(a, x, { activation: 'int16' }));
  assert.deepEqual(int8.fusedMatmul(b, x), int8.fusedMatmul(b, x, { activation: 'int8' }));
  assert.equal(int8.info.activation, 'int8');
  assert.deepEqual(int8.servedBy('Q4_K'), int8.servedBy('Q4_K', 'int8'));
});

test('an engine without WebAssembly is told so', async (t) => {
  const saved = globalThis.WebAssembly;
  t.after(() => {
    globalThis.WebAssembly = saved;
  });
  // @ts-expect-error: as in an engine that lacks it
  globalThis.WebAssembly = undefined;
  await assert.rejects(createKernels(), { name: 'LoadError', message: /no WebAssembly/ });
});

/** @param {string[]} flags @param {string} body  a module that prints JSON */
async function inChild(flags, body) {
  const { NODE_TEST_CONTEXT: _, NODE_OPTIONS: __, ...env } = process.env;
  const args = [...flags, '--input-type=module', '--eval', body];
  const { stdout } = await run(process.execPath, args, { cwd: projectRoot, env });
  return JSON.parse(stdout);
}

test('no code is made from strings (Content-Security-Policy)', async () => {
  const result = await inChild(
    ['--disallow-code-generation-from-strings'],
    `import { createKernels, openGguf } from './js/index.js';
    const fm = await createKernels();
    const gguf = await openGguf(Uint8Array.from(${JSON.stringify([...sampleGguf().bytes])}));
    const w = await fm.loadWeight(gguf, 'norm.weight');
    let evaluated = true;
    try { new Function('return 1')(); } catch { evaluated = false; }
    console.log(JSON.stringify({ y: [...fm.fusedMatmul(w, new Float32Array(5).fill(1))], evaluated }));`,
  );
  assert.deepEqual(result, { y: [15], evaluated: false });
});

const oldEngine = Number(process.versions.v8.split('.')[0]) < 12;
test('what Node 20 gets wrong when it is switched on is not used', {
  skip: oldEngine ? false : `Node ${process.version} has it on by default`,
}, async () => {
  const { info, y } = await inChild(
    ['--experimental-wasm-relaxed-simd'],
    `import { createKernels } from './js/index.js';
    import { testActivations, testWeights } from './js/wasm/selftest.js';
    const fm = await createKernels();
    const w = fm.weight({ type: 'Q4_K', nRows: 9, nCols: 512, data: testWeights('Q4_K', 9) });
    const y = fm.fusedMatmul(w, testActivations().subarray(0, 512), { activation: 'int8' });
    console.log(JSON.stringify({ info: fm.info, y: [...y] }));`,
  );
  assert.equal(info.features.relaxedSimd, true);
  assertRight(Float32Array.from(y));
  const i32 = info.steps.find((/** @type {any} */ step) => step.dot === 'i32');
  assert.match(i32.reason, /self-test failed/);
  assert.notEqual(info.dot, 'i32');
});
