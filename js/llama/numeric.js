/* Numbers that cannot be right: NaN, infinity, and what does not fit into the KV cache. They are looked for where it costs little,
 * and reported with the place they came from. */

import { firstBeyond } from '../wasm/magnitude.js';
import { NumericError } from './errors.js';

/** @typedef {import('../wasm/handles.js').Tensor} Tensor */
/** @typedef {import('../wasm/kv-cache.js').KvType} KvType */
/** @typedef {{ kvType: KvType, activation: import('../wasm/selftest.js').Activation }} Settings */

const LARGEST_F32 = 3.4028234663852886e38;

/** The largest magnitude that a cache stores. Q8_0 has an F16 scale for codes up to 127. @type {Record<KvType, number>} */
export const KV_LARGEST = { F32: LARGEST_F32, F16: 65504, Q8_0: 127 * 65504 };

/**
 * @param {Tensor} tensor  a row for each token
 * @param {Settings} settings  of the model, for advice
 * @param {object} where
 * @param {import('./errors.js').NumericPart} where.part
 * @param {number} [where.layer]
 * @param {number} where.position  of the first row
 * @param {number} [where.largest]  magnitude that is allowed
 * @throws {NumericError}
 */
export function checkNumbers(tensor, settings, { part, layer, position: first, largest = LARGEST_F32 }) {
  const at = firstBeyond(tensor, largest);
  if (at < 0) return;
  const value = tensor.heap[tensor.ptr / 4 + at];
  const position = first + Math.floor(at / tensor.nCols);
  const { kvType, activation } = settings;
  const place = `${layer === undefined ? '' : `layer ${layer} (blk.${layer}): `}the ${part} of position ${position}`;
  const f32 = "kvType: 'F32'";
  const message = Number.isFinite(value)
    ? `hold ${value}, the ${kvType} cache stores up to ${largest}: try ${f32}`
    : `came out as ${value}: try ${activation === 'f32' ? '' : "activation: 'f32', "}${kvType === 'F32' ? '' : `${f32}, `}another copy of the file (its weights may be damaged)`;
  throw new NumericError(`${place} ${message}`, { part, layer, position, value });
}
