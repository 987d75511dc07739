/* createKernels: fetches the module and the code of the operations at the same time. */

import { LoadError, show } from '../errors.js';
import { Kernels } from './kernels.js';
import { checkKernelsOptions } from './kernels-options.js';
import { load } from './loader.js';

/** @typedef {import('./kernel-types.js').KernelsOptions} KernelsOptions */

/**
 * Creates kernels, with all operations of a layer.
 * @param {KernelsOptions} [options]
 * @returns {Promise<Kernels>}
 * @throws {import('../errors.js').IsaError} the instruction set asked for is not available, or none
 *   passes its self-test
 * @throws {LoadError} the wasm cannot be fetched or compiled
 */
export async function createKernels(options = {}) {
  checkKernelsOptions(options);
  const { activation = 'int16', ...wanted } = options;
  // Fetched together with the module, so applications start with little code. Failures are handled
  // below.
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
