/* Causal convolutions over tokens, channel by channel: an invocation takes all tokens of a channel.
 * The values before the first token are in the state, which then holds the last ones. */

import { groupsOf, shader, up16 } from '../shader.js';
import { activated } from './outputs.js';

const INVOCATIONS = 64;

/**
 * State and copy are `array<f32>`: (length - 1) rows of all channels, oldest first. At position 0 the
 * state is zeros, whatever is there. Of several tokens the copy is made before the last one.
 * Weights and biases have a row of up16(length) or up16(nChannels) values.
 * @typedef {object} ConvolutionOptions
 * @property {number} nChannels
 * @property {number} length  tokens that it covers
 * @property {number} stride  between rows of x
 * @property {{ b: number, c: number, x: number }} [gates]  y = c * conv(b * x), which begin there in a
 *   row of x; rows of y have up16(nChannels) values
 * @property {number} [at]  without gates: x = silu(conv(x)) of the channels from this one on
 * @property {boolean} [bias]
 */

/** @param {ConvolutionOptions} options */
export function causalConvolution({ nChannels, length, stride, gates, at = 0, bias = false }) {
  const past = Array.from({ length: length - 1 }, (_, j) => j);
  const rows = up16(length);
  const column = (/** @type {string} */ of, /** @type {number} */ j) => `${of}[${j * nChannels}u + i]`;
  const put = (/** @type {string} */ to) => past.map((j) => `${column(to, j)} = s${j};`).join(' ');
  const terms = past.map((j) => `s${j} * w${j}`);
  const moved = past.map((j) => `s${j} = ${j + 1 < past.length ? `s${j + 1}` : 'v'};`).join(' ');
  return shader({
    name: `convolution of ${nChannels} over ${length}`,
    bindings: {
      x: gates ? 'read array<f32>' : 'read_write array<f32>',
      weight: 'read array<f32>',
      ...(bias && { bias: 'read array<f32>' }),
      state: 'read_write array<f32>',
      saved: 'read_write array<f32>',
      ...(gates && { y: 'read_write array<f32>' }),
    },
    step: true,
    size: [INVOCATIONS],
    code: `${gates ? '' : activated('silu')}
@compute
fn main(@builtin(local_invocation_index) tid: u32, @builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) count: vec3u) {
  let i = (wid.x + wid.z * count.x) * ${INVOCATIONS}u + tid;
  if (i >= ${nChannels}u) { return; }
  ${[...past, length - 1].map((j) => `let w${j} = weight[i * ${rows}u + ${j}u];`).join(' ')}
  ${past.map((j) => `var s${j} = 0.0;`).join(' ')}
  if (step.position > 0u) { ${past.map((j) => `s${j} = ${column('state', j)};`).join(' ')} }
  for (var t = 0u; t < step.n_tokens; t++) {
    if (t > 0u && t + 1u == step.n_tokens) { ${put('saved')} }
    let row = (step.start + t) * ${stride}u + i;
    let v = ${gates ? `x[row + ${gates.b}u] * x[row + ${gates.x}u]` : `x[row + ${at}u]`};
    let sum = ${[...terms, `v * w${length - 1}`].join(' + ')}${bias ? ' + bias[i]' : ''};
    ${moved}
    ${
      gates
        ? `y[(step.start + t) * ${up16(nChannels)}u + i] = x[row + ${gates.c}u] * sum;`
        : `x[row + ${at}u] = activated(sum);`
    }
  }
  ${put('state')}
}`,
  });
}

/** Workgroups of causalConvolution(). @param {{ nChannels: number }} options */
export const convolutionGroups = ({ nChannels }) => groupsOf(Math.ceil(nChannels / INVOCATIONS));
