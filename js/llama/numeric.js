/* Detects numbers that cannot be right: NaN, infinity, and values that do not fit the KV cache.
 * Backends check where it costs little, and report the place of the number. */

import { NumericError } from './errors.js';

/** @typedef {import('../wasm/kv-cache.js').KvType} KvType */

/**
 * The place of numbers in a model.
 * @typedef {object} Place
 * @property {import('./errors.js').NumericPart} part
 * @property {number | undefined} [layer]
 * @property {number} position  Position of the first row's token.
 */

/**
 * Settings of the model, for the advice in messages.
 * @typedef {{ kvType: KvType, activation: import('../wasm/selftest.js').Activation | 'f16' }} Advice
 */

export const LARGEST_F32 = 3.4028234663852886e38;

/**
 * Largest magnitude that a cache stores. Q8_0 has codes up to 127 and an F16 scale.
 * @type {Record<KvType, number>}
 */
export const KV_LARGEST = { F32: LARGEST_F32, F16: 65504, Q8_0: 127 * 65504 };

/**
 * @param {Float32Array} values  one row for each token
 * @param {number} from  start of the first row
 * @param {number} to  end of the last row
 * @param {number} nCols  values of a row
 * @param {Place} place
 * @param {Advice} advice
 * @param {number} [largest]  largest magnitude that is allowed
 * @throws {NumericError} a value is larger, or NaN
 */
export function checkNumbers(values, from, to, nCols, place, advice, largest = LARGEST_F32) {
  const at = firstBeyond(values, from, to, largest);
  if (at < 0) return;
  const position = place.position + Math.floor((at - from) / nCols);
  throw numericError(values[at], { ...place, position }, advice, largest);
}

/**
 * The error of a number that cannot be right.
 * @param {number} value
 * @param {Place} place
 * @param {Advice} advice
 * @param {number} [largest]  magnitude that is allowed
 */
export function numericError(
  value,
  { part, layer, position },
  { kvType, activation },
  largest = LARGEST_F32,
) {
  const where = `${layer === undefined ? '' : `layer ${layer} (blk.${layer}): `}the ${part} of position ${position}`;
  const f32 = "kvType: 'F32'";
  const message = Number.isFinite(value)
    ? `hold ${value}, the ${kvType} cache stores up to ${largest}: try ${f32}`
    : `came out as ${value}: try ${activation === 'f32' ? '' : "activation: 'f32', "}${kvType === 'F32' ? '' : `${f32}, `}another copy of the file (its weights may be damaged)`;
  return new NumericError(`${where} ${message}`, { part, layer, position, value });
}

/**
 * The same error, at another position.
 * @param {NumericError} error
 * @param {number} position
 */
export function movedTo({ message, part, layer, value, position: from }, position) {
  const said = message.replace(`of position ${from} `, `of position ${position} `);
  return new NumericError(said, { part, layer, position, value });
}

/**
 * Index of the first value whose magnitude exceeds a limit; NaN exceeds any limit.
 * @param {ArrayLike<number>} values
 * @param {number} from
 * @param {number} to
 * @param {number} largest
 * @returns {number} -1 if there is none
 */
function firstBeyond(values, from, to, largest) {
  let i = from;
  // Four at a time, because this runs for every token.
  for (; i + 4 <= to; i += 4) {
    const fits =
      Math.abs(values[i]) <= largest &&
      Math.abs(values[i + 1]) <= largest &&
      Math.abs(values[i + 2]) <= largest &&
      Math.abs(values[i + 3]) <= largest;
    if (!fits) break;
  }
  for (; i < to; i++) if (!(Math.abs(values[i]) <= largest)) return i;
  return -1;
}
