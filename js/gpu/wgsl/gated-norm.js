/* Gates and norms of heads or of groups of heads, in place. */

import { shader, up16 } from '../shader.js';
import { activated } from './outputs.js';
import { rmsFactor } from './row-sums.js';

/**
 * With `gateFirst`, y = norm(y * silu(gate)) * weight, else y = norm(y) * weight * silu(gate); without
 * eps there is no norm, and no weight.
 * @typedef {object} GatedNormOptions
 * @property {number} nGroups  in a row of y
 * @property {number} size  of a group
 * @property {number} stride  between rows of gates
 * @property {number} at  where the gates begin in their row
 * @property {number | undefined} eps
 * @property {boolean} [gateFirst]
 * @property {boolean} [shared]  all groups have the same weights; else each has a row of up16(size)
 */

/** @param {GatedNormOptions} options */
export function gatedNorm({ nGroups, size, stride, at, eps, gateFirst = false, shared = false }) {
  const wide = size > 256 ? 256 : 64;
  const loop = (/** @type {string} */ body) => `for (var i = tid; i < ${size}u; i += ${wide}u) { ${body} }`;
  const gate = 'activated(gates[first + i])';
  const norm =
    eps === undefined
      ? ''
      : `
  partial[tid] = sum;
  workgroupBarrier();
  for (var n = ${wide / 2}u; n > 0u; n >>= 1u) {
    if (tid < n) { partial[tid] += partial[tid + n]; }
    workgroupBarrier();
  }
  let factor = ${rmsFactor('partial[0]', size, eps)};
  ${loop(`y[to + i] *= factor * weight[${shared ? '' : `wid.x * ${up16(size)}u + `}i]${gateFirst ? '' : ` * ${gate}`};`)}`;
  return shader({
    name: `gated norm of ${nGroups} x ${size}`,
    bindings: {
      gates: 'read array<f32>',
      ...(eps !== undefined && { weight: 'read array<f32>' }),
      y: 'read_write array<f32>',
    },
    step: true,
    workgroup: { ...(eps !== undefined && { partial: `array<f32, ${wide}>` }) },
    size: [wide],
    code: `${activated('silu')}
@compute
fn main(@builtin(local_invocation_index) tid: u32, @builtin(workgroup_id) wid: vec3u) {
  if (wid.y >= step.n_tokens) { return; }
  let to = (step.start + wid.y) * ${up16(nGroups * size)}u + wid.x * ${size}u;
  let first = (step.start + wid.y) * ${stride}u + ${at}u + wid.x * ${size}u;
  var sum = 0.0;
  ${loop(`let v = y[to + i]${gateFirst ? ` * ${gate}` : ''}; ${gateFirst ? 'y[to + i] = v; ' : ''}sum += v * v;`)}${norm}
}`,
  });
}

/**
 * Workgroups of gatedNorm().
 * @param {GatedNormOptions} options
 * @param {number} nTokens
 * @returns {[number, number, number]}
 */
export const gatedNormGroups = ({ nGroups }, nTokens) => [nGroups, nTokens, 1];
