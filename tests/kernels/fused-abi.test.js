/**
 * The C ABI of the fused products (src/exports_fused.c): every status; 32-bit overflow; misaligned,
 * overlapping and out-of-heap pointers, in the list of targets too; no byte changed on error.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openModules, STATUS } from '../helpers/raw.js';
import { referenceByName } from '../helpers/reference.js';

/** @import { RawModule } from '../helpers/raw.js' */

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`fused abi: ${name} module`, { skip: reason }, () => {});

const [N_TOKENS, N_ROWS, N_EMBD, N_FF] = [3, 2, 512, 256];
const Q4_K = /** @type {import('../helpers/reference.js').ReferenceType} */ (referenceByName.get('Q4_K'));
const F16 = /** @type {import('../helpers/reference.js').ReferenceType} */ (referenceByName.get('F16'));
const TARGET_WORDS = 4;
const MANY = 3;

/** @typedef {Record<string, number>} Arguments */

/**
 * Valid memory for all exports: parts in one allocation, each 64-byte aligned and with 64 bytes
 * behind it.
 * @param {RawModule} module
 */
function arena(module) {
  const weightBytes = (/** @type {number} */ nRows, /** @type {number} */ nCols) =>
    (nRows * nCols * 144) / 256;
  /** @type {Record<string, number>} */
  const bytes = {
    list: 4 * TARGET_WORDS * MANY,
    ffnList: 24,
    x: 4 * N_TOKENS * N_EMBD,
    up: 4 * N_TOKENS * N_EMBD,
    norm: 4 * N_EMBD,
    gateWeight: weightBytes(N_FF, N_EMBD),
    upWeight: weightBytes(N_FF, N_EMBD),
    downWeight: weightBytes(N_EMBD, N_FF),
    y: 4 * N_TOKENS * N_EMBD,
    y1: 4 * N_TOKENS * N_ROWS,
    y2: 4 * N_TOKENS * N_ROWS,
    workspace: 8 * N_TOKENS * N_FF,
  };
  const room = (/** @type {number} */ n) => Math.ceil(n / 64) * 64 + 64;
  const total = Object.values(bytes).reduce((sum, n) => sum + room(n), 0);
  const base = module.alloc(total);
  /** @type {Record<string, number>} */
  const at = {};
  let next = base;
  for (const [name, n] of Object.entries(bytes)) {
    at[name] = next;
    next += room(n);
  }
  module.u8.fill(0, base, base + total);
  return { at, bytes, base, total };
}

/**
 * @param {RawModule} module @param {ReturnType<typeof arena>} memory
 * @param {string} name  the export's name @param {number[][]} lists  contents of list and ffnList
 * @param {(a: Arguments) => number[]} order @param {Arguments} valid
 */
function caller(module, { at, base, total }, name, lists, order, valid) {
  const write = (/** @type {number[][]} */ [list, ffnList]) => {
    const words = new Uint32Array(module.exports.memory.buffer);
    words.set(list, at.list / 4);
    words.set(ffnList, at.ffnList / 4);
  };
  const call = (/** @type {Arguments} */ a) => module.exports[name](...order(a));
  /** @param {Arguments} changes @param {number} status @param {number[][]} [spoiled] */
  const bad = (changes, status, spoiled = lists) => {
    const what = `${name} with ${JSON.stringify(changes)}${spoiled === lists ? '' : ` and ${spoiled}`}`;
    write(spoiled);
    const before = module.u8.slice(base, base + total);
    assert.equal(call({ ...valid, ...changes }), status, what);
    assert.equal(Buffer.compare(before, module.u8.slice(base, base + total)), 0, `${what}: memory changed`);
  };
  /** @param {Arguments} [changes] */
  const good = (changes = {}) => {
    write(lists);
    assert.equal(call({ ...valid, ...changes }), STATUS.OK, `${name} with ${JSON.stringify(changes)}`);
  };
  /**
   * Tries values of a pointer that are wrong whatever it points to.
   * @param {string} pointer @param {number} alignment
   */
  const badPointer = (pointer, alignment) => {
    const memoryBytes = module.exports.memory.buffer.byteLength;
    for (let off = 1; off < alignment; off++) bad({ [pointer]: valid[pointer] + off }, STATUS.ALIGN);
    for (const outside of [1024, memoryBytes - alignment, memoryBytes, 2 ** 32 - 64])
      bad({ [pointer]: outside }, STATUS.RANGE);
  };
  return { bad, good, badPointer };
}

/** @param {number[]} list @param {number} index @param {number} value */
const changed = (list, index, value) => list.with(index, value);

/** @param {RawModule} module @param {boolean} normed */
function testMany(module, normed) {
  const memory = arena(module);
  const { at, bytes } = memory;
  const q4 = [Q4_K.id, N_ROWS];
  const list = [
    [...q4, at.gateWeight, at.y],
    [F16.id, N_ROWS, at.upWeight, at.y1],
    [...q4, at.downWeight, at.y2],
  ].flat();
  const ffn = [0, 0, 0, 0, 0, 0];
  const name = normed ? 'fused_rmsnorm_matmul' : 'fused_matmul_many';
  const valid = {
    list: at.list,
    n: MANY,
    x: at.x,
    norm: at.norm,
    eps: 1e-5,
    tokens: N_TOKENS,
    cols: N_EMBD,
    mode: 1,
  };
  const order = (/** @type {Arguments} */ a) =>
    normed
      ? [a.list, a.n, a.x, a.norm, a.eps, a.tokens, a.cols, a.mode]
      : [a.list, a.n, a.x, a.tokens, a.cols, a.mode];
  const { bad, good, badPointer } = caller(module, memory, name, [list, ffn], order, valid);
  good();
  good({ n: 1 });
  good({ n: 2, mode: 2 });
  if (normed) good({ norm: 0 });
  bad({ n: 0 }, STATUS.SHAPE);
  bad({ tokens: 0 }, STATUS.SHAPE);
  bad({ cols: 0 }, STATUS.SHAPE);
  bad({ cols: N_EMBD - 1 }, STATUS.SHAPE);
  bad({ tokens: 2 ** 30 }, STATUS.SHAPE);
  bad({ tokens: 2 ** 31, cols: 256 }, STATUS.SHAPE);
  bad({ n: 2 ** 28 }, STATUS.SHAPE);
  bad({ n: 2 ** 24 }, STATUS.RANGE);
  bad({ cols: 2 ** 24 }, STATUS.RANGE);
  for (const mode of [-1, 3, 11, 16]) bad({ mode }, STATUS.ACTIVATION);
  badPointer('list', 4);
  badPointer('x', 4);
  bad({ list: 0 }, STATUS.RANGE);
  bad({ x: 0 }, STATUS.RANGE);
  if (normed) badPointer('norm', 4);
  const spoil = (/** @type {number} */ word, /** @type {number} */ value, /** @type {number} */ status) =>
    bad({}, status, [changed(list, word, value), ffn]);
  for (let i = 0; i < MANY; i++) {
    const first = i * TARGET_WORDS;
    const y = list[first + 3];
    spoil(first, 4, STATUS.TYPE);
    spoil(first, 2 ** 32 - 1, STATUS.TYPE);
    spoil(first + 1, 0, STATUS.SHAPE);
    spoil(first + 1, 2 ** 31, STATUS.SHAPE);
    spoil(first + 1, 2 ** 20, STATUS.RANGE);
    spoil(first + 2, list[first + 2] + 1, STATUS.ALIGN);
    spoil(first + 2, 0, STATUS.RANGE);
    spoil(first + 2, 2 ** 32 - 64, STATUS.RANGE);
    spoil(first + 3, y + 2, STATUS.ALIGN);
    spoil(first + 3, 0, STATUS.RANGE);
    spoil(first + 3, 2 ** 32 - 64, STATUS.RANGE);
    spoil(first + 3, at.x + bytes.x - 4, STATUS.OVERLAP);
    spoil(first + 3, at.list + 4 * TARGET_WORDS * MANY - 4, STATUS.OVERLAP);
    if (normed) spoil(first + 3, at.norm + bytes.norm - 4, STATUS.OVERLAP);
    for (let k = 0; k < MANY; k++) {
      spoil(first + 3, list[k * TARGET_WORDS + 2], STATUS.OVERLAP);
      if (k !== i) spoil(first + 3, list[k * TARGET_WORDS + 3] + 4, STATUS.OVERLAP);
    }
  }
  /* the first fault in the order in which fused_matmul checks, wherever it is */
  bad({ mode: 9 }, STATUS.TYPE, [changed(list, 2 * TARGET_WORDS, 4), ffn]);
  bad({ x: at.x + 1, tokens: 0 }, STATUS.SHAPE);
  bad({ x: 2 ** 32 - 63 }, STATUS.ALIGN);
  module.free(memory.base);
}

/** @param {RawModule} module */
function testGated(module) {
  const memory = arena(module);
  const { at, bytes } = memory;
  const valid = {
    type: Q4_K.id,
    w: at.gateWeight,
    gate: at.x,
    up: at.up,
    y: at.y,
    tokens: N_TOKENS,
    rows: N_ROWS,
    cols: N_EMBD,
    act: 1,
    mode: 1,
  };
  const order = (/** @type {Arguments} */ a) => Object.keys(valid).map((key) => a[key]);
  const { bad, good, badPointer } = caller(module, memory, 'fused_swiglu_matmul', [[], []], order, valid);
  good();
  good({ up: at.x });
  good({ up: 0 });
  good({ act: 0, mode: 0 });
  for (const type of [-1, 4, 5]) bad({ type }, STATUS.TYPE);
  for (const mode of [-1, 3, 11, 16]) bad({ mode }, STATUS.ACTIVATION);
  for (const act of [-1, 4, 2 ** 31 - 1]) bad({ act }, STATUS.ACTIVATION);
  for (const zero of ['tokens', 'rows', 'cols']) bad({ [zero]: 0 }, STATUS.SHAPE);
  bad({ cols: N_EMBD + 1 }, STATUS.SHAPE);
  bad({ tokens: 2 ** 30 }, STATUS.SHAPE);
  bad({ rows: 2 ** 31 }, STATUS.SHAPE);
  for (const [pointer, alignment] of Object.entries({ w: 2, gate: 4, up: 4, y: 4 })) {
    badPointer(pointer, alignment);
    if (pointer !== 'up') bad({ [pointer]: 0 }, STATUS.RANGE);
  }
  bad({ y: at.x + bytes.x - 4 }, STATUS.OVERLAP);
  bad({ y: at.up }, STATUS.OVERLAP);
  bad({ y: at.gateWeight + 4 }, STATUS.OVERLAP);
  module.free(memory.base);
}

/** @param {RawModule} module */
function testFfn(module) {
  const memory = arena(module);
  const { at, bytes } = memory;
  const ffn = [Q4_K.id, Q4_K.id, Q4_K.id, at.gateWeight, at.upWeight, at.downWeight];
  const valid = {
    list: at.ffnList,
    x: at.x,
    norm: at.norm,
    eps: 1e-5,
    y: at.y,
    workspace: at.workspace,
    tokens: N_TOKENS,
    embd: N_EMBD,
    ff: N_FF,
    act: 0,
    residual: 1,
    mode: 1,
  };
  const order = (/** @type {Arguments} */ a) => Object.keys(valid).map((key) => a[key]);
  const { bad, good, badPointer } = caller(module, memory, 'fused_ffn', [[], ffn], order, valid);
  good();
  good({ norm: 0 });
  good({ y: at.x });
  good({ y: at.x, residual: 0 });
  for (const mode of [-1, 3, 11, 16]) bad({ mode }, STATUS.ACTIVATION);
  for (const act of [-1, 4]) bad({ act }, STATUS.ACTIVATION);
  for (const zero of ['tokens', 'embd', 'ff']) bad({ [zero]: 0 }, STATUS.SHAPE);
  for (const size of ['embd', 'ff']) bad({ [size]: valid[/** @type {'ff'} */ (size)] + 1 }, STATUS.SHAPE);
  for (const tokens of [2 ** 22, 2 ** 23, 2 ** 30]) bad({ tokens }, STATUS.SHAPE);
  for (const [pointer, alignment] of Object.entries({ list: 4, x: 4, norm: 4, y: 4, workspace: 4 }))
    badPointer(pointer, alignment);
  for (const pointer of ['list', 'x', 'y', 'workspace']) bad({ [pointer]: 0 }, STATUS.RANGE);
  const spoil = (/** @type {number} */ word, /** @type {number} */ value, /** @type {number} */ status) =>
    bad({}, status, [[], changed(ffn, word, value)]);
  for (let i = 0; i < 3; i++) {
    spoil(i, 4, STATUS.TYPE);
    spoil(3 + i, ffn[3 + i] + 1, STATUS.ALIGN);
    spoil(3 + i, 0, STATUS.RANGE);
    spoil(3 + i, module.exports.memory.buffer.byteLength - 64, STATUS.RANGE);
  }
  for (const input of ['ffnList', 'x', 'norm', 'gateWeight', 'upWeight', 'downWeight']) {
    for (const place of [at[input], at[input] + bytes[input] - 4]) {
      bad({ workspace: place }, STATUS.OVERLAP);
      if (place !== at.x) bad({ y: place }, STATUS.OVERLAP);
    }
  }
  bad({ y: at.x + 4 }, STATUS.OVERLAP);
  bad({ y: at.workspace + bytes.workspace - 4 }, STATUS.OVERLAP);
  bad({ workspace: at.y - bytes.workspace + 4 }, STATUS.OVERLAP);
  module.free(memory.base);
}

for (const module of modules) {
  test(`fused abi: ${module.name} module`, async (t) => {
    /* the heap ends where the memory ends; this leaves room behind the allocated parts */
    module.exports.memory.grow(1);
    await t.test('fused_matmul_many', () => testMany(module, false));
    await t.test('fused_rmsnorm_matmul', () => testMany(module, true));
    await t.test('fused_swiglu_matmul', () => testGated(module));
    await t.test('fused_ffn', () => testFfn(module));
  });
}
