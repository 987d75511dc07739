/* Options, checked: names, kinds and ranges. */

import { checkNames } from '../checks.js';
import { ArgumentError, show } from '../errors.js';

/**
 * @typedef {object} GenerateOptions
 * @property {number} [maxTokens]  default 256; the end of the context ends the text too
 * @property {number} [temperature]  0 takes the most likely token each time; default 0.8
 * @property {number} [topK]  only the so many most likely tokens, 0: all; default 40
 * @property {number} [topP]  of them the smallest set with so much probability; default 0.95
 * @property {number} [minP]  of them those with so much of the largest probability; default 0.05
 * @property {number} [seed]  an integer from 0 to 2^53 - 1; default: another one each time
 * @property {number} [repeatPenalty]  over 1 makes repetition less likely; default 1
 * @property {number} [repeatWindow]  how many tokens back repetition counts; default 64
 * @property {string | readonly string[]} [stop]  texts that end the generation, and are not given out; they match the
 *   spelling of control tokens too, e.g. '<|im_end|>'
 * @property {boolean} [ignoreEnd]  writes on where the model would end, as measurements need it; default false
 * @property {AbortSignal} [signal]  ends the generation with its reason
 */

const SEED_LIMIT = Number.MAX_SAFE_INTEGER;

/** name: default, least, most, and whether it is an integer. @type {Record<string, { by: number, from: number, to: number, integer?: boolean }>} */
const NUMBERS = {
  maxTokens: { by: 256, from: 1, to: Number.POSITIVE_INFINITY, integer: true },
  temperature: { by: 0.8, from: 0, to: 100 },
  topK: { by: 40, from: 0, to: 2 ** 32, integer: true },
  topP: { by: 0.95, from: 0, to: 1 },
  minP: { by: 0.05, from: 0, to: 1 },
  repeatPenalty: { by: 1, from: 0.01, to: 100 },
  repeatWindow: { by: 64, from: 0, to: 2 ** 32, integer: true },
  seed: { by: 0, from: 0, to: SEED_LIMIT, integer: true },
};

/** Options of Llama.load that belong to its own kernels, to files, and all of them. */
export const KERNEL_OPTIONS = /** @type {const} */ (['threads', 'memory64', 'isa', 'dot', 'wasm']);
export const OPEN_OPTIONS = /** @type {const} */ ([
  'fetch',
  'headers',
  'retries',
  'retryDelay',
  'timeout',
  'cache',
]);
export const LOAD_OPTIONS = Object.freeze([
  ...['kernels', 'onProgress', 'signal', 'contextLength', 'kvType', 'activation'],
  ...KERNEL_OPTIONS,
  ...OPEN_OPTIONS,
]);

const GENERATE_OPTIONS = [...Object.keys(NUMBERS), 'stop', 'ignoreEnd', 'signal'];
export const FORMAT_OPTIONS = Object.freeze([
  'template',
  'addGenerationPrompt',
  'tools',
  'variables',
  'signal',
]);
export const CHAT_OPTIONS = Object.freeze([
  ...new Set([...GENERATE_OPTIONS, ...FORMAT_OPTIONS, 'special', 'overflow']),
]);

/**
 * @param {GenerateOptions} options
 * @throws {ArgumentError} an unknown name, or a value out of range
 */
export function checkGenerateOptions(options) {
  checkNames(options, GENERATE_OPTIONS);
  const { stop = [], ignoreEnd = false, signal, ...numbers } = options;
  /** @type {Record<string, number>} */
  const values = {};
  for (const [name, { by, from, to, integer }] of Object.entries(NUMBERS)) {
    const value = /** @type {Record<string, unknown>} */ (numbers)[name];
    values[name] = value === undefined ? by : checkRange(value, name, { from, to, integer });
  }
  if (numbers.seed === undefined) values.seed = Math.floor(Math.random() * 2 ** 32);
  const stops = typeof stop === 'string' ? [stop] : stop;
  if (!Array.isArray(stops) || stops.some((one) => typeof one !== 'string' || one === ''))
    throw new ArgumentError(`stop must be a text or a list of texts, none of them empty, got ${show(stop)}`);
  if (typeof ignoreEnd !== 'boolean')
    throw new ArgumentError(`ignoreEnd must be true or false, got ${show(ignoreEnd)}`);
  if (signal !== undefined && typeof signal?.throwIfAborted !== 'function')
    throw new ArgumentError(`signal must be an AbortSignal, got ${show(signal)}`);
  const checked = /** @type {Required<Omit<GenerateOptions, 'stop' | 'ignoreEnd' | 'signal'>>} */ (values);
  return { ...checked, stops, ignoreEnd, signal };
}

/**
 * @param {unknown} value
 * @param {string} name
 * @param {{ from: number, to: number, integer?: boolean }} range
 * @returns {number}
 */
export function checkRange(value, name, { from, to, integer = false }) {
  const number = typeof value === 'number' && (!integer || Number.isInteger(value) || value === to);
  if (number && value >= from && value <= to) return value;
  const upTo = to === Number.POSITIVE_INFINITY ? `${from} or more` : `from ${from} to ${to}`;
  throw new ArgumentError(
    `${name} must be ${integer ? 'an integer' : 'a number'} ${upTo}, got ${show(value)}`,
  );
}
