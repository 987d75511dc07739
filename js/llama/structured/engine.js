/* The grammar engine (XGrammar, in WebAssembly) with the vocabulary of a model. It prepares grammars
 * for the vocabulary, and tells which tokens may come next. */

import { ArgumentError } from '../../errors.js';
import { ModelError } from '../errors.js';
import { loadEngine } from './chunk.js';
import { Continuations, isPossible } from './utf8.js';

/** @typedef {import('../../../dist/grammar-engine.js').Engine} Wasm */
/** @typedef {ReturnType<InstanceType<Wasm['GrammarCompiler']>['CompileGrammar']>} Compiled */
/** @typedef {import('../tokenizer/tokenizer.js').Tokenizer} Tokenizer */
/**
 * A grammar with its name in messages, and a function that changes it once it is known to have no
 * mistakes.
 * @typedef {import('./schema.js').Prepared & { name: string, rewrite?: (grammar: string) => string }} NamedGrammar
 */

/** Prepared grammars that are kept for further generations. */
const KEPT = 8;

/**
 * Limit of the characters that a schema counts, times the tokens of the vocabulary. Each counted
 * character is prepared for each token.
 */
const MOST_WORK = 2 ** 26;

/** Engines, by the tokenizers whose vocabulary they have. @type {WeakMap<Tokenizer, Promise<Vocabulary>>} */
const engines = new WeakMap();

/**
 * Starts to follow a grammar.
 * @param {Tokenizer} tokenizer
 * @param {NamedGrammar} prepared
 * @returns {Promise<Mask>}
 * @throws {ArgumentError} the grammar has a mistake, or counts too many characters
 * @throws {ModelError} the model has no token that ends a text
 */
export async function startMask(tokenizer, prepared) {
  const { name, copies } = prepared;
  if (tokenizer.ends.size === 0)
    throw new ModelError(`${name}: the model has no token that ends a text, so a grammar cannot end`);
  const most = Math.floor(MOST_WORK / tokenizer.size);
  if (copies > most)
    throw new ArgumentError(
      `${name}: minLength, maxLength and patterns count ${copies} characters; with a vocabulary of ${tokenizer.size} tokens they may count ${most}`,
    );
  const known = engines.get(tokenizer);
  const opening = known ?? Vocabulary.open(tokenizer);
  engines.set(tokenizer, opening);
  /** @type {Vocabulary | undefined} */
  let vocabulary;
  try {
    vocabulary = await opening;
    const compiled = vocabulary.kept(prepared.grammar) ?? (await vocabulary.prepare(prepared));
    return vocabulary.start(compiled, name);
  } catch (error) {
    // An engine that has failed is of no use any more.
    if (!(error instanceof ArgumentError)) engines.delete(tokenizer);
    throw error;
  }
}

/** An engine with a vocabulary. */
class Vocabulary {
  #wasm;
  #compiler;
  #size;
  #continuations;
  /** Prepared grammars, by their texts; the last one was used last. @type {Map<string, Shared>} */
  #kept = new Map();

  /**
   * @param {Wasm} wasm
   * @param {InstanceType<Wasm['GrammarCompiler']>} compiler
   * @param {number} size
   * @param {Continuations} continuations
   */
  constructor(wasm, compiler, size, continuations) {
    this.#wasm = wasm;
    this.#compiler = compiler;
    this.#size = size;
    this.#continuations = continuations;
  }

  /** @param {Tokenizer} tokenizer */
  static async open(tokenizer) {
    const { createEngine } = await loadEngine();
    /** @type {string[]} */
    const log = [];
    const wasm = await createEngine((text) => log.push(text));
    const { size, ends } = tokenizer;
    const continuations = new Continuations();
    const compiler = attempt(log, 'the vocabulary cannot be prepared for grammars', () => {
      const tokens = new wasm.VectorString();
      for (let id = 0; id < size; id++) {
        const bytes = tokenizer.bytes(id);
        continuations.add(id, bytes);
        // The engine allows no token without bytes.
        tokens.push_back(isPossible(bytes) ? bytes : '');
      }
      const list = new wasm.VectorInt();
      for (const end of ends) list.push_back(end);
      const info = new wasm.TokenizerInfo(tokens, 'RAW', size, list, false);
      const made = new wasm.GrammarCompiler(info, 1, false);
      for (const one of [tokens, list, info]) one.delete();
      return made;
    });
    return new Vocabulary(wasm, compiler, size, continuations);
  }

  /** @param {string} grammar */
  kept(grammar) {
    return this.#kept.get(grammar);
  }

  /** @param {NamedGrammar} prepared @returns {Promise<Shared>} */
  async prepare({ grammar, name, rewrite }) {
    await checkGrammar(grammar, name);
    const text = rewrite?.(grammar) ?? grammar;
    const compiled = attempt([], `${name} cannot be prepared`, () => {
      const parsed = this.#wasm.Grammar.FromEBNF(text, 'root');
      const made = this.#compiler.CompileGrammar(parsed);
      parsed.delete();
      return made;
    });
    const shared = new Shared(compiled);
    this.#kept.get(grammar)?.release();
    this.#kept.delete(grammar);
    this.#kept.set(grammar, shared);
    const [[oldest, unused]] = this.#kept;
    if (this.#kept.size > KEPT) {
      this.#kept.delete(oldest);
      unused.release();
    }
    return shared;
  }

  /** @param {Shared} shared @param {string} name */
  start(shared, name) {
    const matcher = attempt(
      [],
      `${name} cannot be followed`,
      () => new this.#wasm.GrammarMatcher(shared.take(), undefined, false, -1),
    );
    return new Mask(this.#wasm, matcher, {
      ...{ size: this.#size, continuations: this.#continuations, name },
      release: () => shared.release(),
    });
  }
}

/** A prepared grammar, which is freed when nothing uses it any more. */
class Shared {
  #compiled;
  #users = 1;

  /** @param {Compiled} compiled */
  constructor(compiled) {
    this.#compiled = compiled;
  }

  take() {
    this.#users += 1;
    return this.#compiled;
  }

  release() {
    this.#users -= 1;
    if (this.#users === 0) this.#compiled.delete();
  }
}

/** The tokens that a grammar allows, along a generation. */
export class Mask {
  #wasm;
  /** Undefined after free(). @type {import('../../../dist/grammar-engine.js').GrammarMatcher | undefined} */
  #matcher;
  #about;
  /** Tokens that the grammar has taken. */
  #nTaken = 0;

  /**
   * @param {Wasm} wasm
   * @param {import('../../../dist/grammar-engine.js').GrammarMatcher} matcher
   * @param {{ size: number, continuations: Continuations, name: string, release: () => void }} about
   */
  constructor(wasm, matcher, about) {
    this.#wasm = wasm;
    this.#matcher = matcher;
    this.#about = about;
  }

  /**
   * Rules out the tokens that cannot come next.
   * @param {Float32Array} logits  those tokens become -Infinity
   * @param {readonly number[]} tokens  all tokens that were generated
   */
  apply(logits, tokens) {
    const matcher = this.#matcher;
    if (!matcher) return;
    const { size, continuations, name } = this.#about;
    attempt([], `${name} cannot be followed`, () => {
      for (; this.#nTaken < tokens.length; this.#nTaken++)
        if (!matcher.AcceptToken(tokens[this.#nTaken], false))
          throw new Error(`token ${tokens[this.#nTaken]} was chosen although it is ruled out`);
      const list = matcher.GetNextTokenBitmask(size);
      ruleOut(logits, this.#wasm.vecIntToView(list), size);
      list.delete();
    });
    continuations.ruleOut(logits, tokens.at(-1));
  }

  /** Frees its memory. */
  free() {
    if (!this.#matcher) return;
    this.#matcher.delete();
    this.#matcher = undefined;
    this.#about.release();
  }
}

/**
 * @param {Float32Array} logits
 * @param {Int32Array} words  a bit for each token
 * @param {number} size  number of tokens
 */
function ruleOut(logits, words, size) {
  for (let start = 0; start < size; start += 32) {
    const word = words[start >>> 5];
    if (word === -1) continue;
    const end = Math.min(start + 32, size);
    if (word === 0) logits.fill(Number.NEGATIVE_INFINITY, start, end);
    else
      for (let id = start; id < end; id++)
        if (((word >>> (id & 31)) & 1) === 0) logits[id] = Number.NEGATIVE_INFINITY;
  }
  logits.fill(Number.NEGATIVE_INFINITY, size);
}

/**
 * Reads a grammar in an engine of its own, as a mistake makes an engine unusable.
 * @param {string} grammar
 * @param {string} name
 * @throws {ArgumentError} it has a mistake
 */
async function checkGrammar(grammar, name) {
  const { createEngine } = await loadEngine();
  /** @type {string[]} */
  const log = [];
  const { Grammar } = await createEngine((text) => log.push(text));
  try {
    Grammar.FromEBNF(grammar, 'root').delete();
  } catch {
    const [, place, reason] = /error at (line \d+, column \d+): (.*)/.exec(log.join(' ')) ?? [];
    const what = place ? `${place}: ${reason}` : 'it is not a grammar in EBNF';
    throw new ArgumentError(`${name}: ${what}`);
  }
}

/**
 * Does work in the engine, whose errors are no errors of JavaScript.
 * @template T
 * @param {string[]} log
 * @param {string} what
 * @param {() => T} work
 * @returns {T}
 * @throws {ModelError}
 */
function attempt(log, what, work) {
  try {
    return work();
  } catch (cause) {
    throw new ModelError(`${what}: ${log.at(0) ?? /** @type {any} */ (cause)?.message ?? cause}`, { cause });
  }
}
