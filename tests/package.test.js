/**
 * The package as users get it: packed, installed into an empty folder, imported, bundled.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { build as bundle } from 'esbuild';
import { publint } from 'publint';
import { npmCommand } from '../scripts/setup/packages.js';
import { environment, root } from '../scripts/setup/run.js';

const folder = mkdtempSync(path.join(tmpdir(), 'fused-matmul-package-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const manifest = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));

/** Everything but the chunks that are fetched when a file is opened. */
const LOADER_BUDGET = 12 * 1024;
/** Three modules of at most 160 KB, and the rest. */
const PACKED_BUDGET = 240 * 1024;

/** @param {string[]} args @param {string} cwd */
function npm(args, cwd) {
  const [file, first] = npmCommand();
  const result = spawnSync(file, [...first, ...args, '--no-audit', '--no-fund', '--loglevel=error'], {
    cwd,
    env: environment(),
    encoding: 'utf8',
  });
  assert.equal(result.status, 0, `npm ${args.join(' ')}\n${result.stdout}\n${result.stderr}`);
  return result.stdout;
}

/** @typedef {{ filename: string, size: number, files: { path: string, size: number }[] }} Packed */

/** @param {string} from @returns {Packed} */
function pack(from) {
  const [packed] = JSON.parse(
    npm(['pack', '--json', '--ignore-scripts', '--pack-destination', folder], from),
  );
  return packed;
}

/** @type {Packed} */
let packed;
const app = path.join(folder, 'app');

before(() => {
  packed = pack(root);
  const dependencies = Object.keys(manifest.dependencies).map((name) =>
    pack(path.join(root, 'node_modules', name)),
  );
  mkdirSync(app);
  writeFileSync(path.join(app, 'package.json'), '{ "private": true, "type": "module" }');
  const tarballs = [packed, ...dependencies].map(({ filename }) => path.join(folder, filename));
  npm(['install', '--offline', '--ignore-scripts', ...tarballs], app);
});

/** Runs a module in the folder that has the package installed. @param {string} code */
function runInApp(code) {
  writeFileSync(path.join(app, 'main.js'), code);
  const { status, stdout, stderr } = spawnSync(process.execPath, ['main.js'], { cwd: app, encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  assert.equal(stderr, '');
  return stdout.trim();
}

test('the tarball holds what is needed to run, and nothing else', () => {
  const files = packed.files.map((file) => file.path);
  const allowed = [
    /^js\/((llama|cli)\/)?[^/]+\.js$/,
    /^dist\/types\/((llama|cli)\/)?[^/]+\.d\.ts$/,
    /^(package\.json|README\.md|CHANGELOG\.md|LICENSE)$/,
  ];
  const dist = [
    'fused-scalar.wasm',
    'fused-simd128.wasm',
    'fused-relaxed.wasm',
    'gguf-parser.js',
    'gguf-parser.d.ts',
    'worker-host.js',
    'jinja.js',
    'jinja.d.ts',
  ];
  allowed.push(new RegExp(`^dist/(${dist.join('|').replaceAll('.', '\\.')})$`));
  assert.deepEqual(
    files.filter((file) => !allowed.some((pattern) => pattern.test(file))),
    [],
  );
  for (const name of [
    ...dist.map((file) => `dist/${file}`),
    'dist/types/index.d.ts',
    'dist/types/llama/index.d.ts',
    'js/index.js',
    'js/llama/index.js',
    'LICENSE',
    'README.md',
  ]) {
    assert.ok(files.includes(name), name);
  }
  assert.ok(packed.size <= PACKED_BUDGET, `${packed.size} bytes packed, budget ${PACKED_BUDGET}`);
});

test('package.json and what it points to are as publint wants them', async () => {
  const { messages } = await publint({ pkgDir: root, strict: true, pack: false });
  assert.deepEqual(messages, []);
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
    const urls = ['scalar', 'simd128', 'relaxed'].map((isa) => import.meta.resolve(\`fused-matmul/wasm/fused-\${isa}.wasm\`));
    console.log(urls.every((url) => existsSync(new URL(url))), existsSync(new URL(import.meta.resolve('fused-matmul/package.json'))));
  `);
  assert.equal(output, 'true true');
});

/** @param {Partial<import('esbuild').BuildOptions>} options */
async function bundleForBrowser(options) {
  const result = await bundle({
    absWorkingDir: root,
    stdin: { contents: "export { createKernels, openGguf } from './js/index.js';", resolveDir: root },
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    logLevel: 'silent',
    ...options,
  });
  assert.deepEqual(result.warnings, []);
  return result.outputFiles ?? [];
}

test('the loader is small', async (t) => {
  const files = await bundleForBrowser({ splitting: true, outdir: path.join(folder, 'out') });
  const text = (/** @type {string} */ name) =>
    files.find((file) => path.basename(file.path) === name)?.text ?? assert.fail(name);
  const loaded = new Set(['stdin.js']);
  for (const name of loaded) {
    for (const [, imported] of text(name).matchAll(/\b(?:from|import)"\.\/([^"]+)"/g)) loaded.add(imported);
  }
  const contents = [...loaded].map(text).join('');
  const bytes = gzipSync(contents, { level: 9 }).length;
  t.diagnostic(`loader: ${contents.length} bytes minified, ${bytes} gzipped`);
  assert.ok(contents.includes('fused_matmul'));
  assert.ok(bytes <= LOADER_BUDGET, `${bytes} bytes, budget ${LOADER_BUDGET}`);
});

test('a browser bundle has the header parser in a chunk of its own', async () => {
  const files = await bundleForBrowser({ splitting: true, outdir: path.join(folder, 'out') });
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
