/* The options of Llama.load, and their checks. */

import { openBackend } from '../backend.js';
import { checkNames, oneOf } from '../checks.js';
import { ArgumentError } from '../errors.js';
import { KV_TYPES } from '../wasm/kv-cache.js';
import { ACTIVATION_NAMES } from '../wasm/selftest.js';
import { checkRange, DEVICE_OPTIONS, KERNEL_OPTIONS, LOAD_OPTIONS } from './options.js';

/**
 * A device for some layers of a model.
 * @typedef {object} BackendPart
 * @property {'cpu' | 'gpu'} backend  The device.
 * @property {number | 'fit'} [layers]  How many layers it computes: a number, or with 'fit' as many
 *   as its memory takes. Default: those that the other devices of the list leave. At most one device
 *   of a list may have the default.
 * @property {number} [memoryBytes]  With 'fit': bytes that its layers may take, with their keys and
 *   values and their work memory. Default: what the device has left.
 * @property {import('../gpu/index.js').GpuOptions} [gpu]  For this GPU, instead of the option `gpu`
 *   of the model.
 */

/**
 * Devices of a model. 'cpu': WebAssembly. 'gpu': a GPU, by WebGPU; layers that it cannot compute go to
 * the CPU. 'auto': a GPU if there is one that passes its self-test, holds the model, and is faster on
 * this machine, otherwise the CPU. A list: layers by device, in the order of the list. If a GPU is lost
 * later, the model is loaded again from its source, to the same devices or to the CPU, and the call goes
 * on.
 * @typedef {'cpu' | 'gpu' | 'auto' | readonly BackendPart[]} BackendOption
 */

/**
 * A LoRA adapter: low-rank additions to the matrices of a model.
 * @typedef {object} AdapterOption
 * @property {import('../gguf/source.js').GgufSource | import('../gguf/file.js').GgufFile} source  The
 *   file, as convert_lora_to_gguf of llama.cpp writes it, given in one of the ways in which the model is
 *   given.
 * @property {number} [scale]  Factor of the additions; a negative one takes them away. Default 1.
 */

/**
 * @typedef {object} LlamaOptions
 * @property {import('../wasm/kernels.js').Kernels | import('../gpu/kernels.js').GpuKernels}
 *   [kernels]  Kernels from createKernels or createGpuKernels to run on. Without them the model
 *   makes its own, as `backend` says, and disposes them with itself.
 * @property {BackendOption} [backend]  Device of the model's own kernels. Default 'cpu'.
 * @property {import('../gpu/index.js').GpuOptions} [gpu]  Options of the model's own GPU kernels, as
 *   createGpuKernels takes them.
 * @property {readonly AdapterOption[]} [adapters]  LoRA adapters, whose additions are added to one
 *   another. The weights of the model stay as they are: each product with a matrix W gets scale * alpha /
 *   rank * B(Ax), as in llama.cpp. On the CPU only. Default: none.
 * @property {(progress: { loaded: number, total: number }) => void} [onProgress]  Called with the
 *   bytes of weights that were loaded so far, and the total.
 * @property {AbortSignal} [signal]  Aborts the loading.
 * @property {number} [contextLength]  Positions of the KV cache: the most tokens of prompt and
 *   answer together. Default: the model's own, at most 4096.
 * @property {import('../wasm/kv-cache.js').KvType} [kvType]  Type in which keys and values are
 *   stored. Default 'F16'.
 * @property {import('../wasm/selftest.js').Activation} [activation]  Activation mode of all
 *   products. Default 'int8', the fastest and what other engines compute; 'int16' is closer to
 *   exact, 'f32' is exact but for rounding.
 * @property {number} [threads]  Threads of the model's own kernels, 1 to 64; see createKernels for
 *   the default.
 * @property {boolean} [memory64]  Use 64-bit addresses, for more than 4 GiB, where the engine has
 *   them.
 * @property {import('../wasm/selftest.js').Isa} [isa]  Use only this instruction set; default: the
 *   best that passes its self-test.
 * @property {import('../wasm/selftest.js').Dot} [dot]  Use this variant of relaxed SIMD; default:
 *   the faster one, timed.
 * @property {import('../wasm/kernel-types.js').KernelsOptions['wasm']} [wasm]  Modules to use
 *   instead of the package's own: one, or several by name.
 * @property {typeof globalThis.fetch} [fetch]  Function that fetches URLs, instead of the global
 *   fetch.
 * @property {HeadersInit} [headers]  Headers of every request.
 * @property {number} [retries]  Attempts in a row that may fail before a read fails. Default 4.
 * @property {number} [retryDelay]  Milliseconds before the first repeated attempt, doubled for each
 *   further one. Default 250.
 * @property {number} [timeout]  Milliseconds without a byte after which a connection counts as
 *   broken. Default 30000; Infinity waits for ever.
 * @property {boolean | string} [cache]  Keep the file in the browser's Cache Storage, under this
 *   name or 'fused-matmul'.
 */

const LARGEST_CONTEXT = 2 ** 24;

/**
 * The options with one of these names that are given.
 * @param {LlamaOptions} options
 * @param {readonly (keyof LlamaOptions)[]} names
 */
export const pick = (options, names) =>
  Object.fromEntries(
    names.filter((name) => options[name] !== undefined).map((name) => [name, options[name]]),
  );

/**
 * Checks everything but the values of `backend` and `gpu`.
 * @param {LlamaOptions} options
 * @returns {Pick<LlamaOptions, 'contextLength'> & Required<Pick<LlamaOptions, 'kvType'
 *   | 'activation'>>}
 */
export function checkLoadOptions(options) {
  checkNames(options, LOAD_OPTIONS);
  const { kernels, contextLength, kvType = 'F16', activation = 'int8' } = options;
  oneOf(KV_TYPES, kvType, 'kvType');
  oneOf(ACTIVATION_NAMES, activation, 'activation');
  if (contextLength !== undefined)
    checkRange(contextLength, 'contextLength', { from: 1, to: LARGEST_CONTEXT, integer: true });
  const own = Object.keys(pick(options, [...DEVICE_OPTIONS, ...KERNEL_OPTIONS]));
  if (kernels !== undefined && own.length > 0)
    throw new ArgumentError(`${own.join(', ')} belong(s) to own kernels, and kernels are given`);
  return { contextLength, kvType, activation };
}

/**
 * Kernels of a device other than the CPU, which open a backend themselves.
 * @param {LlamaOptions['kernels']} kernels
 * @returns {kernels is import('../gpu/kernels.js').GpuKernels}
 */
export const isDevice = (kernels) => kernels !== undefined && openBackend in Object(kernels);
