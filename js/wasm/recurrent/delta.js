/* Gated delta nets. */

import { isDeltaHead, LARGEST_DELTA_HEAD } from '../delta-net.js';
import { lacksOf } from './convolution.js';

/** @typedef {import('../../llama/plan.js').DeltaSettings} DeltaSettings */

/** Values of a token. @param {DeltaSettings} settings */
const widthsOf = ({ nKeyHeads, nValueHeads, keySize, valueSize }) => {
  const values = nValueHeads * valueSize;
  return { values, channels: 2 * nKeyHeads * keySize + values };
};

/** @type {import('./kinds.js').RecurrentKind<DeltaSettings>} */
export const delta = {
  inputs(settings) {
    const { values, channels } = widthsOf(settings);
    const { nValueHeads } = settings;
    return { qkv: channels, gate: values, alpha: nValueHeads, beta: nValueHeads };
  },
  work: (settings) => ({ y: widthsOf(settings).values }),
  result: 'y',
  state(settings) {
    const { nValueHeads, keySize, valueSize, length } = settings;
    return {
      columns: { nRows: length - 1, nCols: widthsOf(settings).channels },
      heads: { nRows: nValueHeads * keySize, nCols: valueSize },
    };
  },
  lacks({ keySize, valueSize, length }) {
    const sizes = [...new Set([keySize, valueSize])].filter((size) => !isDeltaHead(size));
    const heads = sizes.map(
      (size) =>
        `delta nets with heads of ${size} values are not supported: they must be a multiple of 8, ${LARGEST_DELTA_HEAD} at most`,
    );
    return [...lacksOf(length), ...heads];
  },
  run(fm, { settings, weights }, { qkv, gate, alpha, beta, y }, { columns, heads }) {
    const { nKeyHeads, headNorm } = settings;
    const { conv, dtBias, a, headNorm: normWeight } = weights;
    fm.causalConv(qkv, conv, columns, { act: 'silu', out: qkv });
    const options = { nKeyHeads, gate, normWeight, eps: headNorm.eps, out: y };
    fm.deltaNet(qkv, { alpha, beta, dtBias, a }, heads, options);
  },
};
