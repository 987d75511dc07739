/* How byte-pair tokenizers cut a text into words before merging, by the name in tokenizer.ggml.pre
 * of a GGUF file. The expressions apply one after another: each cuts the pieces left by the
 * previous one into matches and the text between them. */

import { show } from '../../errors.js';
import { ModelError } from '../errors.js';

const GPT2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)`;
const CONTRACTIONS = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";
const TAIL = String.raw`\s*[\r\n]+|\s+(?!\S)|\s+`;
/** @param {string} digits */
const words = (digits) =>
  String.raw`${CONTRACTIONS}|[^\r\n\p{L}\p{N}]?\p{L}+|${digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|${TAIL}`;
const UPPER = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`;
const LOWER = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`;
const CASED = String.raw`[^\r\n\p{L}\p{N}]?${UPPER}*${LOWER}+|[^\r\n\p{L}\p{N}]?${UPPER}+${LOWER}*`;

/**
 * @typedef {object} PreTokenizer
 * @property {string[]} expressions  Regular expressions, applied one after another.
 * @property {boolean} [whole]  Whether a word that is a token becomes that token, whatever the
 *   merges say.
 * @property {boolean} [bos]  Whether texts begin with BOS, where the file does not say.
 */

/** @type {[names: string[], row: PreTokenizer][]} */
const ROWS = [
  [
    ['default'],
    {
      expressions: [String.raw`[\p{P}\$\+<=>\^~\|]+`, GPT2, String.raw`\p{N}+`, '[0-9][0-9][0-9]'],
    },
  ],
  [
    [
      ...['gpt-2', 'phi-2', 'mpt', 'olmo', 'jais', 'roberta-bpe', 'exaone4', 'trillion', 'granite-docling'],
      ...['gigachat', 'a.x-4.0', 'mellum', 'modern-bert', 'jina-v1-en', 'jina-es', 'jina-de', 'jina-v2-es'],
      ...['jina-v2-de', 'jina-v2-code'],
    ],
    { expressions: [GPT2] },
  ],
  [
    ['smollm', 'starcoder', 'refact', 'command-r', 'codeshell', 'exaone', 'minerva-7b', 'mellum2'],
    { expressions: [String.raw`\p{N}`, GPT2] },
  ],
  [
    [
      ...['llama-bpe', 'llama3', 'llama-v3', 'falcon3', 'falcon-h1', 'pixtral', 'midm-2.0', 'lfm2'],
      'jina-v5-nano',
    ],
    { expressions: [words(String.raw`\p{N}{1,3}`)], whole: true, bos: true },
  ],
  [['smaug-bpe', 'dbrx', 'glm4', 'chatglm-bpe'], { expressions: [words(String.raw`\p{N}{1,3}`)] }],
  [
    [
      ...['qwen2', 'deepseek-r1-qwen', 'stablelm2', 'megrez', 'kormo', 'f2llmv2', 'hunyuan', 'solar-open'],
      'grok-2',
    ],
    { expressions: [words(String.raw`\p{N}`)] },
  ],
  [
    ['tekken'],
    {
      expressions: [String.raw`${CASED}|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|${TAIL}`],
      whole: true,
      bos: true,
    },
  ],
  [
    ['deepseek-coder'],
    {
      expressions: [
        String.raw`[\r\n]`,
        String.raw`\s?\p{L}+`,
        String.raw`\s?\p{P}+`,
        '[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+',
        String.raw`\p{N}`,
      ],
    },
  ],
];

/** @type {Map<string, PreTokenizer>} */
const byName = new Map(ROWS.flatMap(([names, row]) => names.map((name) => [name, row])));

/** Supported values of tokenizer.ggml.pre. */
export const PRE_TOKENIZERS = Object.freeze([...byName.keys()]);

/**
 * @param {unknown} name  tokenizer.ggml.pre
 * @returns {{ split: (text: string) => string[], whole: boolean, bos: boolean }}
 * @throws {ModelError} the name is unknown; the message lists the known ones
 */
export function preTokenizer(name) {
  const row = byName.get(/** @type {string} */ (name));
  if (!row) {
    throw new ModelError(
      `the pre-tokenizer ${show(name)} is not supported; supported are ${PRE_TOKENIZERS.join(', ')}`,
    );
  }
  const { expressions, whole = false, bos = false } = row;
  const compiled = expressions.map(compile);
  const split = (/** @type {string} */ text) =>
    compiled.reduce((parts, expression) => parts.flatMap((part) => cut(part, expression)), [text]);
  return { split, whole, bos };
}

/**
 * Compiles an expression with Unicode's white space; JavaScript's \s differs in U+0085 and U+FEFF.
 * @param {string} source
 */
const compile = (source) =>
  new RegExp(source.replaceAll('\\s', '\\p{White_Space}').replaceAll('\\S', '\\P{White_Space}'), 'gu');

/**
 * @param {string} text
 * @param {RegExp} expression
 */
function cut(text, expression) {
  const parts = [];
  let at = 0;
  for (const { 0: match, index } of text.matchAll(expression)) {
    if (index > at) parts.push(text.slice(at, index));
    if (match) parts.push(match);
    at = index + match.length;
  }
  if (at < text.length) parts.push(text.slice(at));
  return parts;
}
