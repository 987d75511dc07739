/* What can be called in a worker. The number says where a call's options stand among the arguments: those of the synchronous
 * method, or one argument more where it has none. */

import { DEQUANTIZE_OPTIONS, MATMUL_OPTIONS } from '../wasm/kernels-options.js';
import * as options from '../wasm/layer-options.js';

export const METHODS = Object.freeze({
  select: 1,
  servedBy: 2,
  weight: 1,
  tensor: 1,
  fusedMatmul: 2,
  dequantize: 1,
  quantize: 4,
  fusedDequantMatmulQ4KLegacy: 2,
  memory: 0,
  rmsNorm: 2,
  layerNorm: 3,
  softmax: 1,
  rope: 1,
  embed: 2,
  add: 2,
  addScaled: 3,
  scale: 2,
  gated: 2,
  kvCache: 1,
  fusedMatmulMany: 2,
  fusedRmsNormMatmul: 3,
  fusedSwigluMatmul: 3,
  fusedFfn: 2,
  fusedAttentionScore: 2,
  flashAttention: 3,
});

/** Methods of handles. */
export const HANDLE_METHODS = Object.freeze({ rows: 2, set: 2, toArray: 0, write: 2, free: 0 });

/**
 * Options of a method's own, beside those of every call.
 * @type {Partial<Record<StepName, readonly string[]>>}
 */
const OWN_OPTIONS = {
  fusedMatmul: MATMUL_OPTIONS,
  dequantize: DEQUANTIZE_OPTIONS,
  rmsNorm: options.NORM_OPTIONS,
  layerNorm: options.NORM_OPTIONS,
  softmax: options.SOFTMAX_OPTIONS,
  rope: options.ROPE_OPTIONS,
  embed: options.OUT_OPTIONS,
  add: options.OUT_OPTIONS,
  addScaled: options.OUT_OPTIONS,
  scale: options.OUT_OPTIONS,
  gated: options.GATED_OPTIONS,
  fusedMatmulMany: options.MANY_OPTIONS,
  fusedRmsNormMatmul: options.NORM_MANY_OPTIONS,
  fusedSwigluMatmul: options.SWIGLU_OPTIONS,
  fusedFfn: options.FFN_OPTIONS,
  fusedAttentionScore: options.SCORE_OPTIONS,
  flashAttention: options.FLASH_OPTIONS,
};

/** Options of every call. */
export const CALL_OPTIONS = Object.freeze(['signal', 'transfer']);

/** What the options of a call may be named. @param {StepName} method */
export const optionsOf = (method) => [...(OWN_OPTIONS[method] ?? []), ...CALL_OPTIONS];

/** Those that give one result for each of their first argument's weights. */
export const MANY = Object.freeze(['fusedMatmulMany', 'fusedRmsNormMatmul']);

/** @typedef {keyof typeof METHODS} MethodName */
/** @typedef {MethodName | keyof typeof HANDLE_METHODS} StepName */

/**
 * What stands for a value in a message: a handle, an array of the message, the result of a step (`item` of a list).
 * @typedef {{ $: 'handle', id: number } | { $: 'array', at: number } | { $: 'step', at: number, item?: number }} Reference
 */

/** @typedef {{ method: StepName, target?: Reference, args: unknown[] }} Step */

/**
 * Sequences are what is sent, also for a single call.
 * @typedef {object} RunMessage
 * @property {'run'} kind
 * @property {number} id
 * @property {Step[]} steps
 * @property {(ArrayBufferView | ArrayBuffer | { length: number })[]} arrays  with `length`: a Float32Array to be written only
 * @property {number[]} outs  those arrays that go back
 * @property {unknown} result  with References in it
 * @property {boolean} abortable
 * @property {SharedArrayBuffer} [flag]  one 32-bit word: not 0 when aborted
 */

/** The facts of a new handle; the rest are its public fields. @typedef {{ $: 'new', kind: 'weight' | 'tensor' | 'kvCache', id: number, text: string, fields: object }} NewHandle */

/** @param {unknown} value @returns {value is Record<string, unknown>} */
export function isPlain(value) {
  if (typeof value !== 'object' || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/**
 * A copy of a tree of lists and plain objects, its leaves replaced.
 * @param {any} value
 * @param {(leaf: any, key: string) => any} leaf  of every other value, and of each object with a `$`
 * @param {string} [key]  where it stands in the object around it
 * @returns {any}
 */
export function mapTree(value, leaf, key = '') {
  if (Array.isArray(value)) return value.map((item) => mapTree(item, leaf, key));
  if (!isPlain(value) || '$' in value) return leaf(value, key);
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, mapTree(item, leaf, name)]));
}
