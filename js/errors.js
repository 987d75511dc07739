/* Every error the library throws. Each has a `code`; where numbers are involved they stand in the message and
 * in fields. ShapeError is a RangeError and ArgumentError a TypeError, so that they can be caught as what
 * JavaScript would throw; `e instanceof FmError` holds for all of them. */

/** The base of the library's errors. */
export class FmError extends Error {
  /** What kind of error, the same in every version: 'FM_SHAPE', 'FM_GGUF'... @type {string} */
  code = 'FM_ERROR';

  /**
   * @param {string} message
   * @param {{ cause?: unknown }} [options]
   */
  constructor(message, { cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    /** The name of its class. */
    this.name = 'FmError';
  }
}

/** A length or a dimension does not fit; `got` and `expected` are in the message too. */
export class ShapeError extends RangeError {
  /** The same in every version. */
  code = 'FM_SHAPE';

  /**
   * @param {string} message
   * @param {{ got?: number, expected?: number }} [numbers]
   */
  constructor(message, { got, expected } = {}) {
    super(message);
    /** The name of its class. */
    this.name = 'ShapeError';
    /** What was given. */
    this.got = got;
    /** What fits, or the most that does. */
    this.expected = expected;
  }
}

/** An argument is of the wrong kind. */
export class ArgumentError extends TypeError {
  /** The same in every version. */
  code = 'FM_ARGUMENT';

  /** @param {string} message */
  constructor(message) {
    super(message);
    /** The name of its class. */
    this.name = 'ArgumentError';
  }
}

// The two that extend a class of JavaScript's count as FmErrors as well. Subclasses inherit this, and mean
// themselves.
Object.defineProperty(FmError, Symbol.hasInstance, {
  /** @param {unknown} value */
  value(value) {
    const is = (/** @type {Function} */ kind) => Function.prototype[Symbol.hasInstance].call(kind, value);
    return is(this) || (this === FmError && (is(ShapeError) || is(ArgumentError)));
  },
});

/** A handle that cannot be used: freed, made by other kernels, or its owner is disposed. */
export class HandleError extends FmError {
  code = 'FM_HANDLE';

  /**
   * @param {string} message
   * @param {'freed' | 'foreign' | 'disposed' | 'view'} reason
   */
  constructor(message, reason) {
    super(message);
    this.name = 'HandleError';
    /** Why: it was freed, belongs to other kernels, its owner is disposed, or it is a view that owns nothing. */
    this.reason = reason;
  }
}

/**
 * A GGUF file that cannot be read or is malformed; `offset` is where in the file, `tensor` which one. `changed` where it is
 * another file than the one that was opened. What a server did wrong is in `url`, `status`, `got` and `expected`.
 */
export class GgufError extends FmError {
  code = 'FM_GGUF';

  /**
   * @param {string} message
   * @param {{ offset?: number, tensor?: string, changed?: boolean, url?: string, status?: number, got?: number,
   *   expected?: number, cause?: unknown }} [where]
   */
  constructor(message, { offset, tensor, changed = false, url, status, got, expected, cause } = {}) {
    super(message, { cause });
    this.name = 'GgufError';
    /** Where in the file, in bytes. */
    this.offset = offset;
    /** Which tensor. */
    this.tensor = tensor;
    /** True where it is another file than the one that was opened. */
    this.changed = changed;
    /** The address that was asked. */
    this.url = url;
    /** The HTTP status of the server's answer, where there was one. */
    this.status = status;
    /** The bytes, or the offset, that came. */
    this.got = got;
    /** The bytes, or the offset, that should have come. */
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
    /** Which instruction set. */
    this.isa = isa;
  }
}

/** A wasm module could not be fetched, compiled or instantiated. */
export class LoadError extends FmError {
  code = 'FM_LOAD';

  /**
   * @param {string} message
   * @param {{ url?: string, cause?: unknown }} [what]
   */
  constructor(message, { url, cause } = {}) {
    super(message, { cause });
    this.name = 'LoadError';
    /** Where the file was looked for. */
    this.url = url;
  }
}

/** The linear memory cannot hold `asked` bytes more. */
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
    /** Bytes in use already. */
    this.inUse = inUse;
    /** Bytes that the memory can have. */
    this.limit = limit;
  }
}

/** The worker of createWorkerKernels ended by itself: it crashed, was terminated, or ran out of memory. */
export class WorkerError extends FmError {
  code = 'FM_WORKER';
  /** The name of its class. */
  name = 'WorkerError';
}

/**
 * The error for a status of the C ABI that the checks in JavaScript did not foresee.
 * @param {number} status  fm_status, not FM_OK
 * @param {string} call  what was called, for the message
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
 * A value as an error message shows it.
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
