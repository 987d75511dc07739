/**
 * Arguments that the exports of a layer's operations refuse: shapes, pointers that are misaligned,
 * out of the heap or overlapping, unknown modes. A refusal changes no byte of the memory.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { freshModule, openModules, STATUS } from '../helpers/raw.js';

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`layer abi: ${name} module`, { skip: reason }, () => {});

const { TYPE, SHAPE, RANGE, ALIGN, OVERLAP, ACTIVATION } = STATUS;
const MOST = 2 ** 32 - 1;
const ROOM = 4096;
/** Offsets of the pointers in one allocation, far enough apart and away from both ends. */
const [A, B, C, Y, STATE] = [256, 768, 1280, 2304, 3072];

/**
 * @typedef {object} Case
 * @property {Record<string, number>} args  valid arguments, in order; pointers are offsets
 * @property {Record<string, number>} bytes  size of the data at each pointer
 * @property {[output: string, input: string][]} apart  pairs that must not overlap
 * @property {[Record<string, number>, number][]} refused  changed arguments, and the status they
 *   must give
 */

const [nRows, nCols] = [3, 8];
/** @type {Record<string, Case>} */
const CASES = {
  fm_rms_norm: {
    args: { x: A, weight: B, y: Y, nRows, nCols, eps: 1e-5 },
    bytes: { x: 96, weight: 32, y: 96 },
    apart: [
      ['y', 'x'],
      ['y', 'weight'],
    ],
    refused: [
      [{ nRows: 0 }, SHAPE],
      [{ nCols: 0 }, SHAPE],
      [{ nRows: MOST, nCols: MOST }, SHAPE],
      [{ nRows: 2 ** 16, nCols: 2 ** 14 }, SHAPE],
      [{ nRows: 2 ** 20 }, RANGE],
    ],
  },
  fm_layer_norm: {
    args: { x: A, weight: B, bias: C, y: Y, nRows, nCols, eps: 1e-5 },
    bytes: { x: 96, weight: 32, bias: 32, y: 96 },
    apart: [
      ['y', 'x'],
      ['y', 'weight'],
      ['y', 'bias'],
    ],
    refused: [
      [{ nRows: 0 }, SHAPE],
      [{ nCols: 0 }, SHAPE],
      [{ nRows: 2 ** 31, nCols: 2 }, SHAPE],
    ],
  },
  fm_softmax: {
    args: { x: A, y: Y, nRows, nCols },
    bytes: { x: 96, y: 96 },
    apart: [['y', 'x']],
    refused: [
      [{ nRows: 0 }, SHAPE],
      [{ nCols: 0 }, SHAPE],
      [{ nRows: 2 ** 22, nCols: 2 ** 10 }, SHAPE],
    ],
  },
  fm_rope: {
    args: {
      x: Y,
      nTokens: 1,
      nHeads: 3,
      headSize: 8,
      nDims: 6,
      position: 5,
      base: 1e4,
      scale: 1,
      factors: A,
      magnitude: 1,
      pairing: 0,
    },
    bytes: { x: 96, factors: 12 },
    apart: [['x', 'factors']],
    refused: [
      [{ nTokens: 0 }, SHAPE],
      [{ nHeads: 0 }, SHAPE],
      [{ headSize: 0 }, SHAPE],
      [{ nDims: 0 }, SHAPE],
      [{ nDims: 5 }, SHAPE],
      [{ nDims: 10 }, SHAPE],
      [{ pairing: 2 }, SHAPE],
      [{ pairing: -1 }, SHAPE],
      [{ nTokens: MOST, nHeads: MOST, headSize: MOST }, SHAPE],
      [{ nTokens: 2 ** 16, nHeads: 2 ** 16 }, SHAPE],
      [{ nTokens: 2 ** 11, nHeads: 2 ** 11, headSize: 2 ** 10 }, SHAPE],
    ],
  },
  fm_embed: {
    args: { type: 0, table: A, ids: C, y: Y, nTokens: 3, nRows: 2, nCols },
    bytes: { table: 64, ids: 12, y: 96 },
    apart: [
      ['y', 'table'],
      ['y', 'ids'],
    ],
    refused: [
      [{ type: 4 }, TYPE],
      [{ type: -1 }, TYPE],
      [{ nTokens: 0 }, SHAPE],
      [{ nRows: 0 }, SHAPE],
      [{ nCols: 0 }, SHAPE],
      [{ type: 8 }, SHAPE],
      [{ nTokens: 2 ** 29 }, SHAPE],
      [{ nRows: 2 ** 31, nCols: 2 }, SHAPE],
    ],
  },
  fm_add: {
    args: { a: A, b: B, y: Y, n: 24 },
    bytes: { a: 96, b: 96, y: 96 },
    apart: [
      ['y', 'a'],
      ['y', 'b'],
    ],
    refused: [
      [{ n: 0 }, SHAPE],
      [{ n: 2 ** 30 }, SHAPE],
      [{ n: MOST }, SHAPE],
    ],
  },
  fm_add_row: {
    args: { x: A, row: B, y: Y, nRows: 3, nCols },
    bytes: { x: 96, row: 32, y: 96 },
    apart: [['y', 'x']],
    refused: [
      [{ nRows: 0 }, SHAPE],
      [{ nCols: 0 }, SHAPE],
      [{ nRows: 2 ** 29 }, SHAPE],
      [{ nRows: 2 ** 31, nCols: 2 }, SHAPE],
    ],
  },
  fm_add_scaled: {
    args: { a: A, b: B, y: Y, n: 24, scale: 0.5 },
    bytes: { a: 96, b: 96, y: 96 },
    apart: [
      ['y', 'a'],
      ['y', 'b'],
    ],
    refused: [
      [{ n: 0 }, SHAPE],
      [{ n: 2 ** 30 }, SHAPE],
      [{ n: MOST }, SHAPE],
    ],
  },
  fm_scale: {
    args: { x: A, y: Y, n: 24, scale: 0.5 },
    bytes: { x: 96, y: 96 },
    apart: [['y', 'x']],
    refused: [
      [{ n: 0 }, SHAPE],
      [{ n: 2 ** 30 }, SHAPE],
      [{ n: MOST }, SHAPE],
    ],
  },
  fm_gated: {
    args: { gate: A, up: B, y: Y, n: 24, act: 1 },
    bytes: { gate: 96, up: 96, y: 96 },
    apart: [
      ['y', 'gate'],
      ['y', 'up'],
    ],
    refused: [
      [{ n: 0 }, SHAPE],
      [{ n: 2 ** 30 }, SHAPE],
      [{ act: 5 }, ACTIVATION],
      [{ act: -1 }, ACTIVATION],
    ],
  },
  fm_multiply: {
    args: { a: A, b: B, y: Y, n: 24 },
    bytes: { a: 96, b: 96, y: 96 },
    apart: [
      ['y', 'a'],
      ['y', 'b'],
    ],
    refused: [
      [{ n: 0 }, SHAPE],
      [{ n: 2 ** 30 }, SHAPE],
    ],
  },
  fm_causal_conv: {
    args: { x: A, weight: B, bias: C, state: STATE, y: Y, nTokens: 3, nChannels: 8, length: 4, act: 0 },
    bytes: { x: 96, weight: 128, bias: 32, state: 96, y: 96 },
    apart: [
      ['y', 'x'],
      ['y', 'weight'],
      ['y', 'bias'],
      ['y', 'state'],
      ['state', 'x'],
      ['state', 'weight'],
      ['state', 'bias'],
    ],
    refused: [
      [{ nTokens: 0 }, SHAPE],
      [{ nChannels: 0 }, SHAPE],
      [{ length: 0 }, SHAPE],
      [{ length: 1 }, SHAPE],
      [{ length: 17 }, SHAPE],
      [{ length: MOST }, SHAPE],
      [{ act: 3 }, ACTIVATION],
      [{ act: -2 }, ACTIVATION],
      [{ nTokens: 2 ** 16, nChannels: 2 ** 14 }, SHAPE],
      [{ nTokens: 1, nChannels: 2 ** 28 }, SHAPE],
      [{ nTokens: 2 ** 20 }, RANGE],
      [{ nChannels: 2 ** 20 }, RANGE],
    ],
  },
  fm_kv_write: {
    args: { type: 0, cache: Y, x: A, nTokens: 3, nCols, position: 2, nPositions: 5 },
    bytes: { cache: 160, x: 96 },
    apart: [['cache', 'x']],
    refused: [
      [{ type: 2 }, TYPE],
      [{ type: 30 }, TYPE],
      [{ type: -1 }, TYPE],
      [{ type: 8 }, SHAPE],
      [{ nTokens: 0 }, SHAPE],
      [{ nCols: 0 }, SHAPE],
      [{ nPositions: 0 }, SHAPE],
      [{ nPositions: 2 ** 31, nCols: 2 }, SHAPE],
      [{ position: 3 }, RANGE],
      [{ position: 5 }, RANGE],
      [{ position: 6 }, RANGE],
      [{ position: MOST }, RANGE],
      [{ nTokens: 6, position: 0 }, RANGE],
    ],
  },
};

for (const { name: moduleName } of modules) {
  for (const [name, { args, bytes, apart, refused }] of Object.entries(CASES)) {
    test(`layer abi: ${moduleName} module, ${name}`, () => {
      const module = freshModule(moduleName);
      const base = module.alloc(ROOM);
      const end = module.exports.memory.buffer.byteLength;
      const valid = { ...args };
      for (const pointer of Object.keys(bytes)) valid[pointer] += base;
      const call = (/** @type {Record<string, number>} */ changes) =>
        module.exports[name](...Object.values({ ...valid, ...changes }));
      const refuses = (/** @type {Record<string, number>} */ changes, /** @type {number} */ status) => {
        const before = module.u8.slice(base, base + ROOM);
        const what = `${name} with ${JSON.stringify(changes)}`;
        assert.equal(call(changes), status, what);
        assert.equal(
          Buffer.compare(before, module.u8.slice(base, base + ROOM)),
          0,
          `${what}: memory changed`,
        );
      };
      const reset = () => module.u8.fill(0, base, base + ROOM);
      for (const variant of module.variants) {
        module.select(variant);
        reset();
        assert.equal(call({}), STATUS.OK, name);
        for (const [changes, status] of refused) refuses(changes, status);
        for (const [pointer, size] of Object.entries(bytes)) {
          for (const off of [1, 2, 3]) refuses({ [pointer]: valid[pointer] + off }, ALIGN);
          for (const outside of [4, 1024, end - size + 4, end, end + 65536, 2 ** 32 - 64])
            refuses({ [pointer]: outside }, RANGE);
        }
        for (const [output, input] of apart) {
          refuses({ [output]: valid[input] + bytes[input] - 4 }, OVERLAP);
          refuses({ [output]: valid[input] - bytes[output] + 4 }, OVERLAP);
          reset();
          assert.equal(call({ [output]: valid[input] + bytes[input] }), STATUS.OK, `${name}: side by side`);
          reset();
        }
      }
    });
  }
}
