/* The description of a weight that a caller makes from bytes of its own. */

import { asBytes, checkBlocks, checkData, checkDimension, checkNames } from './checks.js';
import { servedType, weightBytes } from './types.js';

/** The second line has the fields of a GgufTensor, which may be given as it is. */
const FIELDS = [
  ...['type', 'nRows', 'nCols', 'data', 'name'],
  ...['typeId', 'shape', 'offset', 'byteLength', 'supported'],
];

/**
 * Checks it.
 * @param {import('./wasm/kernel-types.js').WeightData} given
 * @returns bytes: undefined for an F32 weight without data, which is zeros
 * @throws {import('./errors.js').ShapeError} nCols is no multiple of the type's block, or data has
 *   another length than the shape
 * @throws {import('./errors.js').ArgumentError} a field is unknown or of the wrong kind
 */
export function checkWeight(given) {
  checkNames(given, FIELDS, 'field');
  const { type: typeKey, nRows, nCols, data, name = '' } = given;
  const type = servedType(typeKey);
  checkDimension(nRows, 'nRows');
  checkDimension(nCols, 'nCols');
  checkBlocks(nCols, type);
  const bytes = data === undefined && type.name === 'F32' ? undefined : asBytes(data);
  const byteLength = weightBytes(type, nRows, nCols);
  if (bytes) checkData(bytes, byteLength, type, `${nRows} x ${nCols} ${type.name}`);
  return { type, nRows, nCols, name, bytes, byteLength };
}
