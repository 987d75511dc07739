/* Shaders as data: WGSL with its bindings declared once. The declarations in the code, the layouts
 * of bind groups and the checks of limits all follow from the same description. */

import { GpuError } from './errors.js';

/**
 * A compute shader with the entry point `main`.
 * @typedef {object} Shader
 * @property {string} name  for messages, for example `matvec Q4_K 4096x4096`
 * @property {string} code  complete WGSL
 * @property {readonly Binding[]} bindings  storage buffers of group 0, in the order of their
 *   binding numbers
 * @property {boolean} usesStep  group 1 is the uniform `step`
 */

/** A storage buffer of a shader. @typedef {{ name: string, writes: boolean }} Binding */

/**
 * What a shader is made of.
 * @typedef {object} ShaderParts
 * @property {string} name
 * @property {Record<string, string>} bindings  by variable: `read TYPE` or `read_write TYPE`, for
 *   example `read array<vec4f>`
 * @property {boolean} [step]  the code reads `step`, see STEP
 * @property {readonly string[]} [enable]  WGSL extensions, for example `f16`
 * @property {readonly string[]} [requires]  WGSL language features, for example
 *   `packed_4x8_integer_dot_product`
 * @property {Record<string, string>} [workgroup]  variables in workgroup memory by name: their
 *   types
 * @property {readonly number[]} size  invocations of a workgroup in x, y and z
 * @property {string} code  functions, and the body of `main` last
 */

/**
 * The part of a batch that a dispatch computes; a uniform of 16 bytes. See Step in js/backend.js.
 */
const STEP = `
struct Step { position: u32, start: u32, n_tokens: u32, seen: u32 };
@group(1) @binding(0) var<uniform> step: Step;`;

/** What every WebGPU device has: a kernel that needs more would fail on some. */
export const PROMISED = { workgroupBytes: 16_384, invocations: 256, storageBuffers: 8, groups: 65_535 };

/** Bytes of WGSL types in workgroup memory. @type {Record<string, number>} */
const TYPE_BYTES = {
  f32: 4,
  u32: 4,
  i32: 4,
  f16: 2,
  vec2f: 8,
  vec2u: 8,
  vec2h: 4,
  vec4f: 16,
  vec4u: 16,
  vec4i: 16,
  vec4h: 8,
};

/**
 * @param {string} type  a scalar, a vector, or an array of them with a literal length
 * @returns {number}
 */
function bytesOf(type) {
  const [, of, n] = /^array<(.+),\s*(\d+)>$/.exec(type) ?? [];
  if (of) return Number(n) * bytesOf(of);
  const bytes = TYPE_BYTES[type];
  if (bytes === undefined) throw new TypeError(`the size of ${type} is not known`);
  return bytes;
}

/**
 * Puts a shader together.
 * @param {ShaderParts} parts
 * @returns {Shader}
 * @throws {GpuError} it needs more than WebGPU promises on every device
 */
export function shader({
  name,
  bindings,
  step = false,
  enable = [],
  requires = [],
  workgroup = {},
  size,
  code,
}) {
  const entries = Object.entries(bindings);
  const total = Object.values(workgroup).reduce((sum, type) => sum + bytesOf(type), 0);
  const invocations = size.reduce((product, n) => product * n, 1);
  limit(name, 'bytes of workgroup memory', total, PROMISED.workgroupBytes);
  limit(name, 'invocations in a workgroup', invocations, PROMISED.invocations);
  limit(name, 'storage buffers', entries.length, PROMISED.storageBuffers);
  const declared = entries.map(([variable, what], i) => {
    const [, access, type] = /** @type {RegExpExecArray} */ (/^(read|read_write) (.+)$/.exec(what));
    return `@group(0) @binding(${i}) var<storage, ${access}> ${variable}: ${type};`;
  });
  const lines = [
    ...enable.map((extension) => `enable ${extension};`),
    ...requires.map((feature) => `requires ${feature};`),
    ...declared,
    ...(step ? [STEP] : []),
    ...Object.entries(workgroup).map(([variable, type]) => `var<workgroup> ${variable}: ${type};`),
    code.replace(/@compute\b/, `@compute @workgroup_size(${size.join(', ')})`),
  ];
  return {
    name,
    code: lines.join('\n'),
    bindings: entries.map(([variable, what]) => ({
      name: variable,
      writes: what.startsWith('read_write'),
    })),
    usesStep: step,
  };
}

/** @param {string} name @param {string} what @param {number} asked @param {number} most */
function limit(name, what, asked, most) {
  if (asked <= most) return;
  throw new GpuError(`${name} needs ${asked} ${what}, WebGPU promises ${most}`, 'limit', {
    asked,
    limit: most,
  });
}

/** A number as an f32 literal of WGSL. @param {number} value */
export const float = (value) => `f32(${value})`;

/**
 * Sizes are padded so that rows begin at whole vec4f, and pieces of 16 columns never cross a row.
 * @param {number} n
 */
export const up16 = (n) => Math.ceil(n / 16) * 16;

/**
 * Workgroups for n units of work in the first dimension. One dimension takes 65,535; more go to the
 * third, and shaders count `wid.x + wid.z * num_workgroups.x`, so some may have nothing to do.
 * @param {number} n
 * @param {number} [y]  of the second dimension
 * @returns {[number, number, number]}
 */
export const groupsOf = (n, y = 1) => (n <= PROMISED.groups ? [n, y, 1] : [32_768, y, Math.ceil(n / 32_768)]);

/**
 * Rows of a device without their padding.
 * @param {Float32Array} rows
 * @param {number} nRows
 * @param {number} nCols
 */
export function withoutPadding(rows, nRows, nCols) {
  const stride = up16(nCols);
  if (stride === nCols) return rows;
  const out = new Float32Array(nRows * nCols);
  for (let r = 0; r < nRows; r++) out.set(rows.subarray(r * stride, r * stride + nCols), r * nCols);
  return out;
}

/**
 * Rows as buffers have them, with a padding of zeros; the same array where none is needed.
 * @param {Float32Array} rows
 * @param {number} nCols
 */
export function withPadding(rows, nCols) {
  const stride = up16(nCols);
  if (stride === nCols) return rows;
  const nRows = rows.length / nCols;
  const out = new Float32Array(nRows * stride);
  for (let r = 0; r < nRows; r++) out.set(rows.subarray(r * nCols, (r + 1) * nCols), r * stride);
  return out;
}
