/* The selective scan of Mamba-2: tokens go through the states of its heads. */

import { checkDivisor, checkLength, checkNames } from '../checks.js';
import { ArgumentError, ShapeError, show } from '../errors.js';
import { Call } from './call.js';
import { Tensor } from './handles.js';
import { SCAN_OPTIONS } from './layer-options.js';
import { asOperand, countRows } from './operands.js';

const STEP_NAMES = /** @type {const} */ (['dt', 'dtBias', 'a', 'd']);

/** @type {import('./core.js').Operation<'ssmScan'>} */
export const ssmScan = (core, x, steps, state, options = {}) => {
  checkNames(options, SCAN_OPTIONS);
  const { nGroups = 1, out } = options;
  asOperand(x, 'x');
  checkNames(steps, STEP_NAMES, 'step');
  const [dt, dtBias, a, d] = STEP_NAMES.map((name) => asOperand(steps[name], `steps.${name}`));
  if (!(state instanceof Tensor)) throw new ArgumentError(`state must be a Tensor, got ${show(state)}`);
  const [nHeads, headSize] = [a.length, state.nCols];
  const stateSize = state.nRows / nHeads;
  if (!Number.isInteger(stateSize)) {
    throw new ShapeError(`state has ${state.nRows} rows, no multiple of the ${nHeads} heads of steps.a`, {
      got: state.nRows,
      expected: nHeads,
    });
  }
  checkDivisor(nGroups, nHeads, 'nGroups', 'heads');
  checkLength(dtBias, nHeads, 'steps.dtBias');
  checkLength(d, nHeads, 'steps.d');
  const nCols = nHeads * headSize;
  const token = `a token of ${nHeads} head(s) of ${headSize} and ${nGroups} group(s) of ${stateSize}`;
  const nTokens = countRows(x, nCols + 2 * nGroups * stateSize, 'x', token);
  checkLength(dt, nTokens * nHeads, 'steps.dt');
  const call = new Call(core);
  const [atX, atDt, atBias, atA, atD, atState] = [x, dt, dtBias, a, d, state].map((one) => call.input(one));
  const atY = call.output(out, x, nTokens, nCols);
  const shape = call.struct('fm_scan', () => [nTokens, nHeads, nGroups, headSize, stateSize]);
  call.run('ssmScan', () =>
    core.memory.exports.fm_ssm_scan(
      shape.ptr,
      atX.ptr,
      atDt.ptr,
      atA.ptr,
      atD.ptr,
      atBias.ptr,
      atState.ptr,
      atY.ptr,
    ),
  );
  return call.result(atY);
};
