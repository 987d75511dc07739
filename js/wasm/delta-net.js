/* The gated delta net: tokens go through the states of its value heads. */

import { checkDivisor, checkLength, checkNames } from '../checks.js';
import { ArgumentError, ShapeError, show } from '../errors.js';
import { Call } from './call.js';
import { Tensor } from './handles.js';
import { DELTA_OPTIONS } from './layer-options.js';
import { asOperand, checkNumber, countRows } from './operands.js';

/** Largest size of a head, on both sides of its state. */
export const LARGEST_DELTA_HEAD = 256;

const GATE_NAMES = /** @type {const} */ (['alpha', 'beta', 'dtBias', 'a']);

/** Tells whether heads of this size can be computed. @param {number} size */
export const isDeltaHead = (size) =>
  Number.isInteger(size) && size > 0 && size <= LARGEST_DELTA_HEAD && size % 8 === 0;

/** @type {import('./core.js').Operation<'deltaNet'>} */
export const deltaNet = (core, qkv, gates, state, options = {}) => {
  checkNames(options, DELTA_OPTIONS);
  const { gate, normWeight, eps = 1e-6, out } = options;
  asOperand(qkv, 'qkv');
  checkNames(gates, GATE_NAMES, 'gate');
  const [alpha, beta, dtBias, a] = GATE_NAMES.map((name) => asOperand(gates[name], `gates.${name}`));
  if (!(state instanceof Tensor)) throw new ArgumentError(`state must be a Tensor, got ${show(state)}`);
  checkNumber(eps, 'eps', { from: 0 });
  const nValueHeads = a.length;
  const { nKeyHeads = nValueHeads } = options;
  const [keySize, valueSize] = [state.nRows / nValueHeads, state.nCols];
  for (const [size, got, what] of /** @type {const} */ ([
    [keySize, state.nRows, `rows for ${nValueHeads} heads`],
    [valueSize, valueSize, 'columns'],
  ])) {
    if (isDeltaHead(size)) continue;
    throw new ShapeError(
      `state has ${got} ${what}: the rows and the columns of a head must be multiples of 8, at most ${LARGEST_DELTA_HEAD}`,
      { got, expected: LARGEST_DELTA_HEAD },
    );
  }
  checkDivisor(nKeyHeads, nValueHeads, 'nKeyHeads', 'value heads');
  const nCols = nValueHeads * valueSize;
  const ofToken = `a token of ${nKeyHeads} key head(s) of ${keySize} and ${nValueHeads} value head(s) of ${valueSize}`;
  const nTokens = countRows(qkv, 2 * nKeyHeads * keySize + nCols, 'qkv', ofToken);
  checkLength(alpha, nTokens * nValueHeads, 'gates.alpha');
  checkLength(beta, nTokens * nValueHeads, 'gates.beta');
  checkLength(dtBias, nValueHeads, 'gates.dtBias');
  const z = gate === undefined ? undefined : asOperand(gate, 'gate');
  if (z) checkLength(z, nTokens * nCols, 'gate');
  const weight = normWeight === undefined ? undefined : asOperand(normWeight, 'normWeight');
  if (weight) checkLength(weight, valueSize, 'normWeight');
  const call = new Call(core);
  const [atQkv, atAlpha, atBeta, atBias, atA] = [qkv, alpha, beta, dtBias, a].map((x) => call.input(x));
  const [atZ, atWeight, atState] = [call.optional(z), call.optional(weight), call.input(state)];
  const atY = call.output(out, qkv, nTokens, nCols);
  const shape = call.struct('fm_delta', () => [nTokens, nKeyHeads, nValueHeads, keySize, valueSize, eps]);
  call.run('deltaNet', () =>
    core.memory.exports.fm_delta_net(
      shape.ptr,
      atQkv.ptr,
      atAlpha.ptr,
      atBeta.ptr,
      atBias.ptr,
      atA.ptr,
      atZ.ptr,
      atWeight.ptr,
      atState.ptr,
      atY.ptr,
    ),
  );
  return call.result(atY);
};
