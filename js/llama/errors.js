/* Errors of the model runner, in addition to those of the library. */

import { FmError } from '../errors.js';

/**
 * The file is a valid GGUF, but not a model that the runner supports: its architecture, its
 * tokenizer, or a missing part.
 */
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

/** There are more tokens than the context has room for. */
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

/** The context is in use by another call. */
export class BusyError extends FmError {
  code = 'FM_BUSY';

  /**
   * @param {string} message
   * @param {'generate' | 'logits' | 'embed' | 'rank' | 'clear' | 'save' | 'fork'} holder
   */
  constructor(message, holder) {
    super(message);
    this.name = 'BusyError';
    /** The call that has the context. */
    this.holder = holder;
  }
}

/** Bytes are no saved context that the model can take. */
export class SavedContextError extends FmError {
  code = 'FM_SAVED_CONTEXT';

  /**
   * @param {string} message
   * @param {'damaged' | 'version' | 'model' | 'type'} reason
   */
  constructor(message, reason) {
    super(message);
    this.name = 'SavedContextError';
    /**
     * The reason: 'damaged' (the bytes were changed or cut, or never were a saved context), 'version'
     * (another version of the library has written them), 'model' (they belong to another model), or
     * 'type' (the model was loaded with another kvType).
     */
    this.reason = reason;
  }
}

/**
 * A computed number is NaN, infinite, or too large for the KV cache. Either weights are damaged, or
 * the model needs a wider type than it runs with.
 */
export class NumericError extends FmError {
  code = 'FM_NUMERIC';

  /**
   * @param {string} message
   * @param {{ part: NumericPart, layer?: number | undefined, position?: number | undefined,
   *   value: number }} where
   */
  constructor(message, { part, layer, position, value }) {
    super(message);
    this.name = 'NumericError';
    /** Part of the model that computed the number. @type {NumericPart} */
    this.part = part;
    /** Layer, counted from 0 as in the names of the file's tensors; undefined outside of layers. */
    this.layer = layer;
    /** Position of the token, counted from 0; undefined if unknown. */
    this.position = position;
    /** The number. */
    this.value = value;
  }
}

/**
 * @typedef {'embedding' | 'queries' | 'keys' | 'values' | 'attention' | 'recurrent'
 *   | 'feed-forward' | 'output'} NumericPart
 */
