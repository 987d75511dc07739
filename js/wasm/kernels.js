/* The class Kernels: a module instance with its memory, and the operations on it.
 *
 * Legend: W [nRows][nCols] quantised, X [nTokens][nCols] f32, Y [nTokens][nRows] f32, row-major;
 * Y = X * W^T. A Float32Array is copied in and out; a Tensor is used where it is. The result is
 * `out`, by default a new one of x's kind. The operations are in operations.js, which createKernels
 * fetches together with the module. */

import { dispose } from './handles.js';
import { infoOf, selectIn, servedTypes, serviceOf } from './kernels-info.js';
import { Memory, Staging } from './memory.js';
import { ValueKernels } from './value-kernels.js';

/** @typedef {import('./selftest.js').Isa} Isa */
/** @typedef {import('./selftest.js').Dot} Dot */
/** @typedef {import('./selftest.js').Activation} Activation */
/** @typedef {import('./handles.js').Tensor} Tensor */
/** @typedef {import('./handles.js').Weight} Weight */
/** @typedef {import('./kv-cache.js').KvCache} KvCache */
/** @typedef {import('./operands.js').Floats} Floats */
/** @typedef {import('./kernel-types.js').KernelsInfo} KernelsInfo */
/** @typedef {import('./kernel-types.js').LoadOptions} LoadOptions */
/** @template {Floats} U @typedef {import('./kernel-types.js').ManyOptions<U>} ManyOptions */

/** The memory of kernels, for other modules of the library. @type {(kernels: Kernels) => Memory} */
let memoryOf;

export { memoryOf };

/** A module instance with its memory, and the operations on it. createKernels makes it. */
export class Kernels extends ValueKernels {
  #memory;
  #loaded;
  #activation;
  /** @type {Isa} */
  #isa;
  /** @type {Dot | undefined} */
  #dot;
  /** @type {readonly import('./kernel-types.js').ServedType[]} */
  #types;
  /** @type {import('./core.js').Core} */
  #core;
  #run;

  static {
    memoryOf = (kernels) => kernels.#memory;
  }

  /**
   * @hideconstructor
   * @param {import('./loader.js').Loaded} loaded
   * @param {Activation} activation
   * @param {typeof import('./operations.js')} operations
   */
  constructor(loaded, activation, operations) {
    const memory = new Memory(loaded.instance);
    const [stagedX, stagedY] = [new Staging(memory), new Staging(memory)];
    const core = { memory, stagedX, stagedY, activation };
    super(core, operations);
    this.#core = core;
    this.#run = operations;
    this.#memory = memory;
    this.#loaded = loaded;
    this.#activation = activation;
    this.#isa = loaded.isa;
    this.#dot = loaded.dot;
    loaded.pool?.belongTo(this);
    this.#types = Object.freeze(servedTypes(loaded.instance.exports));
  }

  /** How the kernels were chosen, and how they run. @returns {KernelsInfo} */
  get info() {
    return infoOf(this.#loaded, { isa: this.#isa, dot: this.#dot, activation: this.#activation });
  }

  /** Name of the instruction set in use. */
  get isa() {
    return this.#isa;
  }

  /** Weight types that the kernels serve, from the module's own table. */
  get types() {
    return this.#types;
  }

  /** True after dispose(). */
  get disposed() {
    return this.#memory.disposed;
  }

  /**
   * Selects another instruction set or relaxed variant of this module, after its self-test.
   * @param {{ isa?: Isa, dot?: Dot }} choice
   * @throws {IsaError} the module lacks it, or it fails its self-test; the old selection stays
   */
  select(choice) {
    const old = { isa: this.#isa, dot: this.#dot ?? /** @type {const} */ ('i16') };
    const selected = selectIn(this.#memory.exports, this.#loaded.module, choice, old);
    this.#isa = selected.isa;
    this.#dot = selected.dot;
  }

  /**
   * Tells which kernels serve a weight type, and in which activation mode.
   * @param {string | number} type
   * @param {Activation} [activation]
   * @returns {import('./kernel-types.js').Service}
   */
  servedBy(type, activation = this.#activation) {
    return serviceOf(this.#memory.exports, type, activation);
  }

  /**
   * Streams a tensor of a GGUF file into wasm memory; JavaScript never holds all of it.
   * @param {import('../gguf/file.js').GgufFile} gguf
   * @param {string} name
   * @param {LoadOptions} [options]
   * @returns {Promise<Weight>}
   * @throws {import('../errors.js').GgufError} there is no such tensor, or it cannot be read
   * @throws {ArgumentError} its type is not served
   * @throws {import('../errors.js').MemoryError}
   */
  async loadWeight(gguf, name, options) {
    const { loadWeight } = await import('./load-weights.js');
    return loadWeight(this.#memory, gguf, name, options);
  }

  /**
   * Streams several tensors into wasm memory: all of them, or on a failure none. Neighbours in the
   * file are read by one request; only a chunk of each open request is held outside of it.
   * @param {import('../gguf/file.js').GgufFile} gguf
   * @param {Iterable<string>} names
   * @param {LoadOptions & { concurrency?: number }} [options]  onProgress: bytes of all tensors;
   *   concurrency: most requests at a time, default 2
   * @returns {Promise<Weight[]>} the weights in the order of names
   * @throws {import('../errors.js').GgufError} there is no such tensor, or it cannot be read
   * @throws {ArgumentError} a type is not served
   * @throws {import('../errors.js').MemoryError}
   */
  async loadWeights(gguf, names, options) {
    const { loadWeights } = await import('./load-weights.js');
    return loadWeights(this.#memory, gguf, names, options);
  }

  /**
   * Makes a weight of bytes in GGUF block layout, which are copied in. An F32 weight without data
   * is zeros, for dequantize to fill.
   * @param {import('./kernel-types.js').WeightData} weight
   * @returns {Weight}
   * @throws {ShapeError} nCols is no multiple of the type's block, or data has another length than
   *   the shape
   */
  weight(weight) {
    return this.#run.weight(this.#core, weight);
  }

  /**
   * Makes an f32 tensor in wasm memory. With tensors, chains of operations copy nothing.
   * @param {{ nRows: number, nCols: number, data?: Float32Array }} shape  without data: zeros
   * @returns {Tensor}
   */
  tensor(shape) {
    return this.#run.tensor(this.#core, shape);
  }

  /**
   * Multiplies f32 rows by a quantised weight: y[t][r] = sum_c x[t][c] * w[r][c].
   * @template {Float32Array | Tensor} T
   * @template {Float32Array | Tensor} [U=T]
   * @param {Weight} w
   * @param {T} x  nTokens * nCols values: a Float32Array is copied in, a Tensor is used where it is
   * @param {{ out?: U, activation?: Activation }} [options]  out: nTokens * nRows values, by
   *   default a new one of x's kind
   * @returns {NoInfer<U>} out; a Float32Array is never a view that memory growth can detach
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   * @throws {HandleError} a handle is freed or belongs to other kernels
   */
  fusedMatmul(w, x, options) {
    return this.#run.fusedMatmul(this.#core, w, x, options);
  }

  /**
   * Dequantises rows of a weight to f32, bit for bit as ggml does.
   * @template {Float32Array | Tensor | Weight} [U=Float32Array<ArrayBuffer>]
   * @param {Weight} w
   * @param {import('./kernel-types.js').DequantizeOptions<U>} [options]
   * @returns {NoInfer<U>}
   */
  dequantize(w, options) {
    return this.#run.dequantize(this.#core, w, options);
  }

  /**
   * Multiplies x by several weights, like fusedMatmul; x is quantised once.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {readonly Weight[]} weights  weights of equal nCols
   * @param {T} x  nTokens * nCols values
   * @param {ManyOptions<U>} [options]
   * @returns {NoInfer<U>[]}
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  fusedMatmulMany(weights, x, options) {
    return this.#run.fusedMatmulMany(this.#core, weights, x, options);
  }

  /**
   * Multiplies rmsNorm(x, normWeight, { eps }) by several weights; the norm is never stored as f32.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {readonly Weight[]} weights  weights of equal nCols
   * @param {T} x  nTokens * nCols values
   * @param {Floats | null} [normWeight]  nCols values; default: ones
   * @param {ManyOptions<U> & { eps?: number }} [options]  eps: default 1e-5
   * @returns {NoInfer<U>[]}
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  fusedRmsNormMatmul(weights, x, normWeight, options) {
    return this.#run.fusedRmsNormMatmul(this.#core, weights, x, normWeight, options);
  }

  /**
   * (act(gate) * up) * W^T: the second half of a gated feed-forward block.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {Weight} w
   * @param {T} gate  nTokens * nCols values
   * @param {Floats | undefined} up  nTokens * nCols values; undefined: act(gate) * W^T
   * @param {import('./kernel-types.js').GatedOptions<U>} [options]
   * @returns {NoInfer<U>}
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  fusedSwigluMatmul(w, gate, up, options) {
    return this.#run.fusedSwigluMatmul(this.#core, w, gate, up, options);
  }

  /**
   * Computes a feed-forward block in one call: (act(h * gate^T) * (h * up^T)) * down^T with
   * h = rmsNorm(x, norm), plus x if `residual` is set.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {import('./kernel-types.js').FfnWeights} weights
   * @param {T} x  nTokens * nEmbd values
   * @param {import('./kernel-types.js').FfnOptions<U>} [options]
   * @returns {NoInfer<U>}
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  fusedFfn(weights, x, options) {
    return this.#run.fusedFfn(this.#core, weights, x, options);
  }

  /**
   * Chooses the experts of each token by the logits of a router: those with the largest scores, of
   * equal ones the first. Their weights are the scores.
   * @param {Floats} logits  nTokens * nExperts values
   * @param {import('./kernel-types.js').RouteOptions} options
   * @returns {import('./kernel-types.js').Routing}
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  route(logits, options) {
    return this.#run.route(this.#core, logits, options);
  }

  /**
   * Multiplies each token by the matrices of its experts, which are not copied: y[i] =
   * x[rows[i]] * W[expert of i]^T for every pair i of the routing. A weight has the rows of all
   * experts, one expert after another.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {readonly Weight[]} weights  weights of equal nCols
   * @param {T} x  nTokens * nCols values; with `act` a row for each pair instead
   * @param {import('./kernel-types.js').Routing} routing
   * @param {import('./kernel-types.js').ExpertsOptions<U>} [options]
   * @returns {NoInfer<U>[]} for each weight a row for each pair
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  fusedMatmulExperts(weights, x, routing, options) {
    return this.#run.fusedMatmulExperts(this.#core, weights, x, routing, options);
  }

  /**
   * Adds the rows of each token, times their weights: y[t] = sum of weights[i] * x[i] over all pairs
   * i of token t.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} x  a row for each pair
   * @param {import('./kernel-types.js').Routing} routing
   * @param {{ out?: U }} [options]  out: a row for each token; not x itself
   * @returns {NoInfer<U>}
   */
  mixRows(x, routing, options) {
    return this.#run.mixRows(this.#core, x, routing, options);
  }

  /**
   * Computes softmax(q * k^T * scale + mask) of one head. Rows sum to 1; masked entries are exactly
   * 0.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} q  nQ * headSize values
   * @param {Floats} k  nK * headSize values
   * @param {{ headSize?: number, scale?: number, causal?: boolean, out?: U }} [options]  headSize:
   *   default a Tensor's nCols; scale: default 1 / sqrt(headSize); causal: mask entries
   *   j > i + nK - nQ, default false; out: nQ * nK values
   * @returns {NoInfer<U>}
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  fusedAttentionScore(q, k, options) {
    return this.#run.fusedAttentionScore(this.#core, q, k, options);
  }

  /**
   * Computes grouped-query attention over a KV cache in one pass, without storing the scores. A
   * token that sees no position gets zeros.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} q  [nTokens][nHeads][headSize]
   * @param {KvCache} kCache
   * @param {KvCache} vCache  same shape and type as kCache
   * @param {import('./kernel-types.js').FlashOptions<U>} [options]
   * @returns {NoInfer<U>} as many values as q
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  flashAttention(q, kCache, vCache, options) {
    return this.#run.flashAttention(this.#core, q, kCache, vCache, options);
  }

  /**
   * y = x / sqrt(mean(x^2) + eps) * weight, row by row.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} x
   * @param {Floats | null} [weight]  nCols values; default: ones, with a Tensor's nCols or an
   *   array's length
   * @param {{ eps?: number, out?: U }} [options]  eps: default 1e-5
   * @returns {NoInfer<U>}
   */
  rmsNorm(x, weight, options) {
    return this.#run.rmsNorm(this.#core, x, weight, options);
  }

  /**
   * y = (x - mean) / sqrt(variance + eps) * weight + bias, row by row.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} x
   * @param {Floats | null} [weight]  nCols values; default: ones
   * @param {Floats | null} [bias]  nCols values; default: zeros
   * @param {{ eps?: number, out?: U }} [options]  eps: default 1e-5
   * @returns {NoInfer<U>}
   */
  layerNorm(x, weight, bias, options) {
    return this.#run.layerNorm(this.#core, x, weight, bias, options);
  }

  /**
   * e^x / sum(e^x), row by row. -Inf becomes exactly 0; a row of only -Inf becomes zeros, a row
   * with NaN or Inf all NaN.
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} x
   * @param {{ nCols?: number, out?: U }} [options]  nCols: default a Tensor's, or an array's length
   * @returns {NoInfer<U>}
   */
  softmax(x, options) {
    return this.#run.softmax(this.#core, x, options);
  }

  /**
   * Applies rotary position embedding: turns pair i of every head by the angle
   * position / linearScale * base^(-2i / nDims) / factors[i].
   * @template {Floats} T
   * @template {Floats} [U=T]
   * @param {T} x  [nTokens][nHeads][headSize]
   * @param {import('./kernel-types.js').RopeOptions & { out?: U }} options
   * @returns {NoInfer<U>}
   */
  rope(x, options) {
    return this.#run.rope(this.#core, x, options);
  }

  /**
   * Dequantises rows of a table: y[t] = w[ids[t]].
   * @template {Floats} [U=Float32Array<ArrayBuffer>]
   * @param {import('./handles.js').Weight} w
   * @param {ArrayLike<number>} ids  row numbers
   * @param {{ out?: U }} [options]  out: default a new Float32Array
   * @returns {NoInfer<U>}
   * @throws {ShapeError} an id is no row of w; the message has both numbers
   */
  embed(w, ids, options) {
    return this.#run.embed(this.#core, w, ids, options);
  }

  /**
   * Makes a cache for the keys or the values of a layer, filled with zeros.
   * @param {import('./kv-cache.js').KvCacheShape} shape
   * @returns {KvCache}
   */
  kvCache(shape) {
    return this.#run.kvCache(this.#core, shape);
  }

  /**
   * Quantises f32 rows to GGUF blocks, which `weight({ type, nRows, nCols, data })` takes. Q4_0,
   * Q4_1, Q5_0, Q5_1 and Q8_0 give the same bytes as other GGUF tools. For Q4_K, Q5_K and Q6_K the
   * least squared error is searched, which takes some twenty times as long. NaN counts as 0, Inf as
   * the type's largest value.
   * @param {string | number} type  one of these types
   * @param {Float32Array} values  nRows * nCols values
   * @param {number} nRows
   * @param {number} nCols  a multiple of the type's block: 32, or 256 for the K types
   * @returns {Uint8Array<ArrayBuffer>}
   * @throws {ArgumentError} values cannot be quantised to this type
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  quantize(type, values, nRows, nCols) {
    return this.#run.quantize(this.#core, type, values, nRows, nCols);
  }

  /**
   * Multiplies by weights in a flat 4-bit layout, older than Q4_K. Warns once.
   * @deprecated quantize to Q4_K and use fusedMatmul
   * @param {import('./legacy.js').LegacyQ4Weight} w
   * @param {Float32Array} x  nTokens * nCols values
   * @returns {Float32Array} nTokens * nRows values
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  fusedDequantMatmulQ4KLegacy(w, x) {
    return this.#run.fusedDequantMatmulQ4KLegacy(this.#core, w, x);
  }

  /** Use of the wasm memory in bytes. @returns {import('./memory.js').MemoryStats} */
  memory() {
    return this.#memory.stats();
  }

  /** Frees the module instance, its weights, tensors and threads. Further calls do nothing. */
  dispose() {
    this.#loaded.pool?.end();
    this.#memory.dispose();
  }

  /** For `using`. */
  [dispose]() {
    this.dispose();
  }
}
