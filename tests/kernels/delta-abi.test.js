/** The export of the delta net: every status, and memory that no error changes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkWithin } from '../helpers/attention.js';
import { deltaBytes, deltaCase, deltaCols, deltaShape, referenceDelta } from '../helpers/delta.js';
import { Prng } from '../helpers/prng.js';
import { freshModule, openModules, STATUS } from '../helpers/raw.js';

/** @import { DeltaCase, DeltaShape } from '../helpers/delta.js' */
/** @import { RawModule } from '../helpers/raw.js' */

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`delta net ABI: ${name} module`, { skip: reason }, () => {});
const PAGE = 65536;
const NAMES = /** @type {const} */ ([
  ...['shape', 'qkv', 'alpha', 'beta', 'dtBias', 'a', 'gate', 'normWeight', 'state', 'out'],
]);

/** @param {DeltaCase} made @returns {Record<string, Uint8Array>} what each operand holds at first */
function contents(made) {
  const bytes = (/** @type {Float32Array | undefined} */ x) =>
    new Uint8Array(/** @type {Float32Array} */ (x).buffer.slice(0));
  const { shape, qkv, alpha, beta, dtBias, a, gate, normWeight, state } = made;
  return {
    shape: deltaBytes(shape),
    ...Object.fromEntries(
      Object.entries({ qkv, alpha, beta, dtBias, a, gate, normWeight, state }).map(([name, x]) => [
        name,
        bytes(x),
      ]),
    ),
    out: new Uint8Array(4 * shape.nTokens * deltaCols(shape).out).fill(0xa5),
  };
}

/** @param {RawModule} module @param {Record<string, number>} at @returns {number} */
const call = (module, at) => module.exports.fm_delta_net(...NAMES.map((name) => at[name]));

for (const module of modules) {
  test(`delta net ABI: ${module.name} module: fm_delta_net refuses what does not fit`, () => {
    const made = deltaCase(deltaShape({ nTokens: 2, keySize: 8, valueSize: 8 }), new Prng(1));
    const held = contents(made);
    // At a lower address than the others, so that an output can begin before them.
    const room = module.alloc(held.state.length);
    /** @type {Record<string, number>} */
    const at = {};
    for (const name of NAMES) {
      at[name] = module.alloc(held[name].length);
      module.u8.set(held[name], at[name]);
    }
    const heap = Math.min(...Object.values(at));
    const refused = (
      /** @type {Partial<DeltaShape>} */ shape,
      /** @type {Record<string, number>} */ pointers,
      /** @type {number} */ status,
    ) => {
      const what = JSON.stringify({ ...shape, ...pointers });
      module.u8.set(deltaBytes({ ...made.shape, ...shape }), at.shape);
      const before = module.u8.slice(heap);
      assert.equal(call(module, { ...at, ...pointers }), status, what);
      if (status !== STATUS.OK)
        assert.equal(Buffer.compare(before, module.u8.slice(heap)), 0, `${what}: memory changed`);
    };
    for (const zero of ['nTokens', 'nKeyHeads', 'nValueHeads', 'keySize', 'valueSize'])
      refused({ [zero]: 0 }, {}, STATUS.SHAPE);
    for (const size of [1, 4, 7, 9, 12, 257, 264, 2 ** 31, 2 ** 32 - 8]) {
      refused({ keySize: size }, {}, STATUS.SHAPE);
      refused({ valueSize: size }, {}, STATUS.SHAPE);
    }
    for (const changes of [
      { nKeyHeads: 3 },
      { nKeyHeads: 8 },
      { nValueHeads: 3 },
      { nTokens: 2 ** 32 - 1 },
      { nTokens: 2 ** 26 },
      { nValueHeads: 2 ** 29, nKeyHeads: 1 },
      { nValueHeads: 2 ** 26, nKeyHeads: 1 },
      { nValueHeads: 2 ** 31, nKeyHeads: 2 ** 31 },
    ]) {
      refused(changes, {}, STATUS.SHAPE);
    }
    const end = module.u8.length;
    for (const name of NAMES) {
      for (let off = 1; off < 4; off++) refused({}, { [name]: at[name] + off }, STATUS.ALIGN);
      const last = end - held[name].length;
      const isOptional = name === 'gate' || name === 'normWeight';
      for (const outside of [isOptional ? 4 : 0, 1024, last - (last % 4) + 4, end, end + PAGE, 2 ** 32 - 64])
        refused({}, { [name]: outside }, STATUS.RANGE);
    }
    refused({ nTokens: Math.ceil(end / 128) }, {}, STATUS.RANGE);
    for (const output of /** @type {const} */ (['state', 'out'])) {
      for (const name of NAMES) {
        if (name === output) continue;
        refused({}, { [output]: at[name] }, STATUS.OVERLAP);
        refused({}, { [output]: at[name] + held[name].length - 4 }, STATUS.OVERLAP);
        refused({}, { [output]: at[name] - held[output].length + 4 }, STATUS.OVERLAP);
      }
    }
    refused({}, { gate: 0, normWeight: 0 }, STATUS.OK);
    refused({}, { alpha: at.beta, dtBias: at.a }, STATUS.OK);
    refused({}, {}, STATUS.OK);
    for (const p of [room, ...Object.values(at)]) module.free(p);
  });

  test(`delta net ABI: ${module.name} module: nothing is read or written past the end of the memory`, () => {
    const fresh = freshModule(module.name);
    fresh.exports.memory.grow(20);
    const end = fresh.exports.memory.buffer.byteLength;
    const prng = new Prng(2);
    for (const variant of fresh.variants) {
      fresh.select(variant);
      for (const valueSize of [8, 24]) {
        for (const nTokens of [1, 3, 13]) {
          const made = deltaCase(deltaShape({ nTokens, valueSize, keySize: 8 }), prng);
          const held = contents(made);
          const reference = referenceDelta(made);
          for (const last of NAMES) {
            /** @type {Record<string, number>} */
            const at = {};
            NAMES.forEach((name, i) => {
              at[name] = name === last ? end - held[name].length : end - (i + 2) * PAGE;
              fresh.u8.set(held[name], at[name]);
            });
            const what = `${variant.label}, ${valueSize} values, ${nTokens} tokens, ${last} last`;
            assert.equal(call(fresh, at), STATUS.OK, what);
            for (const name of /** @type {const} */ (['state', 'out'])) {
              const bytes = fresh.u8.slice(at[name], at[name] + held[name].length);
              checkWithin(new Float32Array(bytes.buffer), reference[name], `${what}, ${name}`);
            }
          }
        }
      }
    }
  });
}
