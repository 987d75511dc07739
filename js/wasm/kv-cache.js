/* KV cache: keys or values of past positions, in wasm memory. */

import { checkDimension, checkNames } from '../checks.js';
import { ArgumentError, ShapeError, show } from '../errors.js';
import { servedType, weightBytes } from '../types.js';
import { Call } from './call.js';
import { addressIn, Handle } from './handles.js';
import { asOperand, countRows } from './operands.js';

export const KV_TYPES = /** @type {const} */ (['F32', 'F16', 'Q8_0']);

/** Most values of a head. */
export const LARGEST_HEAD = 576;

/** Type that a KV cache stores. @typedef {'F32' | 'F16' | 'Q8_0'} KvType */

/**
 * @typedef {object} KvCacheShape
 * @property {KvType} [type]  Type that keys or values are stored in. Default 'F16'.
 * @property {number} nPositions  Number of positions.
 * @property {number} nKvHeads  Heads of a position.
 * @property {number} headSize  Values of a head, 1 to 576; a multiple of 32 for Q8_0.
 */

const SHAPE_FIELDS = ['type', 'nPositions', 'nKvHeads', 'headSize'];

/**
 * A KV cache [nPositions][nKvHeads][headSize], zeros at first. A layer has one for its keys and one
 * for its values.
 */
export class KvCache extends Handle {
  #core;

  /**
   * @hideconstructor
   * @param {import('./core.js').Core} core
   * @param {KvCacheShape} shape
   */
  constructor(core, shape) {
    checkNames(shape, SHAPE_FIELDS, 'field');
    const { type: typeName = 'F16', nPositions, nKvHeads, headSize } = shape;
    if (!KV_TYPES.includes(typeName))
      throw new ArgumentError(`type must be one of ${KV_TYPES.join(', ')}, got ${show(typeName)}`);
    const type = servedType(typeName);
    checkDimension(nPositions, 'nPositions');
    checkDimension(nKvHeads, 'nKvHeads');
    checkDimension(headSize, 'headSize');
    if (headSize > LARGEST_HEAD) {
      throw new ShapeError(`headSize is ${headSize}, and ${LARGEST_HEAD} at most`, {
        got: headSize,
        expected: LARGEST_HEAD,
      });
    }
    if (headSize % type.blockValues !== 0) {
      throw new ShapeError(
        `headSize is ${headSize}, which is no multiple of the ${type.blockValues} values of a ${type.name} block`,
        { got: headSize, expected: type.blockValues },
      );
    }
    const nCols = nKvHeads * headSize;
    const byteLength = weightBytes(type, nPositions, nCols);
    const { memory } = core;
    const ptr = memory.alloc(byteLength, 'tensors');
    memory.u8.fill(0, ptr, ptr + byteLength);
    super(memory, 'tensors', { ptr, nRows: nPositions, nCols, byteLength });
    this.#core = core;
    /** Type that keys or values are stored in. @type {KvType} */
    this.type = typeName;
    /** The same type as a number of GGUF. */
    this.typeId = type.id;
    /** Number of positions. */
    this.nPositions = nPositions;
    /** Heads of a position. */
    this.nKvHeads = nKvHeads;
    /** Values of a head. */
    this.headSize = headSize;
  }

  toString() {
    return `KV cache (${this.type} ${this.nPositions}x${this.nKvHeads}x${this.headSize})`;
  }

  /**
   * Converts and stores the keys or values of consecutive positions. In a Q8_0 cache NaN counts as
   * 0, as in quantize.
   * @param {Float32Array | import('./handles.js').Tensor} x  nTokens * nKvHeads * headSize values
   * @param {number} position  position of the first token
   * @throws {ShapeError} a length does not fit, or the positions reach beyond the cache; the
   *   message has both numbers
   */
  write(x, position) {
    const { memory } = this.#core;
    const atCache = addressIn(this, memory);
    const nTokens = countRows(asOperand(x, 'x'), this.nCols, 'x', this);
    if (!Number.isInteger(position) || position < 0 || position + nTokens > this.nPositions) {
      throw new ShapeError(
        `${nTokens} token(s) from position ${show(position)} on do not fit into the ${this.nPositions} positions of ${this}`,
        { got: position + nTokens, expected: this.nPositions },
      );
    }
    const call = new Call(this.#core);
    const atX = call.input(x);
    call.run(`write to ${this}`, () =>
      memory.exports.fm_kv_write(
        this.typeId,
        atCache,
        atX.ptr,
        nTokens,
        this.nCols,
        position,
        this.nPositions,
      ),
    );
  }

  /**
   * @internal Moves positions to the beginning.
   * @param {number} start  the first of them
   * @param {number} end
   */
  keep(start, end) {
    const { memory } = this.#core;
    const address = addressIn(this, memory);
    const rowBytes = this.byteLength / this.nPositions;
    memory.u8.copyWithin(address, address + start * rowBytes, address + end * rowBytes);
  }
}

/** @type {import('./core.js').Operation<'kvCache'>} */
export const kvCache = (core, shape) => new KvCache(core, shape);
