/**
 * The table of js/wasm/abi.js, compared with src/fused.h and with every module, and everything
 * derived from it.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { ABI, kindsOf, THREAD_ABI, withNumbers } from '../../js/wasm/abi.js';
import { layOut, STRUCTS, structBytes, writeStruct } from '../../js/wasm/structs.js';
import { MODULE_BUDGETS } from '../../scripts/build.js';
import { projectRoot } from '../helpers/test-data.js';
import { interfaceOf } from '../helpers/wasm-signatures.js';

const header = readFileSync(path.join(projectRoot, 'src/fused.h'), 'utf8').replace(/\/\*[\s\S]*?\*\//g, '');
const ALL = { ...ABI, ...THREAD_ABI };

/** @type {Record<string, string>} */
const C_KINDS = { size_t: 'size', int32_t: 'i32', uint32_t: 'u32', float: 'f32', void: 'void' };
/** @param {string} type  a C type, without a name */
const kindOf = (type) =>
  type.includes('*')
    ? 'address'
    : (C_KINDS[type.replace('const', '').trim()] ?? assert.fail(`unknown type ${type}`));

/** A parameter or field in the form of the table. @param {string} declaration  in C */
function row(declaration) {
  const [, type, name] = /^(.*?[\s*])(\w+)$/.exec(declaration.trim()) ?? assert.fail(declaration);
  return `${kindOf(type)} ${name}`;
}

test('abi: the table is what fused.h declares', () => {
  const prototypes = header.matchAll(/^(\w[\w\s]*?[\s*]+)((?:fm|fused)_\w+)\(([^)]*)\)[^;{]*;/gm);
  const declared = Object.fromEntries(
    [...prototypes].map(([, result, name, list]) => {
      const parameters = list.trim() === 'void' ? [] : list.split(',').map(row);
      return [name, `${kindOf(result)}(${parameters.join(', ')})`];
    }),
  );
  assert.ok(Object.keys(declared).length >= 32);
  assert.deepEqual(declared, { ...ALL });
  for (const name of Object.keys(ALL)) assert.equal(name in THREAD_ABI, /^fm_threads?_/.test(name), name);
});

test('abi: the structs are those of fused.h', () => {
  const structs = header.matchAll(/typedef struct \{([^}]*)\} (\w+);/g);
  const declared = Object.fromEntries(
    [...structs].map(([, body, name]) => {
      const fields = body.split(';').filter((line) => line.trim() !== '');
      const rows = fields.flatMap((line) => {
        const [, type, names] = /^\s*((?:const )?\w+)\s+(.*)$/s.exec(line) ?? assert.fail(line);
        return names.split(',').map((one) => row(`${type} ${one}`));
      });
      return [name, rows.join(', ')];
    }),
  );
  assert.deepEqual(declared, { ...STRUCTS });
});

for (const name of Object.keys(MODULE_BUDGETS)) {
  test(`abi: dist/${name} exports what the table says`, () => {
    const [address, threads] = [name.includes('-64') ? 'i64' : 'i32', name.includes('-mt')];
    const found = interfaceOf(readFileSync(path.join(projectRoot, 'dist', name))).exports;
    const wasmKind = (/** @type {string} */ kind) =>
      /** @type {Record<string, string>} */ ({ address, size: address, u32: 'i32' })[kind] ?? kind;
    const expected = Object.entries(threads ? ALL : ABI).map(([of, signature]) => {
      const [, result, list] = /^(\w+)\((.*)\)$/.exec(signature) ?? assert.fail(signature);
      return [of, `${wasmKind(result)}(${kindsOf(list).map(wasmKind).join(', ')})`];
    });
    const own = Object.entries(found).filter(([of]) => /^(fm|fused)_/.test(of));
    assert.deepEqual(Object.fromEntries(own), Object.fromEntries(expected));
  });
}

test('abi: addresses are numbers from 0 on, whatever the engine gives and takes', () => {
  /** @type {unknown[][]} */
  const calls = [];
  const exportsOf = (/** @type {unknown} */ address) => ({
    fm_alloc: (/** @type {unknown[]} */ ...args) => {
      calls.push(args);
      return address;
    },
    fm_rope: (/** @type {unknown[]} */ ...args) => {
      calls.push(args);
      return 3;
    },
    fm_isa: () => -1,
    other: 'kept',
  });
  const small = withNumbers(exportsOf(-16), false);
  assert.equal(small.fm_alloc(5), 2 ** 32 - 16);
  assert.equal(small.fm_rope(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1), 3);
  const large = withNumbers(exportsOf(2n ** 33n), true);
  assert.equal(large.fm_alloc(5), 2 ** 33);
  assert.equal(large.fm_rope(2 ** 33, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1), 3);
  assert.deepEqual(calls, [
    [5],
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1],
    [5n],
    [2n ** 33n, 2, 3, 4, 5, 6, 7, 8, 9n, 10, 1],
  ]);
  assert.equal(large.fm_isa(), -1, 'not an address');
  assert.equal(large.other, 'kept');
  assert.ok(!('fm_free' in large));
});

test('abi: structs lie in memory as C lays them out', () => {
  const u8 = new Uint8Array(256);
  const write = (
    /** @type {boolean} */ is64,
    /** @type {keyof typeof STRUCTS} */ name,
    /** @type {number[]} */ values,
  ) => {
    const memory = /** @type {any} */ ({ u8, is64 });
    u8.fill(0xee);
    writeStruct(memory, name, 64, values);
    const bytes = structBytes(memory, name);
    assert.ok(u8.subarray(64 + bytes).every((byte) => byte === 0xee) && u8[63] === 0xee);
    return new DataView(u8.buffer, 64, bytes);
  };
  const target = write(false, 'fm_target', [12, 7, 0xfffffff0, 64]);
  assert.equal(target.byteLength, 16);
  assert.deepEqual(
    [0, 4, 8, 12].map((at) => target.getUint32(at, true)),
    [12, 7, 0xfffffff0, 64],
  );
  const wide = write(true, 'fm_ffn_weights', [1, 2, 3, 2 ** 33 + 8, 16, 24]);
  assert.equal(wide.byteLength, 40, 'a pointer at a multiple of 8');
  assert.deepEqual(
    [0, 4, 8].map((at) => wide.getInt32(at, true)),
    [1, 2, 3],
  );
  assert.deepEqual(
    [16, 24, 32].map((at) => Number(wide.getBigUint64(at, true))),
    [2 ** 33 + 8, 16, 24],
  );
  const attention = write(true, 'fm_attention', [1, 2, 3, 4, 5, 6, 8, 1, 9, 0.125, 2.5, 2 ** 33 + 4]);
  assert.equal(attention.byteLength, 56, 'the address behind 44 bytes is at a multiple of 8');
  assert.deepEqual([attention.getFloat32(36, true), attention.getFloat32(40, true)], [0.125, 2.5]);
  assert.equal(Number(attention.getBigUint64(48, true)), 2 ** 33 + 4);
  // No struct has padding behind its last field yet; in a list of them it would count.
  const padded = [4, 8].map((addressBytes) => layOut('address first, i32 last', addressBytes).bytes);
  assert.deepEqual(padded, [8, 16]);
});
