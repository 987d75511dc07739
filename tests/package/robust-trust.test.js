/**
 * What someone who has to trust the package can check: what each module imports and exports, that the same sources give the same
 * bytes, that no code is made from strings, that nothing is asked of a network unless a URL is given, names and hashes of the
 * files, and that no dependency has a known vulnerability.
 */
import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { ABI, THREAD_ABI } from '../../js/wasm/abi.js';
import { MODULE_BUDGETS } from '../../scripts/build.js';
import { npmCommand } from '../../scripts/setup/packages.js';
import { environment, root, which } from '../../scripts/setup/run.js';
import { ensureSetup } from '../../scripts/setup.js';
import { interfaceOf } from '../helpers/wasm-signatures.js';

const run = promisify(execFile);
const inRoot = (/** @type {string[]} */ ...parts) => path.join(root, ...parts);
const names = Object.keys(MODULE_BUDGETS);

/* ---- imports and exports ---- */

/** The functions of src/fused.h that every module exports: tests/wasm/abi-table.test.js holds the table equal to the header. */
const FUNCTIONS = Object.keys(ABI);

/** What Emscripten adds to a module without JavaScript glue: the memory, the start, the stack pointer. */
const RUNTIME = [
  '__indirect_function_table',
  '_emscripten_stack_restore',
  '_initialize',
  'emscripten_stack_get_current',
  'memory',
];

/** A module with threads has its memory from outside, starts by another name, and exports the pool. */
const WITH_THREADS = {
  exports: [
    '__indirect_function_table',
    '__wasm_call_ctors',
    '_emscripten_stack_restore',
    ...Object.keys(THREAD_ABI),
  ],
  imports: ['env.memory'],
};

/** By module: what it exports besides FUNCTIONS, and all that it imports. @type {Record<string, { exports: string[], imports: string[] }>} */
const INTERFACES = {
  'fused-scalar.wasm': { exports: RUNTIME, imports: [] },
  'fused-simd128.wasm': { exports: RUNTIME, imports: [] },
  'fused-relaxed.wasm': { exports: RUNTIME, imports: [] },
  'fused-simd128-mt.wasm': WITH_THREADS,
  'fused-relaxed-mt.wasm': WITH_THREADS,
  'fused-relaxed-mt-64.wasm': WITH_THREADS,
};

test('every module has an interface that is written down', () => {
  assert.deepEqual(Object.keys(INTERFACES).sort(), [...names].sort());
});

for (const [name, expected] of Object.entries(INTERFACES)) {
  test(`${name}: imports and exports are those that are written down`, () => {
    const bytes = readFileSync(inRoot('dist', name));
    const found = interfaceOf(bytes);
    const exported = Object.keys(found.exports).sort();
    assert.deepEqual(found.imports.sort(), expected.imports);
    assert.deepEqual(exported, [...FUNCTIONS, ...expected.exports].sort());
    if (!WebAssembly.validate(bytes)) return;
    const module = new WebAssembly.Module(bytes);
    const imports = WebAssembly.Module.imports(module).map((one) => `${one.module}.${one.name}`);
    assert.deepEqual(imports.sort(), expected.imports);
    assert.deepEqual(
      WebAssembly.Module.exports(module)
        .map((one) => one.name)
        .sort(),
      exported,
    );
  });

  test(`${name}: no names, paths or times of the machine it was built on`, () => {
    const bytes = readFileSync(inRoot('dist', name));
    const known = ['target_features', 'producers'];
    const unknown = interfaceOf(bytes).customs.filter((custom) => !known.includes(custom));
    assert.deepEqual(unknown, [], 'custom sections');
    const text = bytes.toString('latin1');
    for (const part of [root, tmpdir(), '.toolchain', 'build/wasm', 'src/kernels'])
      assert.ok(!text.includes(part), part);
  });
}

/* ---- the same sources, the same bytes ---- */

const reproduce = process.env.FM_REPRODUCE ?? (process.env.CI ? 'scalar' : undefined);
test('a build in another folder gives the same bytes', {
  skip: !reproduce && 'takes minutes: FM_REPRODUCE=all does it, CI does it for the scalar module',
}, async (t) => {
  const emscripten = await ensureSetup();
  const folder = mkdtempSync(path.join(tmpdir(), 'another-folder-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  for (const part of ['src', 'emscripten.cmake', 'tests/bench'])
    cpSync(inRoot(part), path.join(folder, 'deeper', part), { recursive: true });
  const targets = names
    .map((name) => name.replace('.wasm', ''))
    .filter((name) => reproduce === 'all' || name.endsWith('scalar'));
  const settings = [
    ...['-S', path.join(folder, 'deeper/src'), '-B', path.join(folder, 'made')],
    ...['-G', which('ninja') ? 'Ninja' : 'Unix Makefiles'],
    `-DCMAKE_TOOLCHAIN_FILE=${path.join(folder, 'deeper/emscripten.cmake')}`,
    `-DEMSCRIPTEN_ROOT_PATH=${emscripten.root}`,
    '-DCMAKE_BUILD_TYPE=Release',
  ];
  const options = { env: emscripten.env, maxBuffer: 2 ** 26 };
  await run('cmake', settings, options);
  await run('cmake', ['--build', path.join(folder, 'made'), '--parallel', '--target', ...targets], options);
  for (const target of targets) {
    const made = readFileSync(path.join(folder, 'made', `${target}.wasm`));
    assert.ok(made.equals(readFileSync(inRoot('dist', `${target}.wasm`))), `${target}.wasm has other bytes`);
  }
  t.diagnostic(`ran: reproducible build, ${targets.join(', ')}`);
});

/* ---- code from strings ---- */

/** @param {string} folder @returns {string[]} */
const scripts = (folder) =>
  /** @type {string[]} */ (readdirSync(inRoot(folder), { recursive: true }))
    .filter((name) => name.endsWith('.js'))
    .map((name) => path.join(folder, name));

test('no code is made from strings anywhere in js/ and dist/', () => {
  const files = [...scripts('js'), ...scripts('dist')];
  assert.ok(files.length > 15);
  for (const file of files) {
    const code = readFileSync(inRoot(file), 'utf8').replace(/\/\*[\s\S]*?\*\/|^\s*\/\/.*$/gm, '');
    assert.doesNotMatch(
      code,
      /(?<!wasm-unsafe-)\beval\b|\bnew\s+Function\b|\bFunction\s*\(|\bsetTimeout\s*\(\s*["'`]|\bimportScripts\b/,
      file,
    );
  }
});

/* ---- the network ---- */

/** Runs before the library: everything that would reach a network is noted, and refused. */
const WATCH = `
  import dgram from 'node:dgram';
  import dns from 'node:dns';
  import http from 'node:http';
  import net from 'node:net';
  globalThis.touched = [];
  const note = (holder, name) => {
    holder[name] = (...args) => {
      globalThis.touched.push(name + ' ' + String(args[0]?.href ?? args[0]));
      throw new Error('the network was touched: ' + name);
    };
  };
  note(globalThis, 'fetch');
  for (const name of ['WebSocket', 'XMLHttpRequest', 'EventSource']) note(globalThis, name);
  for (const name of ['connect', 'createConnection', 'createServer']) note(net, name);
  note(net.Socket.prototype, 'connect');
  note(dns, 'lookup');
  note(dgram, 'createSocket');
  note(http, 'request');
`;

/** @param {string} code  prints JSON */
function inWatchedProcess(code) {
  const { NODE_TEST_CONTEXT: _, NODE_OPTIONS: __, ...env } = process.env;
  const watch = `data:text/javascript,${encodeURIComponent(WATCH)}`;
  const args = ['--import', watch, '--input-type=module', '--eval', code];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, env, encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout);
}

test('nothing is asked of a network where no URL is given', () => {
  const { touched, y } = inWatchedProcess(`
    import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
    import { tmpdir } from 'node:os';
    import { createKernels, openGguf } from './js/layer-index.js';
    import { sampleGguf } from './tests/helpers/gguf-bytes.js';
    const { bytes } = sampleGguf();
    const folder = mkdtempSync(tmpdir() + '/fm-');
    const file = folder + '/model.gguf';
    writeFileSync(file, bytes);
    const fm = await createKernels();
    const y = [];
    for (const source of [bytes, new Blob([bytes]), file]) {
      const gguf = await openGguf(source);
      const w = await fm.loadWeight(gguf, 'norm.weight');
      y.push(fm.fusedMatmul(w, new Float32Array(5).fill(1))[0]);
    }
    fm.softmax(new Float32Array(4));
    fm.dispose();
    rmSync(folder, { recursive: true });
    console.log(JSON.stringify({ touched: globalThis.touched, y }));`);
  assert.deepEqual(touched, []);
  assert.deepEqual(y, [15, 15, 15]);
});

test('what watches the network sees the library where a URL is given', () => {
  const { touched, name } = inWatchedProcess(`
    import { openGguf } from './js/index.js';
    const error = await openGguf('http://127.0.0.1:9/model.gguf').catch((reason) => reason);
    console.log(JSON.stringify({ touched: globalThis.touched, name: error.name }));`);
  assert.deepEqual(touched, ['fetch http://127.0.0.1:9/model.gguf']);
  assert.equal(name, 'GgufError');
});

/* ---- files and dependencies ---- */

test('the files of dist/ have names that stay, and hashes for Subresource Integrity', (t) => {
  const files = readdirSync(inRoot('dist'), { withFileTypes: true }).filter((entry) => entry.isFile());
  const stable = new Set([
    ...names,
    ...['gguf-parser.js', 'gguf-parser.d.ts'],
    ...['grammar-engine.js', 'grammar-engine.d.ts'],
    'worker-host.js',
    'llama-host.js',
    'llama-host-gpu.js',
  ]);
  for (const { name } of files) {
    assert.ok(stable.has(name), `${name} is no name that is written down`);
    const hash = createHash('sha384')
      .update(readFileSync(inRoot('dist', name)))
      .digest('base64');
    t.diagnostic(`integrity of dist/${name}: sha384-${hash}`);
  }
  assert.equal(files.length, stable.size);
});

test('no dependency at run time has a known vulnerability', async (t) => {
  const [file, first] = npmCommand();
  const args = [...first, 'audit', '--omit=dev', '--json', '--fetch-retries=0', '--fetch-timeout=20000'];
  const { stdout, stderr } = spawnSync(file, args, { cwd: root, env: environment(), encoding: 'utf8' });
  const answer = stdout.startsWith('{') ? JSON.parse(stdout) : {};
  if (!answer.metadata) {
    t.skip(
      `the registry does not answer npm audit: ${(answer.message ?? stderr)
        .replace(/https?:\S+/g, '')
        .slice(0, 60)
        .trim()}`,
    );
    return;
  }
  assert.deepEqual(answer.vulnerabilities, {});
});
