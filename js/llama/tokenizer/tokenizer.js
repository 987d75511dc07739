/* Converts text to tokens and back; the metadata of a GGUF file are all it needs. Each kind of
 * tokenizer has a file of its own. */

import { ArgumentError, show } from '../../errors.js';
import { ModelError } from '../errors.js';
import { BytePairs, Gemma4Pairs } from './byte-pairs.js';
import { SentencePieces } from './sentence-pieces.js';
import { SpecialTokens } from './special-tokens.js';
import { namedTokens, stripping, tokenRoles } from './token-roles.js';
import { Unigrams } from './unigrams.js';
import { encoder } from './utf8.js';
import { WordPieces } from './word-pieces.js';

/** The kinds of tokenizers, by tokenizer.ggml.model. */
const KINDS = { llama: SentencePieces, gpt2: BytePairs, gemma4: Gemma4Pairs, bert: WordPieces, t5: Unigrams };

/** Token types of GGUF. */
const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;
const BYTE = 6;

/** @typedef {Record<string, import('../../gguf/index.js').MetadataValue>} Metadata */

/**
 * @typedef {object} Vocabulary  What a kind of tokenizer is made from.
 * @property {import('./token-roles.js').Get} of  A value of tokenizer.ggml.
 * @property {string[]} tokens
 * @property {Map<string, number>} ids  Ids by the tokens' texts.
 * @property {Int32Array} types  Type of each token, as the file says.
 */

/**
 * @typedef {object} Model  A kind of tokenizer.
 * @property {string | undefined} pre  Name of the pre-tokenizer.
 * @property {boolean | 'always'} addBos  Whether texts begin with BOS, where the file does not say;
 *   'always': whatever the file says.
 * @property {boolean | 'always'} addEos  Whether texts end with EOS.
 * @property {boolean} leadingSpace  Whether a decoded text loses a space in front.
 * @property {(text: string, first: boolean, out: number[]) => void} encode  Appends the tokens of a
 *   text; first: whether the text is at the start, or after a token that was cut out.
 * @property {(text: string, isByte: boolean) => Uint8Array} bytes  The bytes of a token.
 */

/**
 * @typedef {object} EncodeOptions
 * @property {boolean} [bos]  Whether to begin with BOS. Default: as the file says.
 * @property {boolean} [eos]  Whether to end with EOS. Default: as the file says.
 * @property {boolean} [special]  Whether control tokens such as `<|im_end|>` are recognised in the
 *   text. Default true.
 */

export class Tokenizer {
  #tokens;
  #types;
  /** @type {Map<string, number>} */
  #ids = new Map();
  /**
   * Finds the tokens that are cut out of a text before anything else; undefined if there are none.
   */
  #special;
  /** @type {Model} */
  #model;

  /**
   * @param {Metadata} metadata
   * @throws {ModelError} the file has no tokenizer, or one of another kind
   */
  constructor(metadata) {
    const of = (/** @type {string} */ key) => metadata[`tokenizer.ggml.${key}`];
    const tokens = of('tokens');
    if (!Array.isArray(tokens) || tokens.length === 0)
      throw new ModelError('the file has no tokenizer: tokenizer.ggml.tokens is missing');
    this.#tokens = /** @type {string[]} */ (tokens);
    const types = of('token_type');
    this.#types = new Int32Array(tokens.length).fill(NORMAL);
    if (Array.isArray(types) && types.length === tokens.length) this.#types.set(types.map(Number));
    for (let id = tokens.length - 1; id >= 0; id--) this.#ids.set(this.#tokens[id], id);

    /** Value of tokenizer.ggml.model: a key of KINDS. */
    this.kind = String(of('model'));
    if (!Object.hasOwn(KINDS, this.kind)) {
      const supported = Object.entries(KINDS).map(([kind, { title }]) => `${kind} (${title})`);
      throw new ModelError(
        `the tokenizer ${show(of('model'))} is not supported; supported are ${supported.join(', ')}`,
      );
    }
    const Kind = KINDS[/** @type {keyof typeof KINDS} */ (this.kind)];
    const model = new Kind({ of, tokens: this.#tokens, ids: this.#ids, types: this.#types });
    this.#model = model;
    this.pre = model.pre;
    const named = (/** @type {{ names: string[], fallback?: number }} */ { names, fallback = -1 }) =>
      names.flatMap((name) => namedTokens(of, name, tokens.length))[0] ??
      (fallback >= 0 && fallback < tokens.length ? fallback : undefined);
    /** Ids of BOS and EOS; undefined if there is none. */
    this.bos = named(Kind.bos);
    this.eos = named(Kind.eos);
    const adds = (/** @type {string} */ key, /** @type {boolean | 'always'} */ usual) =>
      usual === 'always' || Boolean(of(key) ?? usual);
    this.addBos = adds('add_bos_token', model.addBos) && this.bos !== undefined;
    this.addEos = adds('add_eos_token', model.addEos) && this.eos !== undefined;
    const { ends, control } = tokenRoles(of, this.#ids, { size: tokens.length, eos: this.eos });
    /** Tokens that end a text. @type {ReadonlySet<number>} */
    this.ends = new Set(ends);
    const suppressed = of('suppress_tokens');
    const isToken = (/** @type {number} */ id) => id >= 0 && id < tokens.length;
    /** Tokens that are never to be chosen. @type {readonly number[]} */
    this.suppressed = (Array.isArray(suppressed) ? suppressed.map(Number) : []).filter(isToken);
    for (const token of control) this.#types[token] = CONTROL;
    this.#special = this.#findSpecial(stripping(this.pre, metadata));
  }

  /** Number of tokens in the vocabulary. */
  get size() {
    return this.#tokens.length;
  }

  /**
   * The text of a token as the vocabulary spells it.
   * @param {number} id
   */
  spelling(id) {
    return this.#tokens[this.#check(id)];
  }

  /**
   * Converts a text to tokens.
   * @param {string} text
   * @param {EncodeOptions & { outside?: readonly number[] }} [options]  outside: start and end of
   *   each range, ascending, whose characters belong to no control token
   * @returns {number[]}
   */
  encode(text, { bos = this.addBos, eos = this.addEos, special = true, outside = [] } = {}) {
    if (typeof text !== 'string') throw new ArgumentError(`text must be a string, got ${show(text)}`);
    /** @type {number[]} */
    const out = [];
    let afterToken = true;
    const plain = (/** @type {string} */ part) => {
      if (part) this.#model.encode(part, afterToken, out);
      afterToken = false;
    };
    const inside = (/** @type {number} */ from, /** @type {number} */ to) => !overlaps(outside, from, to);
    let at = 0;
    for (const { from, to, id } of this.#special?.find(text, special && inside) ?? []) {
      if (from > at) plain(text.slice(at, from));
      out.push(id);
      afterToken = true;
      at = to;
    }
    if (at < text.length) plain(text.slice(at));
    // A text that begins or ends with them already does not get them twice.
    const [first, last] = [out[0], out.at(-1)];
    if (bos && this.bos !== undefined && first !== this.bos) out.unshift(this.bos);
    if (eos && this.eos !== undefined && last !== this.eos) out.push(this.eos);
    return out;
  }

  /**
   * The UTF-8 bytes of a token, which may be a part of a character.
   * @param {number} id
   * @param {boolean} [special]  spell out control tokens instead of leaving them out; default false
   * @returns {Uint8Array}
   */
  bytes(id, special = false) {
    const text = this.#tokens[this.#check(id)];
    const type = this.#types[id];
    if (type === CONTROL || type === UNKNOWN) return encoder.encode(special ? text : '');
    if (type === USER_DEFINED) return encoder.encode(text);
    return this.#model.bytes(text, type === BYTE);
  }

  /**
   * Converts tokens to a text. Bytes that are not valid UTF-8 become U+FFFD.
   * @param {ArrayLike<number>} tokens
   * @param {{ special?: boolean }} [options]  special: spell out control tokens; default false
   * @returns {string}
   */
  decode(tokens, { special = false } = {}) {
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    let text = '';
    for (let i = 0; i < tokens.length; i++) {
      text += decoder.decode(this.bytes(tokens[i], special), { stream: true });
    }
    text += decoder.decode();
    return this.#model.leadingSpace && text.startsWith(' ') ? text.slice(1) : text;
  }

  /** @param {number} id */
  #check(id) {
    if (Number.isInteger(id) && id >= 0 && id < this.#tokens.length) return id;
    throw new ArgumentError(`there is no token ${show(id)}: the vocabulary has ${this.#tokens.length}`);
  }

  /** @param {ReturnType<typeof stripping>} strip */
  #findSpecial(strip) {
    /** @type {import('./special-tokens.js').SpecialToken[]} */
    const special = [];
    for (const [id, type] of this.#types.entries()) {
      const text = this.#tokens[id];
      const always = type === USER_DEFINED;
      if (text === '' || !(always || type === CONTROL || type === UNKNOWN)) continue;
      // Of tokens with the same text only the first can be found.
      if (this.#ids.get(text) === id) special.push({ id, text, always, ...strip(text) });
    }
    return special.length > 0 ? new SpecialTokens(special) : undefined;
  }
}

/**
 * Tells whether any of the ranges overlaps [from, to).
 * @param {readonly number[]} ranges  start and end of each range, ascending
 * @param {number} from
 * @param {number} to
 */
function overlaps(ranges, from, to) {
  let [low, high] = [0, ranges.length / 2];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ranges[2 * middle + 1] <= from) low = middle + 1;
    else high = middle;
  }
  return low < ranges.length / 2 && ranges[2 * low] < to;
}
