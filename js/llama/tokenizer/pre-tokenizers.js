/* How byte-pair tokenizers cut a text into words before merging. A rule is a list of steps, applied
 * one after another: each cuts the pieces left by the previous one. Where llama.cpp's expressions
 * only approximate those that a model was trained with, these are the model's. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';
import { PRE_TOKENIZERS, RULE_OF } from './pre-tokenizer-names.js';

/**
 * @typedef {object} PreTokenizer
 * @property {(string | ((text: string) => string[]))[]} steps  Regular expressions, which cut a text
 *   into matches and what is between them, or functions that cut it.
 * @property {boolean} [whole]  Whether a word that is a token becomes that token, whatever the
 *   merges say.
 * @property {boolean | 'always'} [bos]  Whether texts begin with BOS, where the file does not say;
 *   'always': whatever the file says.
 * @property {boolean} [raw]  Whether the vocabulary has characters, with U+2581 for spaces, and
 *   tokens such as <0x0A> for single bytes, instead of bytes spelt as characters.
 * @property {boolean} [newlines]  Whether a word of newlines that is a token becomes that token.
 */

const GPT2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)`;
const CONTRACTIONS = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";
const PREFIX = String.raw`[^\r\n\p{L}\p{N}]?`;
const OTHERS = String.raw` ?[^\s\p{L}\p{N}]+`;
const SPACES = String.raw`\s+(?!\S)|\s+`;
const TAIL = String.raw`\s*[\r\n]+|${SPACES}`;
const UP_TO_THREE = String.raw`\p{N}{1,3}`;

/**
 * The expression of Llama 3 and those like it.
 * @param {string} digits
 * @param {{ contractions?: string, letters?: string, others?: string, tail?: string }} [parts]
 */
const words = (digits, parts = {}) => {
  const { contractions = CONTRACTIONS, letters = String.raw`\p{L}+`, tail = TAIL } = parts;
  const { others = String.raw`${OTHERS}[\r\n]*` } = parts;
  const alternatives = [contractions, PREFIX + letters, digits, others, tail];
  return alternatives.filter(Boolean).join('|');
};

const UPPER = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`;
const LOWER = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`;

/**
 * The expression of GPT-4o and those like it: a word ends where capitals follow small letters.
 * @param {string} digits
 * @param {{ suffix?: string, upper?: string, lower?: string, others?: string }} [parts]
 */
const cased = (digits, { suffix = `(?:${CONTRACTIONS})?`, upper = UPPER, lower = LOWER, others } = {}) =>
  [
    `${PREFIX}${upper}*${lower}+${suffix}`,
    `${PREFIX}${upper}+${lower}*${suffix}`,
    digits,
    others ?? String.raw`${OTHERS}[\r\n/]*`,
    TAIL,
  ].join('|');

const HAN = String.raw`\p{Script=Han}`;
const IDEOGRAPHS_AND_KANA = String.raw`[\u4e00-\u9fa5\u3040-\u30ff]+`;
const IDEOGRAPHS_AND_HANGUL = String.raw`[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+`;
const SOUTH_AND_EAST_ASIAN =
  String.raw`[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u30ff\uff65-\uff9f\u2f00-\u2fdf` +
  String.raw`\u0e40-\u0eff\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+`;
/** Letters with case, as far as they were known when the list of DeepSeek LLM was written. */
const CASED_LETTERS =
  String.raw`(?:\u0295|(?![\u0560-\u0588\u10c7\u10cd\u10d0-\u10ff\u1c80-\u1c8a\u2d00-\u2d2d\ua790-\ua7fa` +
  String.raw`\uab30-\uab68\u{10570}-\u{105bc}\u{10d50}-\u{10d85}\u{16e40}-\u{16ed3}\u{1d400}-\u{1d7cb}` +
  String.raw`\u{1df00}-\u{1df2a}])[\p{Lu}\p{Ll}\p{Lt}])+`;
const ASCII_PUNCTUATION = '[!-/:-@\\[-`{-~]';
/** The part of DeepSeek V3's rule for what is neither a number nor an ideograph. */
const deepSeek = (/** @type {string} */ newlines, /** @type {string} */ tail) =>
  String.raw`${ASCII_PUNCTUATION}[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+${newlines}|${tail}`;
const DEEPSEEK_V3 = deepSeek(String.raw`[\r\n]*`, TAIL);
const SENTENCES = String.raw` ?[^(\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+`;
const LINES = String.raw`[^\n]+|\n+`;

/** @type {Record<import('./pre-tokenizer-names.js').Rule, PreTokenizer>} */
const RULES = {
  default: { steps: [String.raw`[\p{P}\$\+<=>\^~\|]+`, GPT2, String.raw`\p{N}+`, '[0-9][0-9][0-9]'] },
  'gpt-2': { steps: [GPT2] },
  smollm: { steps: [String.raw`\p{N}`, GPT2] },
  'llama-bpe': { steps: [words(UP_TO_THREE)], whole: true, bos: true },
  'smaug-bpe': { steps: [words(UP_TO_THREE)] },
  qwen2: { steps: [words(String.raw`\p{N}`)] },
  qwen35: {
    steps: [
      words(String.raw`\p{N}`, {
        letters: String.raw`[\p{L}\p{M}]+`,
        others: String.raw` ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*`,
      }),
    ],
  },
  'gpt-4o': { steps: [cased(UP_TO_THREE)] },
  'granite-embed-multi-97m': { steps: [cased(UP_TO_THREE)], whole: true },
  tekken: { steps: [cased(String.raw`\p{N}`, { suffix: '' })], whole: true, bos: true },
  youtu: {
    steps: [
      [
        String.raw`[\uac00-\ud7a3\u3131-\u318e]+`,
        String.raw`[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+`,
        String.raw`[\u3105-\u312f]+`,
        IDEOGRAPHS_AND_KANA,
      ].join('|'),
      cased(String.raw`\p{N}`),
    ],
    whole: true,
  },
  tiny_aya: {
    steps: [
      threes(String.raw`\p{Nd}`, { apart: true, before: /^[^\p{L}\p{M}\p{N}\p{Pc}]/u }),
      cased(UP_TO_THREE),
    ],
  },
  'kimi-k2': {
    steps: [
      `${HAN}+|${cased(UP_TO_THREE, {
        upper: `(?:(?!${HAN})${UPPER})`,
        lower: `(?:(?!${HAN})${LOWER})`,
        others: String.raw`${OTHERS}[\r\n]*`,
      })}`,
    ],
  },
  'deepseek-coder': {
    steps: [
      String.raw`[\r\n]`,
      String.raw`\s?\p{L}+`,
      String.raw`\s?\p{P}+`,
      IDEOGRAPHS_AND_HANGUL,
      String.raw`\p{N}`,
    ],
  },
  'deepseek-llm': {
    steps: [
      String.raw`[\r\n]`,
      String.raw`\s?${CASED_LETTERS}`,
      String.raw`\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+`,
      String.raw`\s+$`,
      IDEOGRAPHS_AND_HANGUL,
      String.raw`\p{N}+`,
    ],
  },
  'deepseek-v3': { steps: [UP_TO_THREE, IDEOGRAPHS_AND_KANA, DEEPSEEK_V3] },
  spark2_5: {
    steps: [UP_TO_THREE, IDEOGRAPHS_AND_KANA, deepSeek('', String.raw`[\r\n]|${SPACES}`), String.raw`\p{N}`],
  },
  afmoe: { steps: [threes(String.raw`\p{N}`, { apart: true }), SOUTH_AND_EAST_ASIAN, DEEPSEEK_V3] },
  falcon: { steps: [String.raw`[\p{P}$+<=>^~|\x60]+`, GPT2, '[0-9][0-9][0-9]'] },
  bloom: { steps: [SENTENCES] },
  viking: { steps: [SENTENCES, String.raw`\p{N}`] },
  chameleon: {
    steps: [
      '<sentinel:[0-9]+>',
      'IMGIMG[A-I]{1,4}Z',
      String.raw`[\t\n]| {4}| {2}`,
      String.raw`\p{N}`,
      '[\\p{P}!-/:-@\\[-`{-~]',
      GPT2,
    ],
    bos: true,
  },
  superbpe: { steps: [String.raw`\p{N}+`, threes(String.raw`\p{Nd}`)] },
  'seed-coder': { steps: [words(String.raw`\p{N}`, { others: OTHERS })] },
  'exaone-moe': {
    steps: [
      words(String.raw`\p{N}`, {
        letters: String.raw`(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+`,
        others: String.raw`${OTHERS}[\r\n/]?`,
      }),
    ],
  },
  'jais-2': {
    steps: [
      words(UP_TO_THREE, {
        tail: [
          String.raw`\s*[\r\n]+`,
          ...[512, 256, 128, 64, 32, 16, 8, 4, '1,2'].map((n) => String.raw`\s{${n}}(?!\S)`),
          String.raw`\s`,
        ].join('|'),
      }),
    ],
  },
  minicpm5: { steps: [UP_TO_THREE, words(String.raw`\p{N}+`)], whole: true },
  ufakzeka: { steps: [words(String.raw`\p{N}`, { contractions: '' })] },
  laguna: { steps: [LINES, words(String.raw`\p{N}`)] },
  gemma4: { steps: [LINES], raw: true, newlines: true, bos: 'always' },
  'sarvam-moe': { steps: [LINES], raw: true },
};

/**
 * @param {unknown} name  tokenizer.ggml.pre
 * @returns {Required<Omit<PreTokenizer, 'steps'>> & { split: (text: string) => string[] }}
 * @throws {ModelError} the name is unknown; the message lists the known ones
 */
export function preTokenizer(name) {
  const rule = RULE_OF.get(/** @type {string} */ (name));
  if (!rule) {
    throw new ModelError(
      `the pre-tokenizer ${show(name)} is not supported; supported are ${PRE_TOKENIZERS.join(', ')}`,
    );
  }
  const { steps, whole = false, bos = false, raw = false, newlines = false } = RULES[rule];
  const cuts = steps.map((step) => (typeof step === 'function' ? step : matcher(step)));
  const split = (/** @type {string} */ text) => cuts.reduce((parts, cut) => parts.flatMap(cut), [text]);
  return { split, whole, bos, raw, newlines };
}

/**
 * Compiles an expression with Unicode's white space; JavaScript's \s differs in U+0085 and U+FEFF.
 * @param {string} source
 */
function compile(source) {
  return new RegExp(source.replaceAll('\\s', '\\p{White_Space}').replaceAll('\\S', '\\P{White_Space}'), 'gu');
}

/**
 * A step that cuts a text into matches and what is between them.
 * @param {string} source
 */
function matcher(source) {
  const expression = compile(source);
  return (/** @type {string} */ text) => {
    const parts = [];
    let at = 0;
    for (const { 0: match, index } of text.matchAll(expression)) {
      if (index > at) parts.push(text.slice(at, index));
      if (match) parts.push(match);
      at = index + match.length;
    }
    if (at < text.length) parts.push(text.slice(at));
    return parts;
  };
}

/**
 * A step that cuts runs of digits before every third digit from the end. An expression would need
 * time that grows with the square of a run's length.
 * @param {string} digit  expression
 * @param {{ apart?: boolean, before?: RegExp }} [options]  apart: whether a run is cut from the text
 *   around it; before: what may follow a run, besides the end
 */
function threes(digit, { apart = false, before } = {}) {
  const runs = compile(`${digit}+`);
  return (/** @type {string} */ text) => {
    /** @type {string[]} */
    const parts = [];
    let from = 0;
    const cut = (/** @type {number} */ at) => {
      if (at > from) parts.push(text.slice(from, at));
      from = at;
    };
    for (const { 0: run, index } of text.matchAll(runs)) {
      const end = index + run.length;
      if (before && end < text.length && !before.test(text.slice(end, end + 2))) continue;
      const digits = Array.from(run);
      if (apart) cut(index);
      let at = index;
      for (const [i, one] of digits.entries()) {
        if ((digits.length - i) % 3 === 0) cut(at);
        at += one.length;
      }
      if (apart) cut(end);
    }
    cut(text.length);
    return parts;
  };
}
