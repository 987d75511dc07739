/* The operations of a transformer layer that are no products. Everywhere: a Float32Array is copied in and out, a Tensor used
 * where it is; the result is `out`, by default a new one of x's kind; `out` may be x itself. */

import { checkDimension, checkLength, checkNames, oneOf } from '../checks.js';
import { ArgumentError, ShapeError, show } from '../errors.js';
import { Call } from './call.js';
import { Tensor } from './handles.js';
import { Kernels, memoryOf } from './kernels.js';
import { KvCache } from './kv-cache.js';
import { GATED_OPTIONS, NORM_OPTIONS, OUT_OPTIONS, ROPE_OPTIONS, SOFTMAX_OPTIONS } from './layer-options.js';
import { Staging } from './memory.js';
import { asOperand, asWeight, checkNumber, countRows } from './operands.js';

/** @typedef {import('./operands.js').Floats} Floats */

export const GATES = /** @type {const} */ (['silu', 'gelu']);
const PAIRINGS = /** @type {const} */ (['adjacent', 'halves']);

/** What a gate goes through; 'gelu' is the tanh form. @typedef {'silu' | 'gelu'} Gate */

/**
 * @typedef {object} RopeOptions
 * @property {number} headSize  values of a head
 * @property {number} [nHeads]  heads of a token; a Tensor says it itself: nCols / headSize
 * @property {number} [position]  of the first token, default 0
 * @property {number} [nDims]  the first values of every head that are rotated, even; default all
 * @property {number} [base]  default 10000
 * @property {number} [linearScale]  positions are divided by it, default 1
 * @property {Floats} [factors]  nDims / 2 values, by which frequencies are divided (llama3); default ones
 * @property {'adjacent' | 'halves'} [pairing]  (2i, 2i + 1), the default, or (i, i + nDims / 2)
 */

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

export class LayerKernels extends Kernels {
  #memory;
  #staging;

  /**
   * @hideconstructor
   * @param {import('./loader.js').Loaded} loaded
   * @param {import('./selftest.js').Activation} activation
   */
  constructor(loaded, activation) {
    super(loaded, activation);
    this.#memory = memoryOf(this);
    this.#staging = new Staging(this.#memory);
  }

  /**
   * y = x / sqrt(mean(x^2) + eps) * weight, row by row.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} x
   * @param {Floats | null} [weight]  nCols values; without it ones, and nCols is a Tensor's own or a whole array's length
   * @param {{ eps?: number, out?: U }} [options]  eps: 1e-5
   * @returns {NoInfer<U>}
   */
  rmsNorm(x, weight, options = {}) {
    checkNames(options, NORM_OPTIONS);
    const { eps = 1e-5, out } = options;
    asOperand(x, 'x');
    checkNumber(eps, 'eps', { from: 0 });
    const w = weight ? asOperand(weight, 'weight') : undefined;
    const nCols = w?.length ?? ownCols(x);
    const nRows = countRows(x, nCols, 'x', 'weight');
    const call = this.#call();
    const [atX, atW, atY] = [call.input(x), call.optional(w), call.output(out, x, nRows, nCols)];
    call.run('rmsNorm', () => this.#memory.exports.fm_rms_norm(atX.ptr, atW.ptr, atY.ptr, nRows, nCols, eps));
    return call.result(atY);
  }

  /**
   * y = (x - mean) / sqrt(variance + eps) * weight + bias, row by row.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} x
   * @param {Floats | null} [weight]  nCols values; without it ones
   * @param {Floats | null} [bias]  nCols values; without it zeros
   * @param {{ eps?: number, out?: U }} [options]  eps: 1e-5
   * @returns {NoInfer<U>}
   */
  layerNorm(x, weight, bias, options = {}) {
    checkNames(options, NORM_OPTIONS);
    const { eps = 1e-5, out } = options;
    asOperand(x, 'x');
    checkNumber(eps, 'eps', { from: 0 });
    const nCols = (weight ?? bias)?.length ?? ownCols(x);
    const w = vector(weight, nCols, 'weight');
    const b = vector(bias, nCols, 'bias');
    const nRows = countRows(x, nCols, 'x', w ? 'weight' : 'bias');
    const call = this.#call();
    const [atX, atW, atB] = [call.input(x), call.optional(w), call.optional(b)];
    const atY = call.output(out, x, nRows, nCols);
    call.run('layerNorm', () =>
      this.#memory.exports.fm_layer_norm(atX.ptr, atW.ptr, atB.ptr, atY.ptr, nRows, nCols, eps),
    );
    return call.result(atY);
  }

  /**
   * e^x / sum(e^x), row by row. -Inf becomes exactly 0, a row of only -Inf zeros, a row with NaN or Inf all NaN.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} x
   * @param {{ nCols?: number, out?: U }} [options]  nCols: by default a Tensor's own or a whole array's length
   * @returns {NoInfer<U>}
   */
  softmax(x, options = {}) {
    checkNames(options, SOFTMAX_OPTIONS);
    const { nCols = ownCols(asOperand(x, 'x')), out } = options;
    checkDimension(nCols, 'nCols');
    const nRows = countRows(asOperand(x, 'x'), nCols, 'x', 'a row');
    const call = this.#call();
    const [atX, atY] = [call.input(x), call.output(out, x, nRows, nCols)];
    call.run('softmax', () => this.#memory.exports.fm_softmax(atX.ptr, atY.ptr, nRows, nCols));
    return call.result(atY);
  }

  /**
   * Rotary positions: turns pair i of every head by the angle position / linearScale * base^(-2i / nDims) / factors[i].
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} x  [nTokens][nHeads][headSize]
   * @param {RopeOptions & { out?: U }} options
   * @returns {NoInfer<U>}
   */
  rope(x, options) {
    checkNames(options, ROPE_OPTIONS);
    asOperand(x, 'x');
    const { headSize, position = 0, base = 10000, linearScale = 1, pairing = 'adjacent', out } = options;
    const { nDims = headSize } = options;
    const nHeads = headsOf(x, options);
    if (!Number.isInteger(nDims) || nDims < 2 || nDims % 2 !== 0 || nDims > headSize) {
      throw new ShapeError(
        `nDims must be even and from 2 to the ${headSize} of headSize, got ${show(nDims)}`,
        {
          got: nDims,
          expected: headSize,
        },
      );
    }
    checkPosition(position, 'position');
    checkNumber(base, 'base', { above: 0 });
    checkNumber(linearScale, 'linearScale', { above: 0 });
    oneOf(PAIRINGS, pairing, 'pairing');
    const factors = vector(options.factors, nDims / 2, 'factors');
    const nCols = nHeads * headSize;
    const nTokens = countRows(x, nCols, 'x', `a token of ${nHeads} head(s) of ${headSize}`);
    const memory = this.#memory;
    const call = this.#call();
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
        PAIRINGS.indexOf(pairing),
      );
    });
    return call.result(atY);
  }

  /**
   * Rows of a quantised table, dequantised: y[t] = w[ids[t]].
   * @template {Floats} [U=Float32Array<ArrayBuffer>]
   * @param {import('./handles.js').Weight} w
   * @param {ArrayLike<number>} ids  row numbers
   * @param {{ out?: U }} [options]  default: a new Float32Array
   * @returns {NoInfer<U>}
   * @throws {ShapeError} an id is no row of w; the message has both numbers
   */
  embed(w, ids, options = {}) {
    checkNames(options, OUT_OPTIONS);
    const { out } = options;
    const atW = asWeight(w, 'w').ptrIn(this.#memory);
    const { nRows, nCols, typeId } = w;
    const n = ids?.length;
    if (!Number.isInteger(n) || n < 1)
      throw new ArgumentError(`ids must be a list of row numbers, got ${show(ids)}`);
    const rows = Uint32Array.from(ids, (id, t) => {
      if (Number.isInteger(id) && id >= 0 && id < nRows) return id;
      throw new ShapeError(`ids[${t}] is ${show(id)}, ${w} has ${nRows} rows`, { got: id, expected: nRows });
    });
    const call = this.#call();
    const atIds = call.scratch(n, (ptr) => this.#memory.u8.set(new Uint8Array(rows.buffer), ptr));
    const atY = call.output(out, undefined, n, nCols);
    call.run(`embed of ${w}`, () =>
      this.#memory.exports.fm_embed(typeId, atW, atIds.ptr, atY.ptr, n, nRows, nCols),
    );
    return call.result(atY);
  }

  /**
   * a + b.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} a
   * @param {Floats} b  as many values
   * @param {{ out?: U }} [options]  may be a or b
   * @returns {NoInfer<U>}
   */
  add(a, b, options = {}) {
    checkNames(options, OUT_OPTIONS);
    return this.#pointwise('add', { a, b }, a, options.out, (atA, atB, atY, n) =>
      this.#memory.exports.fm_add(atA, atB, atY, n),
    );
  }

  /**
   * a + scale * b; the product is rounded to f32 before it is added.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} a
   * @param {Floats} b  as many values
   * @param {number} scale  rounded to f32
   * @param {{ out?: U }} [options]  may be a or b
   * @returns {NoInfer<U>}
   */
  addScaled(a, b, scale, options = {}) {
    checkNames(options, OUT_OPTIONS);
    checkNumber(scale, 'scale');
    return this.#pointwise('addScaled', { a, b }, a, options.out, (atA, atB, atY, n) =>
      this.#memory.exports.fm_add_scaled(atA, atB, atY, n, scale),
    );
  }

  /**
   * x * factor.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} x
   * @param {number} factor  rounded to f32
   * @param {{ out?: U }} [options]  may be x
   * @returns {NoInfer<U>}
   */
  scale(x, factor, options = {}) {
    checkNames(options, OUT_OPTIONS);
    checkNumber(factor, 'factor');
    const nCols = ownCols(asOperand(x, 'x'));
    const call = this.#call();
    const atX = call.input(x);
    const atY = call.output(options.out, x, x.length / nCols, nCols);
    call.run('scale', () => this.#memory.exports.fm_scale(atX.ptr, atY.ptr, x.length, factor));
    return call.result(atY);
  }

  /**
   * act(gate) * up, as a gated feed-forward block has it.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} gate
   * @param {Floats} up  as many values
   * @param {{ act?: Gate, out?: U }} [options]  act: 'silu'; out may be gate or up
   * @returns {NoInfer<U>}
   */
  gated(gate, up, options = {}) {
    checkNames(options, GATED_OPTIONS);
    const { act = 'silu', out } = options;
    oneOf(GATES, act, 'act');
    return this.#pointwise('gated', { gate, up }, gate, out, (atA, atB, atY, n) =>
      this.#memory.exports.fm_gated(atA, atB, atY, n, GATES.indexOf(act)),
    );
  }

  /**
   * A cache for the keys or the values of a layer: zeros, until they are written.
   * @param {import('./kv-cache.js').KvCacheShape} shape
   * @returns {KvCache}
   */
  kvCache(shape) {
    return new KvCache(this.#memory, this.#staging, shape);
  }

  #call() {
    return new Call(this.#memory, this.#staging);
  }

  /**
   * @param {string} what
   * @param {Record<string, Floats>} inputs  two
   * @param {Floats} like
   * @param {Floats | undefined} out
   * @param {(a: number, b: number, y: number, n: number) => number} run
   */
  #pointwise(what, inputs, like, out, run) {
    const [[nameA, a], [nameB, b]] = Object.entries(inputs).map(([name, x]) => [name, asOperand(x, name)]);
    const nCols = ownCols(/** @type {Floats} */ (a), String(nameA));
    checkLength(/** @type {Floats} */ (b), /** @type {Floats} */ (a).length, `${nameB}, beside ${nameA}`);
    const call = this.#call();
    const [atA, atB] = [call.input(/** @type {Floats} */ (a)), call.input(/** @type {Floats} */ (b))];
    const atY = call.output(out, like, atA.length / nCols, nCols);
    call.run(what, () => run(atA.ptr, atB.ptr, atY.ptr, atA.length));
    return call.result(atY);
  }
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
 * The heads of a token of x.
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
