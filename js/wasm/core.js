/* What the operations of kernels work on, and how they are spelt: a method of Kernels is a function of its core and its arguments. */

import { ArgumentError, show } from '../errors.js';
import { ACTIVATION_NAMES } from './selftest.js';

/** @typedef {import('./kernels.js').Kernels} Kernels */
/** @typedef {import('./selftest.js').Activation} Activation */

/**
 * @typedef {object} Core
 * @property {import('./memory.js').Memory} memory  of the module instance
 * @property {import('./memory.js').Staging} stagedX  where arrays are copied to
 * @property {import('./memory.js').Staging} stagedY  where the results of some operations are copied from
 * @property {Activation} activation  the mode for calls that name none
 */

/**
 * The function behind a method of Kernels.
 * @template {keyof Kernels} K
 * @typedef {Kernels[K] extends (...args: infer A) => any ? (core: Core, ...args: A) => any : never} Operation
 */

/**
 * The number of an activation mode, fm_activation: of the given one or of the core's own.
 * @param {Core} core
 * @param {Activation | undefined} name
 */
export function modeOf({ activation }, name = activation) {
  if (name === 'int16') return 1;
  if (name === 'int8') return 2;
  if (name === 'f32') return 0;
  throw new ArgumentError(`activation must be one of ${ACTIVATION_NAMES.join(', ')}, got ${show(name)}`);
}
