/* Makes weights and tensors from data of the caller. */

import { asFloats, checkDimension, checkLength, checkNames } from '../checks.js';
import { checkWeight } from '../weight-data.js';
import { floatsOf, newTensor, Weight } from './handles.js';
import { TENSOR_FIELDS } from './kernels-options.js';

/**
 * @template {keyof import('./kernels.js').Kernels} K
 * @typedef {import('./core.js').Operation<K>} Operation
 */

/** @type {Operation<'weight'>} */
export const weight = ({ memory }, given) => {
  const { type, nRows, nCols, name, bytes, byteLength } = checkWeight(given);
  const ptr = memory.alloc(byteLength, 'weights');
  if (bytes) memory.u8.set(bytes, ptr);
  else memory.u8.fill(0, ptr, ptr + byteLength);
  return new Weight(memory, { ptr, nRows, nCols, byteLength }, type, name);
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
