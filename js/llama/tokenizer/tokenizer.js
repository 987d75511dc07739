/* Converts text to tokens and back; the metadata of a GGUF file are all it needs. There are two
 * kinds: 'llama' (SentencePiece: merges by the score of the merged token, single bytes where no
 * token fits) and 'gpt2' (byte-pair encoding: words cut by regular expressions, merges by rank). */

import { ArgumentError, show } from '../../errors.js';
import { ModelError } from '../errors.js';
import { mergeSymbols } from './merge.js';
import { preTokenizer } from './pre-tokenizers.js';
import { SpecialTokens } from './special-tokens.js';
import { namedTokens, stripping, tokenRoles } from './token-roles.js';
import { encoder } from './utf8.js';

/** Token types of GGUF. */
const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;
const BYTE = 6;

/** Most words, and longest word, whose tokens are cached. */
const CACHED_WORDS = 20_000;
const LONGEST_CACHED = 64;

/** @typedef {Record<string, import('../../gguf/index.js').MetadataValue>} Metadata */

/**
 * @typedef {object} EncodeOptions
 * @property {boolean} [bos]  Whether to begin with BOS. Default: as the file says.
 * @property {boolean} [eos]  Whether to end with EOS. Default: as the file says.
 * @property {boolean} [special]  Whether control tokens such as `<|im_end|>` are recognised in the
 *   text. Default true.
 */

/**
 * The 256 bytes as byte-pair vocabularies spell them: printable ones as themselves, the others from
 * U+0100 on.
 */
const BYTE_CHARS = (() => {
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    return String.fromCharCode(printable ? byte : 256 + others++);
  });
})();
const CHAR_BYTES = new Map(BYTE_CHARS.map((char, byte) => [char, byte]));

export class Tokenizer {
  #tokens;
  #types;
  /** @type {Map<string, number>} */
  #ids = new Map();
  /**
   * Finds the tokens that are cut out of a text before anything else; undefined if there are none.
   */
  #special;
  /** @type {SentencePieces | BytePairs} */
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

    /** 'llama' or 'gpt2'. */
    this.kind = String(of('model'));
    const Model = { llama: SentencePieces, gpt2: BytePairs }[this.kind];
    if (!Model) {
      throw new ModelError(
        `the tokenizer ${show(of('model'))} is not supported; supported are llama (SentencePiece) and gpt2 (byte pairs)`,
      );
    }
    this.#model = new Model(of, this.#tokens, this.#ids);
    this.pre = this.#model.pre;
    const id = (/** @type {string} */ name, /** @type {number} */ fallback) => {
      const [named] = namedTokens(of, name, tokens.length);
      return named ?? (this.kind === 'llama' && fallback < tokens.length ? fallback : undefined);
    };
    /** Ids of BOS and EOS; undefined if there is none. */
    this.bos = id('bos', 1);
    this.eos = id('eos', 2);
    this.addBos = Boolean(of('add_bos_token') ?? this.#model.addBos) && this.bos !== undefined;
    this.addEos = Boolean(of('add_eos_token')) && this.eos !== undefined;
    const { ends, control } = tokenRoles(of, this.#ids, { size: tokens.length, eos: this.eos });
    /** Tokens that end a text. @type {ReadonlySet<number>} */
    this.ends = new Set(ends);
    for (const token of control) this.#types[token] = CONTROL;
    this.#special = this.#findSpecial(stripping(this.pre, metadata['general.name']));
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

/** @typedef {import('./token-roles.js').Get} Get */

/** @param {number} byte */
const byteToken = (byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;

class SentencePieces {
  pre = undefined;
  addBos = true;
  #ids;
  #scores;
  #unknown;
  #rank;

  /**
   * @param {Get} of
   * @param {string[]} tokens
   * @param {Map<string, number>} ids
   */
  constructor(of, tokens, ids) {
    const scores = of('scores');
    if (!Array.isArray(scores) || scores.length !== tokens.length) {
      throw new ModelError(
        `tokenizer.ggml.scores has ${Array.isArray(scores) ? scores.length : 'no'} values for ${tokens.length} tokens`,
      );
    }
    this.#scores = /** @type {number[]} */ (scores);
    this.#ids = ids;
    const unknown = of('unknown_token_id');
    this.#unknown = typeof unknown === 'number' ? unknown : ids.get('<unk>');
    /** Whether a text is encoded with a space in front of it. */
    this.leadingSpace = Boolean(of('add_space_prefix') ?? true);
    /** @type {import('./merge.js').Rank} */
    this.#rank = (text, start, _, end) => {
      const id = ids.get(text.slice(start, end));
      return id === undefined ? undefined : -this.#scores[id];
    };
  }

  /**
   * @param {string} text
   * @param {boolean} first  whether the text is at the start, or after a control token
   * @param {number[]} out
   */
  encode(text, first, out) {
    const escaped = (this.leadingSpace && first ? ` ${text}` : text).replaceAll(' ', '\u2581');
    let start = 0;
    for (const end of mergeSymbols(escaped, this.#rank)) {
      const symbol = escaped.slice(start, end);
      start = end;
      const id = this.#ids.get(symbol);
      if (id === undefined) this.#encodeBytes(symbol, out);
      else out.push(id);
    }
  }

  /**
   * @param {string} text
   * @param {boolean} isByte
   */
  bytes(text, isByte) {
    if (isByte) return Uint8Array.of(Number.parseInt(text.slice(3, 5), 16));
    return encoder.encode(text.replaceAll('\u2581', ' '));
  }

  /** @param {string} symbol @param {number[]} out */
  #encodeBytes(symbol, out) {
    for (const byte of encoder.encode(symbol)) {
      const id = this.#ids.get(byteToken(byte)) ?? this.#unknown;
      if (id !== undefined) out.push(id);
    }
  }
}

class BytePairs {
  leadingSpace = false;
  #ids;
  #split;
  #whole;
  #rank;
  /** @type {Map<string, number[]>} */
  #cache = new Map();

  /**
   * @param {Get} of
   * @param {string[]} _
   * @param {Map<string, number>} ids
   */
  constructor(of, _, ids) {
    this.pre = String(of('pre') || 'default');
    const { split, whole, bos } = preTokenizer(this.pre);
    this.#split = split;
    this.#whole = whole;
    this.addBos = bos;
    this.#ids = ids;
    const merges = of('merges');
    if (!Array.isArray(merges)) throw new ModelError('tokenizer.ggml.merges is missing');
    /** @type {Map<string, number>} */
    const ranks = new Map();
    for (let i = merges.length - 1; i >= 0; i--) ranks.set(/** @type {string} */ (merges[i]), i);
    /** @type {import('./merge.js').Rank} */
    this.#rank = (text, start, middle, end) =>
      ranks.get(`${text.slice(start, middle)} ${text.slice(middle, end)}`);
  }

  /**
   * @param {string} text
   * @param {boolean} _
   * @param {number[]} out
   */
  encode(text, _, out) {
    for (const word of this.#split(text)) {
      let tokens = this.#cache.get(word);
      if (!tokens) {
        tokens = this.#encodeWord(word);
        if (this.#cache.size >= CACHED_WORDS) this.#cache.clear();
        if (word.length <= LONGEST_CACHED) this.#cache.set(word, tokens);
      }
      for (const token of tokens) out.push(token);
    }
  }

  /** @param {string} text */
  bytes(text) {
    return Uint8Array.from(text, (char) => CHAR_BYTES.get(char) ?? 63);
  }

  /** @param {string} word */
  #encodeWord(word) {
    const spelt = Array.from(encoder.encode(word), (byte) => BYTE_CHARS[byte]).join('');
    const known = this.#whole ? this.#ids.get(spelt) : undefined;
    if (known !== undefined) return [known];
    /** @type {number[]} */
    const tokens = [];
    let start = 0;
    for (const end of mergeSymbols(spelt, this.#rank)) {
      const symbol = spelt.slice(start, end);
      start = end;
      const id = this.#ids.get(symbol);
      // If the vocabulary lacks the merged symbol, its bytes are used as far as they are tokens.
      for (const part of id === undefined ? symbol : [symbol]) {
        const token = this.#ids.get(part);
        if (token !== undefined) tokens.push(token);
      }
    }
    return tokens;
  }
}
