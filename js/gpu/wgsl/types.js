/* Weight types in WGSL: one row a type. Products, look-ups and self-tests know no type; a type
 * knows no product. Rows of rare types are there after loadTypes().
 *
 * A lane decodes 16 columns of a block, as four runs of four neighbouring columns: those that its
 * words happen to hold. Products take activations in the same order. For a weight with the suffix
 * `_0`, decoder() gives these functions:
 *
 *   runs_0(t: u32) -> vec4u
 *       where the runs of lane t begin, in units of 4 columns of the block
 *   decode_0(i: u32, t: u32) -> mat4x4f
 *       block i, lane t: run k is column k of the matrix
 *   dot16_0(i: u32, t: u32, x: mat4x4f, sums: vec4f) -> f32
 *       the 16 values times x, run by run; sums[k] = x[k].x + x[k].y + x[k].z + x[k].w
 *
 * and for types of codes, for integer products:
 *
 *   piece_0(i: u32, t: u32) -> Piece
 *       value = scale * code - min, by run; a word of codes holds four bytes
 *   code4_0(word: u32) -> vec4f
 *       the four codes of a word
 *
 * `share` neighbouring lanes have the same scales and minimums, run by run, and run k of all of
 * them lies in one stretch of 32 columns: there integer products may be added up before they are
 * scaled.
 *
 * A weight lies in GPU memory as the file has it where its blocks are whole words, or else in
 * planes: each field of all blocks together, fields of whole words first. Either way a field is
 * read by aligned words and not a byte is added. Rows of F32, F16 and BF16 are padded to whole
 * pieces of 16 columns. Behind the last block, from a word on, is what a type needs beside its
 * blocks: its codebook, or a factor of the whole tensor. So a weight is one binding in every kernel. */

import { BLOCK32_TYPES } from './block32-types.js';
import { FLOAT_TYPES } from './float-types.js';
import { SUPERBLOCK_TYPES } from './superblock-types.js';

/**
 * Reads of the fields of block `i`, as WGSL expressions.
 * @typedef {object} Fields
 * @property {(field: string, k: string) => string} word  its k-th word
 * @property {(field: string, k: string) => string} byte  its k-th byte, as a word
 * @property {(field: string) => string} half  its f16 number as f32
 * @property {(index: string) => string} entry  an entry of the codebook, 16 bits
 * @property {string} factor  of the tensor, an f32
 * @property {string} centre  that of the row, as an f32
 */

/**
 * A row of the table.
 * @typedef {object} WgslType
 * @property {readonly (readonly [string, number])[]} fields  of a block: name and bytes, in the
 *   order of the file
 * @property {number} blockValues  columns of a block; for floats a piece of 16
 * @property {number} lanes  of 16 columns in a block
 * @property {number} share  lanes with the same scales
 * @property {boolean} coded  values are scale * code - min: `body` gives a Piece, otherwise a
 *   mat4x4f
 * @property {boolean} signed  codes are signed bytes, and all minimums 0
 * @property {number} [centre]  all values are scale * (code - centre): code - centre is a signed
 *   byte. With a centre of 128 the codes need all bits of a byte
 * @property {1 | 2 | 4} [sumRuns]  neighbouring runs of a lane that share a scale and, in all lanes
 *   that share it, a stretch of 32 columns; default 1
 * @property {string} [codebook]  follows the blocks in memory (codebooks.js)
 * @property {boolean} [hasFactor]  a factor of the tensor follows the blocks in memory
 * @property {string} runs  where the runs of lane `t` begin
 * @property {string | readonly string[]} [extra]  functions that it needs, each once a shader
 * @property {(fields: Fields) => string} body  statements that return what lane `t` of block `i`
 *   holds
 */

/** @type {Record<string, WgslType>} */
export const WGSL_TYPES = { ...FLOAT_TYPES, ...BLOCK32_TYPES, ...SUPERBLOCK_TYPES };

/**
 * Adds the rows of rare types to the table, if there is one among the types.
 * @param {Iterable<string>} types
 */
export async function loadTypes(types) {
  if ([...types].every((type) => Object.hasOwn(WGSL_TYPES, type))) return;
  const { RARE_TYPES } = await import('./rare-types.js');
  Object.assign(WGSL_TYPES, RARE_TYPES);
}

/**
 * A weight, or some rows of one, as a shader reads it.
 * @typedef {object} Unit
 * @property {string} type
 * @property {number} nRows
 * @property {number} nCols
 * @property {number} nBlocks  in the buffer, of all rows that it has
 * @property {number} firstBlock  of the first row
 */

/** Bytes of a block. @param {string} type */
export const blockBytes = (type) => WGSL_TYPES[type].fields.reduce((sum, [, bytes]) => sum + bytes, 0);

/**
 * Blocks of a row; floats count pieces of 16 columns.
 * @param {{ type: string, nCols: number }} weight
 */
export const rowBlocks = ({ type, nCols }) => Math.ceil(nCols / WGSL_TYPES[type].blockValues);

/**
 * Bytes of blocks, as whole words: what follows the blocks begins there.
 * @param {{ type: string, nBlocks: number }} part
 */
export const tailAt = ({ type, nBlocks }) => 4 * Math.ceil((nBlocks * blockBytes(type)) / 4);

/**
 * Whether blocks lie as in the file, or in planes.
 * @param {string} type
 * @returns {'blocks' | 'planes'}
 */
export const layoutOf = (type) => (blockBytes(type) % 4 === 0 ? 'blocks' : 'planes');

/**
 * Where each field begins: in a block, or, for planes, per block of the tensor.
 * @param {string} type
 * @returns {Record<string, number>}
 */
export function fieldOffsets(type) {
  const { fields } = WGSL_TYPES[type];
  // Planes of whole words come first, then those of halves, so that each begins at a word or at
  // least a half.
  const rank = (/** @type {number} */ bytes) => (bytes % 4 === 0 ? 0 : bytes % 2 === 0 ? 1 : 2);
  const ordered =
    layoutOf(type) === 'planes' ? [...fields].sort(([, a], [, b]) => rank(a) - rank(b)) : fields;
  let at = 0;
  /** @type {Record<string, number>} */
  const offsets = {};
  for (const [field, bytes] of ordered) {
    offsets[field] = at;
    at += bytes;
  }
  return offsets;
}

/**
 * What all decoders of a shader share; once a shader.
 * @param {readonly string[]} types  that it reads
 */
export function prelude(types) {
  const extras = new Set(types.flatMap((type) => WGSL_TYPES[type].extra ?? []));
  return `
struct Piece { codes: vec4u, scale: vec4f, min: vec4f };
fn low4(w: u32) -> u32 { return w & 0x0f0f0f0fu; }
fn high4(w: u32) -> u32 { return (w >> 4u) & 0x0f0f0f0fu; }
${[...extras].join('')}`;
}

/**
 * Functions that read a field, by what they give: `a` is where it begins in block i, in words or in
 * bytes, `w` the array.
 */
const READS = {
  word: (/** @type {string} */ w, /** @type {string} */ a) =>
    `(i: u32, k: u32) -> u32 { return ${w}[${a} + k]; }`,
  byte: (/** @type {string} */ w, /** @type {string} */ a) =>
    `(i: u32, k: u32) -> u32 { let a = ${a} + k; return (${w}[a >> 2u] >> (8u * (a & 3u))) & 255u; }`,
  half: (/** @type {string} */ w, /** @type {string} */ a) =>
    `(i: u32) -> f32 { let a = ${a}; return unpack2x16float(${w}[a >> 2u] >> (8u * (a & 2u))).x; }`,
};

/**
 * The functions of a weight.
 * @param {Unit} unit
 * @param {{ suffix?: string, variable?: string }} [names]  suffix: of the functions; variable: the
 *   array of words
 */
export function decoder({ type, nBlocks, firstBlock }, { suffix = '_0', variable = 'w' } = {}) {
  const row = WGSL_TYPES[type];
  const inPlanes = layoutOf(type) === 'planes';
  const offsets = fieldOffsets(type);
  const bytes = blockBytes(type);
  const sizes = Object.fromEntries(row.fields);
  /** By name, as far as the type uses them. @type {Map<string, string>} */
  const access = new Map();
  const read = (/** @type {keyof typeof READS} */ kind, /** @type {string} */ field) => {
    const stride = inPlanes ? sizes[field] : bytes;
    const offset = (inPlanes ? nBlocks * offsets[field] : offsets[field]) + firstBlock * stride;
    const name = `${kind}_${field}${suffix}`;
    const per = kind === 'word' ? 4 : 1;
    access.set(name, `\nfn ${name}${READS[kind](variable, `i * ${stride / per}u + ${offset / per}u`)}`);
    return name;
  };
  const tail = `${tailAt({ type, nBlocks }) / 4}u`;
  const entry = (/** @type {string} */ index) => {
    const name = `entry${suffix}`;
    const code = `(e: u32) -> u32 { return (${variable}[${tail} + (e >> 1u)] >> (16u * (e & 1u))) & 0xffffu; }`;
    access.set(name, `\nfn ${name}${code}`);
    return `${name}(${index})`;
  };
  const body = row.body({
    word: (field, k) => `${read('word', field)}(i, ${k})`,
    byte: (field, k) => `${read('byte', field)}(i, ${k})`,
    half: (field) => `${read('half', field)}(i)`,
    entry,
    factor: `bitcast<f32>(${variable}[${tail}])`,
    centre: `${row.centre}.0`,
  });
  const functions = row.coded ? codedFunctions(body, row.signed, suffix) : floatFunctions(body, suffix);
  return `${[...access.values()].join('')}
fn runs${suffix}(t: u32) -> vec4u { return ${row.runs}; }${functions}`;
}

/** @param {string} body @param {boolean} signed @param {string} suffix */
function codedFunctions(body, signed, suffix) {
  const code4 = signed
    ? 'vec4f(vec4i(vec4u(word) << vec4u(24u, 16u, 8u, 0u)) >> vec4u(24u))'
    : 'vec4f((vec4u(word) >> vec4u(0u, 8u, 16u, 24u)) & vec4u(255u))';
  const values = (/** @type {string} */ run) =>
    `p.scale.${run} * code4${suffix}(p.codes.${run})${signed ? '' : ` - p.min.${run}`}`;
  const dot = (/** @type {string} */ run, /** @type {number} */ k) =>
    `dot(code4${suffix}(p.codes.${run}), x[${k}])`;
  return `
fn piece${suffix}(i: u32, t: u32) -> Piece {${body}
}
fn code4${suffix}(word: u32) -> vec4f { return ${code4}; }
fn decode${suffix}(i: u32, t: u32) -> mat4x4f {
  let p = piece${suffix}(i, t);
  return mat4x4f(${['x', 'y', 'z', 'w'].map(values).join(', ')});
}
fn dot16${suffix}(i: u32, t: u32, x: mat4x4f, sums: vec4f) -> f32 {
  let p = piece${suffix}(i, t);
  return dot(p.scale, vec4f(${['x', 'y', 'z', 'w'].map(dot).join(', ')}))${signed ? '' : ' - dot(p.min, sums)'};
}`;
}

/** @param {string} body @param {string} suffix */
function floatFunctions(body, suffix) {
  return `
fn decode${suffix}(i: u32, t: u32) -> mat4x4f {${body}
}
fn dot16${suffix}(i: u32, t: u32, x: mat4x4f, sums: vec4f) -> f32 {
  let v = decode${suffix}(i, t);
  return dot(v[0], x[0]) + dot(v[1], x[1]) + dot(v[2], x[2]) + dot(v[3], x[3]);
}`;
}
