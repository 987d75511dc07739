/* Causal convolutions over tokens, channel by channel. */

import { checkLength, checkNames, oneOf } from '../checks.js';
import { ShapeError } from '../errors.js';
import { Call } from './call.js';
import { CONV_OPTIONS } from './layer-options.js';
import { asOperand, countRows } from './operands.js';

/** Most tokens that a convolution covers. */
export const LONGEST_CONVOLUTION = 16;
/** Activation functions in the order of their numbers in fm_gate. */
const ACTIVATIONS = /** @type {const} */ (['silu', 'gelu', 'relu']);
/** The number for a convolution without an activation function. */
const PLAIN = -1;

/** @type {import('./core.js').Operation<'causalConv'>} */
export const causalConv = (core, x, weight, state, options = {}) => {
  checkNames(options, CONV_OPTIONS);
  const { bias, act, out } = options;
  if (act !== undefined) oneOf(ACTIVATIONS, act, 'act');
  const [w, s] = [asOperand(weight, 'weight'), asOperand(state, 'state')];
  asOperand(x, 'x');
  // weight has one value for each channel more than the state.
  const nChannels = w.length - s.length;
  const length = w.length / nChannels;
  if (!(nChannels > 0 && Number.isInteger(length) && length >= 2 && length <= LONGEST_CONVOLUTION)) {
    throw new ShapeError(
      `weight has ${w.length} values and state ${s.length}: a convolution over n tokens, 2 to ${LONGEST_CONVOLUTION}, has n and n - 1 for each channel`,
      { got: s.length, expected: w.length },
    );
  }
  const b = bias === undefined || bias === null ? undefined : asOperand(bias, 'bias');
  if (b) checkLength(b, nChannels, 'bias');
  const nTokens = countRows(x, nChannels, 'x', `a token of ${nChannels} channel(s)`);
  const call = new Call(core);
  const [atX, atW, atB] = [call.input(x), call.input(w), call.optional(b)];
  const atS = call.changed(s);
  const atY = call.output(out, x, nTokens, nChannels);
  call.run('causalConv', () =>
    core.memory.exports.fm_causal_conv(
      ...[atX.ptr, atW.ptr, atB.ptr, atS.ptr, atY.ptr],
      ...[nTokens, nChannels, length, act === undefined ? PLAIN : ACTIVATIONS.indexOf(act)],
    ),
  );
  call.result(atS);
  return call.result(atY);
};
