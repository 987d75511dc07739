/* Names of the options of Kernels, and the check of createKernels' options. */

import { checkNames, oneOf } from '../checks.js';
import { ArgumentError, show } from '../errors.js';
import { ACTIVATION_NAMES, DOT_NAMES, ISA_NAMES } from './selftest.js';
import { checkThreads } from './threads.js';

export const KERNELS_OPTIONS = ['isa', 'activation', 'dot', 'threads', 'memory64', 'wasm'];
export const MATMUL_OPTIONS = ['out', 'activation'];
export const DEQUANTIZE_OPTIONS = ['start', 'end', 'out'];
export const CHOICE = ['isa', 'dot'];
export const TENSOR_FIELDS = ['nRows', 'nCols', 'data'];

/**
 * @param {import('./kernel-types.js').KernelsOptions} options
 * @throws {ArgumentError}
 */
export function checkKernelsOptions(options) {
  checkNames(options, KERNELS_OPTIONS);
  const { isa, dot, activation, threads, memory64 = false } = options;
  if (isa !== undefined) oneOf(ISA_NAMES, isa, 'isa');
  if (dot !== undefined) oneOf(DOT_NAMES, dot, 'dot');
  if (activation !== undefined) oneOf(ACTIVATION_NAMES, activation, 'activation');
  checkThreads(threads);
  if (typeof memory64 !== 'boolean')
    throw new ArgumentError(`memory64 must be true or false, got ${show(memory64)}`);
}

/**
 * Does the same as checkNames(options, MATMUL_OPTIONS), but faster: a small product takes hardly
 * longer than a call.
 * @param {object | undefined} options
 */
export function checkMatmulOptions(options) {
  if (options === undefined) return;
  let isKnown = typeof options === 'object' && options !== null;
  for (const name in options) isKnown &&= name === 'out' || name === 'activation';
  if (!isKnown) checkNames(options, MATMUL_OPTIONS);
}
