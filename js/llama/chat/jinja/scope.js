/* Scopes: the names that a part of a template sees. */

/** @typedef {import('./values.js').Value} Value */

export class Scope {
  /** @type {Map<string, Value>} */
  #own = new Map();
  #outer;

  /** @param {Scope} [outer] */
  constructor(outer) {
    this.#outer = outer;
  }

  /** @param {string} name @returns {Value | undefined} */
  get(name) {
    /** @type {Scope | undefined} */
    let scope = this;
    for (; scope; scope = scope.#outer) {
      const value = scope.#own.get(name);
      if (value !== undefined) return value;
    }
    return undefined;
  }

  /** @param {string} name @param {Value} value */
  set(name, value) {
    this.#own.set(name, value);
  }
}
