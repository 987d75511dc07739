/* Mixtures of experts: the choice of experts for each token, products with their matrices, and the
 * weighted sum of the results. Rows are grouped by expert, as a Routing describes them. */

import { checkDimension, checkDivisor, checkLength, checkNames, oneOf } from '../checks.js';
import { ArgumentError, ShapeError, show } from '../errors.js';
import { Call } from './call.js';
import { modeOf } from './core.js';
import { addressIn, Tensor } from './handles.js';
import { GATES } from './layer.js';
import { EXPERTS_OPTIONS, OUT_OPTIONS, ROUTE_OPTIONS } from './layer-options.js';
import { asOperand, asWeights, checkEntries, checkNumber, countRows } from './operands.js';

/**
 * @template {keyof import('./kernels.js').Kernels} K
 * @typedef {import('./core.js').Operation<K>} Operation
 */
/** @typedef {import('./kernel-types.js').Routing} Routing */

const SCORES = /** @type {const} */ (['softmax', 'sigmoid']);
const OVER = /** @type {const} */ (['all', 'chosen']);
/** Most experts that tokens choose from. */
export const LARGEST_MIXTURE = 1024;
/** Numbers of fm_scores. */
const SOFTMAX_CHOSEN = 1;
const SIGMOID = 2;
/** In place of an fm_gate: x is multiplied as it is. */
const NO_GATE = -1;

/** @type {Operation<'route'>} */
export const route = (core, logits, options) => {
  checkNames(options, ROUTE_OPTIONS);
  const { nUsed, scores = 'softmax', over = 'all', normalize = false, scale = 1, bias } = options;
  const { nGroups = 1, nGroupsUsed = nGroups } = options;
  const given = asOperand(logits, 'logits');
  const nExperts = options.nExperts ?? (given instanceof Tensor ? given.nCols : undefined);
  if (nExperts === undefined) throw new ArgumentError('nExperts is needed where logits is a Float32Array');
  checkCount(nExperts, 'nExperts', LARGEST_MIXTURE);
  const nTokens = countRows(given, nExperts, 'logits', `a token of ${nExperts} experts`);
  checkDivisor(nGroups, nExperts, 'nGroups', 'experts');
  checkCount(nGroupsUsed, 'nGroupsUsed', nGroups);
  checkCount(nUsed, 'nUsed', (nExperts / nGroups) * nGroupsUsed);
  oneOf(SCORES, scores, 'scores');
  oneOf(OVER, over, 'over');
  checkNumber(scale, 'scale');
  if (bias !== undefined) checkLength(asOperand(bias, 'bias'), nExperts, 'bias');
  const nPairs = nTokens * nUsed;
  const softmax = over === 'chosen' ? SOFTMAX_CHOSEN : 0;
  const call = new Call(core);
  const [atLogits, atBias] = [call.input(logits), call.optional(bias)];
  const shape = call.struct('fm_routing', () => [
    ...[nTokens, nExperts, nUsed, nGroups, nGroupsUsed],
    ...[scores === 'sigmoid' ? SIGMOID : softmax, normalize ? 1 : 0, scale],
  ]);
  const [rows, ends, weights] = [nPairs, nExperts, nPairs].map((n) => call.scratch(n));
  const workspace = call.scratch(2 * nPairs);
  const { memory } = core;
  call.run('route', () =>
    memory.exports.fm_route(
      shape.ptr,
      atLogits.ptr,
      atBias.ptr,
      rows.ptr,
      ends.ptr,
      weights.ptr,
      workspace.ptr,
    ),
  );
  const words = (/** @type {import('./call.js').Operand} */ { ptr, length }) =>
    new Uint32Array(memory.u8.slice(ptr, ptr + 4 * length).buffer);
  return { nTokens, rows: words(rows), ends: words(ends), weights: call.result(weights) };
};

/** @type {Operation<'fusedMatmulExperts'>} */
export const fusedMatmulExperts = (core, weights, x, routing, options = {}) => {
  checkNames(options, EXPERTS_OPTIONS);
  const { act, up, biases, out, activation } = options;
  const { nTokens, rows, ends } = checkRouting(routing);
  const nExperts = ends.length;
  const nPairs = rows.length;
  const [first] = asWeights(weights);
  const pointers = weights.map((w) => addressIn(w, core.memory));
  const { nCols } = first;
  for (const w of weights) {
    if (w.nRows % nExperts === 0) continue;
    throw new ShapeError(`${w.nRows} rows of ${w} are no multiple of the ${nExperts} experts`, {
      got: w.nRows,
      expected: nExperts,
    });
  }
  checkEntries(out, weights.length, 'out');
  checkEntries(biases, weights.length, 'biases');
  for (const [i, bias] of (biases ?? []).entries())
    if (bias !== undefined) checkLength(asOperand(bias, `biases[${i}]`), weights[i].nRows, `biases[${i}]`);
  if (act !== undefined) oneOf(GATES, act, 'act');
  else if (up !== undefined) throw new ArgumentError('up needs act');
  const mode = modeOf(core, activation);
  const nRows = countRows(asOperand(x, 'x'), nCols, 'x', first);
  const isGrouped = act !== undefined;
  const expected = isGrouped ? nPairs : nTokens;
  if (nRows !== expected) {
    const what = isGrouped ? 'grouped rows' : 'tokens';
    throw new ShapeError(`x has ${nRows} row(s), the routing has ${expected} ${what}`, {
      got: nRows,
      expected,
    });
  }
  if (up !== undefined) checkLength(asOperand(up, 'up'), x.length, 'up');
  const call = new Call(core);
  const [atX, atUp] = [call.input(x), call.optional(up)];
  const atRows = isGrouped ? call.optional(undefined) : list(core, call, rows);
  const atEnds = list(core, call, ends);
  const atBiases = weights.map((_, i) => call.optional(biases?.[i]));
  const outputs = weights.map((w, i) => call.output(out?.[i], x, nPairs, w.nRows / nExperts, `out[${i}]`));
  const targets = call.struct(
    'fm_expert_target',
    (i) => {
      const { typeId, nRows: nAll } = weights[i];
      return [typeId, nAll / nExperts, pointers[i], atBiases[i].ptr, outputs[i].ptr];
    },
    weights.length,
  );
  call.run(`fusedMatmulExperts of ${first}`, () =>
    core.memory.exports.fm_matmul_experts(
      targets.ptr,
      weights.length,
      atRows.ptr,
      atEnds.ptr,
      nPairs,
      nExperts,
      atX.ptr,
      atUp.ptr,
      nRows,
      nCols,
      act === undefined ? NO_GATE : GATES.indexOf(act),
      mode,
    ),
  );
  return outputs.map((output) => call.result(output));
};

/** @type {Operation<'mixRows'>} */
export const mixRows = (core, x, routing, options = {}) => {
  checkNames(options, OUT_OPTIONS);
  const { nTokens, rows, weights } = checkRouting(routing);
  const nPairs = rows.length;
  const nCols = asOperand(x, 'x').length / nPairs;
  if (x instanceof Tensor && x.nRows !== nPairs) {
    throw new ShapeError(`x has ${x.nRows} row(s), the routing has ${nPairs}`, {
      got: x.nRows,
      expected: nPairs,
    });
  }
  if (!Number.isInteger(nCols) || nCols === 0) {
    throw new ShapeError(`x has ${x.length} values, the routing has ${nPairs} rows`, {
      got: x.length,
      expected: nPairs,
    });
  }
  const call = new Call(core);
  const [atX, atRows, atWeights] = [call.input(x), list(core, call, rows), call.input(weights)];
  const atY = call.output(options.out, x, nTokens, nCols);
  call.run('mixRows', () =>
    core.memory.exports.fm_mix_rows(atX.ptr, atRows.ptr, atWeights.ptr, atY.ptr, nPairs, nTokens, nCols),
  );
  return call.result(atY);
};

/**
 * A list of words in memory, for one call.
 * @param {import('./core.js').Core} core
 * @param {Call} call
 * @param {Uint32Array} words
 */
const list = ({ memory }, call, words) =>
  call.scratch(words.length, (ptr) =>
    memory.u8.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength), ptr),
  );

/**
 * @param {unknown} n
 * @param {string} what
 * @param {number} most
 */
function checkCount(n, what, most) {
  if (Number.isInteger(n) && Number(n) >= 1 && Number(n) <= most) return;
  throw new ShapeError(`${what} must be an integer from 1 to ${most}, got ${show(n)}`, {
    got: typeof n === 'number' ? n : undefined,
    expected: most,
  });
}

/**
 * Checks the lists of a routing. Row numbers and ends are checked by the module.
 * @param {Routing} routing
 */
function checkRouting(routing) {
  const { nTokens, rows, ends, weights } = routing ?? {};
  if (!(rows instanceof Uint32Array && ends instanceof Uint32Array && weights instanceof Float32Array))
    throw new ArgumentError(`routing must come from route, got ${show(routing)}`);
  checkDimension(nTokens, 'nTokens of the routing');
  if (rows.length === 0 || ends.length === 0)
    throw new ShapeError('the routing has no rows', { got: 0, expected: 1 });
  checkLength(weights, rows.length, 'weights of the routing');
  return { nTokens, rows, ends, weights };
}
