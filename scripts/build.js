/**
 * `npm run build`: makes everything that the package ships, in dist/. A step runs only if its
 * inputs have changed.
 *
 *   dist/fused-*.wasm     the six modules, by CMake and Emscripten from src/
 *   dist/gguf-parser.js   the GGUF header parser, bundled by esbuild
 *   dist/grammar-engine.js  the grammar engine of structured output, bundled by esbuild
 *   dist/*-host*.js       worker scripts of createWorkerKernels and createWorkerLlama, bundled too
 *   dist/types/           .d.ts from the JSDoc of js/, by tsc
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { gzipSync } from 'node:zlib';
import { finishDeclarations, reachableTypes } from './declarations.js';
import { ensurePackages } from './setup/packages.js';
import { isMain, main, root, run, SetupError, which, withLock } from './setup/run.js';
import { checkNode, ensureSetup } from './setup.js';

/** Size limit of each module, in bytes. */
export const MODULE_BUDGETS = Object.freeze({
  'fused-scalar.wasm': 68 * 1024,
  'fused-simd128.wasm': 160 * 1024,
  'fused-relaxed.wasm': 229 * 1024,
  'fused-simd128-mt.wasm': 163 * 1024,
  'fused-relaxed-mt.wasm': 233 * 1024,
  'fused-relaxed-mt-64.wasm': 246 * 1024,
});

/** The grammar engine is no part of a worker's script. */
const CHUNK = { 'js/llama/structured/chunk.js': 'js/worker/grammar-chunk.js' };

/**
 * Worker scripts, by the file in dist/ into which each is bundled; instead: modules that have the
 * place of others.
 * @type {Record<string, { entry: string, instead?: Record<string, string> }>}
 */
const WORKERS = Object.freeze({
  'worker-host.js': { entry: 'js/worker/host.js' },
  'llama-host.js': {
    entry: 'js/worker/llama-host.js',
    instead: { 'js/llama/devices.js': 'js/worker/no-devices.js', ...CHUNK },
  },
  'llama-host-gpu.js': { entry: 'js/worker/llama-host.js', instead: CHUNK },
});

const inRoot = (/** @type {string[]} */ ...parts) => path.join(root, ...parts);
const read = (/** @type {string} */ file) => readFileSync(inRoot(file));

/** @param {string} file @param {string | Uint8Array} content */
function writeIfChanged(file, content) {
  const full = inRoot(file);
  if (existsSync(full) && readFileSync(full).equals(Buffer.from(content))) return false;
  mkdirSync(path.dirname(full), { recursive: true });
  writeFileSync(full, content);
  return true;
}

/**
 * Runs `work`, unless it already ran on the same inputs and its outputs exist.
 * @param {string} name
 * @param {{ inputs: (string | Uint8Array)[], outputs: string[] }} facts  contents; files
 * @param {() => Promise<void>} work
 * @returns {Promise<boolean>}  whether it ran
 */
async function whenChanged(name, { inputs, outputs }, work) {
  const hash = createHash('sha256');
  for (const input of inputs) hash.update(input).update('\0');
  const digest = hash.digest('hex');
  const stamp = `build/stamps/${name}`;
  const current = existsSync(inRoot(stamp)) && read(stamp).toString() === digest;
  if (current && outputs.every((file) => existsSync(inRoot(file)))) return false;
  await work();
  writeIfChanged(stamp, digest);
  return true;
}

/**
 * Configures a CMake build folder once, and builds a target in it.
 * @param {string} folder
 * @param {{ settings: string[], target?: string, env?: NodeJS.ProcessEnv }} options
 */
export async function cmake(folder, { settings, target, env }) {
  const generator = which('ninja') ? 'Ninja' : 'Unix Makefiles';
  const configure = ['-S', inRoot('src'), '-B', inRoot(folder), '-G', generator, ...settings];
  const stamp = `${folder}/configured-with`;
  const asked = configure.join('\n');
  if (!existsSync(inRoot(stamp)) || read(stamp).toString() !== asked) {
    rmSync(inRoot(folder), { recursive: true, force: true });
    await run('cmake', configure, { env, quiet: true, hint: `configuring ${folder}` });
    writeIfChanged(stamp, asked);
  }
  const only = target ? ['--target', target] : [];
  await run('cmake', ['--build', inRoot(folder), '--parallel', ...only], {
    env,
    quiet: true,
    hint: `building ${folder}`,
  });
}

/** @param {import('./setup/emscripten.js').Emscripten} emscripten */
async function buildModules(emscripten) {
  await cmake('build/wasm', {
    settings: [
      `-DCMAKE_TOOLCHAIN_FILE=${inRoot('emscripten.cmake')}`,
      `-DEMSCRIPTEN_ROOT_PATH=${emscripten.root}`,
      '-DCMAKE_BUILD_TYPE=Release',
    ],
    env: emscripten.env,
  });
  const changed = Object.keys(MODULE_BUDGETS).map((name) =>
    writeIfChanged(`dist/${name}`, read(`build/wasm/${name}`)),
  );
  return changed.includes(true);
}

/**
 * Bundles a package into dist/.
 * @param {string} name  the bundle's name
 * @param {string} from  the package
 * @param {string} script  the file in scripts/ that bundles it
 * @param {() => Promise<Map<string, string>>} work  gives file names in dist/ and contents
 */
async function buildBundle(name, from, script, work) {
  const packageFile = (/** @type {string} */ of) => read(`node_modules/${of}/package.json`);
  const facts = {
    inputs: [packageFile(from), packageFile('esbuild'), read(script), read('scripts/bundle-package.js')],
    outputs: [`dist/${name}.js`, `dist/${name}.d.ts`],
  };
  return whenChanged(name, facts, async () => {
    for (const [file, content] of await work()) writeIfChanged(`dist/${file}`, content);
  });
}

async function buildWorkers() {
  const names = /** @type {string[]} */ (readdirSync(inRoot('js'), { recursive: true }));
  const sources = names.filter((name) => name.endsWith('.js') && !name.startsWith('cli'));
  const facts = {
    inputs: [
      ...sources.map((name) => read(`js/${name}`)),
      read('dist/gguf-parser.js'),
      read('node_modules/esbuild/package.json'),
      read('scripts/bundle-worker.js'),
      JSON.stringify(WORKERS),
    ],
    outputs: Object.keys(WORKERS).map((name) => `dist/${name}`),
  };
  return whenChanged('workers', facts, async () => {
    const { bundleWorker } = await import('./bundle-worker.js');
    for (const [name, { entry, instead }] of Object.entries(WORKERS))
      writeIfChanged(`dist/${name}`, await bundleWorker(root, entry, instead));
  });
}
const buildParser = () =>
  buildBundle('gguf-parser', '@huggingface/gguf', 'scripts/bundle-gguf.js', async () =>
    (await import('./bundle-gguf.js')).bundleGguf(root),
  );

const buildGrammar = () =>
  buildBundle('grammar-engine', '@mlc-ai/web-xgrammar', 'scripts/bundle-grammar.js', async () =>
    (await import('./bundle-grammar.js')).bundleGrammar(root),
  );

async function buildTypes() {
  const names = /** @type {string[]} */ (readdirSync(inRoot('js'), { recursive: true }));
  const sources = names
    .map((name) => name.replaceAll('\\', '/'))
    .filter((name) => name.endsWith('.js') && !name.startsWith('cli/'));
  const configs = [
    'package.json',
    'tsconfig.json',
    'scripts/tsconfig.types.json',
    'node_modules/typescript-native/package.json',
  ];
  const facts = {
    inputs: [
      ...sources,
      ...sources.map((name) => read(`js/${name}`)),
      ...configs.map(read),
      read('dist/gguf-parser.d.ts'),
      read('dist/grammar-engine.d.ts'),
      read('scripts/build.js'),
      read('scripts/declarations.js'),
    ],
    outputs: ['dist/types/index.d.ts'],
  };
  return whenChanged('types', facts, async () => {
    rmSync(inRoot('dist/types'), { recursive: true, force: true });
    const tsc = inRoot('node_modules/typescript-native/bin/tsc');
    await run(process.execPath, [tsc, '-p', 'scripts/tsconfig.types.json'], {
      quiet: true,
      hint: 'types from JSDoc',
    });
    for (const name of sources) {
      const file = `dist/types/${name.replace(/\.js$/, '.d.ts')}`;
      writeIfChanged(file, finishDeclarations(`${read(file)}`, `${read(`js/${name}`)}`));
    }
    const { exports } = JSON.parse(`${read('package.json')}`);
    const kept = reachableTypes(exports, (file) => `${read(file)}`);
    const all = /** @type {string[]} */ (readdirSync(inRoot('dist/types'), { recursive: true }));
    for (const file of all.map((name) => path.join('dist/types', name)))
      if (file.endsWith('.d.ts') && !kept.has(file)) rmSync(inRoot(file));
  });
}

/**
 * Makes only the bundled packages and their declarations, which the type checker needs. This takes
 * no Emscripten.
 */
export async function buildBundles() {
  checkNode();
  await ensurePackages();
  await withLock('build', async () => {
    await buildParser();
    await buildGrammar();
  });
}

/** @returns {{ name: string, bytes: number, gzipped: number, budget: number | undefined }[]} */
export function sizes() {
  const budgets = /** @type {Record<string, number | undefined>} */ (MODULE_BUDGETS);
  return [...Object.keys(MODULE_BUDGETS), 'gguf-parser.js', 'grammar-engine.js', ...Object.keys(WORKERS)].map(
    (name) => {
      const content = read(`dist/${name}`);
      return {
        name,
        bytes: content.length,
        gzipped: gzipSync(content, { level: 9 }).length,
        budget: budgets[name],
      };
    },
  );
}

function printSizes() {
  const kilobytes = (/** @type {number} */ bytes) => `${(bytes / 1024).toFixed(1)} KB`.padStart(9);
  for (const { name, bytes, gzipped, budget } of sizes()) {
    const limit = budget ? `  (at most ${budget / 1024} KB)` : '';
    process.stdout.write(
      `  dist/${name.padEnd(20)}${kilobytes(bytes)}${kilobytes(gzipped)} gzipped${limit}\n`,
    );
  }
}

function checkBudgets() {
  const over = sizes().filter(({ bytes, budget }) => budget !== undefined && bytes > budget);
  if (over.length === 0) return;
  const list = over.map(({ name, bytes, budget }) => `${name} has ${bytes} bytes, ${budget} are allowed`);
  throw new SetupError(`over the size budget: ${list.join('; ')}`);
}

/**
 * @param {{ quiet?: boolean }} [options]
 * @returns {Promise<boolean>}  whether anything changed
 */
export async function build({ quiet = false } = {}) {
  const emscripten = await ensureSetup();
  return withLock('build', async () => {
    const changed = [
      await buildModules(emscripten),
      await buildParser(),
      await buildGrammar(),
      await buildWorkers(),
      await buildTypes(),
    ].includes(true);
    if (!quiet) {
      process.stdout.write(
        changed ? `built with Emscripten ${emscripten.version}\n` : 'dist/ is up to date\n',
      );
      printSizes();
    }
    checkBudgets();
    return changed;
  });
}

/**
 * Builds native tests: the scalar C code with the address and undefined-behaviour sanitizers, or
 * its thread pool with the thread sanitizer.
 * @param {'fm_native_tests' | 'fm_thread_tests'} [target]
 * @returns {Promise<string>}  path of the test program
 */
export async function buildNative(target = 'fm_native_tests') {
  await ensureSetup({ native: true });
  const compiler = process.env.CC ?? ['cc', 'gcc', 'clang'].map(which).find(Boolean);
  return withLock('native', async () => {
    await cmake('build/native', { settings: [`-DCMAKE_C_COMPILER=${compiler}`], target });
    return inRoot(`build/native/${target}`);
  });
}

if (isMain(import.meta.url)) {
  await main(async () => {
    await build({ quiet: process.argv.includes('--quiet') });
  });
}
