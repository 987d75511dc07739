/**
 * The selective scan (fm_ssm_scan) on raw modules: compared with float64 in every instruction set,
 * one token and chunks of them; the state goes on from call to call; what later tokens hold changes
 * nothing before them. Also the arguments that it refuses.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Prng } from '../helpers/prng.js';
import { freshModule, openModules, STATUS } from '../helpers/raw.js';
import { checkScan, makeScan, referenceScan, runScan, scanBytes, scanCols } from '../helpers/scan.js';

/** @import { ScanCase, ScanShape } from '../helpers/scan.js' */

const { modules, skipped } = openModules();
for (const { name, reason } of skipped) test(`scan: ${name} module`, { skip: reason }, () => {});

/** @param {number[]} numbers @returns {ScanShape} */
const shapeOf = ([nTokens, nHeads, nGroups, headSize, stateSize]) => ({
  ...{ nTokens, nHeads, nGroups, headSize, stateSize },
});
const SHAPES = [
  [1, 1, 1, 1, 1],
  [1, 4, 2, 16, 16],
  [1, 3, 1, 23, 5],
  [2, 3, 3, 64, 16],
  [3, 2, 1, 8, 3],
  [4, 2, 1, 3, 1],
  [5, 4, 2, 4, 7],
  [7, 2, 1, 12, 16],
  [15, 2, 1, 9, 4],
  [16, 4, 2, 13, 7],
  [17, 1, 1, 1, 1],
  [31, 2, 2, 32, 16],
  [32, 1, 1, 64, 128],
  [33, 2, 1, 17, 9],
  [38, 6, 2, 20, 16],
  [70, 2, 1, 72, 33],
  [99, 1, 1, 130, 12],
].map(shapeOf);

/**
 * Tokens from `start` on.
 * @param {ScanCase} given @param {number} start @param {number} nTokens @param {Float32Array} state
 * @returns {ScanCase}
 */
function part(given, start, nTokens, state) {
  const [row, { nHeads }] = [scanCols(given.shape), given.shape];
  const x = given.x.slice(start * row, (start + nTokens) * row);
  const dt = given.dt.slice(start * nHeads, (start + nTokens) * nHeads);
  return { ...given, shape: { ...given.shape, nTokens }, x, dt, state };
}

for (const module of modules) {
  test(`scan: ${module.name} module, values`, () => {
    const prng = new Prng(51);
    for (const shape of SHAPES) {
      const given = makeScan(shape, prng);
      const { y, yBound, state, stateBound } = referenceScan(given);
      for (const variant of module.variants) {
        module.select(variant);
        const got = runScan(module, given);
        const what = `${variant.label}, ${Object.values(shape)}`;
        checkScan(got.y, y, yBound, `${what}, y`);
        checkScan(got.state, state, stateBound, `${what}, state`);
      }
    }
  });

  test(`scan: ${module.name} module, steps and decays of every size`, () => {
    const prng = new Prng(52);
    const steps = [-80, -30, -12, -5, 0, 0.5, 5, 19, 21, 60];
    const shape = shapeOf([37, 10, 1, 8, 4]);
    const given = makeScan(shape, prng);
    given.a.set([-1e-6, -1e-3, -0.1, -1, -3, -16, -100, -1e4, -1e20, 0]);
    given.dtBias.fill(0);
    for (const wanted of steps) {
      given.dt.fill(wanted);
      const { y, yBound, state, stateBound } = referenceScan(given);
      for (const variant of module.variants) {
        module.select(variant);
        for (const n of [1, 3, 37]) {
          const got = runScan(module, part(given, 0, n, given.state));
          const what = `${variant.label}, step ${wanted}, ${n} tokens`;
          checkScan(got.y, y.subarray(0, got.y.length), yBound, what);
          if (n === 37) checkScan(got.state, state, stateBound, `${what}, state`);
        }
      }
    }
  });

  test(`scan: ${module.name} module, parts of a sequence, one after another`, () => {
    const prng = new Prng(53);
    const given = makeScan(shapeOf([45, 4, 2, 20, 16]), prng);
    const { y, yBound, state, stateBound } = referenceScan(given);
    for (const variant of module.variants) {
      module.select(variant);
      for (const lengths of [[44, 1], Array(45).fill(1), [3, 16, 2, 24], [32, 13]]) {
        let [at, now] = [0, given.state];
        const out = [];
        for (const n of lengths) {
          const got = runScan(module, part(given, at, n, now));
          out.push(...got.y);
          now = got.state;
          at += n;
        }
        // The end of every call rounds as the end of a chunk does.
        const loose = (/** @type {Float64Array} */ bound) => bound.map((one) => lengths.length * one);
        const what = `${variant.label}, ${lengths.slice(0, 4)}`;
        checkScan(Float32Array.from(out), y, loose(yBound), `${what}, y`);
        checkScan(now, state, loose(stateBound), `${what}, state`);
      }
    }
  });

  test(`scan: ${module.name} module, no token changes what comes before it, or another head`, () => {
    const prng = new Prng(54);
    const shape = shapeOf([36, 2, 2, 8, 4]);
    const [row, inner] = [scanCols(shape), shape.nHeads * shape.headSize];
    for (const variant of module.variants) {
      module.select(variant);
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
        for (const t of [0, 1, 2, 3, 6, 15, 16, 31, 33]) {
          const given = makeScan(shape, prng);
          const expected = runScan(module, given);
          // A value of the second head, or of its group, at token t.
          for (const col of [shape.headSize + 3, inner + 5, inner + 8 + 6]) {
            const x = given.x.slice();
            x[t * row + col] = bad;
            const got = runScan(module, { ...given, x });
            const what = `${variant.label}, ${bad} in column ${col} of token ${t}`;
            for (const [i, value] of got.y.entries()) {
              const isSafe = i < t * inner || i % inner < shape.headSize;
              if (isSafe) assert.equal(value, expected.y[i], `${what}: y[${i}]`);
            }
            const [from, to] = [t * inner + shape.headSize, (t + 1) * inner];
            assert.ok(
              got.y.subarray(from, to).some((value) => !Number.isFinite(value)),
              what,
            );
            const first = got.state.length / 2;
            assert.deepEqual(got.state.subarray(0, first), expected.state.subarray(0, first), what);
          }
        }
      }
    }
  });

  test(`scan: ${module.name} module, arguments that do not fit`, () => {
    const fresh = freshModule(module.name);
    const given = makeScan(shapeOf([5, 4, 2, 3, 2]), new Prng(55));
    const bytes = {
      shape: 20,
      x: given.x.byteLength,
      dt: given.dt.byteLength,
      a: 16,
      d: 16,
      dtBias: 16,
      state: given.state.byteLength,
      y: 240,
    };
    const base = fresh.alloc(8192);
    const names = /** @type {(keyof typeof bytes)[]} */ (Object.keys(bytes));
    const at = /** @type {typeof bytes} */ (
      Object.fromEntries(names.map((name, i) => [name, base + 512 + 768 * i]))
    );
    const { shape: _, ...arrays } = given;
    const reset = (/** @type {Partial<ScanShape>} */ changes = {}) => {
      fresh.u8.fill(0, base, base + 8192);
      for (const [name, { buffer }] of Object.entries(arrays))
        fresh.u8.set(new Uint8Array(buffer), at[/** @type {'x'} */ (name)]);
      fresh.u8.set(scanBytes({ ...given.shape, ...changes }), at.shape);
    };
    const call = (
      /** @type {Partial<typeof at>} */ pointers,
      /** @type {number} */ status,
      /** @type {Partial<ScanShape>} */ shape = {},
    ) => {
      reset(shape);
      const before = fresh.u8.slice(base, base + 8192);
      const what = JSON.stringify({ ...pointers, ...shape });
      assert.equal(fresh.exports.fm_ssm_scan(...Object.values({ ...at, ...pointers })), status, what);
      if (status === STATUS.OK) return;
      assert.equal(Buffer.compare(before, fresh.u8.slice(base, base + 8192)), 0, `${what}: memory changed`);
    };
    call({}, STATUS.OK);
    for (const zero of Object.keys(given.shape)) call({}, STATUS.SHAPE, { [zero]: 0 });
    for (const nGroups of [3, 5, 8]) call({}, STATUS.SHAPE, { nGroups });
    for (const changes of [
      { nTokens: 2 ** 30 },
      { nHeads: 2 ** 31 },
      { headSize: 2 ** 30 },
      { headSize: 2 ** 32 - 1 },
      { stateSize: 2 ** 30 },
      { stateSize: 2 ** 32 - 1 },
      { nHeads: 2 ** 31, nGroups: 2 ** 31, headSize: 2 ** 31, stateSize: 2 ** 31 },
    ])
      call({}, STATUS.SHAPE, changes);
    call({}, STATUS.RANGE, { nTokens: 2 ** 20 });
    call({}, STATUS.RANGE, { stateSize: 2 ** 20 });
    const end = fresh.u8.length;
    for (const name of names) {
      for (const off of [1, 2, 3]) call({ [name]: at[name] + off }, STATUS.ALIGN);
      const last = end - bytes[name] + 4;
      for (const outside of [0, 4, 1024, last + (4 - (last % 4)) * (last % 4 ? 1 : 0), end, 2 ** 32 - 64])
        call({ [name]: outside }, STATUS.RANGE);
      for (const out of /** @type {const} */ (['state', 'y'])) {
        if (name === out) continue;
        call({ [out]: at[name] + bytes[name] - 4 }, STATUS.OVERLAP);
        call({ [out]: at[name] - bytes[out] + 4 }, STATUS.OVERLAP);
      }
    }
    call({ y: at.state + bytes.state }, STATUS.OK);
  });
}
