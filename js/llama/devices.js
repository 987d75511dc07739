/* The options `backend` and `gpu` of Llama.load: checks them, opens the devices, and decides which
 * one a model runs on. Fetched when a model asks for another device than the CPU. */

import { openBackend } from '../backend.js';
import { checkNames } from '../checks.js';
import { ArgumentError, show } from '../errors.js';
import { GpuError } from '../gpu/errors.js';
import { pick } from './load-options.js';
import { checkRange, KERNEL_OPTIONS } from './options.js';
import { openCpu } from './place.js';
import { timeDevices } from './timing.js';

export { DeviceKeeper } from './recovery.js';

/** @typedef {import('../backend.js').Backend} Backend */
/** @typedef {import('../gpu/backend.js').GpuBackend} GpuBackend */
/** @typedef {import('./load-options.js').BackendPart} BackendPart */
/** @typedef {import('./load-options.js').LlamaOptions} LlamaOptions */
/** @typedef {import('./place.js').ModelFacts} ModelFacts */
/** @typedef {import('./place.js').Opened} Opened */

/**
 * Milliseconds that the layers of a token take on each device; infinite where the device cannot
 * compute them.
 * @typedef {{ gpu: number, cpu: number }} Times
 */

/**
 * Times a model's layers on two devices.
 * @typedef {(gpu: Backend, cpu: Backend, facts: ModelFacts) => Promise<Times>} Timer
 */

const NAMES = ['cpu', 'gpu', 'auto'];
const PART_NAMES = ['cpu', 'gpu'];
const PART_OPTIONS = ['backend', 'layers', 'memoryBytes', 'gpu'];

/**
 * @param {LlamaOptions} options
 * @throws {ArgumentError} `backend` or `gpu` is wrong, or does not go with another option
 */
export function checkDevices(options) {
  const { backend = 'cpu', gpu } = options;
  const used = typeof backend === 'string' ? checkName(backend) : checkList(backend);
  if (gpu !== undefined) {
    if (typeof gpu !== 'object' || gpu === null)
      throw new ArgumentError(`gpu must be an object, got ${show(gpu)}`);
    if (!used.has('gpu'))
      throw new ArgumentError(`gpu has the options of a GPU, and backend is ${nameOf(backend)}`);
  }
  const own = Object.keys(pick(options, KERNEL_OPTIONS));
  if (own.length > 0 && !used.has('cpu'))
    throw new ArgumentError(`${own.join(', ')} belong(s) to the CPU, and backend is ${nameOf(backend)}`);
}

const nameOf = (/** @type {unknown} */ backend) =>
  typeof backend === 'string' ? show(backend) : 'a list without it';

/** @param {string} name @param {readonly string[]} [known] */
function checkName(name, known = NAMES) {
  checkNames({ [name]: true }, known, 'backend');
  return new Set(name === 'auto' ? PART_NAMES : [name]);
}

/** @param {unknown} list */
function checkList(list) {
  if (!Array.isArray(list) || list.length === 0) {
    throw new ArgumentError(
      `backend must be 'cpu', 'gpu', 'auto' or a list of { backend, layers }, got ${Array.isArray(list) ? 'an empty list' : show(list)}`,
    );
  }
  const used = new Set(list.map(checkPart));
  const rest = list.filter(({ layers }) => layers === undefined);
  if (rest.length > 1)
    throw new ArgumentError(
      `${rest.length} devices of backend have no number of layers; one may take the rest`,
    );
  return used;
}

/** @param {BackendPart} part @param {number} i @returns {string} */
function checkPart(part, i) {
  const at = `backend[${i}]`;
  checkNames(part, PART_OPTIONS, `field of ${at}`);
  const { backend, layers, memoryBytes, gpu } = part;
  if (typeof backend !== 'string')
    throw new ArgumentError(`${at}.backend must be 'cpu' or 'gpu', got ${show(backend)}`);
  checkName(backend, PART_NAMES);
  if (layers !== undefined && layers !== 'fit' && (!Number.isSafeInteger(layers) || layers < 1))
    throw new ArgumentError(`${at}.layers must be an integer from 1 or 'fit', got ${show(layers)}`);
  if (memoryBytes !== undefined) {
    if (layers !== 'fit')
      throw new ArgumentError(`${at}.memoryBytes needs layers: 'fit', and layers is ${show(layers)}`);
    checkRange(memoryBytes, `${at}.memoryBytes`, { from: 1, to: Number.POSITIVE_INFINITY });
  }
  if (gpu !== undefined && (typeof gpu !== 'object' || gpu === null || backend !== 'gpu'))
    throw new ArgumentError(`${at}.gpu must be the options of a GPU, for backend: 'gpu'; got ${show(gpu)}`);
  return backend;
}

/**
 * A backend on a GPU, with kernels that end with it.
 * @param {LlamaOptions} options
 * @returns {Promise<GpuBackend>}
 */
async function openGpu({ gpu = {}, activation = 'int8', kvType = 'F16' }) {
  const { createGpuKernels } = await import('../gpu/index.js');
  const kernels = await createGpuKernels(gpu);
  try {
    const backend = await kernels[openBackend]({ activation, kvType, ownsKernels: true });
    return /** @type {GpuBackend} */ (backend);
  } catch (error) {
    kernels.dispose();
    throw error;
  }
}

/** The adapter's name. @param {Backend} backend */
const adapterOf = ({ info }) => info.gpu?.adapter.name ?? 'a GPU';

/**
 * Opens the devices that the options ask for.
 * @param {LlamaOptions} options
 * @param {ModelFacts} facts
 * @param {{ time?: Timer }} [seams]  time: measures both devices
 * @returns {Promise<Opened>}
 * @throws {GpuError} a GPU is asked for, and there is none to be used
 */
export async function openDevices(options, facts, { time = timeDevices } = {}) {
  const { backend } = options;
  if (backend === 'auto') return openBest(options, facts, time);
  const { openStages } = await import('./stages.js');
  const isList = typeof backend !== 'string';
  const list = isList
    ? /** @type {readonly BackendPart[]} */ (backend)
    : [{ backend: /** @type {const} */ ('gpu') }];
  const open = (/** @type {BackendPart} */ part) =>
    part.backend === 'cpu' ? openCpu(options) : openGpu({ ...options, gpu: part.gpu ?? options.gpu });
  return openStages(list, facts, open, isList);
}

/**
 * Opens the GPU where it can compute the model and is faster, otherwise the CPU.
 * @param {LlamaOptions} options
 * @param {ModelFacts} facts
 * @param {Timer} time
 * @returns {Promise<Opened>}
 */
async function openBest(options, facts, time) {
  const { gguf, plan, planned, tensors, settings } = facts;
  /** @type {string[]} */
  const steps = [];
  /** @param {string} reason @param {Backend} [open] @returns {Promise<Opened>} */
  const cpuBecause = async (reason, open) => ({
    backend: open ?? (await openCpu(options)),
    choice: { name: 'cpu', reason, steps },
  });
  /** @type {GpuBackend | undefined} */
  let gpu;
  /** @type {Backend | undefined} */
  let cpu;
  try {
    gpu = await openGpu(options);
    options.signal?.throwIfAborted();
    steps.push(`${adapterOf(gpu)} was opened`);
    const lacking = gpu.lacks(plan, tensors, settings);
    if (lacking.length > 0) {
      gpu.dispose();
      return await cpuBecause(`the GPU cannot compute this model: ${lacking.join('; ')}`);
    }
    await gpu.selfTest(gguf, plan, planned);
    options.signal?.throwIfAborted();
    if (options.gpu?.selfTest !== false) steps.push('its kernels passed the self-test');
    cpu = await openCpu(options);
    const times = await time(gpu, cpu, facts);
    options.signal?.throwIfAborted();
    const measured = `the layers of a token take ${inMs(times.gpu)} on the GPU and ${inMs(times.cpu)} on the CPU`;
    steps.push(measured);
    if (times.gpu < times.cpu) {
      cpu.dispose();
      const choice = { name: /** @type {const} */ ('gpu'), reason: measured, steps };
      /** @param {unknown} error */
      const otherwise = (error) =>
        error instanceof GpuError
          ? cpuBecause(`the model could not be loaded to the GPU: ${error.message}`)
          : undefined;
      return { backend: gpu, choice, otherwise };
    }
    gpu.dispose();
    return await cpuBecause(measured, cpu);
  } catch (error) {
    gpu?.dispose();
    if (error instanceof GpuError) return cpuBecause(`the GPU cannot be used: ${error.message}`, cpu);
    cpu?.dispose();
    throw error;
  }
}

/** @param {number} ms */
const inMs = (ms) =>
  ms < Number.MAX_VALUE ? `${Number(ms.toPrecision(3))} ms` : 'no time (they do not fit)';
