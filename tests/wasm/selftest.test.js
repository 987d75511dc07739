/**
 * The self-test of a module: its known answers against a decoder in JavaScript, its shapes against the
 * constants and kernels of the C sources, and kernels that are wrong in one place only.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { findType } from '../../js/types.js';
import { compile, instantiate } from '../../js/wasm/module.js';
import {
  ACTIVATION_NAMES,
  ALL,
  F32,
  FEW,
  hashValues,
  KNOWN_ANSWERS,
  N_COLS,
  N_ROWS,
  selfTest,
  testActivations,
  testWeights,
} from '../../js/wasm/selftest.js';
import { ReferenceProduct, ReferenceWeight } from '../helpers/bounds.js';
import { referenceByName } from '../helpers/reference.js';
import { projectRoot } from '../helpers/test-data.js';
import { libraryVariants } from '../helpers/variants.js';

/** @import { Shape } from '../../js/wasm/selftest.js' */

const N_TOKENS = 9;
/** One that has relaxed instructions behind a flag, not all of them right. */
const isOldEngine = Number(process.versions.v8.split('.')[0]) < 12;
const source = (/** @type {string} */ file) => readFileSync(`${projectRoot}/src/${file}`, 'utf8');

/** @param {string} file @param {string} name */
function constant(file, name) {
  const [, value] =
    new RegExp(`#define ${name} (\\d+)`).exec(source(file)) ?? assert.fail(`${file}: ${name}`);
  return Number(value);
}
const STRIP = constant('kernels/strip.h', 'FM_STRIP_ROWS');
const TILE = constant('kernels/activations.h', 'FM_TILE_TOKENS');
const GEMV = constant('ops/activations.h', 'FM_GEMV_MAX_TOKENS');
/** Sums that a patch holds, each of a tile of tokens and one row. */
const SUMS = constant('kernels/gemm_i8_relaxed.c', 'N_SUMS');

/** @param {number} first @param {number} last */
const range = (first, last) => Array.from({ length: last - first + 1 }, (_, i) => first + i);
/** @param {Iterable<number>} numbers */
const sorted = (numbers) => [...new Set(numbers)].sort((a, b) => a - b);

/* ---- answers ---- */

for (const { type, hash, tolerance, shapes } of KNOWN_ANSWERS) {
  test(`the known answer of ${type} is exact in f32, and its tolerance is the bound of int16`, () => {
    const reference = referenceByName.get(type) ?? assert.fail(type);
    const w = new ReferenceWeight(reference, testWeights(type), N_ROWS, N_COLS);
    const x = testActivations();
    const right = new ReferenceProduct(w, x, N_TOKENS);
    assert.equal(hashValues(Float32Array.from(right.y)), hash);
    // All partial sums are multiples of it, and at most sum |x * w|: exact below 2^24 units.
    const unit = w.values.reduce((least, value) => {
      while (value % least !== 0) least /= 2;
      return least;
    }, 1);
    const [sums, bounds] = [new Float64Array(right.y.length), new Float64Array(right.y.length)];
    for (const i of sums.keys()) {
      const [token, row] = [Math.floor(i / N_ROWS), i % N_ROWS];
      for (let c = 0; c < N_COLS; c++)
        sums[i] += Math.abs(x[token * N_COLS + c] * w.values[row * N_COLS + c]);
      bounds[i] = right.bound(token, row, ACTIVATION_NAMES.indexOf('int16'));
    }
    assert.ok(Math.max(...sums) < 2 ** 24 * unit);
    if (shapes.int16) {
      const bound = Math.max(...bounds);
      assert.ok(bound <= tolerance && tolerance <= 1.1 * bound, `${tolerance} for ${bound}`);
    } else assert.equal(tolerance, 0);
    // Rows and tokens that a kernel confuses do not have the same products, and no weight is lost.
    assert.equal(new Set(right.y).size, N_TOKENS * N_ROWS);
    assert.ok(!right.y.includes(0) && !x.includes(0));
  });
}

test('the weights have codes and scales of every kind', () => {
  for (const { type } of KNOWN_ANSWERS) {
    const w = new ReferenceWeight(
      referenceByName.get(type) ?? assert.fail(type),
      testWeights(type),
      N_ROWS,
      N_COLS,
    );
    const values = new Set(w.values);
    assert.ok(Math.min(...values) < 0 && Math.max(...values) > 0, type);
    // All 16 or, of Q4_K, many values for two scales; nearly all of 8 bits, with both signs of the scale.
    assert.ok(values.size > (type === 'MXFP4' ? 15 : 200), `${type}: ${values.size}`);
  }
  const wide = new Int8Array(testWeights('Q8_0').buffer);
  assert.ok(wide.includes(-128) && wide.includes(127));
});

test('the activations are exact in int8, and any two tokens differ in every 256 columns', () => {
  const x = testActivations();
  assert.equal(x.length, N_TOKENS * N_COLS);
  const blocks = Array.from({ length: x.length / 256 }, (_, i) => x.subarray(256 * i, 256 * (i + 1)));
  for (const block of blocks) {
    for (let at = 0; at < 256; at += 32)
      assert.equal(Math.max(...block.subarray(at, at + 32).map(Math.abs)), 127);
    assert.ok(block.every(Number.isInteger));
  }
  for (const half of [0, 1])
    assert.equal(new Set(blocks.filter((_, i) => i % 2 === half).map(String)).size, N_TOKENS);
  for (let token = 0; token < N_TOKENS; token++)
    assert.notDeepEqual(blocks[2 * token], blocks[2 * token + 1]);
});

/* ---- shapes ---- */

/** A patch of a matrix-matrix product. @typedef {{ tiles: number, tokens: number, rows: number }} Patch */

/**
 * The patches that a matrix-matrix kernel makes of a product: two tiles of tokens by half a strip of
 * rows, and one tile by a strip for what is left.
 * @param {Shape} shape
 */
function patchesOf([nTokens, nRows]) {
  /** @type {Patch[]} */
  const patches = [];
  for (let strip = 0; strip < nRows; strip += STRIP) {
    const rows = Math.min(STRIP, nRows - strip);
    let left = nTokens;
    for (; left > TILE; left -= Math.min(left, 2 * TILE)) {
      for (let row = 0; row < rows; row += SUMS / 2) {
        patches.push({
          tiles: 2,
          tokens: Math.min(left, 2 * TILE),
          rows: Math.min(SUMS / 2, rows - row),
        });
      }
    }
    if (left > 0) patches.push({ tiles: 1, tokens: left, rows });
  }
  return nTokens > GEMV ? patches : [];
}

/** @param {Shape[]} shapes @param {number} tiles */
const patchesOfAll = (shapes, tiles) => shapes.flatMap(patchesOf).filter((patch) => patch.tiles === tiles);

test('all shapes: every number of rows of a strip and of tokens that has a path of its own', () => {
  assert.equal(N_ROWS, STRIP + 1);
  assert.equal(N_TOKENS, 2 * TILE + 1);
  assert.deepEqual(sorted(ALL.map(([, nRows]) => nRows)), range(1, STRIP + 1));
  assert.deepEqual(
    sorted(ALL.map(([nTokens]) => nTokens)),
    sorted([...range(1, GEMV), GEMV + 1, TILE, TILE + 1, 2 * TILE, 2 * TILE + 1]),
  );
  const [one, two] = [patchesOfAll(ALL, 1), patchesOfAll(ALL, 2)];
  assert.deepEqual(sorted(one.map(({ rows }) => rows)), range(1, SUMS));
  assert.deepEqual(sorted(two.map(({ rows }) => rows)), range(1, SUMS / 2));
  assert.deepEqual(sorted(one.map(({ tokens }) => tokens)), [1, TILE]);
  assert.deepEqual(sorted(two.map(({ tokens }) => tokens)), [TILE + 1, 2 * TILE]);
});

test('few shapes: matrix-vector, and patches of both kinds whose 4 x 4 parts are whole and ragged', () => {
  assert.ok(FEW.some(([nTokens, nRows]) => nTokens === 1 && nRows === N_ROWS));
  for (const tiles of [1, 2]) {
    const patches = patchesOfAll(FEW, tiles);
    const whole = patches.filter(({ tokens, rows }) => tokens === tiles * TILE && rows % 4 === 0);
    const ragged = patches.filter(({ tokens, rows }) => tokens < tiles * TILE || rows % 4 !== 0);
    assert.ok(whole.length > 0 && ragged.length > 0, `${tiles} tiles`);
  }
  // A patch of 8 rows is stored in two halves, the second of which may be empty.
  assert.deepEqual(new Set(patchesOfAll(FEW, 1).map(({ rows }) => rows > SUMS / 2)), new Set([true, false]));
});

test('f32 shapes: 4 tokens at once, and each that is left over', () => {
  const tokens = F32.map(([nTokens]) => nTokens);
  assert.deepEqual([...tokens, N_TOKENS], sorted([...ALL.map(([nTokens]) => nTokens)]));
});

test('every matrix-matrix kernel meets its shapes, with the types that have known answers', () => {
  const decoders = ['k_quants', 'block32', 'block256'].map((family) =>
    source(`kernels/${family}_decoders.h`),
  );
  const text = decoders.join('\n').replace(/^FM_KERNELS_FOR_MANY\((\w+)\)/gm, 'FM_KERNELS($1, k)');
  const rows = [...text.matchAll(/^FM_(WIDE_)?KERNELS\((\w+), (\w+)\)/gm)];
  const kinds = new Map(rows.map(([, wide, name, scales]) => [name.toUpperCase(), { wide: !!wide, scales }]));
  assert.ok(kinds.size >= 16);
  /** By kernel, the shapes it is certain to meet. @type {Map<string, Shape[]>} */
  const met = new Map();
  const add = (/** @type {string} */ kernel, /** @type {Shape[]} */ shapes) =>
    met.set(kernel, [...(met.get(kernel) ?? []), ...shapes]);
  for (const { type, shapes } of KNOWN_ANSWERS) {
    const kind = kinds.get(type);
    assert.equal(kind === undefined, shapes.int16 === undefined, type);
    if (!kind) continue;
    add('i16', shapes.int16 ?? []);
    // Where the engine's dot product is not exact for wide codes, int16 serves them.
    for (const dot of kind.wide ? [] : ['dot16', 'dot32']) add(`i8_${kind.scales}_${dot}`, shapes.int8 ?? []);
    for (const name of /** @type {const} */ (['int16', 'int8']))
      for (const shape of FEW)
        assert.ok(shapes[name] === ALL || shapes[name]?.includes(shape), `${type} x ${name}`);
  }
  const made = [...source('kernels/gemm_i8_relaxed.c').matchAll(/^GEMM_I8\((\w+), /gm)].map(
    ([, name]) => `i8_${name}`,
  );
  assert.ok(made.length >= 4);
  assert.deepEqual([...met.keys()].sort(), ['i16', ...made].sort());
  // Edges of patches are stored out of line, by one function for each file of kernels.
  assert.match(source('kernels/v128.h'), /noinline\)\) void fm_store_edge/);
  for (const file of ['i16', 'i8_'])
    assert.ok(
      [...met].some(([kernel, shapes]) => kernel.startsWith(file) && shapes.length >= ALL.length),
      file,
    );
});

/* ---- kernels that are wrong in one place ---- */

/**
 * A module whose products are changed before anyone sees them.
 * @param {import('../../js/wasm/memory.js').WasmExports} exports
 * @param {(product: { type: number, activation: number, shape: Shape, y: Float32Array }) => void} change
 */
const changed = (exports, change) => ({
  ...exports,
  fused_matmul: (/** @type {Parameters<typeof exports.fused_matmul>} */ ...args) => {
    const [type, , , at, nTokens, nRows, , activation] = args;
    const status = exports.fused_matmul(...args);
    const y = new Float32Array(exports.memory.buffer, at, nTokens * nRows);
    change({ type, activation, shape: [nTokens, nRows], y });
    return status;
  },
});

for (const { isa, dot = 'i16', label, skip } of libraryVariants) {
  test(`${label}: a kernel that is wrong in one value of one shape is found`, { skip }, async (t) => {
    const { module } = await compile(`${projectRoot}/dist/fused-${isa}.wasm`);
    const { exports } = await instantiate(module, undefined);
    const failure = selfTest(exports, isa, dot);
    if (failure && isOldEngine) return t.skip(`this engine: ${failure}`);
    assert.equal(failure, undefined);
    for (const { type, tolerance, shapes } of KNOWN_ANSWERS) {
      const { id } = findType(type) ?? assert.fail(type);
      for (const [activation, name] of ACTIVATION_NAMES.entries()) {
        if (exports.fm_served_by(id, activation) >> 8 !== activation) continue;
        for (const [nTokens, nRows] of [
          ...(shapes[name] ?? []),
          ...(activation ? [] : [[N_TOKENS, N_ROWS]]),
        ]) {
          for (const place of new Set([0, nRows - 1, (nTokens - 1) * nRows, nTokens * nRows - 1])) {
            const wrong = changed(exports, (product) => {
              const isIt = product.type === id && product.activation === activation;
              if (isIt && String(product.shape) === String([nTokens, nRows]))
                product.y[place] += 2.5 * tolerance + 0.01;
            });
            const found = selfTest(wrong, isa, dot);
            assert.match(
              found ?? 'nothing',
              new RegExp(`${type} x ${name}.* is wrong`),
              `${type} x ${name}, ${nTokens} x ${nRows}`,
            );
          }
        }
      }
    }
    return undefined;
  });
}
