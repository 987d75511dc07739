/* Mamba-2: a short convolution, a selective scan, and a gated norm. */

import { viewOf } from '../tensor-view.js';
import { lacksOf } from './convolution.js';

/** @typedef {import('../../llama/plan.js').ScanSettings} ScanSettings */
/** @typedef {import('../handles.js').Tensor} Tensor */
/** @typedef {import('../kernels.js').Kernels} Kernels */

/** Values of a token that go through the scan: one for each of all heads. @param {ScanSettings} s */
const innerOf = ({ nHeads, headSize }) => nHeads * headSize;

/** Values that are convolved: also those of B and C. @param {ScanSettings} s */
const channelsOf = (s) => innerOf(s) + 2 * s.nGroups * s.stateSize;

/** @type {import('./kinds.js').RecurrentKind<ScanSettings>} */
export const scan = {
  inputs: (s) => ({ z: innerOf(s), x: channelsOf(s), dt: s.nHeads }),
  work: (s) => ({ y: innerOf(s) }),
  result: 'y',
  state: (s) => ({
    columns: { nRows: s.length - 1, nCols: channelsOf(s) },
    heads: { nRows: s.nHeads * s.stateSize, nCols: s.headSize },
  }),
  lacks: ({ length }) => lacksOf(length),
  run(fm, { settings, weights }, { z, x, dt, y }, { columns, heads }) {
    const { nGroups, gateNorm } = settings;
    const { conv, convBias, stepBias: dtBias, a, d } = weights;
    fm.causalConv(x, conv, columns, { bias: convBias, act: 'silu', out: x });
    fm.ssmScan(x, { dt, dtBias, a, d }, heads, { nGroups, out: y });
    fm.gated(z, y, { out: y });
    if (weights.gateNorm) normalize(fm, y, weights.gateNorm, { nGroups, eps: gateNorm.eps });
  },
};

/**
 * y = rmsNorm(y) * weight, where each group of values has a norm of its own.
 * @param {Kernels} fm
 * @param {Tensor} y
 * @param {Tensor} weight  a row for each group
 * @param {{ nGroups: number, eps: number }} settings
 */
function normalize(fm, y, weight, { nGroups, eps }) {
  if (nGroups === 1) {
    fm.rmsNorm(y, weight, { eps, out: y });
    return;
  }
  const parts = viewOf(y, { nRows: y.nRows * nGroups, nCols: y.nCols / nGroups });
  for (let i = 0; i < parts.nRows; i++) {
    const part = viewOf(parts, { start: i, nRows: 1 });
    fm.rmsNorm(part, viewOf(weight, { start: i % nGroups, nRows: 1 }), { eps, out: part });
  }
}
