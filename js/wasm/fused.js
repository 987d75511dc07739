/* The fused operations of a transformer layer: products whose activations are made on the way, or shared by several weights,
 * and attention. As in layer.js, a Float32Array is copied in and out, a Tensor used where it is, and the result is `out`, by
 * default a new one of x's kind. */

import { checkNames, oneOf } from '../checks.js';
import { ArgumentError, ShapeError, show } from '../errors.js';
import { Call } from './call.js';
import { constructKernels, memoryOf } from './kernels.js';
import { KvCache } from './kv-cache.js';
import { checkPosition, GATES, headsOf, LayerKernels } from './layer.js';
import {
  FFN_OPTIONS,
  FLASH_OPTIONS,
  MANY_OPTIONS,
  NORM_MANY_OPTIONS,
  SCORE_OPTIONS,
  SWIGLU_OPTIONS,
} from './layer-options.js';
import { Staging } from './memory.js';
import { asOperand, asWeight, checkNumber, countRows } from './operands.js';
import { ACTIVATION_NAMES } from './selftest.js';
import { structBytes, writeStruct } from './structs.js';

/** @typedef {import('./handles.js').Weight} Weight */
/** @typedef {import('./layer.js').Gate} Gate */
/** @typedef {import('./operands.js').Floats} Floats */
/** @typedef {import('./call.js').Operand} Operand */
/** @typedef {import('./selftest.js').Activation} Activation */

/**
 * @template {Floats} U
 * @typedef {object} ManyOptions
 * @property {readonly U[]} [out]  one of nTokens * nRows values for each weight
 * @property {Activation} [activation]  the mode of this call
 */

/**
 * @template {Floats} U
 * @typedef {object} GatedOptions
 * @property {Gate} [act]  default 'silu'
 * @property {U} [out]  nTokens * nRows values
 * @property {Activation} [activation]  the mode of this call
 */

/**
 * @typedef {object} FfnWeights
 * @property {Weight} gate  nFf x nEmbd
 * @property {Weight} up  nFf x nEmbd
 * @property {Weight} down  nEmbd x nFf
 * @property {Floats | null} [norm]  nEmbd values; without it there is no norm
 */

/**
 * @template {Floats} U
 * @typedef {object} FfnOptions
 * @property {number} [eps]  of the norm, default 1e-5
 * @property {Gate} [act]  default 'silu'
 * @property {boolean} [residual]  adds x, default false
 * @property {U} [out]  as many values as x; may be x
 * @property {Activation} [activation]  the mode of this call
 */

/**
 * @template {Floats} U
 * @typedef {object} FlashOptions
 * @property {number} [nHeads]  of a token; a Tensor says it itself: nCols / headSize. A multiple of the cache's nKvHeads
 * @property {number} [firstPosition]  of q's first token, default 0
 * @property {number} [nPositions]  of the caches that are looked at; default firstPosition + nTokens
 * @property {boolean} [causal]  a token sees positions up to its own only; default true
 * @property {number} [window]  only the last so many of those it may see; default 0: all
 * @property {number} [scale]  of the scores, default 1 / sqrt(headSize)
 * @property {number} [softcap]  > 0: scores become softcap * tanh(score / softcap); default 0
 * @property {U} [out]  as many values as q; not q itself
 */

const FFN_WEIGHT_NAMES = ['gate', 'up', 'down', 'norm'];

/** Structs of src/fused.h, as writeStruct takes them. */
const TARGET = 'wwaa';
const FFN_WEIGHTS = 'wwwaaa';
/** The last two fields are floats. */
const ATTENTION = 'wwwwwwwwwww';

/** Kernels with all operations of a transformer layer. Made by createKernels of fused-matmul/layer. */
export class FusedKernels extends LayerKernels {
  #memory;
  #staging;
  #activation;

  /**
   * @hideconstructor
   * @param {import('./loader.js').Loaded} loaded
   * @param {Activation} activation  where a call does not say
   */
  constructor(loaded, activation) {
    super(loaded, activation);
    this.#memory = memoryOf(this);
    this.#staging = new Staging(this.#memory);
    this.#activation = activation;
  }

  /**
   * fusedMatmul for several weights that share x, which is quantised once.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {readonly Weight[]} weights  of equal nCols
   * @param {T} x  nTokens * nCols values
   * @param {ManyOptions<U>} [options]
   * @returns {NoInfer<U>[]}
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  fusedMatmulMany(weights, x, options = {}) {
    checkNames(options, MANY_OPTIONS);
    return this.#many(
      'fusedMatmulMany',
      weights,
      x,
      undefined,
      options,
      (targets, atX, _, nTokens, nCols, mode) =>
        this.#memory.exports.fused_matmul_many(targets, weights.length, atX, nTokens, nCols, mode),
    );
  }

  /**
   * The same for rmsNorm(x, normWeight, { eps }), which is never written to memory as f32.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {readonly Weight[]} weights  of equal nCols
   * @param {T} x  nTokens * nCols values
   * @param {Floats | null} [normWeight]  nCols values; without it ones
   * @param {ManyOptions<U> & { eps?: number }} [options]  eps: 1e-5
   * @returns {NoInfer<U>[]}
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  fusedRmsNormMatmul(weights, x, normWeight, options = {}) {
    checkNames(options, NORM_MANY_OPTIONS);
    const { eps = 1e-5 } = options;
    checkNumber(eps, 'eps', { from: 0 });
    const norm = normWeight ?? undefined;
    return this.#many(
      'fusedRmsNormMatmul',
      weights,
      x,
      norm,
      options,
      (targets, atX, atNorm, nTokens, nCols, mode) =>
        this.#memory.exports.fused_rmsnorm_matmul(
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
  }

  /**
   * (act(gate) * up) * W^T: the second half of a gated feed-forward block.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {Weight} w
   * @param {T} gate  nTokens * nCols values
   * @param {Floats} up  as many
   * @param {GatedOptions<U>} [options]
   * @returns {NoInfer<U>}
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  fusedSwigluMatmul(w, gate, up, options = {}) {
    checkNames(options, SWIGLU_OPTIONS);
    const { act = 'silu', out, activation } = options;
    const atW = asWeight(w, 'w').ptrIn(this.#memory);
    const mode = this.#mode(activation);
    oneOf(GATES, act, 'act');
    const { typeId, nRows, nCols } = w;
    const nTokens = countRows(asOperand(gate, 'gate'), nCols, 'gate', w);
    sameLength(asOperand(up, 'up'), gate, 'up', 'gate');
    const call = new Call(this.#memory, this.#staging);
    const [atGate, atUp, atY] = [call.input(gate), call.input(up), call.output(out, gate, nTokens, nRows)];
    call.run(`fusedSwigluMatmul of ${w}`, () =>
      this.#memory.exports.fused_swiglu_matmul(
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
  }

  /**
   * A feed-forward block in one call: h = rmsNorm(x, norm); (act(h * gate^T) * (h * up^T)) * down^T, plus x where residual.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {FfnWeights} weights
   * @param {T} x  nTokens * nEmbd values
   * @param {FfnOptions<U>} [options]
   * @returns {NoInfer<U>}
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  fusedFfn(weights, x, options = {}) {
    checkNames(weights, FFN_WEIGHT_NAMES, 'weight');
    checkNames(options, FFN_OPTIONS);
    const { eps = 1e-5, act = 'silu', residual = false, out, activation } = options;
    const memory = this.#memory;
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
    const mode = this.#mode(activation);
    checkNumber(eps, 'eps', { from: 0 });
    oneOf(GATES, act, 'act');
    const nTokens = countRows(asOperand(x, 'x'), nEmbd, 'x', gate);
    const call = new Call(this.#memory, this.#staging);
    const atX = call.input(x);
    const atNorm = call.optional(this.#norm(norm ?? undefined, nEmbd));
    const atY = call.output(out, x, nTokens, nEmbd);
    const workspace = call.scratch(2 * nTokens * nFf);
    const three = [gate, up, down];
    const fields = [...three.map((w) => w.typeId), ...three.map((w) => w.ptrIn(memory))];
    const struct = call.scratch(structBytes(memory, FFN_WEIGHTS) / 4, (ptr) =>
      writeStruct(memory, ptr, FFN_WEIGHTS, fields),
    );
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
  }

  /**
   * softmax(q * k^T * scale + mask) of one head: rows sum to 1, masked entries are exactly 0.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} q  nQ * headSize values
   * @param {Floats} k  nK * headSize values
   * @param {{ headSize?: number, scale?: number, causal?: boolean, out?: U }} [options]  headSize: a Tensor's nCols;
   *   scale: 1 / sqrt(headSize); causal: entries j > i + nK - nQ are masked, default false; out: nQ * nK values
   * @returns {NoInfer<U>}
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  fusedAttentionScore(q, k, options = {}) {
    checkNames(options, SCORE_OPTIONS);
    const { headSize, scale, causal = false, out } = options;
    const shaped = [asOperand(q, 'q'), asOperand(k, 'k')].find((x) => 'nCols' in x);
    const size = headSize ?? shaped?.nCols;
    if (size === undefined) throw new ArgumentError('headSize is needed where q and k are Float32Arrays');
    checkHeadSize(size);
    const nQ = countRows(q, size, 'q', `a head of ${size}`);
    const nK = countRows(k, size, 'k', `a head of ${size}`);
    const factor = scale ?? 1 / Math.sqrt(size);
    checkNumber(factor, 'scale');
    const call = new Call(this.#memory, this.#staging);
    const [atQ, atK, atY] = [call.input(q), call.input(k), call.output(out, q, nQ, nK)];
    call.run('fusedAttentionScore', () =>
      this.#memory.exports.fused_attention_score(
        atQ.ptr,
        atK.ptr,
        atY.ptr,
        nQ,
        nK,
        size,
        factor,
        causal ? 1 : 0,
      ),
    );
    return call.result(atY);
  }

  /**
   * Grouped-query attention over a KV cache in one pass; the scores are never stored. A token that sees no position gets zeros.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} q  [nTokens][nHeads][headSize]
   * @param {KvCache} kCache
   * @param {KvCache} vCache  of the same shape and type
   * @param {FlashOptions<U>} [options]
   * @returns {NoInfer<U>}  as many values as q
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  flashAttention(q, kCache, vCache, options = {}) {
    checkNames(options, FLASH_OPTIONS);
    const { firstPosition = 0, causal = true, window = 0, softcap = 0, out } = options;
    const memory = this.#memory;
    asOperand(q, 'q');
    const atK = asCache(kCache, 'kCache').ptrIn(memory);
    const atV = asCache(vCache, 'vCache').ptrIn(memory);
    const { type, typeId, nKvHeads, headSize } = kCache;
    if (vCache.type !== type || vCache.nKvHeads !== nKvHeads || vCache.headSize !== headSize)
      throw new ShapeError(`${vCache} beside ${kCache}`, { got: vCache.nCols, expected: kCache.nCols });
    const nHeads = headsOf(q, { headSize, nHeads: options.nHeads });
    if (nHeads % nKvHeads !== 0) {
      throw new ShapeError(`${nHeads} heads are no multiple of the ${nKvHeads} KV heads of ${kCache}`, {
        got: nHeads,
        expected: nKvHeads,
      });
    }
    const nCols = nHeads * headSize;
    const nTokens = countRows(q, nCols, 'q', `a token of ${nHeads} head(s) of ${headSize}`);
    checkPosition(firstPosition, 'firstPosition');
    checkPosition(window, 'window');
    const nPositions = options.nPositions ?? firstPosition + nTokens;
    checkPosition(nPositions, 'nPositions');
    const room = Math.min(kCache.nPositions, vCache.nPositions);
    if (nPositions < 1 || nPositions > room) {
      throw new ShapeError(`nPositions is ${nPositions}, the caches have ${room}`, {
        got: nPositions,
        expected: room,
      });
    }
    const scale = options.scale ?? 1 / Math.sqrt(headSize);
    checkNumber(scale, 'scale');
    checkNumber(softcap, 'softcap', { from: 0 });
    const call = new Call(this.#memory, this.#staging);
    const [atQ, atY] = [call.input(q), call.output(out, q, nTokens, nCols)];
    const struct = call.scratch(ATTENTION.length, (ptr) => {
      const integers = [
        nTokens,
        nHeads,
        nKvHeads,
        headSize,
        nPositions,
        firstPosition,
        typeId,
        causal ? 1 : 0,
        window,
      ];
      writeStruct(memory, ptr, ATTENTION.slice(0, integers.length), integers);
      memory.f32.set([scale, softcap], ptr / 4 + integers.length);
    });
    call.run('flashAttention', () =>
      memory.exports.fm_flash_attention(struct.ptr, atQ.ptr, atK, atV, atY.ptr),
    );
    return call.result(atY);
  }

  /**
   * @param {string} what
   * @param {readonly Weight[]} weights
   * @param {Floats} x
   * @param {Floats | undefined} norm
   * @param {ManyOptions<any>} options
   * @param {(targets: number, x: number, norm: number, nTokens: number, nCols: number, mode: number) => number} run
   * @returns {any[]}
   */
  #many(what, weights, x, norm, { out, activation }, run) {
    if (!Array.isArray(weights) || weights.length === 0)
      throw new ArgumentError(`weights must be a list of Weights, got ${show(weights)}`);
    const [first] = weights;
    const pointers = weights.map((w, i) => asWeight(w, `weights[${i}]`).ptrIn(this.#memory));
    const { nCols } = first;
    for (const w of weights) {
      if (w.nCols !== nCols) {
        throw new ShapeError(`${w} has ${w.nCols} columns, ${first} has ${nCols}`, {
          got: w.nCols,
          expected: nCols,
        });
      }
    }
    const mode = this.#mode(activation);
    const nTokens = countRows(asOperand(x, 'x'), nCols, 'x', first);
    if (out !== undefined && !Array.isArray(out))
      throw new ArgumentError(`out must be a list, got ${show(out)}`);
    if (out && out.length !== weights.length) {
      throw new ShapeError(`out has ${out.length} entries for ${weights.length} weights`, {
        got: out.length,
        expected: weights.length,
      });
    }
    const call = new Call(this.#memory, this.#staging);
    const [atX, atNorm] = [call.input(x), call.optional(this.#norm(norm, nCols))];
    const outputs = weights.map((w, i) => call.output(out?.[i], x, nTokens, w.nRows, `out[${i}]`));
    const targetBytes = structBytes(this.#memory, TARGET);
    const targets = call.scratch((targetBytes / 4) * weights.length, (ptr) => {
      for (const [i, w] of weights.entries()) {
        const fields = [w.typeId, w.nRows, pointers[i], outputs[i].ptr];
        writeStruct(this.#memory, ptr + i * targetBytes, TARGET, fields);
      }
    });
    call.run(`${what} of ${first}`, () => run(targets.ptr, atX.ptr, atNorm.ptr, nTokens, nCols, mode));
    return outputs.map((output) => call.result(output));
  }

  /** @param {Floats | undefined} norm @param {number} nCols */
  #norm(norm, nCols) {
    if (norm !== undefined && asOperand(norm, 'norm').length !== nCols) {
      throw new ShapeError(`norm has ${norm.length} values, expected ${nCols}`, {
        got: norm.length,
        expected: nCols,
      });
    }
    return norm;
  }

  /** @param {Activation | undefined} activation  @returns {number} fm_activation */
  #mode(activation = this.#activation) {
    oneOf(ACTIVATION_NAMES, activation, 'activation');
    return ACTIVATION_NAMES.indexOf(activation);
  }
}

/** @param {Floats} x @param {Floats} other @param {string} what @param {string} whose */
function sameLength(x, other, what, whose) {
  if (x.length === other.length) return;
  throw new ShapeError(`${what} has ${x.length} values, ${whose} has ${other.length}`, {
    got: x.length,
    expected: other.length,
  });
}

/** @param {number} headSize */
function checkHeadSize(headSize) {
  if (Number.isInteger(headSize) && headSize >= 1 && headSize <= 256) return;
  throw new ShapeError(`headSize must be an integer from 1 to 256, got ${show(headSize)}`, {
    got: headSize,
    expected: 256,
  });
}

/** @param {unknown} value @param {string} what @returns {KvCache} */
function asCache(value, what) {
  if (value instanceof KvCache) return value;
  throw new ArgumentError(`${what} must come from kvCache, got ${show(value)}`);
}

/**
 * createKernels of fused-matmul, with all operations of a layer.
 * @param {import('./kernels.js').KernelsOptions} [options]
 * @returns {Promise<FusedKernels>}
 */
export function createKernels(options) {
  return constructKernels(FusedKernels, options);
}
