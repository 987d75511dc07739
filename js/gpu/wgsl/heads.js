/* Queries, keys and values: their products, biases, norms and rotation; keys and values go into the
 * cache, queries into the workspace behind its note of faults (faults.js).
 *
 *   heads        all of it in one dispatch, for one token; no norms of queries and keys
 *   headsAfter   the part after the products, for any number of tokens
 *
 * Values are taken in quads: two pairs that turn together, which are two pairs of neighbours as
 * well, so that an F16 cache gets whole words. Quad j of a head has the columns 4j .. 4j + 3, or
 * with pairs by halves 2j, 2j + 1 and those nDims / 2 later. */

import { KV_LARGEST, LARGEST_F32 } from '../../llama/numeric.js';
import { groupsOf, shader, up16 } from '../shader.js';
import { cacheLayout, pairWriter, rowOf } from './cache.js';
import { FAULT_WORDS, faultNote, faultPart, largestBits } from './faults.js';
import { VECTOR } from './outputs.js';
import { rmsFactor, rowSums } from './row-sums.js';

/** @typedef {import('./cache.js').CacheShape} CacheShape */
/** @typedef {import('../../llama/plan.js').QkNorm} QkNorm */
/** @typedef {import('../../llama/plan.js').Rope} Rope */
/** @typedef {import('./types.js').Unit} Unit */

/**
 * Rotation as a kernel needs it; the rest of it is in the table.
 * @typedef {Pick<Rope, 'pairing' | 'nDims'>} Turning
 */

/**
 * What both kernels need to know of a layer.
 * @typedef {object} HeadsShape
 * @property {CacheShape} cache
 * @property {Turning | undefined} [rope]
 * @property {readonly number[] | undefined} [biases]  of queries, keys and values: where they begin
 *   in `vectors`
 * @property {number} layer  where `vectors`, whole vec4f, has the number of the layer: notes of
 *   faults name it
 */

/** Rows of a quad. */
const QUAD = 4;

/**
 * Cosine and sine of each position and pair, in float64: what `turns` holds.
 * @param {{ nPositions: number, nDims: number, base: number, linearScale?: number,
 *   factors?: ArrayLike<number> | undefined }} rope  factors: frequencies are divided by them
 * @returns {Float32Array} [position][pair][cosine, sine]
 */
export function ropeTable({ nPositions, nDims, base, linearScale = 1, factors }) {
  const nPairs = nDims / 2;
  const turns = new Float32Array(2 * nPositions * nPairs);
  for (let i = 0; i < nPairs; i++) {
    const frequency = base ** (-i / nPairs) / linearScale / (factors?.[i] ?? 1);
    for (let position = 0; position < nPositions; position++) {
      const at = 2 * (position * nPairs + i);
      turns[at] = Math.cos(position * frequency);
      turns[at + 1] = Math.sin(position * frequency);
    }
  }
  return turns;
}

/**
 * column_of(j, r): the column of value r of quad j; turned(j, position, v): the quad after its
 * rotation.
 * @param {Turning | undefined} rope
 * @param {number} headSize
 */
function quads(rope, headSize) {
  const nDims = rope?.nDims ?? 0;
  const byHalves = rope?.pairing === 'halves';
  if (headSize % QUAD || nDims > headSize || nDims % (byHalves ? QUAD : 2))
    throw new TypeError(`heads of ${headSize} values, ${nDims} of them turned, have no whole quads`);
  const plain = `
fn column_of(j: u32, r: u32) -> u32 { return ${QUAD}u * j + r; }`;
  if (!rope)
    return `${plain}
fn turned(j: u32, position: u32, v: vec4f) -> vec4f { return v; }`;
  const read = `let at = position * ${nDims / 2}u + 2u * j;
  let a = turns[at];`;
  if (byHalves) {
    return `
fn column_of(j: u32, r: u32) -> u32 {
  return select(${QUAD}u * j + r, 2u * j + (r & 1u) + (r >> 1u) * ${nDims / 2}u, j < ${nDims / QUAD}u);
}
fn turned(j: u32, position: u32, v: vec4f) -> vec4f {
  if (j >= ${nDims / QUAD}u) { return v; }
  ${read}
  let b = turns[at + 1u];
  let c = vec2f(a.x, b.x);
  let s = vec2f(a.y, b.y);
  return vec4f(v.xy * c - v.zw * s, v.xy * s + v.zw * c);
}`;
  }
  return `${plain}
fn turned(j: u32, position: u32, v: vec4f) -> vec4f {
  if (${QUAD}u * j >= ${nDims}u) { return v; }
  ${read}
  let b = select(vec2f(1.0, 0.0), turns[at + 1u], ${QUAD}u * j + 2u < ${nDims}u);
  return vec4f(v.x * a.x - v.y * a.y, v.x * a.y + v.y * a.x, v.z * b.x - v.w * b.y, v.z * b.y + v.w * b.x);
}`;
}

/**
 * put2(part, position, first, column, v): stores two neighbours of a row of queries (part 0), which
 * begins at `first` of the workspace, of keys (1) or of values (2), and notes faults.
 * @param {CacheShape} cache
 * @param {string} layer
 * @param {string} store  statements for keys and values
 */
const puts = (cache, layer, store) => `${VECTOR}${faultNote({ layer })}
fn put2(part: u32, position: u32, first: u32, column: u32, v: vec2f) {
  let largest = select(${largestBits(KV_LARGEST[cache.type])}, ${largestBits(LARGEST_F32)}, part == 0u);
  if (is_fault(v.x, largest)) { note_fault(part + ${faultPart('queries')}, position, v.x); }
  if (is_fault(v.y, largest)) { note_fault(part + ${faultPart('queries')}, position, v.y); }
  if (part == 0u) {
    y.values[first + column] = v.x;
    y.values[first + column + 1u] = v.y;
    return;
  }
  ${store}
}`;

/** By pairWriter() of a cache. */
const STORE_PAIRS =
  'if (part == 1u) { write_key2(position, column, v); } else { write_value2(position, column, v); }';

/** The layer's number, of `vectors`. @param {number} at */
const layerAt = (at) => `u32(vector(${at}u))`;

/** @param {readonly number[]} values  by part; the same expression for all where they are equal */
const byPart = ([first, ...others]) =>
  others.reduce((code, value, i) => `select(${code}, ${value}u, part >= ${i + 1}u)`, `${first}u`);

/**
 * Everything for one token: step.n_tokens is 1. Bindings: w0, w1, w2, x, vectors, turns where there
 * is a rotation, cache, y.
 * @param {HeadsShape & { units: readonly Unit[], norm?: import('./row-sums.js').NormInFront,
 *   stride?: number, invocations?: number, subgroups?: boolean }} options  units: queries, keys,
 *   values; norm: of x; stride: between rows of queries
 */
export function heads({
  units,
  norm,
  biases,
  rope,
  cache,
  layer,
  stride = up16(units.reduce((sum, { nRows }) => sum + nRows, 0)),
  invocations = 64,
  subgroups = false,
}) {
  const { headSize } = cache;
  const sums = rowSums({
    units,
    nTokens: 1,
    slots: 1,
    rows: QUAD,
    invocations,
    norm,
    subgroups,
  });
  const groups = units.map(({ nRows }) => nRows / QUAD);
  const firsts = [0, groups[0], groups[0] + groups[1]];
  const branches = units.map(
    (
      _,
      i,
    ) => `${i < 2 ? `if (part == ${i}u) ` : ''}{${sums.loop([i], 0, (r) => `(head + column_of(j, ${r}))`)}
  }`,
  );
  const names = ['x', 'y', 'z', 'w'];
  const value = (/** @type {number} */ r) =>
    `${sums.total('0u', 0, `${r}u`)} * factor${biases ? ` + vector(bias + column_of(j, ${r}u))` : ''}`;
  return shader({
    name: `heads ${units.map(({ type, nRows, nCols }) => `${type} ${nRows}x${nCols}`).join(', ')}`,
    bindings: {
      ...sums.bindings,
      vectors: 'read array<vec4f>',
      ...(rope ? { turns: 'read array<vec2f>' } : {}),
      cache: 'read_write array<u32>',
      y: 'read_write Work',
    },
    step: true,
    enable: sums.enable,
    workgroup: sums.workgroup,
    size: [invocations],
    code: `${sums.functions}${pairWriter(cache)}${quads(rope, headSize)}${puts(cache, layerAt(layer), STORE_PAIRS)}
@compute
fn main(${sums.parameters}) {
  let group = wid.x + wid.z * count.x;
  if (group >= ${firsts[2] + groups[2]}u) { return; }
  let part = select(0u, 1u, group >= ${firsts[1]}u) + select(0u, 1u, group >= ${firsts[2]}u);
  let local = group - ${byPart(firsts)};
  let head = local / ${headSize / QUAD}u * ${headSize}u;
  let j = local % ${headSize / QUAD}u;${sums.declare}
  ${branches.join(' else ')}${sums.reduce}
  if (tid > 1u) { return; }
  let factor = ${sums.factor('0u')};
  ${biases ? `let bias = head + ${byPart(biases)};` : ''}
  var v = vec4f(${names.map((_, r) => value(r)).join(', ')});
  if (part < 2u) { v = turned(j, step.position, v); }
  let column = head + column_of(j, 2u * tid);
  put2(part, step.position, step.start * ${stride}u, column, select(v.xy, v.zw, tid == 1u));
}`,
  });
}

/** Workgroups of heads(). @param {{ units: readonly Unit[] }} options */
export const headsGroups = ({ units }) => groupsOf(units.reduce((sum, { nRows }) => sum + nRows / QUAD, 0));

/**
 * @typedef {HeadsShape & { nHeads: number, qkNorm?: QkNorm | undefined, gains?: readonly number[],
 *   stride?: number }} HeadsAfterOptions
 *   qkNorm: of queries and keys; gains: where its weights
 *   begin in `vectors`, of queries and of keys; stride: between rows
 */

/**
 * What follows products that wrote rows of queries, keys and values, [token][q | k | v], to the
 * values of the workspace: for step.n_tokens tokens, from row step.start on. Queries stay where
 * they are. Bindings: vectors, turns where there is a rotation, cache, y.
 * @param {HeadsAfterOptions} options
 */
export function headsAfter({ nHeads, cache, rope, biases, qkNorm, gains = [0, 0], layer, stride }) {
  const { headSize, nKvHeads, type } = cache;
  const rows = [nHeads * headSize, nKvHeads * headSize];
  const firsts = [0, rows[0], rows[0] + rows[1]];
  const ofRow = qkNorm?.span === 'row';
  const invocations = ofRow ? 128 : 64;
  const quantised = type === 'Q8_0';
  const read = (/** @type {string} */ column) =>
    `y.values[row + ${column}]${biases ? ` + vector(bias + ${column})` : ''}`;
  // The squares of a head are the same after its rotation.
  const normed = `v *= vec4f(${[0, 1, 2, 3].map((r) => `vector(gain + column_of(j, ${r}u))`).join(', ')}) * factor;`;
  const norm = qkNorm
    ? `
  if (part < 2u) {
    let n = heads * ${headSize}u;
    var sum = 0.0;
    for (var i = tid; i < n; i += ${invocations}u) { let v = ${read('i')}; sum += v * v; }
    squares[tid] = sum;
    workgroupBarrier();
    storageBarrier();
    sum = squares[0];
    for (var k = 1u; k < ${invocations}u; k++) { sum += squares[k]; }
    factor = ${rmsFactor('sum', 'n', qkNorm.eps)};
  }`
    : '';
  return shader({
    name: `heads after products, ${nHeads} and ${nKvHeads} of ${headSize}, ${type}`,
    bindings: {
      vectors: 'read array<vec4f>',
      ...(rope ? { turns: 'read array<vec2f>' } : {}),
      cache: 'read_write array<u32>',
      y: 'read_write Work',
    },
    step: true,
    workgroup: {
      ...(qkNorm ? { squares: `array<f32, ${invocations}>` } : {}),
      ...(quantised ? { staged: `array<f32, ${headSize}>` } : {}),
    },
    size: [invocations],
    code: `${quads(rope, headSize)}${quantised ? blockWriter(cache) : pairWriter(cache)}${puts(
      cache,
      layerAt(layer),
      quantised
        ? `staged[column % ${headSize}u] = v.x; staged[column % ${headSize}u + 1u] = v.y;`
        : STORE_PAIRS,
    )}
@compute
fn main(@builtin(local_invocation_index) tid: u32, @builtin(workgroup_id) wid: vec3u) {
  let position = step.position + wid.y;
  let first = (step.start + wid.y) * ${stride ?? up16(rows[0] + 2 * rows[1])}u;
  if (wid.y >= step.n_tokens) { return; }
  ${
    ofRow
      ? `let part = wid.x;
  let heads = select(${nKvHeads}u, ${nHeads}u, part == 0u);
  let head0 = 0u;`
      : `let part = select(0u, 1u, wid.x >= ${nHeads}u) + select(0u, 1u, wid.x >= ${nHeads + nKvHeads}u);
  let heads = 1u;
  let head0 = (wid.x - ${byPart([0, nHeads, nHeads + nKvHeads])}) * ${headSize}u;`
  }
  let row = first + ${byPart(firsts)} + head0;
  ${biases ? `let bias = ${byPart(biases)} + head0;` : ''}
  var factor = 1.0;${norm}
  for (var h = 0u; h < heads; h++) {
    let head = h * ${headSize}u;
    ${qkNorm ? `let gain = ${byPart(gains)}${ofRow ? ' + head' : ''};` : ''}
    for (var j = tid; j < ${headSize / QUAD}u; j += ${invocations}u) {
      let a = head + column_of(j, 0u);
      let b = head + column_of(j, 2u);
      var v = vec4f(${['a', 'a + 1u', 'b', 'b + 1u'].map(read).join(', ')});
      if (part < 2u) {
        ${qkNorm && !qkNorm.afterRope ? normed : ''}
        v = turned(j, position, v);
        ${qkNorm?.afterRope ? normed : ''}
      }
      put2(part, position, first, head0 + a, v.xy);
      put2(part, position, first, head0 + b, v.zw);
    }
    ${
      quantised
        ? `workgroupBarrier();
    if (part > 0u && tid < ${headSize / 32}u) { put_block(part, position, head0 + head + 32u * tid, 32u * tid); }
    workgroupBarrier();`
        : ''
    }
  }
}`,
  });
}

/**
 * Workgroups of headsAfter().
 * @param {HeadsAfterOptions} options
 * @param {number} nTokens
 * @returns {[number, number, number]}
 */
export const headsAfterGroups = ({ nHeads, cache, qkNorm }, nTokens) => [
  qkNorm?.span === 'row' ? 3 : nHeads + 2 * cache.nKvHeads,
  nTokens,
  1,
];

/**
 * put_block(part, position, column, at): 32 values of `staged` as codes and a scale, d =
 * max|x| / 127, by the rule of src/quantize/blocks32_quantize.c: codes are x / d, rounded half away
 * from zero, and the scale is rounded to f16 afterwards.
 * @param {CacheShape} cache
 */
function blockWriter(cache) {
  const { rowWords, scaleWords, values, keyScales, valueScales } = cacheLayout(cache);
  const row = rowOf(cache);
  return `
fn to_f16(d: f32) -> f32 {
  // pack2x16float() may round either way. Subnormal numbers of f16 are multiples of 2^-24.
  let bits = bitcast<u32>(d);
  let normal = bitcast<f32>((bits + 0xfffu + ((bits >> 13u) & 1u)) & 0xffffe000u);
  return select(round(d * 16777216.0) / 16777216.0, normal, d >= 6.103515625e-5);
}
fn staged4(i: u32) -> vec4f { return vec4f(staged[i], staged[i + 1u], staged[i + 2u], staged[i + 3u]); }
fn put_block(part: u32, position: u32, column: u32, at: u32) {
  var m = vec4f(0.0);
  for (var i = 0u; i < 32u; i += 4u) { m = max(m, abs(staged4(at + i))); }
  let d = max(max(m.x, m.y), max(m.z, m.w)) / 127.0;
  let scale = to_f16(d);
  let inverse = select(0.0, 1.0 / d, scale > 0.0);
  cache[select(${keyScales}u, ${valueScales}u, part == 2u) + ${row} * ${scaleWords}u + column / 32u] = bitcast<u32>(scale);
  let word = select(0u, ${values}u, part == 2u) + ${row} * ${rowWords}u + column / 4u;
  for (var i = 0u; i < 8u; i++) {
    let v = staged4(at + 4u * i) * inverse;
    let whole = trunc(v);
    let rest = v - whole;
    let up = select(vec4f(0.0), vec4f(1.0), rest >= vec4f(0.5)) - select(vec4f(0.0), vec4f(1.0), rest <= vec4f(-0.5));
    let q = vec4u(vec4i(whole + up)) & vec4u(255u);
    cache[word + i] = q.x | (q.y << 8u) | (q.z << 16u) | (q.w << 24u);
  }
}`;
}

/** Where the queries of a workspace begin, in bytes. */
export const QUERIES_OFFSET = 4 * FAULT_WORDS;
