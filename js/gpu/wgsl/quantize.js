/* Activations for products with fewer bits: as int8 codes with a scale for every 32 columns, or
 * scaled by row for f16. */

import { shader, up16 } from '../shader.js';

/** @typedef {import('../shader.js').Shader} Shader */

/** Columns with one scale. */
export const SCALE_COLS = 32;

/** Words of codes that a workgroup writes: its invocations. */
const GROUP_WORDS = 64;

/** Scales of a row. @param {number} nCols */
export const rowScales = (nCols) => Math.ceil(nCols / SCALE_COLS);

/**
 * Rounds rows to codes of -127 to 127.
 *
 *   x        [row][up16(nCols)] f32; step.n_tokens rows from row step.start on are read
 *   codes    [row][up16(nCols) / 4] words of four signed bytes, the first column lowest; the same
 *            rows are written
 *   scales   [row][rowScales(nCols)] f32, the largest magnitude of 32 columns / 127
 *
 * A code is the integer nearest to x / scale, half to even. Where all 32 values are below 2^-100,
 * the scale and the codes are 0. Where one is NaN or infinite, the scale is NaN or infinite, and so
 * is the product.
 * @param {{ nCols: number }} shape
 * @returns {Shader}
 */
export function quantizeActivations({ nCols }) {
  const rowWords = up16(nCols) / 4;
  return shader({
    name: `quantize ${nCols} columns`,
    bindings: {
      x: 'read array<vec4f>',
      codes: 'read_write array<u32>',
      scales: 'read_write array<f32>',
    },
    step: true,
    // Magnitudes as bits: integers order them as floats do, and NaN comes last.
    workgroup: { largest: `array<u32, ${GROUP_WORDS}>` },
    size: [GROUP_WORDS],
    code: `
@compute
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) tid: u32) {
  let row = step.start + wid.y;
  let word = wid.x * ${GROUP_WORDS}u + tid;
  var v = vec4f();
  if (word < ${rowWords}u) { v = x[row * ${rowWords}u + word]; }
  let bits = bitcast<vec4u>(v) & vec4u(0x7fffffffu);
  let pair = max(bits.xy, bits.zw);
  largest[tid] = max(pair.x, pair.y);
  workgroupBarrier();
  if (word >= ${rowWords}u) { return; }
  let first = tid & ${GROUP_WORDS - 8}u;
  var most = 0u;
  for (var i = 0u; i < 8u; i++) { most = max(most, largest[first + i]); }
  // Below 2^-100 the inverse would leave f32.
  most = select(0u, most, most >= ${(127 - 100) << 23}u);
  let m = bitcast<f32>(most);
  let to = select(0.0, 127.0 / m, most > 0u);
  let q = vec4u(vec4i(round(v * to))) & vec4u(255u);
  codes[row * ${rowWords}u + word] = q.x | (q.y << 8u) | (q.z << 16u) | (q.w << 24u);
  if (tid == first) { scales[row * ${rowScales(nCols)}u + word / 8u] = m / 127.0; }
}`,
  });
}

/**
 * Workgroups of quantizeActivations.
 * @param {{ nCols: number }} shape
 * @param {number} nTokens
 * @returns {[number, number, number]}
 */
export const quantizeGroups = ({ nCols }, nTokens) => [Math.ceil(up16(nCols) / 4 / GROUP_WORDS), nTokens, 1];

/**
 * A scale for each row, with which f16 holds it: scales[row] is the largest power of two that is
 * not above the largest magnitude of the row, between 2^-126 and 2^126. Rows are those of
 * quantizeActivations.
 * @param {{ nCols: number }} shape
 * @returns {Shader}
 */
export function scaleActivations({ nCols }) {
  const rowVectors = up16(nCols) / 4;
  return shader({
    name: `scales of rows of ${nCols} columns`,
    bindings: { x: 'read array<vec4f>', scales: 'read_write array<f32>' },
    step: true,
    workgroup: { largest: 'array<u32, 64>' },
    size: [64],
    code: `
@compute
fn main(@builtin(workgroup_id) wid: vec3u, @builtin(local_invocation_index) tid: u32) {
  let row = step.start + wid.x;
  var most = vec4u();
  for (var i = tid; i < ${rowVectors}u; i += 64u) {
    most = max(most, bitcast<vec4u>(x[row * ${rowVectors}u + i]) & vec4u(0x7fffffffu));
  }
  let pair = max(most.xy, most.zw);
  largest[tid] = max(pair.x, pair.y);
  workgroupBarrier();
  if (tid > 0u) { return; }
  var m = 0u;
  for (var i = 0u; i < 64u; i++) { m = max(m, largest[i]); }
  scales[row] = bitcast<f32>(clamp(m >> 23u, 1u, 253u) << 23u);
}`,
  });
}

/** Workgroups of scaleActivations. @param {number} nTokens @returns {[number, number, number]} */
export const scaleGroups = (nTokens) => [nTokens, 1, 1];
