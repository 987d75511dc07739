/* The state that the operations of kernels share, and their types: a method of Kernels is a
 * function of the core and the method's arguments. */

import { ArgumentError, show } from '../errors.js';
import { ACTIVATION_NAMES } from './selftest.js';

/** @typedef {import('./kernels.js').Kernels} Kernels */
/** @typedef {import('./selftest.js').Activation} Activation */

/**
 * @typedef {object} Core
 * @property {import('./memory.js').Memory} memory  Memory of the module instance.
 * @property {import('./memory.js').Staging} stagedX  Buffer that arrays are copied to.
 * @property {import('./memory.js').Staging} stagedY  Buffer that results of some operations are
 *   copied from.
 * @property {Activation} activation  Activation mode of calls that name none.
 */

/**
 * Type of the function behind a method of Kernels.
 * @template {keyof Kernels} K
 * @typedef {Kernels[K] extends (...args: infer A) => any ? (core: Core, ...args: A) => any : never}
 *   Operation
 */

/** FM_ALONE of fused.h. */
const ALONE_FLAG = 8;
/** Most tokens of a step whose rows have the bits of steps of their own. */
export const MOST_ALONE = 16;

/**
 * A mode for products whose results have, for each token, the bits that they have when it is the only
 * one: such a mode is an object, unlike the names of modes.
 * @param {Activation} activation
 */
export const aloneIn = (activation) => /** @type {any} */ (Object.freeze({ alone: activation }));

/**
 * Number of an activation mode (fm_activation): the given mode, or the core's default.
 * @param {Core} core
 * @param {Activation | undefined} name  or what aloneIn makes of it
 * @returns {number}
 */
export function modeOf(core, name = core.activation) {
  if (name === 'int16') return 1;
  if (name === 'int8') return 2;
  if (name === 'f32') return 0;
  const { alone } = /** @type {{ alone?: Activation }} */ (name ?? {});
  if (alone !== undefined) return ALONE_FLAG + modeOf(core, alone);
  throw new ArgumentError(`activation must be one of ${ACTIVATION_NAMES.join(', ')}, got ${show(name)}`);
}
