/* All errors of the library. Each has a `code`; numbers are in the message and in fields.
 * ShapeError is a RangeError and ArgumentError a TypeError, as JavaScript itself would throw. Every
 * error is also `instanceof FmError`. */

/** Base class of the library's errors. */
export class FmError extends Error {
  /**
   * Kind of the error, the same in every version: 'FM_SHAPE', 'FM_GGUF' and so on.
   * @type {string}
   */
  code = 'FM_ERROR';

  /**
   * @param {string} message
   * @param {{ cause?: unknown }} [options]
   */
  constructor(message, { cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    /** Name of the class. */
    this.name = 'FmError';
  }
}

/** A length or a dimension does not fit. `got` and `expected` are in the message too. */
export class ShapeError extends RangeError {
  /** Kind of the error, the same in every version. */
  code = 'FM_SHAPE';

  /**
   * @param {string} message
   * @param {{ got?: number, expected?: number }} [numbers]
   */
  constructor(message, { got, expected } = {}) {
    super(message);
    /** Name of the class. */
    this.name = 'ShapeError';
    /** The number that was given. */
    this.got = got;
    /** The number that fits, or the largest one. */
    this.expected = expected;
  }
}

/** An argument has the wrong type or value. */
export class ArgumentError extends TypeError {
  /** Kind of the error, the same in every version. */
  code = 'FM_ARGUMENT';

  /** @param {string} message */
  constructor(message) {
    super(message);
    /** Name of the class. */
    this.name = 'ArgumentError';
  }
}

// ShapeError and ArgumentError extend classes of JavaScript, but count as FmErrors too. Subclasses
// inherit this function; there `this` is the subclass.
Object.defineProperty(FmError, Symbol.hasInstance, {
  /** @param {unknown} value */
  value(value) {
    const is = (/** @type {Function} */ kind) => Function.prototype[Symbol.hasInstance].call(kind, value);
    return is(this) || (this === FmError && (is(ShapeError) || is(ArgumentError)));
  },
});

/** A handle cannot be used: it is freed, belongs to other kernels, or its owner is disposed. */
export class HandleError extends FmError {
  code = 'FM_HANDLE';

  /**
   * @param {string} message
   * @param {'freed' | 'foreign' | 'disposed' | 'view'} reason
   */
  constructor(message, reason) {
    super(message);
    this.name = 'HandleError';
    /**
     * The reason: 'freed', 'foreign' (it belongs to other kernels), 'disposed' (its owner is), or
     * 'view' (it owns no memory).
     */
    this.reason = reason;
  }
}

/**
 * A GGUF file cannot be read or is malformed. `offset` is the place in the file, `tensor` the
 * tensor. `changed` is true if the file is another one than the one that was opened. For errors of
 * a server see `url`, `status`, `got` and `expected`.
 */
export class GgufError extends FmError {
  code = 'FM_GGUF';

  /**
   * @param {string} message
   * @param {{ offset?: number, tensor?: string, changed?: boolean, url?: string, status?: number,
   *   got?: number, expected?: number, cause?: unknown }} [where]
   */
  constructor(message, { offset, tensor, changed = false, url, status, got, expected, cause } = {}) {
    super(message, { cause });
    this.name = 'GgufError';
    /** Place in the file, in bytes. */
    this.offset = offset;
    /** Name of the tensor. */
    this.tensor = tensor;
    /** True if the file has changed since it was opened. */
    this.changed = changed;
    /** URL of the request. */
    this.url = url;
    /** HTTP status of the answer, if there was one. */
    this.status = status;
    /** Bytes, or offset, in the answer. */
    this.got = got;
    /** Bytes, or offset, that were expected. */
    this.expected = expected;
  }
}

/** An instruction set that this engine or this module lacks, or that failed its self-test. */
export class IsaError extends FmError {
  code = 'FM_ISA';

  /**
   * @param {string} message
   * @param {{ isa?: string, cause?: unknown }} [what]
   */
  constructor(message, { isa, cause } = {}) {
    super(message, { cause });
    this.name = 'IsaError';
    /** Name of the instruction set. */
    this.isa = isa;
  }
}

/** A wasm module cannot be fetched, compiled or instantiated, or a worker cannot be started. */
export class LoadError extends FmError {
  code = 'FM_LOAD';

  /**
   * @param {string} message
   * @param {{ url?: string, cause?: unknown }} [what]
   */
  constructor(message, { url, cause } = {}) {
    super(message, { cause });
    this.name = 'LoadError';
    /** URL of the file. */
    this.url = url;
  }
}

/** The wasm memory has no room for `asked` more bytes. */
export class MemoryError extends FmError {
  code = 'FM_MEMORY';

  /**
   * @param {string} message
   * @param {{ asked: number, inUse: number, limit: number }} numbers
   */
  constructor(message, { asked, inUse, limit }) {
    super(message);
    this.name = 'MemoryError';
    /** Bytes that were asked for. */
    this.asked = asked;
    /** Bytes in use. */
    this.inUse = inUse;
    /** Most bytes that the memory can have. */
    this.limit = limit;
  }
}

/** The worker ended by itself: it crashed, was terminated, or ran out of memory. */
export class WorkerError extends FmError {
  code = 'FM_WORKER';
  /** Name of the class. */
  name = 'WorkerError';
}

/**
 * Makes the error for a status of the C ABI that no check in JavaScript foresaw.
 * @param {number} status  an fm_status other than FM_OK
 * @param {string} call  name of the call in the message
 */
export function statusError(status, call) {
  const why = [
    'ok',
    'unknown weight type',
    'dimensions that do not fit',
    'a pointer outside the memory',
    'an unaligned pointer',
    'an output that overlaps an input',
    'unknown activation mode',
    'an instruction set the module lacks',
  ][status];
  const message = `${call}: ${why ?? `status ${status}`}`;
  if (status === 2) return new ShapeError(message);
  if (status === 7) return new IsaError(message);
  return new ArgumentError(message);
}

/** Longest string shown in a message; names come from untrusted files. */
const MAX_SHOWN = 100;

/**
 * A value as text for an error message.
 * @param {unknown} value
 */
export function show(value) {
  if (typeof value === 'string') {
    if (value.length <= MAX_SHOWN) return JSON.stringify(value);
    return `${JSON.stringify(value.slice(0, MAX_SHOWN))}... (${value.length} characters)`;
  }
  if (typeof value === 'object' && value !== null) return value.constructor?.name ?? 'an object';
  return typeof value === 'function' ? 'a function' : String(value);
}
