/* Products whose columns are summed in parts, for weights with too few rows to fill a device:
 * matvec() with splitK writes the parts, and a second shader adds them up. */

import { groupsOf, shader } from '../shader.js';
import { planMatvec } from './matvec.js';
import { store, storeFunctions } from './outputs.js';
import { rmsFactor } from './row-sums.js';

/** @typedef {import('./matvec.js').MatvecOptions} MatvecOptions */

/**
 * Adds up what matvec() with splitK wrote to `parts`, in the order of the columns, and stores it as
 * matvec() would have done without. Bindings: parts, vectors where there are biases, y.
 * @param {MatvecOptions} options  those of matvec()
 */
export function sumSplits(options) {
  const plan = planMatvec(options);
  const { name, nCols, nTokens, nRows, nSumRows, norm, biases, splitK, partStride } = plan;
  return shader({
    name: `splits of ${name}`,
    bindings: {
      parts: 'read array<f32>',
      ...(biases ? { vectors: 'read array<vec4f>' } : {}),
      y: 'read_write array<f32>',
    },
    step: true,
    size: [64],
    code: `${storeFunctions(plan)}
fn sum(t: u32, i: u32) -> f32 {
  var sum = 0.0;
  for (var k = 0u; k < ${splitK}u; k++) { sum += parts[(k * ${nTokens}u + t) * ${partStride}u + i]; }
  return sum;
}
@compute
fn main(@builtin(local_invocation_index) tid: u32, @builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) count: vec3u) {
  let row = (wid.x + wid.z * count.x) * 64u + tid;
  let t = wid.y;
  if (row < ${nRows}u && t < step.n_tokens) {${store(
    plan,
    (slot) => `sum(t, row + ${slot * nRows}u)`,
    norm ? rmsFactor(`sum(t, ${nSumRows}u)`, nCols, norm.eps) : '1.0',
  )}
  }
}`,
  });
}

/**
 * Workgroups of sumSplits().
 * @param {MatvecOptions} options
 * @param {number} nTokens  that there are
 */
export const sumSplitsGroups = (options, nTokens) =>
  groupsOf(Math.ceil(planMatvec(options).nRows / 64), nTokens);

/** f32 values of `parts`. @param {MatvecOptions} options */
export function partValues(options) {
  const { splitK, nTokens, partStride } = planMatvec(options);
  return splitK * nTokens * partStride;
}
