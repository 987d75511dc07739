/**
 * The C ABI of mixtures of experts: arguments that are refused, lists that lead outside, pointers that
 * are misaligned, outside the heap or overlapping. A refusal changes no byte of the memory.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { freshModule, openModules, STATUS } from '../helpers/raw.js';

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`experts abi: ${name} module`, { skip: reason }, () => {});

const { TYPE, SHAPE, RANGE, ALIGN, OVERLAP, ACTIVATION } = STATUS;
const MOST = 2 ** 32 - 1;
const [ROOM, STEP] = [8192, 512];
const [N_TOKENS, N_EXPERTS, N_USED, N_PAIRS, N_COLS, N_ROWS] = [3, 4, 2, 6, 8, 2];
const F32 = 0;

/**
 * @typedef {object} Case
 * @property {Record<string, number>} bytes  operands, one behind the other, and their sizes
 * @property {(at: Record<string, number>) => Record<string, number[]>} words  contents of operands;
 *   zeros elsewhere
 * @property {(at: Record<string, number>) => Record<string, number>} args  valid arguments, in order
 * @property {[output: string, inputs: string[]][]} apart  operands that an output must not overlap
 * @property {string[]} optional  pointers that may be 0
 * @property {[Record<string, number>, number][]} refused  changed arguments
 * @property {[name: string, word: number, value: number, status: number][]} spoiled  changed contents
 */

/** @type {Record<string, Case>} */
const CASES = {
  fm_route: {
    bytes: { shape: 32, logits: 48, bias: 16, rows: 24, ends: 16, weights: 24, workspace: 48 },
    words: () => ({ shape: [N_TOKENS, N_EXPERTS, N_USED, 2, 1, 0, 1, 0x3f800000] }),
    args: (at) => ({ ...at }),
    apart: ['rows', 'ends', 'weights', 'workspace'].map((output) => [
      output,
      ['shape', 'logits', 'bias', 'rows', 'ends', 'weights', 'workspace'].filter((name) => name !== output),
    ]),
    optional: ['bias'],
    refused: [],
    spoiled: [
      ['shape', 0, 0, SHAPE],
      ['shape', 0, MOST, SHAPE],
      ['shape', 0, 2 ** 20, RANGE],
      ['shape', 1, 0, SHAPE],
      ['shape', 1, 1025, SHAPE],
      ['shape', 2, 0, SHAPE],
      ['shape', 2, 3, SHAPE],
      ['shape', 3, 0, SHAPE],
      ['shape', 3, 3, SHAPE],
      ['shape', 4, 0, SHAPE],
      ['shape', 4, 3, SHAPE],
      ['shape', 5, 3, TYPE],
      ['shape', 5, MOST, TYPE],
    ],
  },
  fm_matmul_experts: {
    bytes: { list: 40, rows: 24, ends: 16, x: 96, up: 96, w: 256, bias: 32, y: 48, w1: 256, y1: 48 },
    words: (at) => ({
      list: [F32, N_ROWS, at.w, at.bias, at.y, F32, N_ROWS, at.w1, 0, at.y1],
      rows: [0, 1, 2, 2, 0, 1],
      ends: [1, 1, 4, N_PAIRS],
    }),
    args: ({ list, rows, ends, x, up }) => ({
      ...{ list, nTargets: 2, rows, ends, nPairs: N_PAIRS, nExperts: N_EXPERTS, x, up },
      ...{ nTokens: N_TOKENS, nCols: N_COLS, act: 0, activation: 0 },
    }),
    apart: [],
    optional: ['up'],
    refused: [
      [{ nTargets: 0 }, SHAPE],
      [{ nPairs: 0 }, SHAPE],
      [{ nExperts: 0 }, SHAPE],
      [{ nExperts: 2 ** 31 }, SHAPE],
      [{ nTokens: 0 }, SHAPE],
      [{ nCols: 0 }, SHAPE],
      [{ nCols: 2 ** 31 }, SHAPE],
      [{ rows: 0 }, SHAPE],
      [{ nPairs: N_PAIRS - 1 }, RANGE],
      [{ nExperts: N_EXPERTS - 1 }, RANGE],
      [{ nTokens: 2 }, RANGE],
      [{ act: -1 }, ACTIVATION],
      [{ act: -2 }, ACTIVATION],
      [{ act: 9 }, ACTIVATION],
      [{ activation: 3 }, ACTIVATION],
    ],
    spoiled: [
      ['list', 0, 4, TYPE],
      ['list', 1, 0, SHAPE],
      ['list', 1, 2 ** 30, SHAPE],
      ['list', 1, 2 ** 20, RANGE],
      ['list', 2, 0, RANGE],
      ['list', 3, 1024, RANGE],
      ['list', 4, 0, RANGE],
      ['list', 9, 2 ** 32 - 64, RANGE],
      ['rows', 5, N_TOKENS, RANGE],
      ['rows', 0, MOST, RANGE],
      ['ends', 1, 5, RANGE],
      ['ends', 3, N_PAIRS + 1, RANGE],
      ['ends', 0, MOST, RANGE],
    ],
  },
  fm_mix_rows: {
    bytes: { x: 192, rows: 24, weights: 24, y: 96 },
    words: () => ({ rows: [0, 1, 2, 2, 0, 1] }),
    args: ({ x, rows, weights, y }) => ({
      ...{ x, rows, weights, y, nPairs: N_PAIRS, nTokens: N_TOKENS, nCols: N_COLS },
    }),
    apart: [['y', ['x', 'rows', 'weights']]],
    optional: [],
    refused: [
      [{ nPairs: 0 }, SHAPE],
      [{ nTokens: 0 }, SHAPE],
      [{ nCols: 0 }, SHAPE],
      [{ nPairs: MOST, nCols: MOST }, SHAPE],
      [{ nTokens: 2 }, RANGE],
      [{ nCols: 2 ** 20 }, RANGE],
    ],
    spoiled: [['rows', 3, N_TOKENS, RANGE]],
  },
};

for (const { name: moduleName } of modules) {
  for (const [name, given] of Object.entries(CASES)) {
    const { bytes, words, args, apart, optional, refused, spoiled } = given;
    test(`experts abi: ${moduleName} module, ${name}`, () => {
      const module = freshModule(moduleName);
      module.exports.memory.grow(1);
      const base = module.alloc(ROOM);
      /** @type {Record<string, number>} */
      const at = {};
      for (const [i, key] of Object.keys(bytes).entries()) at[key] = base + (i + 1) * STEP;
      const valid = args(at);
      /** @param {(write: (name: string, word: number, value: number) => void) => void} [spoil] */
      const reset = (spoil) => {
        module.u8.fill(0, base, base + ROOM);
        const view = new DataView(module.exports.memory.buffer);
        const write = (/** @type {string} */ of, /** @type {number} */ word, /** @type {number} */ value) =>
          view.setUint32(at[of] + 4 * word, value, true);
        for (const [of, list] of Object.entries(words(at)))
          for (const [word, value] of list.entries()) write(of, word, value);
        spoil?.(write);
      };
      const call = (/** @type {Record<string, number>} */ changes) =>
        module.exports[name](...Object.values({ ...valid, ...changes }));
      const refuses = (
        /** @type {Record<string, number>} */ changes,
        /** @type {number} */ status,
        what = '',
      ) => {
        const before = module.u8.slice(base, base + ROOM);
        const text = `${name} with ${JSON.stringify(changes)} ${what}`;
        assert.equal(call(changes), status, text);
        assert.equal(
          Buffer.compare(before, module.u8.slice(base, base + ROOM)),
          0,
          `${text}: memory changed`,
        );
      };
      const end = module.exports.memory.buffer.byteLength;
      for (const variant of module.variants) {
        module.select(variant);
        reset();
        assert.equal(call({}), STATUS.OK, name);
        for (const pointer of optional)
          assert.equal(call({ [pointer]: 0 }), STATUS.OK, `${name}: no ${pointer}`);
        reset();
        for (const [changes, status] of refused) refuses(changes, status);
        for (const [of, word, value, status] of spoiled) {
          reset((write) => write(of, word, value));
          refuses({}, status, `${of}[${word}] = ${value}`);
        }
        reset();
        for (const pointer of Object.keys(valid).filter((key) => key in bytes)) {
          for (const off of [1, 2, 3]) refuses({ [pointer]: valid[pointer] + off }, ALIGN);
          for (const outside of [4, 1024, end - bytes[pointer] + 4, end, 2 ** 32 - 64])
            refuses({ [pointer]: outside }, RANGE);
        }
        for (const [output, inputs] of apart) {
          for (const input of inputs) {
            refuses({ [output]: valid[input] + bytes[input] - 4 }, OVERLAP);
            refuses({ [output]: valid[input] - bytes[output] + 4 }, OVERLAP);
          }
        }
        if (name !== 'fm_matmul_experts') continue;
        for (const [target, word] of [
          ['y', 4],
          ['y1', 9],
        ]) {
          for (const input of Object.keys(bytes).filter((key) => key !== target)) {
            for (const place of [at[input] + bytes[input] - 4, at[input] - bytes[target] + 4]) {
              reset((write) => write('list', Number(word), place));
              refuses({}, OVERLAP, `${target} over ${input}`);
            }
          }
        }
        reset();
        assert.equal(call({ up: 0, act: -1 }), STATUS.OK, 'no activation function');
        assert.equal(call({ rows: 0, nTokens: N_PAIRS, x: at.w, up: at.w1 }), STATUS.OK, 'grouped rows');
      }
    });
  }
}
