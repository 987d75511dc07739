/** The package as users get it: packed, installed into an empty folder, imported, bundled. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core';
import { publint } from 'publint';
import { MODULE_BUDGETS } from '../../scripts/build.js';
import { root } from '../../scripts/setup/run.js';
import { bundleForBrowser } from '../helpers/bundle.js';
import { manifest, packedPackage } from '../helpers/consumers.js';

/** Size limit of the loader, without the chunks that are fetched when they are needed. */
const LOADER_BUDGET = 12 * 1024;
const OPERATIONS_BUDGET = 10 * 1024;
/** Products on a GPU with their shaders, and whole models. */
const GPU_BUDGET = 25 * 1024;
const GPU_MODEL_BUDGET = 48 * 1024;
/**
 * Both scripts of a model's worker contain the runner and the template engine again; the larger one
 * also has the code of GPUs. The grammar engine is 375 KB of the whole.
 */
const PACKED_BUDGET = 1850 * 1024;

/** @type {ReturnType<typeof packedPackage>} */
let installed;
/** @type {ReturnType<typeof packedPackage>['packed']} */
let packed;
/** @type {string} */
let app;

before(() => {
  installed = packedPackage();
  packed = installed.packed;
  app = installed.app('main');
});

after(() => installed?.remove());

/** @returns {ArrayBuffer} */
function readTarball() {
  const bytes = readFileSync(installed.tarball);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
}

/** Runs a module in the folder that has the package installed. @param {string} code */
function runInApp(code) {
  writeFileSync(path.join(app, 'main.js'), code);
  const { status, stdout, stderr } = spawnSync(process.execPath, ['main.js'], { cwd: app, encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  assert.equal(stderr, '');
  return stdout.trim();
}

/** The files that the exports of package.json lead to, the documents of every package, and the examples. */
function reachable() {
  /** @param {any} entry @returns {string[]} */
  const conditions = (entry) =>
    typeof entry === 'string' ? [entry] : Object.values(entry).flatMap(conditions);
  const targets = [...conditions(manifest.exports), ...Object.values(manifest.bin ?? {})];
  const found = new Set(
    targets.filter((target) => !target.includes('*')).map((target) => path.posix.normalize(target)),
  );
  for (const file of found) {
    if (!/\.[jt]s$/.test(file)) continue;
    const text = readFileSync(path.join(root, file), 'utf8');
    const named = text.matchAll(/(?:\bfrom|\bimport|\bimport\(|new URL\()\s*(['"])(\.\.?\/[^'"]+)\1/g);
    for (const [, , relative] of named) {
      const target = path.posix.join(path.posix.dirname(file), relative);
      found.add(file.endsWith('.d.ts') ? target.replace(/\.js$/, '.d.ts') : target);
    }
  }
  const all = /** @type {string[]} */ (readdirSync(path.join(root, 'examples'), { recursive: true }));
  const examples = all.filter((name) => path.extname(name)).map((name) => path.posix.join('examples', name));
  return new Set([...found, ...examples, 'README.md', 'js/README.md', 'CHANGELOG.md', 'LICENSE']);
}

test('the tarball holds what is needed to run, and nothing else', (t) => {
  const files = packed.files.map((file) => file.path).sort();
  assert.deepEqual(files, [...reachable()].sort());
  const modules = files.filter((file) => file.endsWith('.wasm')).map((file) => path.basename(file));
  assert.deepEqual(modules.sort(), Object.keys(MODULE_BUDGETS).sort());
  t.diagnostic(
    `package: ${packed.size} bytes packed, ${packed.unpackedSize} unpacked, ${files.length} files`,
  );
  assert.ok(packed.size <= PACKED_BUDGET, `${packed.size} bytes packed, budget ${PACKED_BUDGET}`);
});

test('package.json and what it points to are as publint wants them', async () => {
  const { messages } = await publint({ pack: { tarball: readTarball() }, strict: true });
  assert.deepEqual(messages, []);
});

test('every entry resolves with its types, as arethetypeswrong wants them (ES modules only)', async () => {
  const analysis = await checkPackage(createPackageFromTarballData(new Uint8Array(readTarball())));
  assert.ok(analysis.types, 'no types');
  assert.deepEqual(Object.keys(analysis.entrypoints).sort(), Object.keys(manifest.exports).sort());
  const esmOnly = (/** @type {any} */ { kind, resolutionKind }) =>
    resolutionKind !== 'node10' && resolutionKind !== 'node16-cjs' && kind !== 'CJSResolvesToESM';
  assert.deepEqual(analysis.problems.filter(esmOnly), []);
});

test('types come first among the conditions of every entry', () => {
  for (const [entry, conditions] of Object.entries(manifest.exports))
    if (typeof conditions === 'object') assert.equal(Object.keys(conditions)[0], 'types', entry);
});

test('installed into an empty folder it multiplies', () => {
  const output = runInApp(`
    import { createKernels, version } from 'fused-matmul';
    const fm = await createKernels();
    const data = new Uint8Array(2 * 144).fill(0x31);
    const w = fm.weight({ type: 'Q4_K', nRows: 2, nCols: 256, data });
    const x = Float32Array.from({ length: 256 }, (_, i) => Math.sin(i));
    const y = fm.fusedMatmul(w, x);
    const rows = fm.dequantize(w);
    const exact = [0, 1].map((r) => x.reduce((sum, value, c) => sum + value * rows[r * 256 + c], 0));
    const close = exact.every((value, r) => Math.abs(value - y[r]) <= 1e-4 * rows.reduce((s, v) => s + Math.abs(v), 0));
    console.log(JSON.stringify({ version, close, length: y.length, equalRows: y[0] === y[1] }));
  `);
  assert.deepEqual(JSON.parse(output), {
    version: manifest.version,
    close: true,
    length: 2,
    equalRows: true,
  });
});

test('installed into an empty folder it reads a GGUF file', () => {
  const model = path.join(root, 'web/public/tiny-tales-Q4_K_M.gguf');
  const output = runInApp(`
    import { createKernels, openGguf } from 'fused-matmul';
    const gguf = await openGguf(${JSON.stringify(model)});
    const fm = await createKernels();
    const w = await fm.loadWeight(gguf, 'blk.0.ffn_gate.weight');
    console.log(fm.fusedMatmul(w, new Float32Array(w.nCols).fill(1)).every(Number.isFinite), w.nRows, w.nCols);
  `);
  assert.equal(output, 'true 768 256');
});

test('the wasm files and package.json can be resolved', () => {
  const output = runInApp(`
    import { existsSync } from 'node:fs';
    const names = ['scalar', 'simd128', 'relaxed', 'simd128-mt', 'relaxed-mt', 'relaxed-mt-64'];
    const urls = names.map((name) => import.meta.resolve(\`fused-matmul/wasm/fused-\${name}.wasm\`));
    console.log(urls.every((url) => existsSync(new URL(url))), existsSync(new URL(import.meta.resolve('fused-matmul/package.json'))));
  `);
  assert.equal(output, 'true true');
});

/** The bundle of an application that only multiplies. */
const bundleLoader = () => bundleForBrowser("export { createKernels, openGguf } from './js/index.js';");

test('the loader is small', async (t) => {
  const { contents, bytes } = await bundleLoader();
  t.diagnostic(`loader: ${contents.length} bytes minified, ${bytes} gzipped`);
  assert.ok(contents.includes('fused_matmul'));
  assert.ok(bytes <= LOADER_BUDGET, `${bytes} bytes, budget ${LOADER_BUDGET}`);
});

test('the operations are a file of their own, fetched beside the module', async (t) => {
  const { contents, files } = await bundleLoader();
  const operations = files.filter(({ text }) => text.includes('fused_matmul_many('));
  assert.equal(operations.length, 1);
  assert.ok(!contents.includes('fused_matmul_many('));
  const bytes = gzipSync(operations[0].text, { level: 9 }).length;
  t.diagnostic(`operations: ${bytes} bytes gzipped`);
  assert.ok(bytes <= OPERATIONS_BUDGET, `${bytes} bytes, budget ${OPERATIONS_BUDGET}`);
});

test('the GPU kernels are small, and no other entry loads them by itself', async (t) => {
  const { bytes, files } = await bundleForBrowser("export { createGpuKernels } from './js/gpu/index.js';");
  // Of what is loaded later, the chunks with shaders are those of models.
  const models = files.filter(({ text }) => text.includes('@compute'));
  const all = models.reduce((sum, { contents }) => sum + gzipSync(contents, { level: 9 }).length, 0);
  t.diagnostic(`GPU kernels: ${bytes} bytes gzipped, ${all} with what models need`);
  assert.ok(bytes <= GPU_BUDGET, `${bytes} bytes, budget ${GPU_BUDGET}`);
  assert.ok(all <= GPU_MODEL_BUDGET, `${all} bytes, budget ${GPU_MODEL_BUDGET}`);
  for (const entry of ['index', 'layer-index']) {
    const { files: others } = await bundleForBrowser(`export * from './js/${entry}.js';`);
    assert.ok(!others.some(({ text }) => text.includes('@compute')), entry);
  }
  // A model loads them only when it is to run on a GPU.
  const llama = await bundleForBrowser("export * from './js/llama/index.js';");
  assert.ok(!llama.contents.includes('@compute'));
  const withKernels = llama.chunks.filter(({ texts }) => texts.some((text) => text.includes('@compute')));
  assert.deepEqual(withKernels, []);
  const devices = llama.chunks.filter(({ texts }) => texts.some((text) => text.includes('FM_GPU')));
  assert.equal(devices.length, 1);
  assert.ok(
    llama.files.some(({ text }) => text.includes('@compute')),
    'a bundler follows the import',
  );
});

test('the script of a model in a worker has no code of GPUs, the larger one has it', (t) => {
  for (const [name, hasGpu] of /** @type {const} */ ([
    ['llama-host.js', false],
    ['llama-host-gpu.js', true],
  ])) {
    const text = readFileSync(path.join(root, 'dist', name), 'utf8');
    assert.equal(text.includes('@compute'), hasGpu, name);
    assert.equal(text.includes('has no code for a GPU'), !hasGpu, name);
    t.diagnostic(`${name}: ${gzipSync(text, { level: 9 }).length} bytes gzipped`);
  }
});

test('a browser bundle has the header parser in a chunk of its own', async () => {
  const { files } = await bundleLoader();
  const withParser = files.filter(({ text }) => text.includes('GGUF magic number'));
  assert.equal(withParser.length, 1);
  assert.ok(!withParser[0].text.includes('fused_matmul'));
});

test('versions agree: package.json, C, changelog', () => {
  const header = readFileSync(path.join(root, 'src/fused.h'), 'utf8');
  const parts = ['MAJOR', 'MINOR', 'PATCH'].map(
    (part) => new RegExp(`FM_VERSION_${part} (\\d+)`).exec(header)?.[1],
  );
  assert.equal(parts.join('.'), manifest.version);
  assert.match(
    readFileSync(path.join(root, 'CHANGELOG.md'), 'utf8'),
    new RegExp(`^## ${manifest.version}`, 'm'),
  );
});
