/* Sends errors from one thread to another: class, code, numbers and cause are kept. */

import {
  ArgumentError,
  FmError,
  GgufError,
  HandleError,
  IsaError,
  LoadError,
  MemoryError,
  ShapeError,
  WorkerError,
} from '../errors.js';

/**
 * @typedef {{ name: string, message: string, stack?: string, fields: Record<string, unknown>,
 *   cause?: SentError, isDom?: boolean }} SentError
 */

/** @type {Record<string, any>} */
const CLASSES = {
  ...{ Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError },
  ...{
    FmError,
    ArgumentError,
    GgufError,
    HandleError,
    IsaError,
    LoadError,
    MemoryError,
    ShapeError,
    WorkerError,
  },
};

/**
 * Registers more classes, so that their errors keep their class.
 * @param {Record<string, any>} exports  a module of errors
 */
export function knowErrors(exports) {
  for (const Class of Object.values(exports)) if (/Error$/.test(Class.name)) CLASSES[Class.name] = Class;
}
for (const name of ['CompileError', 'LinkError', 'RuntimeError']) {
  const Class = /** @type {any} */ (globalThis.WebAssembly)?.[name];
  if (Class) CLASSES[name] = Class;
}

/**
 * @param {unknown} error
 * @returns {SentError}
 */
export function packError(error) {
  if (!(error instanceof Error)) return { name: 'Error', message: String(error), fields: {} };
  const { name, message, stack, cause } = error;
  const fields = Object.fromEntries(
    Object.entries(error).filter(([, value]) => !['object', 'function', 'symbol'].includes(typeof value)),
  );
  const isDom = typeof DOMException === 'function' && error instanceof DOMException;
  return { name, message, stack, fields, isDom, ...(cause !== undefined && { cause: packError(cause) }) };
}

/**
 * @param {SentError} sent
 * @returns {Error}
 */
export function unpackError({ name, message, stack, fields, cause, isDom }) {
  if (isDom) return new DOMException(message, name);
  const error = new (CLASSES[name] ?? Error)(message, {});
  Object.assign(error, fields);
  for (const [key, value] of Object.entries({ name, stack, cause: cause && unpackError(cause) }))
    if (value !== undefined && error[key] !== value)
      Object.defineProperty(error, key, { value, configurable: true, writable: true });
  return error;
}
