/* The operands of one call into the module. Tensors are used where they are; Float32Arrays are
 * copied to one staging buffer, side by side; results without a given place become new tensors or
 * arrays. */

import { checkLength } from '../checks.js';
import { statusError } from '../errors.js';
import { addressIn, newTensor, Tensor } from './handles.js';
import { asOperand } from './operands.js';
import { structBytes, writeStruct } from './structs.js';

/** @typedef {import('./operands.js').Floats} Floats */

/**
 * An operand. Its `ptr` is valid from the moment Call.run makes the call.
 * @typedef {object} Operand
 * @property {number} ptr
 * @property {number} at  Place in the staging buffer, in floats; -1 if the operand is not staged.
 * @property {number} length  Length in floats.
 * @property {Float32Array} [source]  Copied in before the call.
 * @property {Float32Array} [target]  Copied out after the call.
 * @property {Tensor} [tensor]
 * @property {{ nRows: number, nCols: number }} [shape]  Shape of a tensor to be made.
 * @property {(ptr: number) => void} [fill]  Writes a struct once all pointers are known.
 */

/** Operands start at multiples of 64 bytes. */
const PART_FLOATS = 16;

export class Call {
  #memory;
  #staging;
  /** @type {Operand[]} */
  #operands = [];
  #floats = 0;

  /** @param {import('./core.js').Core} core */
  constructor({ memory, stagedX }) {
    this.#memory = memory;
    this.#staging = stagedX;
  }

  /**
   * Adds an operand that the call reads.
   * @param {Floats} x
   * @returns {Operand}
   */
  input(x) {
    if (x instanceof Tensor) return { ptr: addressIn(x, this.#memory), at: -1, length: x.length, tensor: x };
    return this.#stage({ ptr: 0, at: 0, length: x.length, source: x });
  }

  /**
   * Adds an operand like input(); without x, its address is 0.
   * @param {Floats | undefined} x
   * @returns {Operand}
   */
  optional(x) {
    return x === undefined ? { ptr: 0, at: -1, length: 0 } : this.input(x);
  }

  /**
   * Adds an operand that the call writes: the given one, or a new one of the same kind as `like`.
   * @param {unknown} given
   * @param {Floats | undefined} like  undefined: a new array
   * @param {number} nRows
   * @param {number} nCols
   * @param {string} [what]
   * @returns {Operand}
   */
  output(given, like, nRows, nCols, what = 'out') {
    const length = nRows * nCols;
    if (given !== undefined) {
      const out = asOperand(given, what);
      checkLength(out, length, `${what} of ${nRows} row(s) by ${nCols} columns`);
      if (out instanceof Tensor) return this.input(out);
      return this.#stage({ ptr: 0, at: 0, length, target: out });
    }
    if (!(like instanceof Tensor)) return this.#stage({ ptr: 0, at: 0, length });
    /** @type {Operand} */
    const operand = { ptr: 0, at: -1, length, shape: { nRows, nCols } };
    this.#operands.push(operand);
    return operand;
  }

  /**
   * Adds an operand that the call reads and writes.
   * @param {Floats} x
   * @returns {Operand}
   */
  changed(x) {
    const operand = this.input(x);
    if (operand.source) operand.target = operand.source;
    return operand;
  }

  /**
   * Adds memory for this call only.
   * @param {number} nFloats
   * @param {(ptr: number) => void} [fill]  called once all pointers are known
   * @returns {Operand}
   */
  scratch(nFloats, fill) {
    return this.#stage({ ptr: 0, at: 0, length: nFloats, fill });
  }

  /**
   * Adds structs for this call only, one after another.
   * @param {import('./structs.js').StructName} name
   * @param {(i: number) => readonly number[]} fields  fields of the i-th struct; called once all
   *   pointers are known
   * @param {number} [n]  number of structs
   */
  struct(name, fields, n = 1) {
    const bytes = structBytes(this.#memory, name);
    return this.scratch((n * bytes) / 4, (ptr) => {
      for (let i = 0; i < n; i++) writeStruct(this.#memory, name, ptr + i * bytes, fields(i));
    });
  }

  /**
   * Places all operands and makes the call.
   * @param {string} what  name of the call in messages
   * @param {() => number} call  returns an fm_status
   */
  run(what, call) {
    const memory = this.#memory;
    try {
      for (const operand of this.#operands) {
        if (operand.shape) {
          operand.tensor = newTensor(memory, operand.shape.nRows, operand.shape.nCols);
          operand.ptr = addressIn(operand.tensor, memory);
        }
      }
      const base = this.#floats === 0 ? 0 : this.#staging.reserve(this.#floats);
      for (const operand of this.#operands) {
        if (operand.at >= 0) operand.ptr = base + 4 * operand.at;
        if (operand.source) memory.f32.set(operand.source, operand.ptr / 4);
      }
      for (const { fill, ptr } of this.#operands) fill?.(ptr);
      const status = call();
      if (status !== 0) throw statusError(status, what);
    } catch (error) {
      for (const { shape, tensor } of this.#operands) {
        if (shape) tensor?.free();
      }
      throw error;
    }
  }

  /**
   * Takes a result after run. Take all results at once, as the next call overwrites the staging
   * buffer.
   * @param {Operand} operand
   * @returns {any}
   */
  result({ tensor, target, ptr, length }) {
    if (tensor) return tensor;
    const values = this.#memory.f32.subarray(ptr / 4, ptr / 4 + length);
    if (!target) return values.slice();
    target.set(values);
    return target;
  }

  /** @param {Operand} operand */
  #stage(operand) {
    operand.at = this.#floats;
    this.#floats += Math.ceil(operand.length / PART_FLOATS) * PART_FLOATS;
    this.#operands.push(operand);
    return operand;
  }
}
