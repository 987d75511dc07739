/* Loads weights from a stream into GPU memory. Bytes are gathered in chunks of 1 MB. For types in
 * planes a shader distributes the blocks of a chunk over the planes. Nothing is decoded, and at
 * most about 32 MB wait for the GPU. */

import { GgufError, show } from '../errors.js';
import { servedType, weightBytes } from '../types.js';
import { groupsOf, shader } from './shader.js';
import { allocateWeights } from './weights.js';
import { blockBytes, fieldOffsets, layoutOf, rowBlocks, WGSL_TYPES } from './wgsl/types.js';

/** @typedef {import('./commands.js').Commands} Commands */
/** @typedef {import('./device.js').GpuDevice} GpuDevice */
/** @typedef {import('./pipelines.js').Bound} Bound */
/** @typedef {import('./pipelines.js').Pipeline} Pipeline */
/** @typedef {import('./pipelines.js').Pipelines} Pipelines */
/** @typedef {import('./weight.js').GpuWeight} GpuWeight */
/** @typedef {import('./weights.js').TensorShape} TensorShape */

/** Browsers copy what is written in pieces of this size fastest. */
const CHUNK_BYTES = 1 << 20;
/** Bytes between two looks at how far the GPU is; twice as many may wait for it. */
const WINDOW_BYTES = 16 << 20;
/** A chunk has a multiple of this many blocks, so that it fills whole words of every plane. */
const WHOLE_BLOCKS = 4;
const INVOCATIONS = 64;
/** Padding of a row; there is never more. */
const ZEROS = new Uint8Array(64);

/**
 * Distributes the fields of n_tokens blocks over planes. The first of them is block `start` of a
 * tensor that has `position` blocks. Each invocation makes one word of a plane.
 * @param {string} type
 */
export function toPlanes(type) {
  const bytes = blockBytes(type);
  const offsets = fieldOffsets(type);
  let from = 0;
  const fields = WGSL_TYPES[type].fields.map(([field, size]) => {
    const at = (/** @type {string} */ block) => `word((${block}) * ${bytes}u + ${from}u)`;
    const value =
      size % 4 === 0
        ? `word((j / ${size / 4}u) * ${bytes}u + ${from}u + 4u * (j % ${size / 4}u))`
        : Array.from({ length: 4 / size }, (_, n) => {
            const one = at(`${4 / size}u * j + ${n}u`);
            return `((${one} & ${2 ** (8 * size) - 1}u) << ${8 * size * n}u)`;
          }).join(' | ');
    from += size;
    return `
  words = (step.n_tokens * ${size}u + 3u) / 4u;
  if (j < words) {
    planes[(step.position * ${offsets[field]}u + step.start * ${size}u) / 4u + j] = ${value};
    return;
  }
  j -= words;`;
  });
  return shader({
    name: `planes of ${type}`,
    bindings: { blocks: 'read array<u32>', planes: 'read_write array<u32>' },
    step: true,
    size: [INVOCATIONS],
    code: `
fn word(a: u32) -> u32 {
  let s = 8u * (a & 3u);
  return (blocks[a >> 2u] >> s) | ((blocks[(a >> 2u) + 1u] << (31u - s)) << 1u);
}
@compute
fn main(@builtin(global_invocation_id) id: vec3u) {
  var j = id.x;
  var words: u32;${fields.join('')}
}`,
  });
}

/** Loads several weights, one after the other or interleaved. */
export class Uploader {
  #commands;
  #pipelines;
  #chunkBytes;
  #windowBytes;
  #staging;
  /** By type. @type {Map<string, Pipeline>} */
  #toPlanes = new Map();
  /** Memory for chunks that no writer has. @type {Uint8Array<ArrayBuffer>[]} */
  #chunks = [];
  /** Bytes since the last look at the GPU. */
  #written = 0;
  /** Resolves when everything up to the last look is done. @type {Promise<void>} */
  #last = Promise.resolve();
  /** The same for the look before. @type {Promise<void>} */
  #gate = Promise.resolve();

  /**
   * @param {GpuDevice} gpu
   * @param {Pipelines} pipelines
   * @param {Commands} commands
   * @param {{ chunkBytes?: number, windowBytes?: number }} [sizes]  multiples of 4
   */
  constructor(gpu, pipelines, commands, { chunkBytes = CHUNK_BYTES, windowBytes = WINDOW_BYTES } = {}) {
    this.#pipelines = pipelines;
    this.#commands = commands;
    this.#chunkBytes = chunkBytes;
    this.#windowBytes = windowBytes;
    // A word more, since blocks are read at odd addresses.
    this.#staging = gpu.buffer(chunkBytes + 8, { label: 'weights on their way' });
  }

  /**
   * Compiles what weights of some types need.
   * @param {Iterable<string>} types
   */
  async prepare(types) {
    const inPlanes = [...new Set(types)].filter((type) => layoutOf(type) === 'planes');
    await Promise.all(
      inPlanes.map(async (type) => {
        this.#toPlanes.set(type, await this.#pipelines.compile(toPlanes(type)));
      }),
    );
  }

  /**
   * Begins a weight, whose type was prepared.
   * @param {GpuWeight} weight
   */
  writer(weight) {
    return new WeightWriter(this, weight, this.#chunks.pop() ?? new Uint8Array(this.#chunkBytes));
  }

  /** A writer's chunk is free again. @param {Uint8Array<ArrayBuffer>} chunk */
  release(chunk) {
    this.#chunks.push(chunk);
  }

  /** Waits until not too many bytes wait for the GPU. */
  async room() {
    if (this.#written >= this.#windowBytes) {
      this.#written = 0;
      this.#gate = this.#last;
      this.#last = this.#commands.idle();
      this.#last.catch(() => {});
    }
    await this.#gate;
  }

  /**
   * Writes whole words of a buffer.
   * @param {import('./device.js').GpuBuffer} buffer
   * @param {number} offset
   * @param {Uint8Array} bytes
   */
  write(buffer, offset, bytes) {
    this.#commands.write(buffer, offset, bytes);
    this.#written += bytes.length;
  }

  /**
   * The binding of a part of a weight in planes.
   * @param {string} type
   * @param {import('./device.js').GpuBuffer} planes
   */
  bind(type, planes) {
    const pipeline = /** @type {Pipeline} */ (this.#toPlanes.get(type));
    return pipeline.bind({ blocks: this.#staging, planes });
  }

  /**
   * Distributes blocks over planes.
   * @param {Bound} bound
   * @param {Uint8Array} bytes  blocks, not more than a chunk has room for
   * @param {import('../backend.js').Step} step
   * @param {number} words  that invocations make
   */
  scatter(bound, bytes, step, words) {
    this.write(this.#staging, 0, bytes);
    this.#commands.dispatch(bound, groupsOf(Math.ceil(words / INVOCATIONS)), step);
    // Submitted now, so that the weight may be freed at any time.
    this.#commands.flush();
  }

  /** Frees what it holds. */
  free() {
    this.#staging.free();
    this.#chunks.length = 0;
  }
}

/** Takes the bytes of one weight as its file has them: in order, in pieces of any size. */
class WeightWriter {
  #uploader;
  #weight;
  #chunk;
  /** Bytes that are in the chunk, and that it takes. */
  #filled = 0;
  #capacity;
  /** The part that is being written, and its bytes so far. */
  #part = 0;
  #done = 0;
  #blockBytes;
  /** @type {Bound | undefined} */
  #bound;
  /** Bytes of the file so far, and in all. */
  #got = 0;
  #expected;
  /** Bytes of a row in the file, and what is added to it. */
  #rowBytes;
  #padding;

  /**
   * @param {Uploader} uploader
   * @param {GpuWeight} weight
   * @param {Uint8Array<ArrayBuffer>} chunk
   */
  constructor(uploader, weight, chunk) {
    const { type, nRows, nCols } = weight;
    this.#uploader = uploader;
    this.#weight = weight;
    this.#chunk = chunk;
    this.#blockBytes = blockBytes(type);
    this.#rowBytes = weightBytes(servedType(type), 1, nCols);
    this.#padding = rowBlocks(weight) * this.#blockBytes - this.#rowBytes;
    this.#expected = nRows * this.#rowBytes;
    const whole = layoutOf(type) === 'planes' ? WHOLE_BLOCKS * this.#blockBytes : 4;
    this.#capacity = chunk.length - (chunk.length % whole);
  }

  /**
   * Writes the next bytes. They may be anything else when this is done.
   * @param {Uint8Array} bytes
   * @throws {GgufError} these are more than the weight has
   * @throws {HandleError} the weight is freed
   * @throws {GpuError} the device has ended
   */
  async write(bytes) {
    if (this.#got + bytes.length > this.#expected) throw this.#wrong(this.#got + bytes.length);
    if (this.#padding === 0) {
      this.#got += await this.#push(bytes);
      return;
    }
    for (let at = 0; at < bytes.length; ) {
      const left = this.#rowBytes - (this.#got % this.#rowBytes);
      const n = await this.#push(bytes.subarray(at, at + left));
      this.#got += n;
      at += n;
      if (n === left) await this.#push(ZEROS.subarray(0, this.#padding));
    }
  }

  /**
   * Ends the weight.
   * @throws {GgufError} bytes are missing
   */
  end() {
    if (this.#got !== this.#expected) throw this.#wrong(this.#got);
    this.#uploader.release(this.#chunk);
  }

  /** @param {number} got */
  #wrong(got) {
    const { name } = this.#weight;
    return new GgufError(`tensor ${show(name)}: got ${got} bytes of ${this.#expected}`, { tensor: name });
  }

  /**
   * Takes bytes of the file, or padding.
   * @param {Uint8Array} bytes
   * @returns {Promise<number>}  how many there were: a view of memory that grows becomes empty
   */
  async #push(bytes) {
    let at = 0;
    for (;;) {
      await this.#uploader.room();
      const room = Math.min(this.#capacity - this.#filled, this.#left - this.#filled);
      const n = Math.min(bytes.length - at, room);
      if (n <= 0) return at;
      this.#weight.check();
      const piece = bytes.subarray(at, at + n);
      at += n;
      // Not every browser writes from shared memory.
      if (this.#filled === 0 && n === room && piece.buffer instanceof ArrayBuffer) {
        this.#flush(piece);
        continue;
      }
      this.#chunk.set(piece, this.#filled);
      this.#filled += n;
      if (n === room) this.#flush(this.#chunk.subarray(0, this.#filled));
    }
  }

  /** Bytes that the current part lacks. */
  get #left() {
    const part = this.#weight.parts[this.#part];
    return part ? part.nBlocks * this.#blockBytes - this.#done : 0;
  }

  /** @param {Uint8Array} bytes  a chunk, or the rest of a part */
  #flush(bytes) {
    const { type, parts } = this.#weight;
    const { buffer, nBlocks } = parts[this.#part];
    if (layoutOf(type) === 'planes') {
      this.#bound ??= this.#uploader.bind(type, buffer);
      const nTokens = bytes.length / this.#blockBytes;
      const step = { position: nBlocks, start: this.#done / this.#blockBytes, nTokens, seen: 0 };
      // Each field may have a word that is not full.
      const words = Math.ceil(bytes.length / 4) + WGSL_TYPES[type].fields.length;
      this.#uploader.scatter(this.#bound, bytes, step, words);
    } else this.#uploader.write(buffer, this.#done, bytes);
    this.#done += bytes.length;
    this.#filled = 0;
    if (this.#left > 0) return;
    this.#part += 1;
    this.#done = 0;
    this.#bound = undefined;
  }
}

/**
 * Loads one weight.
 * @param {GpuDevice} gpu
 * @param {Pipelines} pipelines
 * @param {Commands} commands
 * @param {TensorShape} tensor
 * @param {AsyncIterable<Uint8Array> | Uint8Array} source  its bytes, as a file has them, in pieces
 *   of any size; they may be in shared memory or in that of a wasm module
 * @param {object} [options]
 * @param {AbortSignal | undefined} [options.signal]
 * @param {((bytes: number) => void) | undefined} [options.onBytes]  more of them are written
 * @param {GpuWeight} [options.into]  what allocateWeights() made for this tensor, which stays the
 *   caller's
 * @param {{ chunkBytes?: number, windowBytes?: number }} [options.sizes]
 * @returns {Promise<GpuWeight>}
 * @throws {GgufError} there are fewer bytes, or more, than the tensor has
 * @throws {GpuError} not enough memory, or the device has ended
 */
export async function uploadWeight(
  gpu,
  pipelines,
  commands,
  tensor,
  source,
  { signal, onBytes, into, sizes } = {},
) {
  signal?.throwIfAborted();
  const own = into ? undefined : (await allocateWeights(gpu, [tensor]))[0];
  const weight = /** @type {GpuWeight} */ (into ?? own);
  const halt = haltOf(gpu, signal);
  /** @type {Uploader | undefined} */
  let uploader;
  try {
    uploader = new Uploader(gpu, pipelines, commands, sizes);
    await uploader.prepare([weight.type]);
    const writer = uploader.writer(weight);
    const stream = source instanceof Uint8Array ? slices(source) : source;
    for await (const bytes of untilHalted(stream, halt.halted)) {
      const n = bytes.length;
      await writer.write(bytes);
      onBytes?.(n);
    }
    writer.end();
    return weight;
  } catch (error) {
    own?.free();
    throw error;
  } finally {
    halt.end();
    uploader?.free();
  }
}

/** @param {Uint8Array} bytes */
async function* slices(bytes) {
  const { length } = bytes;
  for (let at = 0; at < length; at += CHUNK_BYTES) yield bytes.subarray(at, at + CHUNK_BYTES);
}

/**
 * A promise that is rejected when the signal aborts or the device ends.
 * @param {GpuDevice} gpu
 * @param {AbortSignal | undefined} signal
 */
function haltOf(gpu, signal) {
  let stop = () => {};
  /** @type {Promise<never>} */
  const halted = new Promise((_, reject) => {
    stop = () => reject(signal?.reason);
    gpu.lost.then(reject);
  });
  halted.catch(() => {});
  signal?.addEventListener('abort', stop);
  if (signal?.aborted) stop();
  return { halted, end: () => signal?.removeEventListener('abort', stop) };
}

/**
 * A stream that ends with an error when `halted` is rejected, even while it waits for bytes.
 * @template T
 * @param {AsyncIterable<T>} stream
 * @param {Promise<never>} halted
 */
async function* untilHalted(stream, halted) {
  const iterator = stream[Symbol.asyncIterator]();
  let ended = false;
  try {
    for (;;) {
      const next = Promise.resolve(iterator.next());
      next.catch(() => {});
      const { done, value } = await Promise.race([halted, next]);
      ended = done === true;
      if (ended) return;
      yield value;
    }
  } finally {
    // Not awaited: it may wait for the same bytes.
    if (!ended) Promise.resolve(iterator.return?.()).catch(() => {});
  }
}
