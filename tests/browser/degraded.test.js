/** Pages that lack something: what the library does then, and what it says about it. The README has the table. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launchChromium, skipWithoutChromium } from './helpers.js';
import { ISOLATION, openLibrary, PRODUCT } from './library-page.js';

const skip = skipWithoutChromium();
/** @type {import('playwright-core').Browser} */
let browser;

before(async () => {
  if (!skip) browser = await launchChromium();
});
after(() => browser?.close());

/**
 * An engine that does not know modules with such bytes, in this page.
 * @param {string} has  a function of a module's bytes
 */
const withoutModules = (has) => `{
  const has = ${has};
  const { validate, compile } = WebAssembly;
  const bytes = (source) => ArrayBuffer.isView(source)
    ? new Uint8Array(source.buffer, source.byteOffset, source.byteLength) : new Uint8Array(source);
  WebAssembly.validate = (source) => !has(bytes(source)) && validate(source);
  WebAssembly.compile = async (source) => {
    if (has(bytes(source))) throw new WebAssembly.CompileError('unknown opcode');
    return compile(source);
  };
  delete WebAssembly.compileStreaming;
}`;
/** 0xfd, then an opcode of 0x100 to 0x113 as LEB128. */
const RELAXED =
  '(b) => b.some((v, i) => v === 0xfd && b[i + 1] >= 0x80 && b[i + 1] <= 0x93 && b[i + 2] === 2)';
/** A v128 among the types, or 0xfd before an opcode of SIMD. Small modules only: those that ask what there is. */
const SIMD = '(b) => b.length < 200 ? b.includes(0xfd) || b.includes(0x7b) : !globalThis.allowLarge';

const STRICT = (/** @type {string} */ extra) => ({
  'Content-Security-Policy': `default-src 'self'; script-src 'self' 'nonce-fixture'${extra}; img-src data:`,
});

/**
 * @typedef {object} Case
 * @property {Record<string, string>} [headers]
 * @property {string} [init]
 * @property {(page: { main: any, worker: any }) => void} check
 */

/** @type {Record<string, Case>} */
const CASES = {
  'all there is: threads, in the page and in a worker': {
    headers: ISOLATION,
    check: ({ main, worker }) => {
      for (const { info } of [main, worker]) {
        assert.equal(info.isa, 'relaxed');
        assert.equal(info.features.threads, true);
        assert.doesNotMatch(info.threadsReason, /isolated|no WebAssembly threads/);
      }
    },
  },
  'no COOP/COEP: one thread, and the two headers in info': {
    check: ({ main, worker }) => {
      for (const { info } of [main, worker]) {
        assert.equal(info.threads, 1);
        assert.match(
          info.threadsReason,
          /Cross-Origin-Opener-Policy: same-origin.*Cross-Origin-Embedder-Policy: require-corp/,
        );
        assert.equal(info.isa, 'relaxed');
      }
    },
  },
  'no SharedArrayBuffer: one thread': {
    headers: ISOLATION,
    init: 'delete globalThis.SharedArrayBuffer;',
    check: ({ main }) => {
      assert.equal(main.info.threads, 1);
      assert.match(main.info.threadsReason, /no WebAssembly threads/);
      assert.equal(main.info.isa, 'relaxed');
    },
  },
  "a strict policy with 'wasm-unsafe-eval': all well": {
    headers: STRICT(" 'wasm-unsafe-eval'"),
    check: ({ main, worker }) => assert.deepEqual([main.info.isa, worker.info.isa], ['relaxed', 'relaxed']),
  },
  "a strict policy without 'wasm-unsafe-eval': LoadError that names it, once": {
    headers: STRICT(''),
    check: ({ main, worker }) => {
      for (const { error } of [main, worker]) {
        assert.equal(error?.code, 'FM_LOAD', JSON.stringify(error));
        assert.match(error.message, /needs 'wasm-unsafe-eval' in script-src/);
        assert.equal(error.message.split('wasm-unsafe-eval').length, 2, error.message);
      }
    },
  },
  'no relaxed SIMD: SIMD128': {
    init: withoutModules(RELAXED),
    check: ({ main }) => {
      assert.equal(main.info.isa, 'simd128');
      const step = main.info.steps.find((/** @type {any} */ { isa }) => isa === 'relaxed');
      assert.deepEqual([step.ok, step.reason], [false, 'this engine has no relaxed SIMD']);
      assert.match(main.info.reason, /no relaxed SIMD/);
    },
  },
  'no SIMD: scalar': {
    init: `globalThis.allowLarge = true; ${withoutModules(SIMD)}`,
    check: ({ main }) => {
      assert.equal(main.info.isa, 'scalar');
      const reasons = main.info.steps
        .filter((/** @type {any} */ { ok }) => !ok)
        .map((/** @type {any} */ s) => s.reason);
      assert.ok(reasons.includes('this engine has no SIMD'), JSON.stringify(main.info.steps));
    },
  },
  'features are claimed that modules do not have: one step down, with the reason': {
    init: withoutModules('(b) => b.length > 100000'),
    check: ({ main }) => {
      assert.equal(main.info.isa, 'scalar');
      for (const isa of ['relaxed', 'simd128']) {
        const step = main.info.steps.find((/** @type {any} */ s) => s.isa === isa);
        assert.ok(!step.ok && /cannot compile .*unknown opcode/.test(step.reason), JSON.stringify(step));
      }
    },
  },
  'no WebAssembly at all: LoadError': {
    init: 'delete globalThis.WebAssembly;',
    check: ({ main }) => {
      assert.equal(main.error?.code, 'FM_LOAD');
      assert.match(main.error.message, /no WebAssembly/);
    },
  },
};

for (const [name, { headers, init, check }] of Object.entries(CASES)) {
  test(name, { skip }, async (t) => {
    const { evaluate, close } = await openLibrary(browser, { headers, init });
    t.after(close);
    const main = await evaluate("return run('createKernels')");
    // Scripts of a test that run first do so in pages only: a worker has all that its engine has.
    const worker = await evaluate("return run('createWorkerKernels')");
    check({ main, worker });
    for (const { y, error } of [main, worker]) if (!error) assert.deepEqual(y, PRODUCT);
  });
}
