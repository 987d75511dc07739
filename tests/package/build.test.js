/**
 * The results of the build: exports, imports, opcodes and sizes of the modules; and a second build,
 * which does nothing.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import wabt from 'wabt';
import { build, MODULE_BUDGETS, sizes } from '../../scripts/build.js';
import { root } from '../../scripts/setup/run.js';

const { readWasm } = await wabt();
const names = Object.keys(MODULE_BUDGETS);
const read = (/** @type {string} */ file) => readFileSync(path.join(root, file));

/** Exports that Emscripten adds to every module without JavaScript glue. */
const RUNTIME_EXPORTS = [
  'memory',
  '_initialize',
  '__wasm_call_ctors',
  '__indirect_function_table',
  '_emscripten_stack_restore',
  'emscripten_stack_get_current',
];

/**
 * The text of a module, from a disassembler, since raw bytes may look like any opcode.
 * @param {string} file
 */
function disassemble(file) {
  const module = readWasm(read(file), { simd: true, relaxed_simd: true, threads: true, memory64: true });
  try {
    return module.toText({ foldExprs: false, inlineExport: false });
  } finally {
    module.destroy();
  }
}

/** @param {string} text */
function opcodes(text) {
  return new Set([...text.matchAll(/^\s+([a-z][a-z0-9_]*(?:\.[a-z0-9_]+)+)/gm)].map(([, opcode]) => opcode));
}

/** The instructions on 128-bit vectors. @param {Set<string>} set */
const vectorOpcodes = (set) => [...set].filter((opcode) => /^(v128|[if]\d+x\d+)\./.test(opcode));

const texts = new Map(names.map((name) => [name, disassemble(`dist/${name}`)]));
const text = (/** @type {string} */ name) => /** @type {string} */ (texts.get(name));

/**
 * The functions that src/fused.h declares. Those of the pool are only in modules with threads.
 * @param {boolean} hasThreads
 */
function declaredFunctions(hasThreads) {
  const code = read('src/fused.h')
    .toString()
    .replace(/\/\*[\s\S]*?\*\//g, '');
  const declared = [...code.matchAll(/\b((?:fm|fused)_[a-z0-9_]+)\s*\(/g)].map(([, name]) => name).sort();
  return declared.filter((name) => hasThreads || !/^fm_threads?_/.test(name));
}

for (const name of names) {
  const hasThreads = /-mt/.test(name);

  test(`${name}: exports are the functions of fused.h`, () => {
    const exported = [...text(name).matchAll(/^\s*\(export "([^"]+)"/gm)].map(([, symbol]) => symbol);
    const ours = exported.filter((symbol) => !RUNTIME_EXPORTS.includes(symbol)).sort();
    assert.equal(exported.includes('memory'), !hasThreads);
    assert.equal(exported.includes('_emscripten_stack_restore'), true);
    assert.ok(ours.length >= 10);
    assert.deepEqual(ours, declaredFunctions(hasThreads));
  });

  test(`${name}: imports ${hasThreads ? 'a shared memory' : 'nothing'}`, () => {
    const imports = [...text(name).matchAll(/^\s*\(import (.*)$/gm)].map(([, what]) => what);
    const is64 = name.includes('-64');
    const pages = is64 ? 16 * 2 ** 14 : 65536;
    const expected = `"env" "memory" (memory (;0;) ${is64 ? 'i64 ' : ''}32 ${pages} shared))`;
    assert.deepEqual(imports, hasThreads ? [expected] : []);
  });

  test(`${name}: within its size budget`, () => {
    const { bytes, budget = 0 } = sizes().find((size) => size.name === name) ?? assert.fail();
    assert.ok(bytes <= budget, `${bytes} bytes, budget ${budget}`);
    assert.equal(bytes, statSync(path.join(root, 'dist', name)).size);
  });
}

test('the scalar module holds no vector instruction', () => {
  const found = opcodes(text('fused-scalar.wasm'));
  assert.ok(found.has('f32.mul') && found.has('i32.load16_u'), 'the disassembly was read');
  assert.deepEqual(vectorOpcodes(found), []);
});

for (const name of ['fused-simd128.wasm', 'fused-simd128-mt.wasm']) {
  test(`${name} holds vector instructions, and no relaxed one`, () => {
    const found = vectorOpcodes(opcodes(text(name)));
    assert.ok(found.includes('i32x4.dot_i16x8_s'));
    assert.deepEqual(
      found.filter((opcode) => opcode.includes('relaxed')),
      [],
    );
  });
}

for (const name of names.filter((other) => other.includes('relaxed'))) {
  test(`${name} holds both relaxed dots`, () => {
    const found = opcodes(text(name));
    assert.ok(found.has('i16x8.relaxed_dot_i8x16_i7x16_s'));
    assert.ok(found.has('i32x4.relaxed_dot_i8x16_i7x16_add_s'));
  });
}

for (const name of names) {
  test(`${name}: atomics and waiting only where there are threads`, () => {
    const found = opcodes(text(name));
    const wanted = ['memory.atomic.wait32', 'memory.atomic.notify', 'i32.atomic.rmw.cmpxchg'];
    for (const opcode of wanted) assert.equal(found.has(opcode), /-mt/.test(name), opcode);
  });
}

/* Sources for relaxed SIMD say which operations are fused (attention, delta nets), or multiply integers,
 * whose scaling must not be fused. */
test('nothing is fused that the source does not fuse', () => {
  const functions = text('fused-relaxed.wasm')
    .split(/^ {2}\(func /m)
    .slice(1);
  const named = readdirSync(path.join(root, 'src/kernels')).filter(
    (file) => file.endsWith('_relaxed.c') && /relaxed_n?madd/.test(read(`src/kernels/${file}`).toString()),
  );
  const fused = functions.filter((body) => /relaxed_n?madd/.test(body));
  assert.deepEqual(named, ['attention_relaxed.c', 'delta_relaxed.c']);
  assert.ok(fused.length > 0 && fused.length <= 8, `${fused.length} functions`);
  for (const body of fused) assert.doesNotMatch(body, /dot_i8x16|dot_i16x8/);
  const dots = functions.filter((body) => /relaxed_dot_i8x16/.test(body));
  assert.ok(dots.length > 20, `${dots.length} functions`);
});

test('a second build changes nothing', async () => {
  const stamps = () =>
    readdirSync(path.join(root, 'dist'), { withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ name }) => [name, statSync(path.join(root, 'dist', name)).mtimeMs]);
  await build({ quiet: true });
  const before = stamps();
  assert.equal(await build({ quiet: true }), false);
  assert.deepEqual(stamps(), before);
});

test('dist/gguf-parser.js imports nothing and carries its licence', () => {
  const code = read('dist/gguf-parser.js').toString();
  assert.doesNotMatch(code, /\bimport\s*\(|\brequire\s*\(|\bfrom\s*["']/);
  assert.match(code, /@huggingface\/gguf \d+\.\d+\.\d+\nMIT License/);
});

/** Size of the grammar engine, gzipped: two thirds of it is its wasm module, in base64. */
const GRAMMAR_BUDGET = 400 * 1024;

test('dist/grammar-engine.js imports nothing, needs no eval, carries its licences, and waits for its use', (t) => {
  const code = read('dist/grammar-engine.js').toString();
  assert.doesNotMatch(code, /\bimport\s*\(|\brequire\s*\(|\bfrom\s*["']|\beval\s*\(|new Function\b/);
  assert.match(code, /^\/\*! @mlc-ai\/web-xgrammar \d+\.\d+\.\d+\n/);
  assert.match(
    code,
    /XGrammar Contributors[\s\S]*Apache License\s+Version 2\.0[\s\S]*Cybozu Labs[\s\S]*\*\//,
  );
  const gzipped = gzipSync(code, { level: 9 }).length;
  t.diagnostic(`${code.length} bytes, ${gzipped} gzipped`);
  assert.ok(gzipped <= GRAMMAR_BUDGET, `${gzipped} bytes gzipped, budget ${GRAMMAR_BUDGET}`);
  for (const name of ['llama-host.js', 'llama-host-gpu.js']) {
    const script = read(`dist/${name}`).toString();
    assert.ok(script.includes('../dist/grammar-engine.js') && script.length < code.length, name);
    assert.ok(!script.includes('AGFzbQ'), `${name} has no wasm module in it`);
  }
});

test('instruction set flags stand in emscripten.cmake only', () => {
  const cmake = read('src/CMakeLists.txt').toString();
  assert.doesNotMatch(cmake, /-m(simd128|relaxed-simd|atomics|bulk-memory)/);
});
