/* Records calls as steps of a message. References replace handles, arrays and results. */

import { checkNames } from '../checks.js';
import { ArgumentError, HandleError, show } from '../errors.js';
import { Handle } from '../wasm/handles.js';
import { idIn, WorkerHandle } from './handles.js';
import { HANDLE_METHODS, isPlain, MANY, METHODS, mapTree, optionsOf } from './methods.js';

/** @typedef {import('./methods.js').Reference} Reference */
/** @typedef {import('./methods.js').StepName} StepName */
/** @typedef {import('./types.js').CallOptions} CallOptions */

const OPTIONS_AT = { ...METHODS, ...HANDLE_METHODS };

/**
 * The future result of an operation in a sequence: an argument of later operations, or a part of
 * the value that the sequence returns.
 */
export class SequenceValue {
  #recorder;

  /**
   * @param {Recorder} recorder
   * @param {Reference} reference
   */
  constructor(recorder, reference) {
    this.#recorder = recorder;
    this.reference = reference;
  }

  /** @param {Recorder} recorder */
  isOf(recorder) {
    return this.#recorder === recorder;
  }

  /**
   * Weight.rows, for a weight.
   * @param {number} start
   * @param {number} nRows
   */
  rows(start, nRows) {
    return this.#recorder.record('rows', [start, nRows], this);
  }

  /**
   * Tensor.set, for a tensor.
   * @param {unknown} values
   * @param {number} [offset]
   */
  set(values, offset) {
    this.#recorder.record('set', [values, offset], this);
  }

  /** Tensor.toArray, for a tensor. */
  toArray() {
    return this.#recorder.record('toArray', [], this);
  }

  /**
   * KvCache.write, for a KV cache.
   * @param {unknown} x
   * @param {number} position
   */
  write(x, position) {
    this.#recorder.record('write', [x, position], this);
  }

  /** Frees the value early. At its end, a sequence frees everything it made and does not return. */
  free() {
    this.#recorder.record('free', [], this);
  }
}

/**
 * @typedef {{ at: number, read: boolean, out: boolean, view: ArrayBufferView | ArrayBufferLike }}
 *   ArrayUse
 */

export class Recorder {
  #owner;
  /** @type {import('./methods.js').Step[]} */
  #steps = [];
  /** @type {Map<object, ArrayUse>} */
  #arrays = new Map();
  /** @type {Set<unknown>} */
  #transfer = new Set();
  /** Handles that a step frees; they are freed even if the steps never run. @type {number[]} */
  freed = [];

  /** @param {import('./handles.js').Owner} owner */
  constructor(owner) {
    this.#owner = owner;
  }

  /**
   * @param {StepName} method
   * @param {readonly unknown[]} given
   * @param {WorkerHandle | SequenceValue} [target]
   * @returns {any} a SequenceValue, or a list of them
   */
  record(method, given, target) {
    const { args, options } = splitOptions(method, given);
    if (options.signal)
      throw new ArgumentError('a sequence has one signal: give it to sequence(), not to a step');
    this.transfer(options.transfer);
    const step = { method, args: args.map((arg) => mapTree(arg, (leaf, key) => this.#pack(leaf, key))) };
    const at = this.#steps.push(target ? { ...step, target: this.#pack(target) } : step) - 1;
    if (!MANY.includes(method)) return new SequenceValue(this, { $: 'step', at });
    const [weights] = given;
    return Array.from(Array.isArray(weights) ? weights : [], (_, item) => {
      return new SequenceValue(this, { $: 'step', at, item });
    });
  }

  /** @param {CallOptions['transfer']} buffers */
  transfer(buffers = []) {
    if (!Array.isArray(buffers) || !buffers.every((buffer) => buffer instanceof ArrayBuffer))
      throw new ArgumentError(`transfer must be a list of ArrayBuffers, got ${show(buffers)}`);
    for (const buffer of buffers) this.#transfer.add(buffer);
  }

  /**
   * Makes the message, and a function that finds the arrays named in its answer.
   * @param {unknown} result  a tree of SequenceValues
   */
  finish(result) {
    const packed = mapTree(result, (leaf) => this.#pack(leaf));
    const uses = [...this.#arrays.values()];
    const taken = uses.find(({ view, out }) => out && this.#transfer.has(bufferOf(view)));
    if (taken)
      throw new ArgumentError('out is written when the result is back: its buffer cannot be transferred');
    const moved = new Set(this.#transfer);
    const arrays = uses.map(({ view, read }) => {
      if (!read) return { length: /** @type {Float32Array} */ (view).length };
      const sent = moved.has(bufferOf(view)) ? view : copyOf(view);
      moved.add(bufferOf(sent));
      return sent;
    });
    const outs = uses.filter(({ out }) => out).map(({ at }) => at);
    return {
      message: { kind: 'run', steps: this.#steps, arrays, outs, result: packed },
      transfer: /** @type {ArrayBuffer[]} */ ([...moved]),
      /** @param {number} at */
      given: (at) => uses[at].view,
    };
  }

  /**
   * @param {any} value
   * @param {string} [key]
   * @returns {any}
   */
  #pack(value, key) {
    if (value instanceof SequenceValue) {
      if (value.isOf(this)) return value.reference;
      throw new ArgumentError(
        'this value belongs to another sequence: it stands for a result only in its own',
      );
    }
    if (value instanceof WorkerHandle) return { $: 'handle', id: idIn(value, this.#owner) };
    if (value instanceof Handle) throw new HandleError(`${value} belongs to other kernels`, 'foreign');
    if (value instanceof Promise)
      throw new ArgumentError('an argument is a promise: await it first, or use sequence()');
    if (typeof value === 'function' || typeof value === 'symbol')
      throw new ArgumentError(`${show(value)} cannot be sent to a worker`);
    if (ArrayBuffer.isView(value) || isBuffer(value)) return { $: 'array', at: this.#useArray(value, key) };
    return value;
  }

  /**
   * @param {ArrayBufferView | ArrayBufferLike} view
   * @param {string} [key]
   */
  #useArray(view, key) {
    const use = this.#arrays.get(view) ?? { at: this.#arrays.size, read: false, out: false, view };
    this.#arrays.set(view, use);
    if (key === 'out' && view instanceof Float32Array) use.out = true;
    else use.read = true;
    return use.at;
  }
}

/**
 * @param {StepName} method
 * @param {readonly unknown[]} given
 * @returns {{ args: unknown[], options: CallOptions }}
 */
export function splitOptions(method, given) {
  const at = OPTIONS_AT[method];
  const options = given[at];
  if (options !== undefined) checkNames(/** @type {object} */ (options), optionsOf(method));
  if (!isPlain(options)) return { args: [...given], options: {} };
  const { signal, transfer, ...rest } = /** @type {CallOptions} */ (options);
  const args = [...given];
  args[at] = Object.keys(rest).length > 0 ? rest : undefined;
  return { args, options: { signal, transfer } };
}

/** @param {unknown} value @returns {value is ArrayBufferLike} */
function isBuffer(value) {
  return (
    value instanceof ArrayBuffer ||
    (typeof SharedArrayBuffer === 'function' && value instanceof SharedArrayBuffer)
  );
}

/** @param {ArrayBufferView | ArrayBufferLike} view */
const bufferOf = (view) => (ArrayBuffer.isView(view) ? view.buffer : view);

/**
 * Copies the bytes that a view shows; cloning would copy the whole buffer behind it.
 * @param {ArrayBufferView | ArrayBufferLike} view
 * @returns {ArrayBufferView | ArrayBuffer}
 */
function copyOf(view) {
  const bytes = ArrayBuffer.isView(view)
    ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
    : new Uint8Array(view);
  const copy = new Uint8Array(bytes).buffer;
  if (!ArrayBuffer.isView(view)) return copy;
  const tag = /** @type {any} */ (view)[Symbol.toStringTag];
  return new /** @type {any} */ (globalThis)[tag](copy);
}
