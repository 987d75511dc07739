/* The inner part of products for few tokens: a workgroup has some rows of a weight, its invocations
 * take pieces of 16 columns in turn, and their sums are added up in a fixed order. What becomes of
 * the sums is the affair of the kernel. Everything is unrolled, so that sums lie in registers. */

import { float, up16 } from '../shader.js';
import { decoder, prelude, rowBlocks, WGSL_TYPES } from './types.js';

/** @typedef {import('./types.js').Unit} Unit */

/**
 * RMS norm in front of a product: W (x * g) / rms(x), g in `vectors` from the value `at` on, a
 * multiple of 4, padded as a row of x.
 * @typedef {{ eps: number, at?: number }} NormInFront
 */

/**
 * @typedef {object} RowSumsOptions
 * @property {readonly Unit[]} units  variables w0, w1, w2
 * @property {number} nTokens  sums for so many tokens; step.n_tokens says how many there are
 * @property {number} slots  1, or 2: rows of two units are summed together
 * @property {number} rows  of a slot
 * @property {number} invocations  of the workgroup, a multiple of 8
 * @property {NormInFront | undefined} norm
 * @property {boolean} subgroups
 * @property {(t: number) => string} [xAt]  where the row of token t begins in x, in vec4f; default:
 *   from row step.start on
 */

/**
 * f32 values of workgroup memory that a reduction takes at a time: more would leave room for fewer
 * workgroups.
 */
const REDUCE_VALUES = 2048;

const RUNS = ['x', 'y', 'z', 'w'];

/** @param {number} n @param {(i: number) => string} code */
export const each = (n, code) => Array.from({ length: n }, (_, i) => code(i)).join('');

/** @param {number} nCols */
export const pieces = (nCols) => Math.ceil(nCols / 16);

/** Functions of all kernels with row sums. */
const HELPERS = `
fn dot_all(a: mat4x4f, b: mat4x4f) -> f32 { return dot(a[0], b[0]) + dot(a[1], b[1]) + dot(a[2], b[2]) + dot(a[3], b[3]); }
fn times(a: mat4x4f, b: mat4x4f) -> mat4x4f { return mat4x4f(a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]); }
fn sums_of(v: mat4x4f) -> vec4f {
  return vec4f(dot(v[0], vec4f(1.0)), dot(v[1], vec4f(1.0)), dot(v[2], vec4f(1.0)), dot(v[3], vec4f(1.0)));
}`;

/**
 * Four reads at the runs `at`.
 * @param {string} variable
 * @param {string} first  added to each index
 */
const gather = (variable, first) => RUNS.map((run) => `${variable}[at.${run} + ${first}]`).join(', ');

/**
 * The code of row sums, in parts.
 * @param {RowSumsOptions} options
 */
export function rowSums({ units, nTokens, slots, rows, invocations, norm, subgroups, xAt }) {
  const { nCols } = units[0];
  const perToken = slots * rows;
  const squares = nTokens * perToken;
  const nSums = squares + (norm ? nTokens : 0);
  const stride = up16(nCols) / 4;

  /**
   * Sums of rows of one unit, or of several with the same type.
   * @param {readonly number[]} of  units
   * @param {number} slot  of the first
   * @param {(r: string) => string} rowOf  the r-th row
   * @param {{ from: string, to: string }} [range]  of pieces
   */
  const loop = (of, slot, rowOf, range = { from: '0u', to: `${pieces(nCols)}u` }) => {
    const { type } = units[of[0]];
    const { lanes, blockValues } = WGSL_TYPES[type];
    /** Code for each row of the units. */
    const eachRow = (/** @type {(block: string, u: number, s: number) => string} */ code) =>
      of
        .map((u, i) =>
          each(rows, (r) =>
            code(`${rowOf(`${r}u`)} * ${rowBlocks(units[u])}u + b`, u, (slot + i) * rows + r),
          ),
        )
        .join('');
    const withSquares = norm && slot === 0;
    const token = (/** @type {number} */ t) => {
      const first = xAt?.(t) ?? `x0 + ${t * stride}u`;
      const sum = (/** @type {number} */ s) => `a${t * perToken + s}`;
      return `
      ${norm ? 'var' : 'let'} x16 = mat4x4f(${gather('x', first)});
      ${withSquares ? `a${squares + t} += dot_all(x16, x16);` : ''}
      ${norm ? 'x16 = times(x16, g16);' : ''}
      ${nTokens === 1 ? 'let sums = sums_of(x16);' : ''}${eachRow((block, u, s) =>
        nTokens === 1
          ? `
      ${sum(s)} += dot16_${u}(${block}, l, x16, sums);`
          : `
      ${sum(s)} += dot_all(v${s}, x16);`,
      )}`;
    };
    return `
  for (var p = ${range.from} + tid; p < ${range.to}; p += ${invocations}u) {
    let b = p / ${lanes}u;
    let l = p % ${lanes}u;
    let at = vec4u(b * ${blockValues / 4}u) + runs_${of[0]}(l);
    ${norm ? `let g16 = mat4x4f(${gather('vectors', `${(norm.at ?? 0) / 4}u`)});` : ''}${
      nTokens > 1
        ? eachRow(
            (block, u, s) => `
    let v${s} = decode_${u}(${block}, l);`,
          )
        : ''
    }${each(
      nTokens,
      (t) => `
    ${nTokens === 1 ? '' : `if (${t}u < step.n_tokens) `}{${token(t)}
    }`,
    )}
  }`;
  };

  const types = units.map(({ type }) => type);
  return {
    /** Bindings of the weights and activations. */
    bindings: {
      ...Object.fromEntries(units.map((_, i) => [`w${i}`, 'read array<u32>'])),
      x: 'read array<vec4f>',
    },
    enable: subgroups ? ['subgroups'] : [],
    functions: `${prelude(types)}${units.map((unit, i) => decoder(unit, { suffix: `_${i}`, variable: `w${i}` })).join('')}${HELPERS}`,
    /** Parameters of main: the invocation is `tid`, the group `wid`. */
    parameters: `@builtin(local_invocation_index) tid: u32, @builtin(workgroup_id) wid: vec3u,
  @builtin(num_workgroups) count: vec3u${
    subgroups ? ', @builtin(subgroup_invocation_id) lane: u32, @builtin(subgroup_size) lanes: u32' : ''
  }`,
    /** Sums of zero, and where x begins. */
    declare: `
  ${xAt ? '' : `let x0 = step.start * ${stride}u;`}${each(
    nSums,
    (s) => `
  var a${s} = 0.0;`,
  )}`,
    loop,
    ...reduction(nSums, invocations, subgroups),
    /** The index in `total` of a row, or of the sum of squares. */
    total: (/** @type {string} */ t, slot = 0, r = '0u') =>
      `total[${t} * ${perToken}u + ${slot * rows}u + ${r}]`,
    /** What a sum must be multiplied by. */
    factor: (/** @type {string} */ t) =>
      norm ? rmsFactor(`total[${squares}u + ${t}]`, nCols, norm.eps) : '1.0',
    squares: (/** @type {string} */ t) => `total[${squares}u + ${t}]`,
  };
}

/**
 * 1 / rms, finite for a row of zeros.
 * @param {string} squares  their sum
 * @param {number | string} n
 * @param {number} eps
 */
export const rmsFactor = (squares, n, eps) =>
  `inverseSqrt(max(${squares} / f32(${n}) + ${float(eps)}, 1.2e-38))`;

/**
 * Adds up a0, a1, ... over the workgroup: `total[s]` then is the sum of all a_s.
 * @param {number} nSums
 * @param {number} invocations
 * @param {boolean} subgroups  of any size from 4 to 128; invocations are counted in their order
 */
function reduction(nSums, invocations, subgroups) {
  const partials = invocations / (subgroups ? 4 : 1);
  const chunk = Math.min(nSums, Math.floor(REDUCE_VALUES / partials));
  const parts = invocations / 8;
  const code = (/** @type {number} */ first) => {
    const n = Math.min(chunk, nSums - first);
    if (subgroups) {
      return `${each(
        n,
        (s) => `
  let b${first + s} = subgroupAdd(a${first + s});`,
      )}
  if (lane == 0u) {${each(
    n,
    (s) => `
    partial[${s * partials}u + tid / lanes] = b${first + s};`,
  )}
  }
  workgroupBarrier();
  for (var s = tid; s < ${n}u; s += ${invocations}u) {
    var sum = partial[s * ${partials}u];
    for (var k = 1u; k < (${invocations - 1}u + lanes) / lanes; k++) { sum += partial[s * ${partials}u + k]; }
    total[${first}u + s] = sum;
  }
  workgroupBarrier();`;
    }
    return `${each(
      n,
      (s) => `
  partial[${s * invocations}u + tid] = a${first + s};`,
    )}
  workgroupBarrier();
  for (var i = tid; i < ${n * parts}u; i += ${invocations}u) {
    let a = i / ${parts}u * ${invocations}u + i % ${parts}u;
    var sum = partial[a];
    for (var k = 1u; k < 8u; k++) { sum += partial[a + k * ${parts}u]; }
    eighth[i] = sum;
  }
  workgroupBarrier();
  for (var s = tid; s < ${n}u; s += ${invocations}u) {
    var sum = eighth[s * ${parts}u];
    for (var k = 1u; k < ${parts}u; k++) { sum += eighth[s * ${parts}u + k]; }
    total[${first}u + s] = sum;
  }`;
  };
  const chunks = Array.from({ length: Math.ceil(nSums / chunk) }, (_, i) => code(i * chunk));
  return {
    workgroup: {
      partial: `array<f32, ${chunk * partials}>`,
      ...(subgroups ? {} : { eighth: `array<f32, ${chunk * parts}>` }),
      total: `array<f32, ${nSums}>`,
    },
    reduce: `${chunks.join('')}${subgroups ? '' : '\n  workgroupBarrier();'}`,
  };
}
