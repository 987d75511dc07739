/* The operations of a transformer layer other than products. A Float32Array is copied in and out; a
 * Tensor is used where it is. The result is `out`, by default a new one of x's kind; `out` may be x
 * itself. */

import { checkDimension, checkLength, checkNames, oneOf } from '../checks.js';
import { ArgumentError, ShapeError, show } from '../errors.js';
import { Call } from './call.js';
import { addressIn, Tensor } from './handles.js';
import { GATED_OPTIONS, NORM_OPTIONS, OUT_OPTIONS, ROPE_OPTIONS, SOFTMAX_OPTIONS } from './layer-options.js';
import { asOperand, asWeight, checkNumber, countRows } from './operands.js';

/** @typedef {import('./core.js').Core} Core */
/**
 * @template {keyof import('./kernels.js').Kernels} K
 * @typedef {import('./core.js').Operation<K>} Operation
 */
/** @typedef {import('./operands.js').Floats} Floats */

export const GATES = /** @type {const} */ (['silu', 'gelu', 'relu', 'clamped']);
/** The gates of `gated`, in the order of their numbers in fm_gate. */
const POINTWISE_GATES = /** @type {const} */ ([...GATES, 'sigmoid']);
export const PAIRINGS = /** @type {const} */ (['adjacent', 'halves']);

/** @param {Floats} x @param {string} [what] */
const ownCols = (x, what = 'x') => {
  if (x.length === 0)
    throw new ShapeError(`${what} has 0 values, expected 1 or more`, { got: 0, expected: 1 });
  return x instanceof Tensor ? x.nCols : x.length;
};

/**
 * @param {unknown} value
 * @param {number} length
 * @param {string} what
 * @returns {Floats | undefined}
 */
function vector(value, length, what) {
  if (value === undefined || value === null) return undefined;
  const x = asOperand(value, what);
  checkLength(x, length, what);
  return x;
}

/** @type {Operation<'rmsNorm'>} */
export const rmsNorm = (core, x, weight, options = {}) => {
  checkNames(options, NORM_OPTIONS);
  const { eps = 1e-5, out } = options;
  asOperand(x, 'x');
  checkNumber(eps, 'eps', { from: 0 });
  const w = weight ? asOperand(weight, 'weight') : undefined;
  const nCols = w?.length ?? ownCols(x);
  const nRows = countRows(x, nCols, 'x', 'weight');
  const call = new Call(core);
  const [atX, atW, atY] = [call.input(x), call.optional(w), call.output(out, x, nRows, nCols)];
  call.run('rmsNorm', () => core.memory.exports.fm_rms_norm(atX.ptr, atW.ptr, atY.ptr, nRows, nCols, eps));
  return call.result(atY);
};

/** @type {Operation<'layerNorm'>} */
export const layerNorm = (core, x, weight, bias, options = {}) => {
  checkNames(options, NORM_OPTIONS);
  const { eps = 1e-5, out } = options;
  asOperand(x, 'x');
  checkNumber(eps, 'eps', { from: 0 });
  const nCols = (weight ?? bias)?.length ?? ownCols(x);
  const w = vector(weight, nCols, 'weight');
  const b = vector(bias, nCols, 'bias');
  const nRows = countRows(x, nCols, 'x', w ? 'weight' : 'bias');
  const call = new Call(core);
  const [atX, atW, atB] = [call.input(x), call.optional(w), call.optional(b)];
  const atY = call.output(out, x, nRows, nCols);
  call.run('layerNorm', () =>
    core.memory.exports.fm_layer_norm(atX.ptr, atW.ptr, atB.ptr, atY.ptr, nRows, nCols, eps),
  );
  return call.result(atY);
};

/** @type {Operation<'softmax'>} */
export const softmax = (core, x, options = {}) => {
  checkNames(options, SOFTMAX_OPTIONS);
  const { nCols = ownCols(asOperand(x, 'x')), out } = options;
  checkDimension(nCols, 'nCols');
  const nRows = countRows(asOperand(x, 'x'), nCols, 'x', 'a row');
  const call = new Call(core);
  const [atX, atY] = [call.input(x), call.output(out, x, nRows, nCols)];
  call.run('softmax', () => core.memory.exports.fm_softmax(atX.ptr, atY.ptr, nRows, nCols));
  return call.result(atY);
};

/** @type {Operation<'rope'>} */
export const rope = (core, x, options) => {
  checkNames(options, ROPE_OPTIONS);
  asOperand(x, 'x');
  const { headSize, position = 0, base = 10000, linearScale = 1, pairing = 'adjacent', out } = options;
  const { nDims = headSize, magnitude = 1 } = options;
  const nHeads = headsOf(x, options);
  if (!Number.isInteger(nDims) || nDims < 2 || nDims % 2 !== 0 || nDims > headSize) {
    throw new ShapeError(`nDims must be even and from 2 to the ${headSize} of headSize, got ${show(nDims)}`, {
      got: nDims,
      expected: headSize,
    });
  }
  checkPosition(position, 'position');
  checkNumber(base, 'base', { above: 0 });
  checkNumber(linearScale, 'linearScale', { above: 0 });
  checkNumber(magnitude, 'magnitude');
  oneOf(PAIRINGS, pairing, 'pairing');
  const factors = vector(options.factors, nDims / 2, 'factors');
  const nCols = nHeads * headSize;
  const nTokens = countRows(x, nCols, 'x', `a token of ${nHeads} head(s) of ${headSize}`);
  const { memory } = core;
  const call = new Call(core);
  const [atX, atF] = [call.input(x), call.optional(factors)];
  const atY = call.output(out, x, nTokens, nCols);
  call.run('rope', () => {
    if (atX.ptr !== atY.ptr) memory.u8.copyWithin(atY.ptr, atX.ptr, atX.ptr + 4 * x.length);
    return memory.exports.fm_rope(
      atY.ptr,
      nTokens,
      nHeads,
      headSize,
      nDims,
      position,
      base,
      linearScale,
      atF.ptr,
      magnitude,
      PAIRINGS.indexOf(pairing),
    );
  });
  return call.result(atY);
};

/** @type {Operation<'embed'>} */
export const embed = (core, w, ids, options = {}) => {
  checkNames(options, OUT_OPTIONS);
  const { out } = options;
  const atW = addressIn(asWeight(w, 'w'), core.memory);
  const { nRows, nCols, typeId } = w;
  const n = ids?.length;
  if (!Number.isInteger(n) || n < 1)
    throw new ArgumentError(`ids must be a list of row numbers, got ${show(ids)}`);
  const rows = Uint32Array.from(ids, (id, t) => {
    if (Number.isInteger(id) && id >= 0 && id < nRows) return id;
    throw new ShapeError(`ids[${t}] is ${show(id)}, ${w} has ${nRows} rows`, { got: id, expected: nRows });
  });
  const call = new Call(core);
  const atIds = call.scratch(n, (ptr) => core.memory.u8.set(new Uint8Array(rows.buffer), ptr));
  const atY = call.output(out, undefined, n, nCols);
  call.run(`embed of ${w}`, () =>
    core.memory.exports.fm_embed(typeId, atW, atIds.ptr, atY.ptr, n, nRows, nCols),
  );
  return call.result(atY);
};

/** @type {Operation<'add'>} */
export const add = (core, a, b, options = {}) => {
  checkNames(options, OUT_OPTIONS);
  const { out } = options;
  const nCols = ownCols(asOperand(a, 'a'), 'a');
  if (asOperand(b, 'b').length === nCols && a.length > nCols) {
    const call = new Call(core);
    const [atA, atB] = [call.input(a), call.input(b)];
    const nRows = a.length / nCols;
    const atY = call.output(out, a, nRows, nCols);
    call.run('add', () => core.memory.exports.fm_add_row(atA.ptr, atB.ptr, atY.ptr, nRows, nCols));
    return call.result(atY);
  }
  return pointwise(core, 'add', { a, b }, a, out, (atA, atB, atY, n) =>
    core.memory.exports.fm_add(atA, atB, atY, n),
  );
};

/** @type {Operation<'addScaled'>} */
export const addScaled = (core, a, b, scale, options = {}) => {
  checkNames(options, OUT_OPTIONS);
  checkNumber(scale, 'scale');
  return pointwise(core, 'addScaled', { a, b }, a, options.out, (atA, atB, atY, n) =>
    core.memory.exports.fm_add_scaled(atA, atB, atY, n, scale),
  );
};

/** @type {Operation<'scale'>} */
export const scale = (core, x, factor, options = {}) => {
  checkNames(options, OUT_OPTIONS);
  checkNumber(factor, 'factor');
  const nCols = ownCols(asOperand(x, 'x'));
  const call = new Call(core);
  const atX = call.input(x);
  const atY = call.output(options.out, x, x.length / nCols, nCols);
  call.run('scale', () => core.memory.exports.fm_scale(atX.ptr, atY.ptr, x.length, factor));
  return call.result(atY);
};

/** @type {Operation<'gated'>} */
export const gated = (core, gate, up, options = {}) => {
  checkNames(options, GATED_OPTIONS);
  const { act = 'silu', out } = options;
  oneOf(POINTWISE_GATES, act, 'act');
  return pointwise(core, 'gated', { gate, up }, gate, out, (atA, atB, atY, n) =>
    core.memory.exports.fm_gated(atA, atB, atY, n, POINTWISE_GATES.indexOf(act)),
  );
};

/** @type {Operation<'multiply'>} */
export const multiply = (core, a, b, options = {}) => {
  checkNames(options, OUT_OPTIONS);
  return pointwise(core, 'multiply', { a, b }, a, options.out, (atA, atB, atY, n) =>
    core.memory.exports.fm_multiply(atA, atB, atY, n),
  );
};

/**
 * @param {Core} core
 * @param {string} what
 * @param {Record<string, Floats>} inputs  the two operands, by name
 * @param {Floats} like
 * @param {Floats | undefined} out
 * @param {(a: number, b: number, y: number, n: number) => number} run
 */
function pointwise(core, what, inputs, like, out, run) {
  const [[nameA, a], [nameB, b]] = Object.entries(inputs).map(([name, x]) => [name, asOperand(x, name)]);
  const nCols = ownCols(/** @type {Floats} */ (a), String(nameA));
  checkLength(/** @type {Floats} */ (b), /** @type {Floats} */ (a).length, `${nameB}, beside ${nameA}`);
  const call = new Call(core);
  const [atA, atB] = [call.input(/** @type {Floats} */ (a)), call.input(/** @type {Floats} */ (b))];
  const atY = call.output(out, like, atA.length / nCols, nCols);
  call.run(what, () => run(atA.ptr, atB.ptr, atY.ptr, atA.length));
  return call.result(atY);
}

/**
 * @param {unknown} value
 * @param {string} what
 */
export function checkPosition(value, what) {
  if (Number.isInteger(value) && Number(value) >= 0 && Number(value) <= 0xffffffff) return;
  throw new ShapeError(`${what} must be an integer from 0 to 4294967295, got ${show(value)}`, {
    got: typeof value === 'number' ? value : undefined,
    expected: 0,
  });
}

/**
 * The number of heads in a token of x.
 * @param {Floats} x
 * @param {{ headSize: number, nHeads?: number }} shape
 */
export function headsOf(x, { headSize, nHeads }) {
  if (!Number.isInteger(headSize) || headSize < 1) {
    throw new ShapeError(`headSize must be an integer from 1 on, got ${show(headSize)}`, {
      got: headSize,
      expected: 1,
    });
  }
  const heads = nHeads ?? (x instanceof Tensor ? x.nCols / headSize : undefined);
  if (heads === undefined) throw new ArgumentError('nHeads is needed where x is a Float32Array');
  if (Number.isInteger(heads) && heads >= 1) return heads;
  const got = x instanceof Tensor && nHeads === undefined ? `${x.nCols} columns` : `${show(nHeads)} heads`;
  throw new ShapeError(`${got} are no heads of ${headSize} values`, {
    got: nHeads ?? ownCols(x),
    expected: headSize,
  });
}
