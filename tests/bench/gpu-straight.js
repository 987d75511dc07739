/**
 * The opponent of the matrix-vector kernel of js/gpu: a plain kernel with a workgroup for each row. Its 64 invocations
 * take pieces of 16 columns in turn and add up their sums as a tree. No row shares the reads of activations, no columns are cut.
 */
import { groupsOf, shader, up16 } from '../../js/gpu/shader.js';
import { decoder, prelude, rowBlocks, WGSL_TYPES } from '../../js/gpu/wgsl/types.js';

/** @import { Unit } from '../../js/gpu/wgsl/types.js' */

const INVOCATIONS = 64;

/** y = W x for one token. Bindings: w, x, y. @param {Unit} unit */
export function straightMatvec(unit) {
  const { type, nRows, nCols } = unit;
  const { lanes, blockValues } = WGSL_TYPES[type];
  const nBlocks = rowBlocks(unit);
  return shader({
    name: `straight matvec ${type} ${nRows}x${nCols}`,
    bindings: { w: 'read array<u32>', x: 'read array<vec4f>', y: 'read_write array<f32>' },
    step: true,
    workgroup: { partial: `array<f32, ${INVOCATIONS}>` },
    size: [INVOCATIONS],
    code: `${prelude([type])}${decoder(unit)}
@compute
fn main(@builtin(local_invocation_index) tid: u32, @builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) count: vec3u) {
  let row = wid.x + wid.z * count.x;
  if (row >= ${nRows}u) { return; }
  var sum = 0.0;
  for (var p = tid; p < ${nBlocks * lanes}u; p += ${INVOCATIONS}u) {
    let lane = p % ${lanes}u;
    let values = decode_0(row * ${nBlocks}u + p / ${lanes}u, lane);
    let at = vec4u(step.start * ${up16(nCols) / 4}u + p / ${lanes}u * ${blockValues / 4}u) + runs_0(lane);
    sum += dot(values[0], x[at.x]) + dot(values[1], x[at.y]) + dot(values[2], x[at.z]) + dot(values[3], x[at.w]);
  }
  partial[tid] = sum;
  workgroupBarrier();
  for (var n = ${INVOCATIONS / 2}u; n > 0u; n /= 2u) {
    if (tid < n) { partial[tid] += partial[tid + n]; }
    workgroupBarrier();
  }
  if (tid == 0u) { y[step.start * ${up16(nRows)}u + row] = partial[0]; }
}`,
  });
}

/** Workgroups of straightMatvec(). @param {Unit} unit */
export const straightGroups = ({ nRows }) => groupsOf(nRows);
