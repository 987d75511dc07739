/** The module that the benchmarks of single operations measure, and calls of it. */
import { ISA_NAMES, openModule, STATUS } from '../helpers/raw.js';

/** @typedef {import('../helpers/raw.js').RawModule} RawModule */

/** The best module that this engine accepts. @returns {RawModule} */
export function bestModule() {
  for (const name of [...ISA_NAMES].reverse()) {
    const { module } = openModule(name);
    if (module) return module;
  }
  throw new Error('this engine takes none of the modules; has the project been built?');
}

/** Throws where an export refused its arguments. @param {number} status */
export function checked(status) {
  if (status !== STATUS.OK) throw new Error(`status ${status}`);
}

/**
 * Copies data into memory of the module.
 * @param {RawModule} module @param {ArrayBufferView} data
 * @returns {number} its address
 */
export function put(module, data) {
  const at = module.alloc(data.byteLength);
  module.u8.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
  return at;
}
