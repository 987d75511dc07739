/* GGML's tensor types: every type that a GGUF file can name, so that any file can be listed and its
 * sizes can be checked. `served` marks the types that the kernels take as weights; a test compares
 * it with the table in the wasm modules. Source: GGUF specification and ggml.h. */

import { ArgumentError, show } from './errors.js';

/**
 * @typedef {object} GgmlType
 * @property {string} name  Name as GGUF spells it, e.g. 'Q4_K'.
 * @property {number} id  Number as GGUF has it.
 * @property {number} blockValues  Values in a block.
 * @property {number} blockBytes  Bytes of a block.
 * @property {boolean} served  Whether the kernels take weights of this type.
 */

/** Name, number, values in a block, bytes of a block, whether the type is served. */
const ROWS = /** @type {[string, number, number, number, boolean?][]} */ ([
  ['F32', 0, 1, 4, true],
  ['F16', 1, 1, 2, true],
  ['Q4_0', 2, 32, 18, true],
  ['Q4_1', 3, 32, 20, true],
  ['Q5_0', 6, 32, 22, true],
  ['Q5_1', 7, 32, 24, true],
  ['Q8_0', 8, 32, 34, true],
  ['Q8_1', 9, 32, 36],
  ['Q2_K', 10, 256, 84, true],
  ['Q3_K', 11, 256, 110, true],
  ['Q4_K', 12, 256, 144, true],
  ['Q5_K', 13, 256, 176, true],
  ['Q6_K', 14, 256, 210, true],
  ['Q8_K', 15, 256, 292, true],
  ['IQ2_XXS', 16, 256, 66, true],
  ['IQ2_XS', 17, 256, 74, true],
  ['IQ3_XXS', 18, 256, 98, true],
  ['IQ1_S', 19, 256, 50, true],
  ['IQ4_NL', 20, 32, 18, true],
  ['IQ3_S', 21, 256, 110, true],
  ['IQ2_S', 22, 256, 82, true],
  ['IQ4_XS', 23, 256, 136, true],
  ['I8', 24, 1, 1],
  ['I16', 25, 1, 2],
  ['I32', 26, 1, 4],
  ['I64', 27, 1, 8],
  ['F64', 28, 1, 8],
  ['IQ1_M', 29, 256, 56, true],
  ['BF16', 30, 1, 2, true],
  ['TQ1_0', 34, 256, 54, true],
  ['TQ2_0', 35, 256, 66, true],
  ['MXFP4', 39, 32, 17, true],
  ['NVFP4', 40, 64, 36, true],
  ['Q1_0', 41, 128, 18, true],
  ['Q2_0', 42, 64, 18, true],
]);

/**
 * Every type that a GGUF file can name; `served` is true for those that the kernels take.
 * @type {readonly Readonly<GgmlType>[]}
 */
export const types = Object.freeze(
  ROWS.map(([name, id, blockValues, blockBytes, served = false]) =>
    Object.freeze({ name, id, blockValues, blockBytes, served }),
  ),
);

/** @type {Map<string | number, Readonly<GgmlType>>} */
const byKey = new Map();
for (const type of types) byKey.set(type.name, type).set(type.id, type);

/**
 * Finds the row of a type; undefined if there is none.
 * @param {string | number} nameOrId
 * @returns {Readonly<GgmlType> | undefined}
 */
export function findType(nameOrId) {
  return byKey.get(nameOrId);
}

/**
 * Finds the row of a type that the kernels serve.
 * @param {string | number} nameOrId
 * @returns {Readonly<GgmlType>}
 * @throws {ArgumentError} the type is unknown or not served
 */
export function servedType(nameOrId) {
  const type = findType(nameOrId);
  if (type?.served) return type;
  const served = types.filter((row) => row.served).map((row) => row.name);
  const known = type ? `type ${type.name} has no kernels` : `there is no type ${show(nameOrId)}`;
  throw new ArgumentError(`${known}; served are ${served.join(', ')}`);
}

/**
 * Bytes of a [nRows][nCols] weight; nCols must be a multiple of the values in a block.
 * @param {GgmlType} type
 * @param {number} nRows
 * @param {number} nCols
 */
export function weightBytes(type, nRows, nCols) {
  return nRows * (nCols / type.blockValues) * type.blockBytes;
}
