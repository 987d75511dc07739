/* Numbers that cannot be right: NaN, infinity, and what does not fit into the KV cache. Backends look for them where it costs little,
 * and report them with the place they came from. */

import { NumericError } from './errors.js';

/** @typedef {import('../wasm/kv-cache.js').KvType} KvType */

/**
 * Where numbers belong.
 * @typedef {object} Place
 * @property {import('./errors.js').NumericPart} part
 * @property {number | undefined} [layer]
 * @property {number} position  of the first row
 */

/** How a model runs, for advice. @typedef {{ kvType: KvType, activation: import('../wasm/selftest.js').Activation }} Advice */

export const LARGEST_F32 = 3.4028234663852886e38;

/** The largest magnitude that a cache stores. Q8_0 has an F16 scale for codes up to 127. @type {Record<KvType, number>} */
export const KV_LARGEST = { F32: LARGEST_F32, F16: 65504, Q8_0: 127 * 65504 };

/**
 * @param {Float32Array} values  with a row for each token
 * @param {number} from  where the first row begins
 * @param {number} to  where the last row ends
 * @param {number} nCols  of a row
 * @param {Place} place
 * @param {Advice} advice
 * @param {number} [largest]  magnitude that is allowed
 * @throws {NumericError} a value is over it, or NaN
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
 * The index of the first value whose magnitude is over a limit; NaN counts as over any.
 * @param {ArrayLike<number>} values
 * @param {number} from
 * @param {number} to
 * @param {number} largest
 * @returns {number}  -1 where there is none
 */
function firstBeyond(values, from, to, largest) {
  let i = from;
  // Four at a time: this runs for every token.
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
