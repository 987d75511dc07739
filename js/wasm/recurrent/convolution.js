/* Short convolutions: y = c * conv(b * x). */

import { LONGEST_CONVOLUTION } from '../causal-conv.js';

/** @typedef {import('../../llama/plan.js').ConvolutionSettings} ConvolutionSettings */

/** Why a convolution cannot be computed. @param {number} length @returns {string[]} */
export const lacksOf = (length) =>
  length >= 2 && length <= LONGEST_CONVOLUTION
    ? []
    : [
        `convolutions of length ${length} are not supported: they must cover 2 to ${LONGEST_CONVOLUTION} tokens`,
      ];

/** @type {import('./kinds.js').RecurrentKind<ConvolutionSettings>} */
export const convolution = {
  inputs: ({ nChannels }) => ({ b: nChannels, c: nChannels, x: nChannels }),
  work: () => ({}),
  result: 'x',
  state: ({ nChannels, length }) => ({ columns: { nRows: length - 1, nCols: nChannels } }),
  lacks: ({ length }) => lacksOf(length),
  run(fm, { weights }, { b, c, x }, { columns }) {
    fm.multiply(b, x, { out: x });
    fm.causalConv(x, weights.conv, columns, { bias: weights.convBias, out: x });
    fm.multiply(c, x, { out: x });
  },
};
