/**
 * The C ABI of src/fused.h on raw memory: every status code; 32-bit overflow; misaligned,
 * overlapping and out-of-heap pointers; unchanged outputs on error; the ends of the memory.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { makeWeights } from '../helpers/blocks.js';
import { ReferenceProduct, ReferenceWeight } from '../helpers/bounds.js';
import { Prng } from '../helpers/prng.js';
import { freshModule, openModules, STATUS } from '../helpers/raw.js';
import { referenceById } from '../helpers/reference.js';

/** @import { ModuleType, RawModule } from '../helpers/raw.js' */

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`abi: ${name} module`, { skip: reason }, () => {});

const N_TOKENS = 3;
const N_ROWS = 2;
const PAGE = 65536;
const Y_FILL = 0xa5;

/**
 * Valid arguments in one allocation. A test then changes one of them.
 * @param {RawModule} module @param {ModuleType} type
 */
function validArguments(module, type) {
  const nCols = 2 * type.blockValues;
  const wBytes = N_ROWS * 2 * type.blockBytes;
  const xBytes = 4 * N_TOKENS * nCols;
  const yBytes = 4 * Math.max(N_TOKENS * N_ROWS, N_ROWS * nCols);
  const round = (/** @type {number} */ bytes) => Math.ceil(bytes / 64) * 64;
  const base = module.alloc(round(wBytes) + round(xBytes) + round(yBytes));
  const w = base;
  const x = w + round(wBytes);
  const y = x + round(xBytes);
  module.u8.fill(0, base, y);
  module.u8.fill(Y_FILL, y, y + yBytes);
  return {
    args: { type: type.id, w, x, y, nTokens: N_TOKENS, nRows: N_ROWS, nCols, activation: 1 },
    wBytes,
    xBytes,
    yBytes,
    base,
    end: y + round(yBytes),
  };
}

/** @typedef {ReturnType<typeof validArguments>['args']} Arguments */

/** @param {RawModule} module @param {Arguments} a @returns {number} */
const matmul = (module, a) =>
  module.exports.fused_matmul(a.type, a.w, a.x, a.y, a.nTokens, a.nRows, a.nCols, a.activation);
/** @param {RawModule} module @param {Arguments} a @returns {number} */
const dequantize = (module, a) => module.exports.fm_dequantize_rows(a.type, a.w, a.y, a.nRows, a.nCols);

/**
 * Calls with some arguments replaced. Checks that the status is the expected one and that no byte
 * of the heap changes.
 * @param {RawModule} module @param {typeof matmul} call
 * @param {ReturnType<typeof validArguments>} valid @param {Partial<Arguments>} changes
 * @param {number} status
 */
function rejects(module, call, valid, changes, status) {
  const { args, base, end } = valid;
  const what = `${call === matmul ? 'fused_matmul' : 'fm_dequantize_rows'} with ${JSON.stringify(changes)}`;
  const before = module.u8.slice(base, end);
  assert.equal(call(module, { ...args, ...changes }), status, what);
  assert.equal(Buffer.compare(before, module.u8.slice(base, end)), 0, `${what}: memory changed`);
}

for (const module of modules) {
  test(`abi: ${module.name} module`, async (t) => {
    for (const type of module.types) {
      const name = referenceById.get(type.id)?.name ?? `type ${type.id}`;
      await t.test(`${name}: invalid arguments`, () => {
        const valid = validArguments(module, type);
        const { args, wBytes, xBytes, yBytes, end } = valid;
        const bad = (/** @type {Partial<Arguments>} */ changes, /** @type {number} */ status) =>
          rejects(module, matmul, valid, changes, status);
        const memoryBytes = module.exports.memory.buffer.byteLength;

        for (const id of [-1, 4, 5, 31, 255, 2 ** 31 - 1, -(2 ** 31)]) bad({ type: id }, STATUS.TYPE);
        for (const mode of [-1, 3, 11, 16, 2 ** 31 - 1]) bad({ activation: mode }, STATUS.ACTIVATION);

        for (const zero of ['nTokens', 'nRows', 'nCols']) bad({ [zero]: 0 }, STATUS.SHAPE);
        if (type.blockValues > 1) {
          for (const off of [1, -1, type.blockValues / 2]) bad({ nCols: args.nCols + off }, STATUS.SHAPE);
          bad({ nCols: 1 }, STATUS.SHAPE);
        }
        const most = 2 ** 32 - type.blockValues;
        const overflowing = [
          { nRows: 2 ** 32 - 1, nCols: most },
          { nTokens: 2 ** 32 - 1, nCols: most },
          { nTokens: 2 ** 32 - 1, nRows: 2 ** 32 - 1 },
          { nTokens: 2 ** 30, nRows: 1, nCols: type.blockValues },
          { nTokens: 2 ** 16, nRows: 2 ** 14 },
          /* products that are 0 or small modulo 2^32 */
          { nTokens: 2 ** 16, nRows: 2 ** 16 },
          { nTokens: 2 ** 31, nRows: 2 },
          { nRows: 2 ** 16, nCols: 2 ** 17 * Math.max(1, type.blockValues / 2) },
          { nTokens: 2 ** 22, nRows: 1, nCols: 2 ** 8 * Math.max(1, type.blockValues / 256) * 4 },
        ];
        for (const changes of overflowing) bad(changes, STATUS.SHAPE);

        for (const pointer of /** @type {const} */ (['w', 'x', 'y'])) {
          const alignment = pointer === 'w' ? type.alignment : 4;
          for (let off = 1; off < alignment; off++) bad({ [pointer]: args[pointer] + off }, STATUS.ALIGN);
          const size = { w: wBytes, x: xBytes, y: 4 * N_TOKENS * N_ROWS }[pointer];
          const lastGood = memoryBytes - size;
          const step = alignment;
          for (const outside of [
            0,
            step,
            1024,
            lastGood + step - (lastGood % step),
            memoryBytes,
            memoryBytes + PAGE,
          ]) {
            bad({ [pointer]: outside }, STATUS.RANGE);
          }
          bad({ [pointer]: 2 ** 32 - 64 }, STATUS.RANGE);
          bad({ [pointer]: 2 ** 32 - 4 * Math.ceil(size / 8) }, STATUS.RANGE);
        }
        /* too big for this memory, but not for an address space */
        bad({ nTokens: Math.ceil((2 * memoryBytes) / args.nCols / 4) }, STATUS.RANGE);
        bad({ nRows: Math.ceil((2 * memoryBytes) / type.blockBytes) }, STATUS.RANGE);

        const yUsed = 4 * N_TOKENS * N_ROWS;
        bad({ y: args.x }, STATUS.OVERLAP);
        bad({ y: args.x + xBytes - 4 }, STATUS.OVERLAP);
        bad({ y: args.x - yUsed + 4 }, STATUS.OVERLAP);
        bad({ y: args.w }, STATUS.OVERLAP);
        bad({ y: args.w + Math.floor((wBytes - 1) / 4) * 4 }, STATUS.OVERLAP);
        assert.equal(matmul(module, { ...args, y: args.x + xBytes }), STATUS.OK, 'y may start where x ends');
        assert.equal(matmul(module, { ...args, x: args.y - xBytes }), STATUS.OK, 'x may end where y starts');
        assert.equal(matmul(module, { ...args, x: args.w - (args.w % 4) }), STATUS.OK, 'inputs may overlap');

        module.u8.fill(Y_FILL, args.y, args.y + yBytes);
        const badRows = (/** @type {Partial<Arguments>} */ changes, /** @type {number} */ status) =>
          rejects(module, dequantize, valid, changes, status);
        badRows({ type: 4 }, STATUS.TYPE);
        badRows({ type: -1 }, STATUS.TYPE);
        badRows({ nRows: 0 }, STATUS.SHAPE);
        badRows({ nCols: 0 }, STATUS.SHAPE);
        if (type.blockValues > 1) badRows({ nCols: args.nCols + 1 }, STATUS.SHAPE);
        badRows({ nRows: 2 ** 32 - 1, nCols: most }, STATUS.SHAPE);
        badRows({ nRows: 2 ** 31, nCols: 2 * type.blockValues }, STATUS.SHAPE);
        badRows({ nRows: 2 ** 22, nCols: 1024 }, STATUS.SHAPE);
        for (let off = 1; off < type.alignment; off++) badRows({ w: args.w + off }, STATUS.ALIGN);
        for (let off = 1; off < 4; off++) badRows({ y: args.y + off }, STATUS.ALIGN);
        for (const outside of [0, 1024, memoryBytes, 2 ** 32 - 64]) {
          badRows({ w: outside }, STATUS.RANGE);
          badRows({ y: outside }, STATUS.RANGE);
        }
        badRows({ y: args.w }, STATUS.OVERLAP);
        badRows({ y: args.w + Math.floor((wBytes - 1) / 4) * 4 }, STATUS.OVERLAP);
        assert.equal(dequantize(module, args), STATUS.OK);
        assert.ok(args.y + yBytes <= end);
        module.free(valid.base);
      });
    }

    await t.test('facts of unknown types are 0', () => {
      for (const id of [-1, 4, 5, 31, 1000, 2 ** 31 - 1]) {
        assert.equal(module.exports.fm_type_block_values(id), 0);
        assert.equal(module.exports.fm_type_block_bytes(id), 0);
        assert.equal(module.exports.fm_type_alignment(id), 0);
        assert.equal(module.exports.fm_served_by(id, 0), -1);
      }
    });

    await t.test('fm_select and fm_served_by', () => {
      const { fm_isa, fm_select, fm_served_by } = module.exports;
      const isas = [...new Set(module.variants.map((variant) => variant.isa))];
      const best = Math.max(...isas);
      assert.deepEqual(isas, [0, 1, 2].slice(0, best + 1), 'a module holds every lower instruction set too');
      for (const variant of module.variants) {
        module.select(variant);
        assert.equal(fm_isa(), variant.isa);
        for (const [isa, dot] of [
          [-1, 0],
          [3, 0],
          [best + 1, 0],
          [variant.isa, 2],
          [variant.isa, -1],
        ]) {
          assert.equal(fm_select(isa, dot), STATUS.ISA, `fm_select(${isa}, ${dot})`);
          assert.equal(fm_isa(), variant.isa, 'a refused choice changes nothing');
        }
        for (const type of module.types) {
          for (const activation of [0, 1, 2]) {
            const served = module.servedBy(type.id, activation);
            assert.ok(served.isa <= variant.isa, 'never by a set above the chosen one');
            assert.ok([0, 1, 2].includes(served.activation));
            if (activation === 0) assert.equal(served.activation, 0, 'f32 is never quantised');
            if (activation === 1) assert.notEqual(served.activation, 2, 'int16 is never served by less');
            if (type.blockValues === 1)
              assert.equal(served.activation, 0, 'float weights meet f32 activations');
          }
          for (const unknown of [-1, 3]) assert.equal(fm_served_by(type.id, unknown), -1);
        }
      }
    });

    await t.test('fm_alloc: 64-byte aligned, disjoint, NULL when it cannot', () => {
      const fresh = freshModule(module.name);
      const { fm_alloc, fm_free } = fresh.exports;
      assert.equal(fm_alloc(0), 0);
      assert.equal(fm_alloc(2 ** 32 - 1), 0);
      assert.equal(fm_alloc(2 ** 32 - 64), 0);
      assert.equal(fm_alloc(2 ** 32 - PAGE), 0);
      fm_free(0);
      const spans = [1, 63, 64, 65, 4096, PAGE, 3 * 1024 * 1024, 7].map((bytes) => {
        const start = fresh.alloc(bytes);
        assert.equal(start % 64, 0);
        return { start, end: start + bytes };
      });
      spans.sort((a, b) => a.start - b.start);
      for (let i = 1; i < spans.length; i++)
        assert.ok(spans[i - 1].end <= spans[i].start, 'allocations overlap');
      assert.ok(spans[spans.length - 1].end <= fresh.exports.memory.buffer.byteLength);
      for (const { start } of spans) fm_free(start);
      const settled = fresh.exports.memory.buffer.byteLength;
      for (let i = 0; i < 1000; i++) fresh.free(fresh.alloc(1024 * 1024 + i));
      assert.equal(
        fresh.exports.memory.buffer.byteLength,
        settled,
        '1000 allocations, all freed, grew the memory',
      );
    });

    await t.test('fm_version is the package version', async () => {
      const { readFile } = await import('node:fs/promises');
      const { version } = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8'));
      const packed = module.exports.fm_version();
      assert.equal([packed >> 16, (packed >> 8) & 255, packed & 255].join('.'), version);
    });

    await t.test('one import at most, and the exports of fused.h', async () => {
      const compiled = new WebAssembly.Module(/** @type {Uint8Array<ArrayBuffer>} */ (module.bytes));
      const imports = WebAssembly.Module.imports(compiled).map(({ module: from, name }) => `${from}.${name}`);
      assert.ok(
        imports.length === 0 || imports.join() === 'env.emscripten_notify_memory_growth',
        imports.join(),
      );
      const { readFile } = await import('node:fs/promises');
      const header = await readFile(new URL('../../src/fused.h', import.meta.url), 'utf8');
      const declared = [...header.matchAll(/^[a-z0-9_]+ \*?((?:fm|fused)_[a-z0-9_]+)\(/gm)]
        .map((match) => match[1])
        .filter((name) => !/^fm_threads?_/.test(name)); // only in modules with threads
      assert.ok(declared.length >= 10, `only ${declared.length} prototypes found in fused.h`);
      const exported = WebAssembly.Module.exports(compiled).map(({ name }) => name);
      const own = exported.filter((name) => /^(fm|fused)_/.test(name));
      assert.deepEqual(own.sort(), declared.sort());
      assert.ok(exported.includes('memory'));
    });

    await t.test('nothing is read or written past the end of the memory', () => {
      const fresh = freshModule(module.name);
      fresh.exports.memory.grow(40);
      const end = fresh.exports.memory.buffer.byteLength;
      const prng = new Prng(7);
      for (const variant of fresh.variants) {
        fresh.select(variant);
        for (const type of fresh.types) {
          const reference = referenceById.get(type.id);
          if (!reference) continue;
          for (const nBlocks of [1, 3, 9]) {
            for (const [nTokens, nRows] of [
              [1, 1],
              [1, 3],
              [2, 2],
              [5, 1],
              [4, 4],
              [7, 6],
              ...(nBlocks > 1 ? [] : [[131, 1]]), // a second token panel, with 3 tokens
            ]) {
              const nCols = nBlocks * type.blockValues;
              const w = new ReferenceWeight(
                reference,
                makeWeights(reference, 'natural', nRows, nCols, prng),
                nRows,
                nCols,
              );
              const x = Float32Array.from({ length: nTokens * nCols }, () => prng.gaussian());
              const product = new ReferenceProduct(w, x, nTokens);
              for (let activation = 0; activation < 3; activation++) {
                for (const last of /** @type {const} */ (['w', 'x', 'y'])) {
                  const sizes = { w: w.bytes.length, x: 4 * x.length, y: 4 * nTokens * nRows };
                  const at = { w: end - 20 * PAGE, x: end - 10 * PAGE, y: end - 5 * PAGE };
                  const slack = last === 'w' ? type.alignment : 4;
                  at[last] = end - Math.ceil(sizes[last] / slack) * slack;
                  fresh.u8.set(w.bytes, at.w);
                  new Float32Array(fresh.exports.memory.buffer, at.x, x.length).set(x);
                  const status = fresh.exports.fused_matmul(
                    type.id,
                    at.w,
                    at.x,
                    at.y,
                    nTokens,
                    nRows,
                    nCols,
                    activation,
                  );
                  /** @type {string} */
                  const what = `${variant.label}, ${reference.name}, ${nTokens} x ${nRows} x ${nCols}, ${last} last`;
                  assert.equal(status, STATUS.OK, what);
                  const y = new Float32Array(fresh.exports.memory.buffer, at.y, nTokens * nRows).slice();
                  product.check(y, { activation: fresh.servedBy(type.id, activation).activation, what });
                }
              }
              const rows = { w: end - w.bytes.length, y: end - 20 * PAGE };
              rows.w -= rows.w % type.alignment;
              fresh.u8.set(w.bytes, rows.w);
              assert.equal(
                fresh.exports.fm_dequantize_rows(type.id, rows.w, rows.y, nRows, nCols),
                STATUS.OK,
              );
              assert.equal(
                fresh.exports.fm_dequantize_rows(
                  type.id,
                  end - 20 * PAGE,
                  end - 4 * nRows * nCols,
                  nRows,
                  nCols,
                ),
                STATUS.OK,
              );
            }
          }
        }
      }
    });
  });
}
