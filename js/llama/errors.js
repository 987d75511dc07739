/* Errors of the model runner, beside those of the library. */

import { FmError } from '../errors.js';

/** A file that is a valid GGUF, but no model that can be run: its architecture, tokenizer, or a missing part. */
export class ModelError extends FmError {
  code = 'FM_MODEL';

  /**
   * @param {string} message
   * @param {{ cause?: unknown }} [options]
   */
  constructor(message, options) {
    super(message, options);
    this.name = 'ModelError';
  }
}

/** More tokens than the context has room for. */
export class ContextError extends FmError {
  code = 'FM_CONTEXT';

  /**
   * @param {string} message
   * @param {{ got: number, expected: number }} numbers  tokens given, tokens that fit
   */
  constructor(message, { got, expected }) {
    super(message);
    this.name = 'ContextError';
    /** Tokens given. */
    this.got = got;
    /** Tokens that fit. */
    this.expected = expected;
  }
}

/** The model is busy with another generation. */
export class BusyError extends FmError {
  code = 'FM_BUSY';

  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = 'BusyError';
  }
}
