/**
 * Bundles without an address: scripts, CommonJS, data: URLs, contexts of vm. Importing them does
 * nothing that could throw. They work with the files that they are given, and without files they
 * say which to give.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import vm from 'node:vm';
import { bundleAs } from '../helpers/bundle.js';
import { TINY_TALES } from '../helpers/llama.js';
import { modulePath } from '../helpers/raw.js';
import { projectRoot } from '../helpers/test-data.js';
import { hostUrl } from '../helpers/workers.js';

const ENTRIES = ['js/index.js', 'js/layer-index.js', 'js/llama/index.js'];
const everything = (/** @type {string} */ entry) => `export * from './${entry}';`;
const bytesOf = (/** @type {string} */ name) => readFileSync(modulePath(name));

const folder = mkdtempSync(path.join(tmpdir(), 'fused-matmul-bundles-'));
after(() => rmSync(folder, { recursive: true, force: true }));

/**
 * The library as loaded by code without an address.
 * @type {Record<string, (entry: string) => Promise<any>>}
 */
const FORMATS = {
  'a CommonJS bundle': async (entry) => {
    const file = path.join(
      folder,
      `${path.dirname(entry).replaceAll('/', '-')}-${path.basename(entry, '.js')}.cjs`,
    );
    writeFileSync(file, await bundleAs('cjs', everything(entry)));
    return createRequire(file)(file);
  },
  'a script': async (entry) =>
    vm.runInThisContext(`(() => { ${await bundleAs('iife', everything(entry))}; return lib; })()`),
  'a data: URL': async (entry) => {
    const text = await bundleAs('esm', everything(entry));
    return import(`data:text/javascript;base64,${Buffer.from(text).toString('base64')}`);
  },
};

/** @param {Promise<unknown>} promise @returns {Promise<any>} */
const failure = (promise) =>
  promise.then(
    (value) => assert.fail(`no error but ${value}`),
    (error) => error,
  );

/** A product with the kernels of any bundle. @param {any} fm */
async function multiply(fm) {
  const data = new Uint8Array(2 * 144).fill(0x31);
  const w = await fm.weight({ type: 'Q4_K', nRows: 2, nCols: 256, data });
  const x = Float32Array.from({ length: 256 }, (_, i) => Math.sin(i));
  return [...(await fm.fusedMatmul(w, x, { activation: 'f32' }))];
}

/** @type {number[]} */
let right;
async function expected() {
  if (right) return right;
  const { createKernels } = await import('../../js/index.js');
  right = await multiply(await createKernels({ isa: 'simd128', threads: 1 }));
  return right;
}

for (const [format, load] of Object.entries(FORMATS)) {
  test(`${format}: every entry can be imported`, async () => {
    for (const entry of ENTRIES) {
      const lib = await load(entry);
      const real = await import(`../../${entry}`);
      assert.deepEqual(Object.keys(lib).sort(), Object.keys(real).sort(), entry);
    }
  });

  test(`${format}: kernels from every kind of file that is given`, async () => {
    const lib = await load('js/layer-index.js');
    const bytes = bytesOf('simd128');
    const given = {
      bytes,
      'an ArrayBuffer': new Uint8Array(bytes).buffer,
      'a Module': await WebAssembly.compile(bytes),
      'a path': modulePath('simd128'),
      'a URL': new URL(`file://${modulePath('simd128')}`),
      'a table': { simd128: bytes, scalar: bytesOf('scalar') },
    };
    for (const [kind, wasm] of Object.entries(given)) {
      const fm = await lib.createKernels({ wasm });
      assert.deepEqual([fm.isa, fm.info.threads], ['simd128', 1], kind);
      assert.deepEqual(await multiply(fm), await expected(), kind);
      fm.dispose();
    }
  });

  test(`${format}: without files, errors that say what to give`, async () => {
    const lib = await load('js/llama/index.js');
    for (const options of [{}, { isa: 'scalar' }, { threads: 4 }, { memory64: true }]) {
      const error = await failure(lib.createKernels(options));
      assert.ok(error instanceof lib.LoadError && error.code === 'FM_LOAD', String(error));
      assert.match(error.message, /CommonJS.*blob:.*createKernels\(\{ wasm \}\)/);
    }
    const model = await failure(lib.Llama.load(TINY_TALES));
    assert.ok(model instanceof lib.LoadError, String(model));
    const worker = await failure(lib.createWorkerKernels({ wasm: bytesOf('simd128') }));
    assert.ok(worker instanceof lib.LoadError, String(worker));
    assert.match(worker.message, /dist\/worker-host\.js.*createWorkerKernels\(\{ worker \}\)/);
  });

  test(`${format}: one thread, and the reason, where a thread's script has no address`, async () => {
    const lib = await load('js/index.js');
    const wasm = { 'simd128-mt': bytesOf('simd128-mt') };
    for (const threads of [undefined, 2]) {
      const fm = await lib.createKernels({ wasm, threads, isa: 'simd128' });
      assert.equal(fm.info.threads, 1);
      if (threads) assert.match(fm.info.threadsReason, /^one thread: .*js\/thread\.js.*CommonJS/);
      assert.deepEqual(await multiply(fm), await expected());
      fm.dispose();
    }
  });

  test(`${format}: kernels in a worker whose script is given, with threads`, async () => {
    const lib = await load('js/index.js');
    for (const options of [{}, { wasm: bytesOf('simd128') }]) {
      const fm = await lib.createWorkerKernels({ worker: hostUrl, threads: 2, isa: 'simd128', ...options });
      assert.equal(fm.info.threads, options.wasm ? 1 : 2, fm.info.threadsReason);
      assert.deepEqual(await multiply(fm), await expected());
      await fm.dispose();
    }
  });

  test(`${format}: a model from a file, with a conversation by its template`, async () => {
    const lib = await load('js/llama/index.js');
    const model = await lib.Llama.load(TINY_TALES, { wasm: bytesOf('simd128'), threads: 1 });
    const options = { temperature: 0, maxTokens: 4 };
    assert.match(await model.generate('Once upon a time', options).text(), /^, there was/);
    const chat = await model.chat([{ role: 'user', content: 'Hi' }], {
      ...options,
      template: '{{ messages[0].content }}!',
    });
    assert.ok((await chat.text()).length > 0);
    model.dispose();
  });
}

test('a bare context of vm: nothing but the language is needed to import, and to multiply', async () => {
  for (const entry of ENTRIES) {
    const bytes = bytesOf('simd128');
    // Bytes and a module of this realm, not of the context.
    const sources = [bytes, new Uint8Array(bytes).buffer, await WebAssembly.compile(bytes)];
    const context = vm.createContext({ sources });
    vm.runInContext(await bundleAs('iife', everything(entry)), context);
    const error = await failure(vm.runInContext('lib.createKernels()', context));
    assert.equal(error.name, 'LoadError', String(error));
    const results = await vm.runInContext(
      `Promise.all(sources.map(async (wasm) => {
        const fm = await lib.createKernels({ wasm });
        const w = fm.weight({ type: 'F32', nRows: 1, nCols: 4, data: Float32Array.of(1, 2, 3, 4) });
        return fm.fusedMatmul(w, Float32Array.of(1, 10, 100, 1000))[0];
      }))`,
      context,
    );
    assert.deepEqual([...results], [4321, 4321, 4321], entry);
  }
});

test('no module of the library imports by a bare name: workers have no import maps', () => {
  const names = /** @type {string[]} */ (readdirSync(path.join(projectRoot, 'js'), { recursive: true }));
  for (const name of names.filter((file) => file.endsWith('.js') && !file.startsWith('cli'))) {
    const text = readFileSync(path.join(projectRoot, 'js', name), 'utf8');
    const imports = [...text.matchAll(/^(?:import|export)\b[^;]*?\bfrom '([^']+)'|\bimport\('([^']+)'\)/gm)];
    const isCode = (/** @type {RegExpMatchArray} */ { index = 0 }) =>
      !/^\s*(\/?\*)/.test(text.slice(text.lastIndexOf('\n', index) + 1));
    const bare = imports.filter(isCode).map(([, one, other]) => one ?? other);
    assert.deepEqual(
      bare.filter((specifier) => !specifier.startsWith('.')),
      [],
      name,
    );
  }
});
