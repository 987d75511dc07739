import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { shader, up16 } from '../../js/gpu/shader.js';
import { embed, embedGroups } from '../../js/gpu/wgsl/embed.js';
import {
  blockBytes,
  decoder,
  fieldOffsets,
  layoutOf,
  prelude,
  rowBlocks,
  WGSL_TYPES,
} from '../../js/gpu/wgsl/types.js';
import { types } from '../../js/types.js';
import { blockKinds, makeWeights } from '../helpers/blocks.js';
import { gpuSkip, TestGpu } from '../helpers/gpu.js';
import { arrange, typeOf } from '../helpers/gpu-weights.js';
import { Prng } from '../helpers/prng.js';
import { dequantizeF64, referenceByName, scaleOf } from '../helpers/reference.js';

/** @import { ReferenceType } from '../helpers/reference.js' */

const u = 2 ** -24;
/** The smallest normal f32: WGSL may take anything below as zero, before or after an operation. */
const NORMAL = 2 ** -126;
/** Number that no kernel computes here. */
const CANARY = 12345.75;

/**
 * Shapes with odd numbers of blocks, and rows of floats that end within a piece and within a vec4f.
 * @param {string} type
 */
const columnsOf = (type) => (typeOf(type).blockValues === 1 ? 77 : 3 * typeOf(type).blockValues);

/**
 * Rows of every kind of block that tests know: natural, poison, zero, denormal, negative, largest;
 * random bytes as codes. MXFP4's first row has the scales at the end of the normal numbers, NVFP4's
 * the byte that is not a number, with and without its highest bit, and the ends of numbers below the
 * normal ones.
 * @param {ReferenceType} type @param {number} nCols @param {Prng} prng
 */
function rowsOfEveryKind(type, nCols, prng) {
  const kinds = ['natural', ...blockKinds, 'mixed'];
  const parts = kinds.map((kind) => makeWeights(type, kind, 1, nCols, prng));
  if (type.name === 'MXFP4') for (const e of [0, 1, 2]) parts[0][e * type.blockBytes] = e;
  if (type.name === 'NVFP4') parts[0].set([0x7f, 0xff, 0x07, 0x88]);
  const bytes = new Uint8Array(Buffer.concat(parts));
  return { bytes, nRows: kinds.length, ...reference(type, bytes) };
}

/**
 * Values, masses, and what of them may be lost where numbers below the normal ones count as zero:
 * the whole value if the scale of its block is such a number, otherwise a rest of two operations.
 * @param {ReferenceType} type @param {Uint8Array} bytes
 */
function reference(type, bytes) {
  const { values, masses } = dequantizeF64(type, bytes);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const lost = masses.map((mass, i) => {
    const at = Math.floor(i / type.blockValues) * type.blockBytes;
    const small = type.fields.some((field) => {
      const scale = Math.abs(scaleOf(view, at, field) ?? 1);
      return scale > 0 && scale < NORMAL;
    });
    return small ? mass : 2 * NORMAL;
  });
  return { values, masses, lost };
}

/** @param {number} got @param {number} expected @param {number} bound @param {string} what */
function close(got, expected, bound, what) {
  const error = Math.abs(got - expected);
  assert.ok(error <= bound, `${what}: ${got}, float64 gives ${expected}: error ${error}, bound ${bound}`);
}

test('the table has the types that the library serves, and their blocks', () => {
  const served = types.filter(({ served }) => served);
  assert.deepEqual(Object.keys(WGSL_TYPES).sort(), served.map(({ name }) => name).sort());
  for (const { name, blockBytes: bytes, blockValues } of served) {
    const row = WGSL_TYPES[name];
    // Floats count pieces of 16 values.
    const per = row.coded ? 1 : 16;
    assert.equal(blockBytes(name), per * bytes, name);
    assert.equal(row.blockValues, per * blockValues, name);
    assert.equal(row.lanes * 16, row.blockValues, name);
  }
});

test('fields of a layout lie one after the other, words at words', () => {
  for (const [type, { fields }] of Object.entries(WGSL_TYPES)) {
    const offsets = fieldOffsets(type);
    const inOrder = [...fields].sort(([a], [b]) => offsets[a] - offsets[b]);
    let at = 0;
    for (const [field, bytes] of inOrder) {
      assert.equal(offsets[field], at, `${type}.${field}`);
      if (bytes % 4 === 0) assert.equal(at % 4, 0, `${type}.${field}`);
      at += bytes;
    }
    assert.equal(at, blockBytes(type), type);
    if (layoutOf(type) === 'blocks') assert.deepEqual(inOrder, fields, type);
  }
});

/**
 * What a lane gives: runs, scale, min, codes (4), values (4), dot16.
 * @param {string} type
 * @param {number} nBlocks
 */
function lanesShader(type, nBlocks) {
  const { coded, lanes, blockValues } = WGSL_TYPES[type];
  const RECORD = 12;
  const each = [0, 1, 2, 3];
  return shader({
    name: `lanes of ${type}`,
    bindings: { w: 'read array<u32>', x: 'read array<vec4f>', y: 'read_write array<vec4f>' },
    size: [64],
    code: `${prelude([type])}${decoder({ type, nRows: 1, nCols: nBlocks * blockValues, nBlocks, firstBlock: 0 })}
@compute
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= ${nBlocks * lanes}u) { return; }
  let i = id.x / ${lanes}u;
  let t = id.x % ${lanes}u;
  let r = runs_0(t);
  var m: mat4x4f;
  var sums: vec4f;
  for (var k = 0u; k < 4u; k++) {
    m[k] = x[i * ${blockValues / 4}u + r[k]];
    sums[k] = dot(m[k], vec4f(1.0));
  }
  let v = decode_0(i, t);
  let at = id.x * ${RECORD}u;
  y[at] = vec4f(r);
  ${
    coded
      ? `let p = piece_0(i, t);
  y[at + 1u] = p.scale;
  y[at + 2u] = p.min;
  ${each.map((k) => `y[at + ${3 + k}u] = code4_0(p.codes[${k}]);`).join(' ')}`
      : ''
  }
  ${each.map((k) => `y[at + ${7 + k}u] = v[${k}];`).join(' ')}
  y[at + 11u] = vec4f(dot16_0(i, t, m, sums), 0.0, 0.0, 0.0);
}`,
  });
}

describe('weight types on a device', { skip: await gpuSkip() }, () => {
  /** @type {TestGpu} */
  let gpu;
  before(async () => {
    gpu = await TestGpu.open();
  });
  after(() => gpu.dispose());

  for (const name of Object.keys(WGSL_TYPES)) {
    const type = /** @type {ReferenceType} */ (referenceByName.get(name));
    const row = WGSL_TYPES[name];

    test(`${name}: lanes`, async () => {
      const prng = new Prng(1000 + type.id);
      // Whole pieces of floats; otherwise an odd number of blocks of every kind.
      const nCols = row.coded ? 3 * row.blockValues : 48;
      const { bytes, nRows, values, masses, lost } = rowsOfEveryKind(type, nCols, prng);
      const nBlocks = (nRows * nCols) / row.blockValues;
      const x = Float32Array.from({ length: nRows * nCols }, () => prng.gaussian());
      const nLanes = nBlocks * row.lanes;
      const y = new Float32Array(nLanes * 48);
      const w = arrange({ type: name, nRows, nCols }, bytes);
      const groups = /** @type {const} */ ([Math.ceil(nLanes / 64), 1, 1]);
      const out = new Float32Array(await gpu.run(lanesShader(name, nBlocks), { w, x, y }, groups, 'y'));
      const seen = new Set();
      for (let lane = 0; lane < nLanes; lane++) {
        const record = out.subarray(48 * lane, 48 * lane + 48);
        const block = Math.floor(lane / row.lanes);
        const t = lane % row.lanes;
        let [sum, mass, most] = [0, 0, 0];
        for (let k = 0; k < 4; k++) {
          // Lanes that share have the same scales, and their runs are in one stretch of 32 columns.
          const first = out.subarray(48 * (lane - (t % row.share)));
          assert.equal(record[4 + k], first[4 + k]);
          assert.equal(record[8 + k], first[8 + k]);
          assert.equal(Math.floor(record[k] / 8), Math.floor(first[k] / 8), `run ${k} of lane ${t}`);
          for (let j = 0; j < 4; j++) {
            const c = block * row.blockValues + 4 * record[k] + j;
            seen.add(c);
            const what = `${name}, block ${block}, lane ${t}, value ${c % row.blockValues}`;
            // d * scale, times the code, d * min, their difference: four roundings, of terms whose
            // sum is the mass.
            const bound = 4 * u * masses[c] * (1 + 8 * u) + lost[c];
            close(record[28 + 4 * k + j], values[c], bound, what);
            if (row.coded) {
              const code = record[12 + 4 * k + j];
              const [least, largest] = row.signed ? [-128, 127] : [0, 255];
              assert.ok(Number.isInteger(code) && code >= least && code <= largest, what);
              close(record[4 + k] * code - record[8 + k], values[c], bound, `piece: ${what}`);
              if (row.signed) assert.equal(record[8 + k], 0);
              if (row.centre !== undefined) {
                assert.ok(code - row.centre >= -128 && code - row.centre <= 127, what);
                // The same product in f32, unless its scale is below the normal numbers, and counts
                // as zero.
                const min = Math.fround(row.centre * record[4 + k]);
                close(record[8 + k], min, row.centre * NORMAL, `centre: ${what}`);
              }
            }
            sum += x[c] * values[c];
            mass += Math.abs(x[c]) * masses[c];
            most += Math.abs(x[c]) * lost[c];
          }
        }
        // 16 products of two terms each: 3 roundings in their factors, then 32 terms added in any
        // order, and the sums of x.
        close(
          record[44],
          sum,
          (32 + 8) * u * mass + 2 * most + 64 * NORMAL,
          `${name}: dot16 of lane ${lane}`,
        );
      }
      assert.equal(seen.size, nRows * nCols, 'every column once');
    });

    test(`${name}: rows by their numbers`, async () => {
      const prng = new Prng(2000 + type.id);
      const nCols = columnsOf(name);
      const { bytes, nRows, values, masses, lost } = rowsOfEveryKind(type, nCols, prng);
      const w = arrange({ type: name, nRows, nCols }, bytes);
      const perRow = rowBlocks({ type: name, nCols });
      // All rows but the first and the last, as if they were rows 5 and following of a table that
      // is split.
      const unit = {
        type: name,
        nRows: nRows - 2,
        nCols,
        nBlocks: nRows * perRow,
        firstBlock: perRow,
      };
      const scale = 1.7;
      const kernel = embed({ unit, scale, firstRow: 5 });
      const rows = [6, 4, 5, 5 + unit.nRows - 1, 5 + unit.nRows, 0xffffffff, 8, 7, 9, 10];
      const ids = Uint32Array.of(77, 77, ...rows, 6);
      const stride = up16(nCols);
      const y = new Float32Array(stride * (rows.length + 3)).fill(CANARY);
      const step = { position: 2, start: 1, nTokens: rows.length, seen: 0 };
      const out = new Float32Array(
        await gpu.run(kernel, { w, ids, y }, embedGroups(unit, rows.length), 'y', step),
      );
      for (let r = 0; r < rows.length + 3; r++) {
        const row = rows[r - 1] - 5;
        for (let c = 0; c < stride; c++) {
          const got = out[r * stride + c];
          if (!(row >= 0 && row < unit.nRows) || c >= nCols) {
            assert.equal(got, CANARY, `${name}: [${r}][${c}] must not be written`);
            continue;
          }
          const i = (row + 1) * nCols + c;
          // The four roundings of a value, that of its product with the scale, and that of the
          // scale.
          const bound = scale * (6 * u * masses[i] * (1 + 8 * u) + lost[i]) + NORMAL;
          close(got, scale * values[i], bound, `${name}: row ${row}, column ${c}`);
        }
      }
    });
  }
});
