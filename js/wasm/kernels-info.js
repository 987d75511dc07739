/* Tells how kernels were chosen and which weight types they serve, and selects others. */

import { checkNames, oneOf } from '../checks.js';
import { ArgumentError, IsaError, show } from '../errors.js';
import { servedType, types } from '../types.js';
import { CHOICE } from './kernels-options.js';
import { VERSION, verify } from './loader.js';
import { ACTIVATION_NAMES, DOT_NAMES, ISA_NAMES } from './selftest.js';

/** @typedef {import('./selftest.js').Isa} Isa */
/** @typedef {import('./selftest.js').Dot} Dot */
/** @typedef {import('./kernel-types.js').KernelsInfo} KernelsInfo */

/**
 * The value of Kernels.info.
 * @param {import('./loader.js').Loaded} loaded
 * @param {Pick<KernelsInfo, 'isa' | 'dot' | 'activation'>} selected
 * @returns {KernelsInfo}
 */
export function infoOf(loaded, selected) {
  const { steps, reason, features, timings, dotTimes, wasmUrl, wasmBytes } = loaded;
  const { instance, pool, threadsReason, memory64Reason } = loaded;
  const failure = pool?.failure;
  return {
    version: VERSION,
    ...selected,
    steps: steps.map((step) => ({ ...step })),
    reason,
    threads: pool && !failure ? pool.count : 1,
    threadsReason: failure ? `one thread: ${failure}` : threadsReason,
    memory64: instance.is64,
    memory64Reason,
    features: { ...features },
    timings: { ...timings },
    dotTimes: dotTimes && { ...dotTimes },
    wasmUrl,
    wasmBytes,
  };
}

/**
 * The weight types that a module serves, from its own table.
 * @param {import('./memory.js').WasmExports} exports
 */
export function servedTypes(exports) {
  return types
    .filter(({ id }) => exports.fm_type_block_values(id) !== 0)
    .map(({ name, id, blockValues, blockBytes }) =>
      Object.freeze({ name, id, blockValues, blockBytes, alignment: exports.fm_type_alignment(id) }),
    );
}

/**
 * Selects another instruction set or relaxed variant, after its self-test. After a failure the old
 * selection stays.
 * @param {import('./memory.js').WasmExports} exports
 * @param {WebAssembly.Module} module
 * @param {{ isa?: Isa, dot?: Dot }} choice
 * @param {{ isa: Isa, dot: Dot }} old
 * @returns {{ isa: Isa, dot: Dot | undefined }}
 */
export function selectIn(exports, module, choice, old) {
  checkNames(choice, CHOICE);
  const { isa = old.isa, dot = old.dot } = choice;
  oneOf(ISA_NAMES, isa, 'isa');
  oneOf(DOT_NAMES, dot, 'dot');
  const failure = verify(exports, module, isa, dot);
  if (failure) {
    verify(exports, module, old.isa, old.dot);
    throw new IsaError(`${isa}: ${failure}`, { isa });
  }
  return { isa, dot: isa === 'relaxed' ? dot : undefined };
}

/**
 * The kernels that serve a weight type, and their activation mode.
 * @param {import('./memory.js').WasmExports} exports
 * @param {string | number} type
 * @param {import('./selftest.js').Activation} activation
 * @returns {import('./kernel-types.js').Service}
 */
export function serviceOf(exports, type, activation) {
  const { id } = servedType(type);
  oneOf(ACTIVATION_NAMES, activation, 'activation');
  const packed = exports.fm_served_by(id, ACTIVATION_NAMES.indexOf(activation));
  if (packed < 0) throw new ArgumentError(`${show(type)} x ${activation} is not served by this module`);
  return { isa: ISA_NAMES[packed & 255], activation: ACTIVATION_NAMES[packed >> 8] };
}
