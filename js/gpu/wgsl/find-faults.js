/* The search for a NaN or an infinity in rows; what it finds is noted in the workspace of the
 * heads, see faults.js. */

import { LARGEST_F32 } from '../../llama/numeric.js';
import { groupsOf, shader, up16 } from '../shader.js';
import { faultNote, faultPart, largestBits } from './faults.js';

/** vec4f of a row that a workgroup looks at. */
const CHUNK = 4096;

/**
 * Notes the first value of the step's rows that is not finite; the padding is left out. `step.seen` is
 * the number of the layer.
 * @param {{ part: import('../../llama/errors.js').NumericPart, nCols: number }} options
 */
export function findFaults({ part, nCols }) {
  const stride = up16(nCols) / 4;
  return shader({
    name: `check of ${nCols}`,
    bindings: { x: 'read array<vec4f>', y: 'read_write Work' },
    step: true,
    size: [256],
    code: `${faultNote({ layer: 'step.seen' })}
@compute
fn main(@builtin(local_invocation_index) tid: u32, @builtin(workgroup_id) wid: vec3u) {
  let row = (step.start + wid.y) * ${stride}u;
  for (var i = wid.x * ${CHUNK}u + tid; i < min(${Math.ceil(nCols / 4)}u, (wid.x + 1u) * ${CHUNK}u); i += 256u) {
    let v = x[row + i];
    // NaN and infinity have all bits of the exponent.
    if (!any((bitcast<vec4u>(v) & vec4u(0x7f800000u)) == vec4u(0x7f800000u))) { continue; }
    for (var k = 0u; k < 4u; k++) {
      if (${nCols % 4 ? `4u * i + k < ${nCols}u && ` : ''}is_fault(v[k], ${largestBits(LARGEST_F32)})) {
        note_fault(${faultPart(part)}, step.position + wid.y, v[k]);
      }
    }
  }
}`,
  });
}

/** Workgroups of findFaults. @param {{ nCols: number }} options @param {number} nTokens */
export const findFaultsGroups = ({ nCols }, nTokens) => groupsOf(Math.ceil(up16(nCols) / 4 / CHUNK), nTokens);
