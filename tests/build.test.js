/**
 * What the build makes: exports, imports, opcodes and sizes of the modules; a second build that does nothing.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import wabt from 'wabt';
import { build, MODULE_BUDGETS, sizes } from '../scripts/build.js';
import { root } from '../scripts/setup/run.js';

const { readWasm } = await wabt();
const names = Object.keys(MODULE_BUDGETS);
const read = (/** @type {string} */ file) => readFileSync(path.join(root, file));

/** What Emscripten adds to every module without JavaScript glue. */
const RUNTIME_EXPORTS = [
  'memory',
  '_initialize',
  '__indirect_function_table',
  '_emscripten_stack_restore',
  'emscripten_stack_get_current',
];
const ALLOWED_IMPORTS = ['env.emscripten_notify_memory_growth'];

/** Text of a module, by a disassembler: raw bytes may look like any opcode. @param {string} name */
function disassemble(name) {
  const module = readWasm(read(`dist/${name}`), { simd: true, relaxed_simd: true });
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

/** Instructions on 128-bit vectors. @param {Set<string>} set */
const vectorOpcodes = (set) => [...set].filter((opcode) => /^(v128|[if]\d+x\d+)\./.test(opcode));

const texts = new Map(names.map((name) => [name, disassemble(name)]));
const text = (/** @type {string} */ name) => /** @type {string} */ (texts.get(name));

/** The functions that src/fused.h declares. */
function declaredFunctions() {
  const code = read('src/fused.h')
    .toString()
    .replace(/\/\*[\s\S]*?\*\//g, '');
  return [...code.matchAll(/\b((?:fm|fused)_[a-z0-9_]+)\s*\(/g)].map(([, name]) => name).sort();
}

for (const name of names) {
  test(`${name}: exports are the functions of fused.h`, () => {
    const exported = [...text(name).matchAll(/^\s*\(export "([^"]+)"/gm)].map(([, symbol]) => symbol);
    const ours = exported.filter((symbol) => !RUNTIME_EXPORTS.includes(symbol)).sort();
    assert.ok(exported.includes('memory'));
    assert.ok(ours.length >= 10);
    assert.deepEqual(ours, declaredFunctions());
  });

  test(`${name}: imports nothing but the memory growth notice`, () => {
    const imported = [...text(name).matchAll(/^\s*\(import "([^"]+)" "([^"]+)"/gm)];
    for (const [, module, symbol] of imported)
      assert.ok(ALLOWED_IMPORTS.includes(`${module}.${symbol}`), symbol);
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

test('the simd128 module holds vector instructions, and no relaxed one', () => {
  const found = vectorOpcodes(opcodes(text('fused-simd128.wasm')));
  assert.ok(found.includes('i32x4.dot_i16x8_s'));
  assert.deepEqual(
    found.filter((opcode) => opcode.includes('relaxed')),
    [],
  );
});

test('the relaxed module holds both relaxed dots', () => {
  const found = opcodes(text('fused-relaxed.wasm'));
  assert.ok(found.has('i16x8.relaxed_dot_i8x16_i7x16_s'));
  assert.ok(found.has('i32x4.relaxed_dot_i8x16_i7x16_add_s'));
});

test('nothing is fused that the source does not fuse', () => {
  const fused = [...opcodes(text('fused-relaxed.wasm'))].filter((opcode) => /relaxed_n?madd/.test(opcode));
  assert.deepEqual(fused, []);
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

test('instruction set flags stand in emscripten.cmake only', () => {
  const cmake = read('src/CMakeLists.txt').toString();
  assert.doesNotMatch(cmake, /-m(simd128|relaxed-simd|atomics|bulk-memory)/);
});
