/**
 * Mamba-2 blocks in float64, token by token, with the formulas of js/llama/plan.js.
 */
import { convolve, project } from './reference-recurrent.js';
import { ACTIVATIONS } from './reference-rows.js';
import { softplus } from './scan.js';

/** @import { ScanSettings } from '../../js/llama/plan.js' */
/** @import { ReferenceKind } from './reference-recurrent.js' */

/** @param {ScanSettings} s */
const innerOf = (s) => s.nHeads * s.headSize;
/** @param {ScanSettings} s */
const channelsOf = (s) => innerOf(s) + 2 * s.nGroups * s.stateSize;

/** @type {ReferenceKind<ScanSettings>} */
export const scan = {
  sizes: (s) => ({
    columns: channelsOf(s) * (s.length - 1),
    heads: innerOf(s) * s.stateSize,
  }),
  token(h, { columns, heads }, settings, weights) {
    const { nHeads, headSize, nGroups, stateSize, gateNorm } = settings;
    const inner = innerOf(settings);
    const [z, x, dt] = ['z', 'x', 'dt'].map((role) => project(h, weights, role));
    const mixed = convolve(x, columns, weights.conv, weights.convBias).map(ACTIVATIONS.silu);
    const y = new Float64Array(inner);
    for (let head = 0; head < nHeads; head++) {
      const step = softplus(dt[head] + weights.stepBias.values[head]);
      const decay = Math.exp(step * weights.a.values[head]);
      const b = inner + Math.floor((head * nGroups) / nHeads) * stateSize;
      const c = b + nGroups * stateSize;
      for (let p = 0; p < headSize; p++) {
        const at = head * headSize + p;
        y[at] = weights.d.values[head] * mixed[at];
        for (let n = 0; n < stateSize; n++) {
          const state = (head * stateSize + n) * headSize + p;
          heads[state] = heads[state] * decay + mixed[b + n] * step * mixed[at];
          y[at] += mixed[c + n] * heads[state];
        }
      }
    }
    const gated = y.map((value, i) => value * ACTIVATIONS.silu(z[i]));
    if (!weights.gateNorm) return gated;
    const size = inner / nGroups;
    const factors = Array.from({ length: nGroups }, (_, group) => {
      const values = gated.subarray(group * size, (group + 1) * size);
      return 1 / Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0) / size + gateNorm.eps);
    });
    return gated.map((value, i) => value * factors[Math.floor(i / size)] * weights.gateNorm.values[i]);
  },
};
