/* Products with quantised weights, and dequantised weights. A Float32Array is copied in and out; a
 * Tensor is used where it is. The result is `out`, by default a new one of x's kind. */

import { asFloats, checkLength, checkNames, oneOf } from '../checks.js';
import { ArgumentError, ShapeError, statusError } from '../errors.js';
import { Call } from './call.js';
import { modeOf } from './core.js';
import { addressIn, newTensor, Tensor, Weight } from './handles.js';
import { checkMatmulOptions, DEQUANTIZE_OPTIONS } from './kernels-options.js';
import { GATES } from './layer.js';
import { FFN_OPTIONS, MANY_OPTIONS, NORM_MANY_OPTIONS, SWIGLU_OPTIONS } from './layer-options.js';
import { asOperand, asWeight, asWeights, checkEntries, checkNumber, countRows } from './operands.js';

/** @typedef {import('./core.js').Core} Core */
/**
 * @template {keyof import('./kernels.js').Kernels} K
 * @typedef {import('./core.js').Operation<K>} Operation
 */
/** @template {Floats} U @typedef {import('./kernel-types.js').ManyOptions<U>} ManyOptions */
/** @typedef {import('./operands.js').Floats} Floats */

/** Bytes of dequantised rows that are staged at a time. */
const DEQUANTIZE_STEP = 1 << 20;
const FFN_WEIGHT_NAMES = ['gate', 'up', 'down', 'norm'];

/** @type {Operation<'fusedMatmul'>} */
export const fusedMatmul = (core, w, x, options) => {
  checkMatmulOptions(options);
  const { memory } = core;
  const { exports } = memory;
  const atW = addressIn(asWeight(w, 'w'), memory);
  const { nRows, nCols } = w;
  const nTokens = countRows(asOperand(x, 'x'), nCols, 'x', w);
  const xIsTensor = x instanceof Tensor;
  const nOut = nTokens * nRows;
  const mode = modeOf(core, options?.activation);
  const given = options?.out;
  if (given !== undefined && asOperand(given, 'out').length !== nOut)
    checkLength(given, nOut, `out of ${nTokens} token(s) by ${nRows} rows`);
  let atX = xIsTensor ? addressIn(x, memory) : 0;
  const out = given ?? (xIsTensor ? newTensor(core.memory, nTokens, nRows) : undefined);
  const atOut = out instanceof Tensor ? addressIn(out, memory) : 0;
  try {
    const atY = atOut || core.stagedY.reserve(nOut);
    if (!xIsTensor) {
      atX = core.stagedX.reserve(x.length);
      memory.f32.set(x, atX / 4);
    }
    const status = exports.fused_matmul(w.typeId, atW, atX, atY, nTokens, nRows, nCols, mode);
    if (status !== 0) throw statusError(status, `fusedMatmul of ${w}`);
  } catch (error) {
    if (given === undefined && out instanceof Tensor) out.free();
    throw error;
  }
  if (out instanceof Tensor) return out;
  const y = core.stagedY.view(nOut);
  if (!out) return y.slice();
  out.set(y);
  return out;
};

/** @type {Operation<'dequantize'>} */
export const dequantize = (core, w, options = {}) => {
  checkNames(options, DEQUANTIZE_OPTIONS);
  const { start = 0, end = w.nRows, out } = options;
  const { memory } = core;
  const atW = addressIn(asWeight(w, 'w'), memory);
  const { nRows, nCols, byteLength, typeId } = w;
  if (!(Number.isInteger(start) && Number.isInteger(end) && start >= 0 && start < end && end <= nRows)) {
    throw new ShapeError(`rows ${start} to ${end} are not in 0 to ${nRows} of ${w}`, {
      got: end,
      expected: nRows,
    });
  }
  const nValues = (end - start) * nCols;
  if (out instanceof Weight && (out === w || out.type !== 'F32'))
    throw new ArgumentError(`out must be another F32 weight, got ${out}`);
  const inMemory = out instanceof Tensor || out instanceof Weight;
  if (out !== undefined && !inMemory) asFloats(out, 'out');
  const length = out instanceof Weight ? out.nRows * out.nCols : out?.length;
  if (length !== undefined) checkLength({ length }, nValues, `out of ${end - start} rows of ${nCols}`);
  const rowBytes = byteLength / nRows;
  if (inMemory) {
    const atRow = atW + start * rowBytes;
    const status = memory.exports.fm_dequantize_rows(
      typeId,
      atRow,
      addressIn(out, memory),
      end - start,
      nCols,
    );
    if (status !== 0) throw statusError(status, `dequantize of ${w}`);
    return out;
  }
  const result = /** @type {Float32Array} */ (out ?? new Float32Array(nValues));
  const step = Math.max(1, Math.floor(DEQUANTIZE_STEP / (4 * nCols)));
  for (let row = start; row < end; row += step) {
    const n = Math.min(step, end - row);
    const atY = core.stagedY.reserve(n * nCols);
    const status = memory.exports.fm_dequantize_rows(typeId, atW + row * rowBytes, atY, n, nCols);
    if (status !== 0) throw statusError(status, `dequantize of ${w}`);
    result.set(core.stagedY.view(n * nCols), (row - start) * nCols);
  }
  return result;
};

/** @type {Operation<'fusedMatmulMany'>} */
export const fusedMatmulMany = (core, weights, x, options = {}) => {
  checkNames(options, MANY_OPTIONS);
  return many(
    core,
    'fusedMatmulMany',
    weights,
    x,
    undefined,
    options,
    (targets, atX, _, nTokens, nCols, mode) =>
      core.memory.exports.fused_matmul_many(targets, weights.length, atX, nTokens, nCols, mode),
  );
};

/** @type {Operation<'fusedRmsNormMatmul'>} */
export const fusedRmsNormMatmul = (core, weights, x, normWeight, options = {}) => {
  checkNames(options, NORM_MANY_OPTIONS);
  const { eps = 1e-5, ...rest } = options;
  checkNumber(eps, 'eps', { from: 0 });
  const norm = normWeight ?? undefined;
  return many(
    core,
    'fusedRmsNormMatmul',
    weights,
    x,
    norm,
    rest,
    (targets, atX, atNorm, nTokens, nCols, mode) =>
      core.memory.exports.fused_rmsnorm_matmul(
        targets,
        weights.length,
        atX,
        atNorm,
        eps,
        nTokens,
        nCols,
        mode,
      ),
  );
};

/** @type {Operation<'fusedSwigluMatmul'>} */
export const fusedSwigluMatmul = (core, w, gate, up, options = {}) => {
  checkNames(options, SWIGLU_OPTIONS);
  const { act = 'silu', out, activation } = options;
  const atW = addressIn(asWeight(w, 'w'), core.memory);
  const mode = modeOf(core, activation);
  oneOf(GATES, act, 'act');
  const { typeId, nRows, nCols } = w;
  const nTokens = countRows(asOperand(gate, 'gate'), nCols, 'gate', w);
  if (up !== undefined) sameLength(asOperand(up, 'up'), gate, 'up', 'gate');
  const call = new Call(core);
  const [atGate, atUp, atY] = [call.input(gate), call.optional(up), call.output(out, gate, nTokens, nRows)];
  call.run(`fusedSwigluMatmul of ${w}`, () =>
    core.memory.exports.fused_swiglu_matmul(
      typeId,
      atW,
      atGate.ptr,
      atUp.ptr,
      atY.ptr,
      nTokens,
      nRows,
      nCols,
      GATES.indexOf(act),
      mode,
    ),
  );
  return call.result(atY);
};

/** @type {Operation<'fusedFfn'>} */
export const fusedFfn = (core, weights, x, options = {}) => {
  checkNames(weights, FFN_WEIGHT_NAMES, 'weight');
  checkNames(options, FFN_OPTIONS);
  const { eps = 1e-5, act = 'silu', residual = false, out, activation } = options;
  const { memory } = core;
  const { gate, up, down, norm } = weights;
  for (const [name, w] of Object.entries({ gate, up, down })) asWeight(w, name);
  const [nFf, nEmbd] = [gate.nRows, gate.nCols];
  for (const [w, nRows, nCols] of /** @type {[Weight, number, number][]} */ ([
    [up, nFf, nEmbd],
    [down, nEmbd, nFf],
  ])) {
    if (w.nRows === nRows && w.nCols === nCols) continue;
    const at = w.nRows === nRows ? 'nCols' : 'nRows';
    throw new ShapeError(`${w} beside gate ${gate}: expected ${nRows}x${nCols}`, {
      got: w[at],
      expected: at === 'nRows' ? nRows : nCols,
    });
  }
  const mode = modeOf(core, activation);
  checkNumber(eps, 'eps', { from: 0 });
  oneOf(GATES, act, 'act');
  const nTokens = countRows(asOperand(x, 'x'), nEmbd, 'x', gate);
  const call = new Call(core);
  const atX = call.input(x);
  const atNorm = call.optional(checkNorm(norm ?? undefined, nEmbd));
  const atY = call.output(out, x, nTokens, nEmbd);
  const workspace = call.scratch(2 * nTokens * nFf);
  const three = [gate, up, down];
  const fields = [...three.map((w) => w.typeId), ...three.map((w) => addressIn(w, memory))];
  const struct = call.struct('fm_ffn_weights', () => fields);
  call.run('fusedFfn', () =>
    memory.exports.fused_ffn(
      struct.ptr,
      atX.ptr,
      atNorm.ptr,
      eps,
      atY.ptr,
      workspace.ptr,
      nTokens,
      nEmbd,
      nFf,
      GATES.indexOf(act),
      residual ? 1 : 0,
      mode,
    ),
  );
  return call.result(atY);
};

/**
 * @param {Core} core
 * @param {string} what
 * @param {readonly Weight[]} weights
 * @param {Floats} x
 * @param {Floats | undefined} norm
 * @param {ManyOptions<any>} options
 * @param {(targets: number, x: number, norm: number, nTokens: number, nCols: number,
 *   mode: number) => number} run
 * @returns {any[]}
 */
function many(core, what, weights, x, norm, { out, activation }, run) {
  const [first] = asWeights(weights);
  const pointers = weights.map((w) => addressIn(w, core.memory));
  const { nCols } = first;
  const mode = modeOf(core, activation);
  const nTokens = countRows(asOperand(x, 'x'), nCols, 'x', first);
  checkEntries(out, weights.length, 'out');
  const call = new Call(core);
  const [atX, atNorm] = [call.input(x), call.optional(checkNorm(norm, nCols))];
  const outputs = weights.map((w, i) => call.output(out?.[i], x, nTokens, w.nRows, `out[${i}]`));
  const targets = call.struct(
    'fm_target',
    (i) => {
      const { typeId, nRows } = weights[i];
      return [typeId, nRows, pointers[i], outputs[i].ptr];
    },
    weights.length,
  );
  call.run(`${what} of ${first}`, () => run(targets.ptr, atX.ptr, atNorm.ptr, nTokens, nCols, mode));
  return outputs.map((output) => call.result(output));
}

/** @param {Floats | undefined} norm @param {number} nCols */
function checkNorm(norm, nCols) {
  if (norm !== undefined && asOperand(norm, 'norm').length !== nCols) {
    throw new ShapeError(`norm has ${norm.length} values, expected ${nCols}`, {
      got: norm.length,
      expected: nCols,
    });
  }
  return norm;
}

/** @param {Floats} x @param {Floats} other @param {string} what @param {string} whose */
function sameLength(x, other, what, whose) {
  if (x.length === other.length) return;
  throw new ShapeError(`${what} has ${x.length} values, ${whose} has ${other.length}`, {
    got: x.length,
    expected: other.length,
  });
}
