/* fused-matmul/gpu: the kernels on a GPU, by WebGPU. The rest of the library loads it only for a model
 * that is to run on a GPU. */

import { checkNames, oneOf } from '../checks.js';
import { ArgumentError, show } from '../errors.js';
import { GpuDevice } from './device.js';
import { FEATURES, PLAIN } from './features.js';
import { GpuKernels } from './kernels.js';

/** @typedef {import('./features.js').GpuFeature} GpuFeature */
/** @typedef {import('./errors.js').GpuReason} GpuReason */
/** @typedef {import('./kernels.js').GpuInfo} GpuInfo */
/** @typedef {import('./features.js').GpuVariants} GpuVariants */
/** @typedef {import('./kernels.js').GpuLimits} GpuLimits */
/** @typedef {import('./kernels.js').GpuMemory} GpuMemory */
/** @typedef {import('./kernels.js').GpuNames} GpuNames */

export { GpuError } from './errors.js';
export { GpuKernels } from './kernels.js';
export { GpuWeight } from './weight.js';

/**
 * @typedef {object} GpuOptions
 * @property {'high-performance' | 'low-power'} [powerPreference] Which GPU to take where there are
 *   two. Default 'high-performance'.
 * @property {boolean} [allowSoftware] Take an adapter that computes on the processor: right, but
 *   slower than the WebAssembly kernels. Default false.
 * @property {readonly GpuFeature[]} [features] The only optional features that may be used.
 *   Default: all that the GPU has.
 * @property {'f32' | 'int8'} [activation] The least precision of activations that is allowed. With
 *   'int8', products with more than 8 rows may round them to int8, a scale for 32 columns, or to
 *   f16, whichever is the fastest on the GPU; a model that is loaded with another `activation` does
 *   not. Default 'f32'.
 * @property {boolean} [selfTest] Compare the kernels with those of the WebAssembly module before
 *   they are used, for the weight types and settings of a model, while its weights load, and choose
 *   the fastest forms of the kernels by time. Default true.
 * @property {unknown} [gpu] The object that WebGPU comes from. Default: navigator.gpu. In Node it
 *   is what the npm package `webgpu` gives: `create([])`.
 */

const OPTIONS = ['powerPreference', 'allowSoftware', 'features', 'activation', 'selfTest', 'gpu'];
const ACTIVATIONS = ['f32', 'int8'];

/**
 * Opens a GPU. Its kernels compute in f32, with weights as the GGUF file has them.
 * @param {GpuOptions} [options]
 * @returns {Promise<GpuKernels>}
 * @throws {import('./errors.js').GpuError} there is no GPU to be used; `reason` says why in one
 *   word, the message in a sentence
 * @throws {ArgumentError} an option is unknown or of the wrong kind
 */
export async function createGpuKernels(options = {}) {
  checkNames(options, OPTIONS);
  const { powerPreference = 'high-performance', allowSoftware = false, features = FEATURES } = options;
  const { activation = 'f32', selfTest = true, gpu } = options;
  oneOf(['high-performance', 'low-power'], powerPreference, 'powerPreference');
  if (typeof allowSoftware !== 'boolean')
    throw new ArgumentError(`allowSoftware must be true or false, got ${show(allowSoftware)}`);
  if (typeof selfTest !== 'boolean')
    throw new ArgumentError(`selfTest must be true or false, got ${show(selfTest)}`);
  oneOf(ACTIVATIONS, activation, 'activation');
  if (!Array.isArray(features)) throw new ArgumentError(`features must be a list, got ${show(features)}`);
  for (const feature of features) oneOf(FEATURES, feature, 'a feature');
  const api = /** @type {GPU | undefined} */ (gpu);
  const device = await GpuDevice.open({ gpu: api, powerPreference, allowSoftware, features });
  const variants = {
    ...PLAIN,
    subgroups: device.features.has('subgroups'),
    int8: activation === 'int8' && device.features.has('dot4I8Packed'),
  };
  const steps = [`${device.name} was opened`];
  return new GpuKernels(device, { variants, steps, isTested: selfTest, activation });
}
