/* The methods that can be called in a worker. The number is the place of a call's options among the
 * arguments. Methods without options get one more argument for them. */

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
  multiply: 2,
  causalConv: 3,
  kvCache: 1,
  fusedMatmulMany: 2,
  fusedRmsNormMatmul: 3,
  fusedSwigluMatmul: 3,
  fusedFfn: 2,
  route: 1,
  fusedMatmulExperts: 3,
  mixRows: 2,
  fusedAttentionScore: 2,
  flashAttention: 3,
  deltaNet: 3,
  ssmScan: 3,
});

/** Methods of handles. */
export const HANDLE_METHODS = Object.freeze({ rows: 2, set: 2, toArray: 0, write: 2, free: 0 });

/**
 * Options of a method beyond those of every call.
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
  multiply: options.OUT_OPTIONS,
  causalConv: options.CONV_OPTIONS,
  fusedMatmulMany: options.MANY_OPTIONS,
  fusedRmsNormMatmul: options.NORM_MANY_OPTIONS,
  fusedSwigluMatmul: options.SWIGLU_OPTIONS,
  fusedFfn: options.FFN_OPTIONS,
  route: options.ROUTE_OPTIONS,
  fusedMatmulExperts: options.EXPERTS_OPTIONS,
  mixRows: options.OUT_OPTIONS,
  fusedAttentionScore: options.SCORE_OPTIONS,
  flashAttention: options.FLASH_OPTIONS,
  deltaNet: options.DELTA_OPTIONS,
  ssmScan: options.SCAN_OPTIONS,
};

/** Options of every call. */
export const CALL_OPTIONS = Object.freeze(['signal', 'transfer']);

/** Names of the options that a call takes. @param {StepName} method */
export const optionsOf = (method) => [...(OWN_OPTIONS[method] ?? []), ...CALL_OPTIONS];

/** Methods that return a list: one result for each weight in the first argument. */
export const MANY = Object.freeze(['fusedMatmulMany', 'fusedRmsNormMatmul', 'fusedMatmulExperts']);

/** @typedef {keyof typeof METHODS} MethodName */
/** @typedef {MethodName | keyof typeof HANDLE_METHODS} StepName */

/**
 * A reference in a message: to a handle, to an array of the message, or to the result of a step
 * (`item` of a list).
 * @typedef {{ $: 'handle', id: number } | { $: 'array', at: number }
 *   | { $: 'step', at: number, item?: number }} Reference
 */

/** @typedef {{ method: StepName, target?: Reference, args: unknown[] }} Step */

/**
 * The message of a sequence; a single call is a sequence of one step.
 * @typedef {object} RunMessage
 * @property {'run'} kind
 * @property {number} id
 * @property {Step[]} steps
 * @property {(ArrayBufferView | ArrayBuffer | { length: number })[]} arrays  `length` alone means a
 *   Float32Array that is only written.
 * @property {number[]} outs  Indices of the arrays that are sent back.
 * @property {unknown} result  The value to return, with References in it.
 * @property {boolean} abortable
 * @property {SharedArrayBuffer} [flag]  One 32-bit word; any value but 0 means an abort.
 */

/**
 * Description of a new handle; `fields` has its public fields.
 * @typedef {{ $: 'new', kind: 'weight' | 'tensor' | 'kvCache', id: number, text: string,
 *   fields: object }} NewHandle
 */

/** @param {unknown} value @returns {value is Record<string, unknown>} */
export function isPlain(value) {
  if (typeof value !== 'object' || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/**
 * Copies a tree of lists and plain objects, and replaces its leaves.
 * @param {any} value
 * @param {(leaf: any, key: string) => any} leaf  called for every other value, and for each object
 *   with a `$`
 * @param {string} [key]  key of the value in its object
 * @returns {any}
 */
export function mapTree(value, leaf, key = '') {
  if (Array.isArray(value)) return value.map((item) => mapTree(item, leaf, key));
  if (!isPlain(value) || '$' in value) return leaf(value, key);
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, mapTree(item, leaf, name)]));
}
