/* The public face: one Kernels object is one module instance with its memory.
 *
 * Legend: W [nRows][nCols] quantised, X [nTokens][nCols] f32, Y [nTokens][nRows] f32, row-major;
 * Y = X * W^T. */

import {
  asBytes,
  asFloats,
  checkBlocks,
  checkData,
  checkDimension,
  checkLength,
  checkNames,
  oneOf,
} from '../checks.js';
import { ArgumentError, IsaError, ShapeError, show, statusError } from '../errors.js';
import { servedType, types, weightBytes } from '../types.js';
import { dispose, Tensor, Weight } from './handles.js';
import * as known from './kernels-options.js';
import { matmulQ4Legacy } from './legacy.js';
import { load, VERSION, verify } from './loader.js';
import { Memory, Staging } from './memory.js';
import { asOperand, asWeight, countRows } from './operands.js';
import { quantizeRows } from './quantize.js';
import { ACTIVATION_NAMES, DOT_NAMES, ISA_NAMES } from './selftest.js';

/** @typedef {import('./selftest.js').Isa} Isa */
/** @typedef {import('./selftest.js').Dot} Dot */
/** @typedef {import('./selftest.js').Activation} Activation */
/** @typedef {import('./loader.js').Loaded} Loaded */
/** @typedef {import('./module.js').WasmSource} WasmSource */

/**
 * @typedef {object} KernelsOptions
 * @property {Isa} [isa]  only this instruction set; default: the best that passes its self-test
 * @property {Activation} [activation]  what activations become, where a call does not say; default 'int16'
 * @property {Dot} [dot]  the relaxed variant; default: the faster one, timed
 * @property {number} [threads]  1 to 64, the caller included; default: a share of the processors, 8 at most. Without shared memory it
 *   is one thread, and info.threadsReason says why
 * @property {boolean} [memory64]  64-bit addresses, for more than 4 GiB, where the engine has them; info.memory64 says whether
 * @property {WasmSource | import('./loader.js').ModuleTable} [wasm]  instead of the package's own modules: one, or by name
 */

/**
 * @typedef {object} KernelsInfo  what was chosen and why
 * @property {string} version  of the library
 * @property {Isa} isa  the instruction set in use
 * @property {Dot | undefined} dot  of the relaxed set only
 * @property {Activation} activation  the mode for calls that name none
 * @property {import('./loader.js').Step[]} steps  what was tried, in order
 * @property {string} reason  one line
 * @property {number} threads  that operations use, the caller included
 * @property {string} threadsReason  one line: why so many; where they could be more, how
 * @property {boolean} memory64  addresses have 64 bits
 * @property {string | undefined} memory64Reason  one line, where memory64 was asked for
 * @property {import('./loader.js').Features} features  of this engine
 * @property {import('./loader.js').Timings} timings  of loading, in milliseconds
 * @property {Record<string, number> | undefined} dotTimes  milliseconds a call, where a choice was timed
 * @property {string | undefined} wasmUrl  of the module in use, where it came from an address
 * @property {number | undefined} wasmBytes  its size, where that is known
 */

/**
 * @typedef {object} ServedType
 * @property {string} name  as GGUF spells it
 * @property {number} id  as GGUF numbers it
 * @property {number} blockValues  values a block holds
 * @property {number} blockBytes  bytes a block takes
 * @property {number} alignment  bytes
 */

/**
 * How a weight type and an activation mode are served.
 * @typedef {object} Service
 * @property {Isa} isa  of the kernels
 * @property {Activation} activation  the mode they work in
 */

/**
 * @typedef {object} WeightData
 * @property {string | number} type  name or id
 * @property {number} nRows  rows: outputs of a product
 * @property {number} nCols  a multiple of the type's block
 * @property {ArrayBufferLike | ArrayBufferView} [data]  blocks, row by row; an F32 weight may have none
 * @property {string} [name]  for messages
 */

/**
 * @typedef {object} LoadOptions
 * @property {(progress: { loaded: number, total: number }) => void} [onProgress]  bytes, after each chunk
 * @property {AbortSignal} [signal]  ends the loading
 */

/**
 * @template {Float32Array | Tensor | Weight} U
 * @typedef {object} DequantizeOptions
 * @property {number} [start]  first row, default 0
 * @property {number} [end]  behind the last row, default all
 * @property {U} [out]  (end - start) * nCols values; a Weight must be another one, of type F32
 */

/** Bytes of dequantised rows that are staged at a time. */
const DEQUANTIZE_STEP = 1 << 20;

/**
 * Loads the kernels.
 * @param {KernelsOptions} [options]
 * @returns {Promise<Kernels>}
 * @throws {IsaError} a forced instruction set is not to be had, or none passes its self-test
 * @throws {import('../errors.js').LoadError} the wasm could not be fetched or compiled
 */
export function createKernels(options) {
  return constructKernels(Kernels, options);
}

/**
 * @template {Kernels} K
 * @param {new (loaded: Loaded, activation: Activation) => K} Class
 * @param {KernelsOptions} [options]
 * @returns {Promise<K>}
 */
export async function constructKernels(Class, options = {}) {
  known.checkKernelsOptions(options);
  const { activation = 'int16', ...wanted } = options;
  return new Class(await load(wanted), activation);
}

/** The memory of kernels, for the classes that build on them. @type {(kernels: Kernels) => Memory} */
let memoryOf;

export { memoryOf };

/** A module instance with its memory, and the operations on it. Made by createKernels. */
export class Kernels {
  #memory;
  #loaded;
  #activation;
  /** @type {Isa} */
  #isa;
  /** @type {Dot | undefined} */
  #dot;
  /** @type {readonly ServedType[]} */
  #types;
  #stagedX;
  #stagedY;

  static {
    memoryOf = (kernels) => kernels.#memory;
  }

  /**
   * @hideconstructor
   * @param {Loaded} loaded
   * @param {Activation} activation
   */
  constructor(loaded, activation) {
    this.#loaded = loaded;
    this.#activation = activation;
    this.#isa = loaded.isa;
    this.#dot = loaded.dot;
    this.#memory = new Memory(loaded.instance);
    loaded.pool?.belongTo(this);
    this.#stagedX = new Staging(this.#memory);
    this.#stagedY = new Staging(this.#memory);
    this.#types = Object.freeze(servedTypes(loaded.instance.exports));
  }

  /** What was chosen and why. @returns {KernelsInfo} */
  get info() {
    const { steps, reason, features, timings, dotTimes, wasmUrl, wasmBytes } = this.#loaded;
    const { instance, pool, threadsReason, memory64Reason } = this.#loaded;
    const failure = pool?.failure;
    return {
      version: VERSION,
      isa: this.#isa,
      dot: this.#dot,
      activation: this.#activation,
      steps: steps.map((step) => ({ ...step })),
      reason,
      threads: pool && !failure ? pool.count : 1,
      threadsReason: failure ? `one thread: ${failure}` : threadsReason,
      memory64: instance.is64,
      memory64Reason,
      features: { ...features },
      timings: { ...timings },
      dotTimes: dotTimes && { ...dotTimes },
      wasmUrl,
      wasmBytes,
    };
  }

  /** The instruction set in use. */
  get isa() {
    return this.#isa;
  }

  /** The weight types that the kernels serve, from the module's own table. */
  get types() {
    return this.#types;
  }

  /** True after dispose(). */
  get disposed() {
    return this.#memory.disposed;
  }

  /**
   * Uses another instruction set or relaxed variant of those in this module, after its self-test.
   * @param {{ isa?: Isa, dot?: Dot }} choice
   * @throws {IsaError} the module does not hold it, or it fails; what was selected stays
   */
  select(choice) {
    checkNames(choice, known.CHOICE);
    const { isa = this.#isa, dot = this.#dot ?? 'i16' } = choice;
    oneOf(ISA_NAMES, isa, 'isa');
    oneOf(DOT_NAMES, dot, 'dot');
    const { exports } = this.#memory;
    const failure = verify(exports, this.#loaded.module, isa, dot);
    if (failure) {
      verify(exports, this.#loaded.module, this.#isa, this.#dot ?? 'i16');
      throw new IsaError(`${isa}: ${failure}`, { isa });
    }
    this.#isa = isa;
    this.#dot = isa === 'relaxed' ? dot : undefined;
  }

  /**
   * How a weight type and an activation mode are served: by whose kernels, with which activation.
   * @param {string | number} type
   * @param {Activation} [activation]
   * @returns {Service}
   */
  servedBy(type, activation = this.#activation) {
    const { id } = servedType(type);
    const packed = this.#memory.exports.fm_served_by(id, activationId(activation));
    if (packed < 0) throw new ArgumentError(`${show(type)} x ${activation} is not served by this module`);
    return { isa: ISA_NAMES[packed & 255], activation: ACTIVATION_NAMES[packed >> 8] };
  }

  /**
   * Streams a tensor of a GGUF file into linear memory; it is never held twice.
   * @param {import('../gguf/file.js').GgufFile} gguf
   * @param {string} name
   * @param {LoadOptions} [options]
   * @returns {Promise<Weight>}
   * @throws {import('../errors.js').GgufError} no such tensor, or its bytes cannot be read
   * @throws {ArgumentError} its type is not served
   * @throws {import('../errors.js').MemoryError}
   */
  async loadWeight(gguf, name, options) {
    const { loadWeight } = await import('./load-weights.js');
    return loadWeight(this.#memory, gguf, name, options);
  }

  /**
   * Streams several tensors, those that are neighbours in the file by one request: all of them, or on any failure none.
   * Beside the weights it holds a chunk of each request that is under way.
   * @param {import('../gguf/file.js').GgufFile} gguf
   * @param {Iterable<string>} names
   * @param {LoadOptions & { concurrency?: number }} [options]  progress is that of all; concurrency: at most so many
   *   requests at a time, default 2
   * @returns {Promise<Weight[]>}  in the order of names
   * @throws {import('../errors.js').GgufError} no such tensor, or its bytes cannot be read
   * @throws {ArgumentError} a type is not served
   * @throws {import('../errors.js').MemoryError}
   */
  async loadWeights(gguf, names, options) {
    const { loadWeights } = await import('./load-weights.js');
    return loadWeights(this.#memory, gguf, names, options);
  }

  /**
   * A weight from bytes in GGUF block layout, copied in. An F32 weight without data is zeros, for dequantize
   * to fill.
   * @param {WeightData} weight
   * @returns {Weight}
   * @throws {ShapeError} nCols is no multiple of the type's block, or data is not as long as the shape says
   */
  weight(weight) {
    checkNames(weight, known.WEIGHT_FIELDS, 'field');
    const { type: typeKey, nRows, nCols, data, name = '' } = weight;
    const type = servedType(typeKey);
    checkDimension(nRows, 'nRows');
    checkDimension(nCols, 'nCols');
    checkBlocks(nCols, type);
    const bytes = data === undefined && type.name === 'F32' ? undefined : asBytes(data);
    const expected = weightBytes(type, nRows, nCols);
    if (bytes) checkData(bytes, expected, type, `${nRows} x ${nCols} ${type.name}`);
    const ptr = this.#memory.alloc(expected, 'weights');
    if (bytes) this.#memory.u8.set(bytes, ptr);
    else this.#memory.u8.fill(0, ptr, ptr + expected);
    return new Weight(this.#memory, { ptr, nRows, nCols, byteLength: expected }, type, name);
  }

  /**
   * An f32 tensor in wasm memory, so that chains of operations copy nothing.
   * @param {{ nRows: number, nCols: number, data?: Float32Array }} shape  zeros where there is no data
   * @returns {Tensor}
   */
  tensor(shape) {
    checkNames(shape, known.TENSOR_FIELDS, 'field');
    const { nRows, nCols, data } = shape;
    checkDimension(nRows, 'nRows');
    checkDimension(nCols, 'nCols');
    if (data !== undefined)
      checkLength(asFloats(data, 'data'), nRows * nCols, `data of a ${nRows} x ${nCols} tensor`);
    const tensor = this.#newTensor(nRows, nCols);
    if (data) tensor.set(data);
    else this.#memory.f32.fill(0, tensor.ptr / 4, tensor.ptr / 4 + tensor.length);
    return tensor;
  }

  /**
   * Multiplies f32 rows by a quantised weight: y[t][r] = sum_c x[t][c] * w[r][c].
   * @template {Float32Array | Tensor} T
   * @template {Float32Array | Tensor} [U=T]
   * @param {Weight} w
   * @param {T} x  nTokens * nCols values: a Float32Array is copied in, a Tensor used where it is
   * @param {{ out?: U, activation?: Activation }} [options]  out: nTokens * nRows values, by default a
   *   new one of x's kind
   * @returns {NoInfer<U>} out; a Float32Array is never a view that memory growth can detach
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   * @throws {HandleError} a handle is freed or belongs to other kernels
   */
  fusedMatmul(w, x, options) {
    known.checkMatmulOptions(options);
    const memory = this.#memory;
    const { exports } = memory;
    const atW = asWeight(w, 'w').ptrIn(memory);
    const { nRows, nCols } = w;
    const nTokens = countRows(asOperand(x, 'x'), nCols, 'x', w);
    const xIsTensor = x instanceof Tensor;
    const nOut = nTokens * nRows;
    const activation = options?.activation === undefined ? this.#activation : options.activation;
    const mode = activationId(activation);
    const given = options?.out;
    if (given !== undefined && asOperand(given, 'out').length !== nOut)
      checkLength(given, nOut, `out of ${nTokens} token(s) by ${nRows} rows`);
    let atX = xIsTensor ? x.ptrIn(memory) : 0;
    const out = given ?? (xIsTensor ? this.#newTensor(nTokens, nRows) : undefined);
    const atOut = out instanceof Tensor ? out.ptrIn(memory) : 0;
    try {
      const atY = atOut || this.#stagedY.reserve(nOut);
      if (!xIsTensor) {
        atX = this.#stagedX.reserve(x.length);
        memory.f32.set(x, atX / 4);
      }
      const status = exports.fused_matmul(w.typeId, atW, atX, atY, nTokens, nRows, nCols, mode);
      if (status !== 0) throw statusError(status, `fusedMatmul of ${w}`);
    } catch (error) {
      if (given === undefined && out instanceof Tensor) out.free();
      throw error;
    }
    if (out instanceof Tensor) return /** @type {U} */ (out);
    const y = this.#stagedY.view(nOut);
    if (!out) return /** @type {U} */ (y.slice());
    out.set(y);
    return /** @type {U} */ (out);
  }

  /**
   * Rows of a weight as f32, bit for bit what ggml computes.
   * @template {Float32Array | Tensor | Weight} [U=Float32Array<ArrayBuffer>]
   * @param {Weight} w
   * @param {DequantizeOptions<U>} [options]
   * @returns {NoInfer<U>}
   */
  dequantize(w, options = {}) {
    checkNames(options, known.DEQUANTIZE_OPTIONS);
    const { start = 0, end = w.nRows, out } = options;
    const memory = this.#memory;
    const atW = asWeight(w, 'w').ptrIn(memory);
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
      const status = memory.exports.fm_dequantize_rows(typeId, atRow, out.ptrIn(memory), end - start, nCols);
      if (status !== 0) throw statusError(status, `dequantize of ${w}`);
      return out;
    }
    const result = /** @type {Float32Array} */ (out ?? new Float32Array(nValues));
    const step = Math.max(1, Math.floor(DEQUANTIZE_STEP / (4 * nCols)));
    for (let row = start; row < end; row += step) {
      const n = Math.min(step, end - row);
      const atY = this.#stagedY.reserve(n * nCols);
      const status = memory.exports.fm_dequantize_rows(typeId, atW + row * rowBytes, atY, n, nCols);
      if (status !== 0) throw statusError(status, `dequantize of ${w}`);
      result.set(this.#stagedY.view(n * nCols), (row - start) * nCols);
    }
    return /** @type {U} */ (result);
  }

  /**
   * Quantises f32 rows: the bytes a GGUF file would hold, which `weight({ type, nRows, nCols, data })` takes. Q4_0, Q4_1,
   * Q5_0, Q5_1 and Q8_0 give the bytes that other GGUF producers give; Q4_K, Q5_K and Q6_K are searched for the least
   * squared error, which takes some twenty times as long. NaN counts as 0, Inf as the largest value of the type.
   * @param {string | number} type  one of those
   * @param {Float32Array} values  nRows * nCols values
   * @param {number} nRows
   * @param {number} nCols  a multiple of the type's block: 32, or 256 for the K types
   * @returns {Uint8Array<ArrayBuffer>}
   * @throws {ArgumentError} the type cannot be quantised to
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  quantize(type, values, nRows, nCols) {
    return quantizeRows(this.#memory, this.#stagedX, this.#stagedY, type, values, nRows, nCols);
  }

  /**
   * Multiplies by weights in the flat 4-bit layout from before Q4_K. Warns once.
   * @deprecated quantize to Q4_K and use fusedMatmul
   * @param {import('./legacy.js').LegacyQ4Weight} w
   * @param {Float32Array} x  nTokens * nCols values
   * @returns {Float32Array} nTokens * nRows values
   * @throws {ShapeError} a length does not fit the shape; the message has both numbers
   */
  fusedDequantMatmulQ4KLegacy(w, x) {
    return matmulQ4Legacy(this.#memory, w, x);
  }

  /** What the linear memory holds, in bytes. @returns {import('./memory.js').MemoryStats} */
  memory() {
    return this.#memory.stats();
  }

  /** Lets go of the module instance with all its weights and tensors, and ends its threads. Calling it again does nothing. */
  dispose() {
    this.#loaded.pool?.end();
    this.#memory.dispose();
  }

  /** For `using`. */
  [dispose]() {
    this.dispose();
  }

  /**
   * @param {number} nRows
   * @param {number} nCols
   */
  #newTensor(nRows, nCols) {
    const byteLength = nRows * nCols * 4;
    const ptr = this.#memory.alloc(byteLength, 'tensors');
    return new Tensor(this.#memory, { ptr, nRows, nCols, byteLength });
  }
}

/** @param {import('./memory.js').WasmExports} exports */
function servedTypes(exports) {
  return types
    .filter(({ id }) => exports.fm_type_block_values(id) !== 0)
    .map(({ name, id, blockValues, blockBytes }) =>
      Object.freeze({ name, id, blockValues, blockBytes, alignment: exports.fm_type_alignment(id) }),
    );
}

/** @param {unknown} name */
function activationId(name) {
  if (name === 'int16') return 1;
  if (name === 'int8') return 2;
  if (name === 'f32') return 0;
  throw new ArgumentError(`activation must be one of ${ACTIVATION_NAMES.join(', ')}, got ${show(name)}`);
}
