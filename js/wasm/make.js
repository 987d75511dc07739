/* Makes weights and tensors from data of the caller. */

import {
  asBytes,
  asFloats,
  checkBlocks,
  checkData,
  checkDimension,
  checkLength,
  checkNames,
} from '../checks.js';
import { servedType, weightBytes } from '../types.js';
import { floatsOf, newTensor, Weight } from './handles.js';
import { TENSOR_FIELDS, WEIGHT_FIELDS } from './kernels-options.js';

/**
 * @template {keyof import('./kernels.js').Kernels} K
 * @typedef {import('./core.js').Operation<K>} Operation
 */

/** @type {Operation<'weight'>} */
export const weight = ({ memory }, given) => {
  checkNames(given, WEIGHT_FIELDS, 'field');
  const { type: typeKey, nRows, nCols, data, name = '' } = given;
  const type = servedType(typeKey);
  checkDimension(nRows, 'nRows');
  checkDimension(nCols, 'nCols');
  checkBlocks(nCols, type);
  const bytes = data === undefined && type.name === 'F32' ? undefined : asBytes(data);
  const expected = weightBytes(type, nRows, nCols);
  if (bytes) checkData(bytes, expected, type, `${nRows} x ${nCols} ${type.name}`);
  const ptr = memory.alloc(expected, 'weights');
  if (bytes) memory.u8.set(bytes, ptr);
  else memory.u8.fill(0, ptr, ptr + expected);
  return new Weight(memory, { ptr, nRows, nCols, byteLength: expected }, type, name);
};

/** @type {Operation<'tensor'>} */
export const tensor = ({ memory }, shape) => {
  checkNames(shape, TENSOR_FIELDS, 'field');
  const { nRows, nCols, data } = shape;
  checkDimension(nRows, 'nRows');
  checkDimension(nCols, 'nCols');
  if (data !== undefined)
    checkLength(asFloats(data, 'data'), nRows * nCols, `data of a ${nRows} x ${nCols} tensor`);
  const made = newTensor(memory, nRows, nCols);
  if (data) made.set(data);
  else floatsOf(made).fill(0);
  return made;
};
