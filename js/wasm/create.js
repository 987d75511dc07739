/* createKernels: the module and the code of the operations, fetched side by side. */

import { LoadError, show } from '../errors.js';
import { Kernels } from './kernels.js';
import { checkKernelsOptions } from './kernels-options.js';
import { load } from './loader.js';

/** @typedef {import('./kernel-types.js').KernelsOptions} KernelsOptions */

/**
 * Loads the kernels, with all operations of a layer.
 * @param {KernelsOptions} [options]
 * @returns {Promise<Kernels>}
 * @throws {import('../errors.js').IsaError} a forced instruction set is not to be had, or none passes its self-test
 * @throws {LoadError} the wasm could not be fetched or compiled
 */
export async function createKernels(options = {}) {
  checkKernelsOptions(options);
  const { activation = 'int16', ...wanted } = options;
  // Fetched beside the module, so that an application starts with little code. A failure is met below.
  const code = import('./operations.js');
  code.catch(() => {});
  const loaded = await load(wanted);
  try {
    return new Kernels(loaded, activation, await code);
  } catch (cause) {
    loaded.pool?.end();
    throw new LoadError(`the code of the kernels could not be loaded: ${show(cause)}`, { cause });
  }
}
