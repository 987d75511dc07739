/** The gated delta net of a layer in float64, with the formulas of js/llama/plan.js. */
import { convolve } from './reference-recurrent.js';
import { ACTIVATIONS, multiply } from './reference-rows.js';

/** @import { DeltaSettings } from '../../js/llama/plan.js' */
/** @import { ReferenceKind } from './reference-recurrent.js' */

const sigmoid = (/** @type {number} */ x) => 1 / (1 + Math.exp(-x));
const softplus = (/** @type {number} */ x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));

/** @param {Float64Array} x @param {number} eps */
const unit = (x, eps) => x.map((value) => value / Math.sqrt(x.reduce((sum, one) => sum + one * one, eps)));

/** @param {DeltaSettings} settings */
const channelsOf = ({ nKeyHeads, nValueHeads, keySize, valueSize }) =>
  2 * nKeyHeads * keySize + nValueHeads * valueSize;

/** @type {ReferenceKind<DeltaSettings>} */
export const delta = {
  sizes: (settings) => ({
    columns: channelsOf(settings) * (settings.length - 1),
    heads: settings.nValueHeads * settings.keySize * settings.valueSize,
  }),
  token(h, { columns, heads }, settings, weights) {
    const { nKeyHeads, nValueHeads, keySize, valueSize, headNorm } = settings;
    const [qkv, gate, alpha, beta] = ['qkv', 'gate', 'alpha', 'beta'].map((role) =>
      multiply(weights[role], h, weights[`${role}Factor`]),
    );
    const mixed = convolve(qkv, columns, weights.conv).map(ACTIVATIONS.silu);
    const y = new Float64Array(nValueHeads * valueSize);
    for (let head = 0; head < nValueHeads; head++) {
      const part = (/** @type {number} */ start, /** @type {number} */ n) => mixed.subarray(start, start + n);
      const keyHead = head % nKeyHeads;
      const q = unit(part(keyHead * keySize, keySize), headNorm.eps);
      const k = unit(part((nKeyHeads + keyHead) * keySize, keySize), headNorm.eps);
      const v = part(2 * nKeyHeads * keySize + head * valueSize, valueSize);
      const decay = Math.exp(weights.a.values[head] * softplus(alpha[head] + weights.dtBias.values[head]));
      const state = heads.subarray(head * keySize * valueSize, (head + 1) * keySize * valueSize);
      const o = v.map((value, c) => {
        let seen = 0;
        for (let i = 0; i < keySize; i++) {
          state[i * valueSize + c] *= decay;
          seen += state[i * valueSize + c] * k[i];
        }
        const written = sigmoid(beta[head]) * (value - seen);
        let read = 0;
        for (let i = 0; i < keySize; i++) {
          state[i * valueSize + c] += k[i] * written;
          read += (state[i * valueSize + c] * q[i]) / Math.sqrt(keySize);
        }
        return read;
      });
      const square = o.reduce((sum, value) => sum + value * value, 0) / valueSize;
      for (let c = 0; c < valueSize; c++) {
        const at = head * valueSize + c;
        const normed = (o[c] / Math.sqrt(square + headNorm.eps)) * weights.headNorm.values[c];
        y[at] = normed * ACTIVATIONS.silu(gate[at]);
      }
    }
    return y;
  },
};
