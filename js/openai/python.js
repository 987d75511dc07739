/* Calls written as Python, as LFM2, Llama 3.2 and Gemma write them: [weather(city="Paris", days=3)]. */

/** @typedef {{ name: string, args: Record<string, unknown>, positional: unknown[] }} PythonCall */

/** Words that are values. @type {Record<string, unknown>} */
const WORDS = { True: true, False: false, None: null, true: true, false: false, null: null };

const ESCAPES = /** @type {Record<string, string>} */ ({ n: '\n', t: '\t', r: '\r', '\n': '' });

/** Deepest nesting of lists and dicts. */
const DEEPEST = 64;

/** A reader of Python's literals and calls. Its methods throw a SyntaxError for other text. */
class Reader {
  #text;
  #at = 0;
  #depth = 0;

  /** @param {string} text */
  constructor(text) {
    this.#text = text;
  }

  /** @param {RegExp} pattern  sticky */
  #match(pattern) {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text);
    if (found) this.#at = pattern.lastIndex;
    return found;
  }

  #space() {
    this.#match(/\s+/y);
  }

  /** @param {string} sign */
  #takes(sign) {
    this.#space();
    if (!this.#text.startsWith(sign, this.#at)) return false;
    this.#at += sign.length;
    return true;
  }

  /** @param {string} sign */
  #need(sign) {
    if (!this.#takes(sign)) throw new SyntaxError(`${sign} is missing`);
  }

  get atEnd() {
    this.#space();
    return this.#at === this.#text.length;
  }

  /** One call, a list of calls, or calls on lines of their own. @returns {PythonCall[]} */
  calls() {
    const calls = [];
    const isList = this.#takes('[');
    while (!this.atEnd && !(isList && this.#takes(']'))) {
      calls.push(this.#printedCall());
      if (!this.#takes(',')) this.#takes(';');
    }
    if (!this.atEnd) throw new SyntaxError('more text follows');
    return calls;
  }

  /** A call, which may be the argument of print(). @returns {PythonCall} */
  #printedCall() {
    this.#space();
    if (!this.#match(/print\s*\(/y)) return this.#call();
    const call = this.#call();
    this.#need(')');
    return call;
  }

  /** @returns {PythonCall} */
  #call() {
    this.#space();
    const name = this.#match(/[A-Za-z_][\w.-]*/y)?.[0];
    if (name === undefined) throw new SyntaxError('a name is missing');
    this.#need('(');
    /** @type {[string, unknown][]} */
    const args = [];
    /** @type {unknown[]} */
    const positional = [];
    while (!this.#takes(')')) {
      this.#space();
      const key = this.#match(/([A-Za-z_]\w*)\s*=(?!=)/y)?.[1];
      if (key === undefined) positional.push(this.#value());
      else args.push([key, this.#value()]);
      if (!this.#takes(',')) {
        this.#need(')');
        break;
      }
    }
    return { name, args: Object.fromEntries(args), positional };
  }

  /** @returns {unknown} */
  #value() {
    this.#depth += 1;
    if (this.#depth > DEEPEST) throw new SyntaxError('lists are nested too deeply');
    try {
      this.#space();
      if (this.#takes('[')) return this.#items(']');
      if (this.#takes('(')) return this.#items(')');
      if (this.#takes('{')) return this.#dict();
      const quote = this.#match(/[rbuf]?("""|'''|"|')/y)?.[1];
      if (quote) return this.#string(quote);
      const number = this.#match(/[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?/y)?.[0];
      if (number) return Number(number.replaceAll('_', ''));
      const word = this.#match(/[A-Za-z]+/y)?.[0];
      if (word !== undefined && Object.hasOwn(WORDS, word)) return WORDS[word];
      throw new SyntaxError('this is no literal');
    } finally {
      this.#depth -= 1;
    }
  }

  /** @param {string} close */
  #items(close) {
    const items = [];
    while (!this.#takes(close)) {
      items.push(this.#value());
      if (!this.#takes(',')) {
        this.#need(close);
        break;
      }
    }
    return items;
  }

  #dict() {
    /** @type {[string, unknown][]} */
    const items = [];
    while (!this.#takes('}')) {
      const key = this.#value();
      if (typeof key === 'object' && key !== null) throw new SyntaxError('a key is no text');
      this.#need(':');
      items.push([String(key), this.#value()]);
      if (!this.#takes(',')) {
        this.#need('}');
        break;
      }
    }
    return Object.fromEntries(items);
  }

  /** @param {string} quote */
  #string(quote) {
    let text = '';
    for (;;) {
      if (this.#at >= this.#text.length) throw new SyntaxError('a string has no end');
      if (this.#text.startsWith(quote, this.#at)) {
        this.#at += quote.length;
        return text;
      }
      const escaped = this.#match(/\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([\s\S]))/y);
      if (!escaped) text += this.#text[this.#at++];
      else if (escaped[1] ?? escaped[2])
        text += String.fromCharCode(Number.parseInt(escaped[1] ?? escaped[2], 16));
      else text += ESCAPES[escaped[3]] ?? escaped[3];
    }
  }
}

/**
 * Reads calls of functions whose arguments are literals.
 * @param {string} text
 * @returns {PythonCall[] | undefined}  undefined if the text is anything else
 */
export function pythonCalls(text) {
  try {
    const calls = new Reader(text).calls();
    return calls.length > 0 ? calls : undefined;
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
