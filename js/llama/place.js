/* Opens the backend that a model runs on, and loads the model to it. */

import { openBackend } from '../backend.js';
import { Decoder } from './decoder.js';
import { ModelError } from './errors.js';
import { isDevice, pick } from './load-options.js';
import { asksForDevices, KERNEL_OPTIONS } from './options.js';

/** @typedef {import('../backend.js').Backend} Backend */
/** @typedef {import('./info.js').BackendChoice} BackendChoice */
/** @typedef {import('./load-options.js').LlamaOptions} LlamaOptions */

/**
 * Facts about a model that are known before its weights are loaded.
 * @typedef {object} ModelFacts
 * @property {import('../gguf/index.js').GgufFile} gguf
 * @property {import('./plan.js').Plan} plan
 * @property {import('./plan.js').PlannedTensor[]} planned  Tensors of the plan that the file has.
 * @property {import('../gguf/index.js').GgufTensor[]} tensors  The same, as the file has them.
 * @property {import('./model.js').Settings} settings
 */

/**
 * An open backend.
 * @typedef {object} Opened
 * @property {Backend} backend
 * @property {BackendChoice} choice  What it is, and why.
 * @property {(error: unknown) => Promise<Opened> | undefined} [otherwise]  Opens another one where
 *   the model could not be loaded to this one, which is disposed by then.
 */

/**
 * Opens the backend of a model.
 * @typedef {(options: LlamaOptions, facts: ModelFacts) => Promise<Opened | Backend>} Open
 */

/** The code of the CPU backend, fetched when a model is loaded. */
export const wasmBackend = () => import('../wasm/backend.js');

/** The code that chooses devices, fetched when a model asks for it. */
export const deviceCode = () => import('./devices.js');

/**
 * A backend on the CPU, on kernels that are given or on new ones.
 * @param {LlamaOptions} options
 * @returns {Promise<Backend>}
 */
export async function openCpu(options) {
  const { kernels, activation = 'int8', kvType = 'F16' } = options;
  const { openWasmBackend } = await wasmBackend();
  const given = /** @type {import('../wasm/kernels.js').Kernels | undefined} */ (kernels);
  return openWasmBackend(given, pick(options, KERNEL_OPTIONS), { activation, kvType });
}

/** @type {Open} */
export async function openOwnBackend(options, facts) {
  const { kernels, backend, activation = 'int8', kvType = 'F16' } = options;
  if (asksForDevices(options)) return (await deviceCode()).openDevices(options, facts);
  if (isDevice(kernels)) return kernels[openBackend]({ activation, kvType });
  const opened = await openCpu(options);
  if (kernels) return opened;
  const reason = backend ? 'the option backend says so' : 'the CPU is the default';
  return { backend: opened, choice: { name: 'cpu', reason, steps: [] } };
}

/**
 * Loads a model to a backend, or to another one where that fails and there is one.
 * @param {Opened | Backend} open  disposed if the model cannot be loaded
 * @param {ModelFacts} facts
 * @param {Pick<LlamaOptions, 'onProgress' | 'signal'>} options
 */
export async function loadParts(open, facts, options) {
  const opened = 'choice' in open ? open : { backend: open, choice: choiceOf(open) };
  const { backend, choice, otherwise } = opened;
  const { gguf, plan, planned, tensors, settings } = facts;
  /** @type {import('../backend.js').LoadedWeights | undefined} */
  let weights;
  try {
    const lacking = backend.lacks(plan, tensors, settings);
    if (lacking.length > 0) throw new ModelError(lacking.join('; '));
    const { kvBytes, workspaceBytes } = backend.sizes(plan, settings);
    const { onProgress, signal } = options;
    const otherBytes = kvBytes + workspaceBytes;
    weights = await backend.loadWeights(gguf, plan, planned, { otherBytes, onProgress, signal });
    const decoder = new Decoder(backend, plan, weights.byRole, settings);
    return { backend, choice, weights, decoder };
  } catch (error) {
    weights?.free();
    backend.dispose();
    const other = await otherwise?.(error);
    if (other) return loadParts(other, facts, options);
    throw error;
  }
}

/**
 * Frees what loadParts has made, and the memory of further contexts.
 * @param {Pick<import('./model.js').Parts, 'backend' | 'weights' | 'decoder'> &
 *   Partial<Pick<import('./model.js').Parts, 'contexts'>>} parts
 */
export function freeParts({ backend, weights, decoder, contexts = new Set() }) {
  if (!backend.disposed) {
    // One that still has a decoder of a lost device has nothing here.
    for (const { decoder: own } of contexts) if (own.backend === backend) own.free();
    decoder.free();
    weights.free();
  }
  backend.dispose();
}

/**
 * The description of a backend that was given.
 * @param {Backend} backend
 * @returns {BackendChoice}
 */
const choiceOf = ({ info }) => ({
  name: info.gpu ? 'gpu' : 'cpu',
  reason: 'its kernels were given',
  steps: [],
});
