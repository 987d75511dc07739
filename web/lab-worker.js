/**
 * The worker that opens files, multiplies by their tensors and measures. The model is not here:
 * createWorkerLlama has a worker of its own.
 */
import { clearCachedGgufs, deleteCachedGguf, listCachedGgufs, openGguf } from '../js/gguf/index.js';
import { createKernels } from '../js/wasm/create.js';
import { benchmark } from './bench.js';
import { serveCalls } from './lab-serve.js';
import { measure } from './measure.js';

/** wasm memory never shrinks: above this, kernels that hold nothing are given up, and made anew when they are needed. */
const idleBytes = 256e6;
/** How often progress is sent: about once a frame. */
const frameMs = 16;

/** @typedef {import('./lab-serve.js').Context} Context */
/** @typedef {Awaited<ReturnType<Lab['gpu']>>} FoundGpu */
/** @typedef {import('../js/wasm/kernels.js').Kernels} Kernels */

/** @typedef {{ source: import('./model.js').Source, cache: boolean }} Place */
/** @typedef {Awaited<ReturnType<Lab['open']>>} Opened */

/** @param {(event: any) => void} send @returns {(event: any) => void} */
function throttled(send) {
  let last = 0;
  return (event) => {
    if (performance.now() - last < frameMs) return;
    last = performance.now();
    send(event);
  };
}

/**
 * Why a tensor cannot be multiplied by, or '' when it can.
 * @param {import('../js/gguf/index.js').GgufTensor} tensor
 * @param {Kernels['types']} types  what the module's own table serves
 */
function obstacle(tensor, types) {
  const type = types.find((row) => row.name === tensor.type);
  if (!type || !tensor.supported) return 'type not supported yet';
  if (tensor.shape.length < 2) return 'vector, not a matrix';
  return tensor.nCols % type.blockValues === 0 ? '' : `rows are no multiple of ${type.blockValues}`;
}

/** Holds an open file, and one of its weights with the kernels that it is multiplied by. */
class Lab {
  /** @type {Kernels | undefined} */
  #kernels;
  /** @type {number | undefined} */
  #threads;
  /** The types that kernels serve. @type {Kernels['types'] | undefined} */
  #types;
  /** @type {Place & { gguf: import('../js/index.js').GgufFile } | undefined} */
  #file;
  /** @type {import('../js/index.js').Weight | undefined} */
  #weight;

  /** @param {number} [threads]  default: as many as the browser allows */
  async #make(threads) {
    if (threads !== this.#threads) this.#drop();
    this.#threads = threads;
    this.#kernels ??= await createKernels({ threads });
    this.#types = this.#kernels.types;
    return this.#kernels;
  }

  #drop() {
    this.#kernels?.dispose();
    this.#kernels = undefined;
    this.#weight = undefined;
  }

  /** What this browser can do, and what the loader chose. */
  async start() {
    const fm = await this.#make();
    const modes = /** @type {const} */ (['int8', 'int16', 'f32']);
    const served = Object.fromEntries(
      fm.types.map(({ name }) => [
        name,
        Object.fromEntries(modes.map((mode) => [mode, fm.servedBy(name, mode)])),
      ]),
    );
    const { info } = fm;
    // The model has kernels of its own; these would only keep threads.
    this.#drop();
    return { info, isolated: crossOriginIsolated, cores: navigator.hardwareConcurrency, served };
  }

  /** @param {Place} place @param {Context} context */
  async open({ source, cache }, { signal }) {
    const types = this.#types ?? (await this.#make()).types;
    const gguf = await openGguf(source, { signal, cache });
    const tensors = [...gguf.tensors.values()]
      .sort((a, b) => a.offset - b.offset)
      .map((tensor) => ({ ...tensor, obstacle: obstacle(tensor, types) }));
    // Only now: a bad file must not cost the user the good one that is open.
    this.#drop();
    this.#file?.gguf.close();
    this.#file = { source, cache, gguf };
    const text = (/** @type {string} */ key) =>
      typeof gguf.metadata[key] === 'string' ? /** @type {string} */ (gguf.metadata[key]) : '';
    return {
      tensors,
      byteLength: gguf.byteLength,
      nParts: gguf.parts.length,
      architecture: text('general.architecture'),
      title: text('general.name'),
      parameters: tensors.reduce((sum, { nRows, nCols }) => sum + nRows * nCols, 0),
    };
  }

  /**
   * @param {{ name: string, nTokens: number, activation: 'f32' | 'int16' | 'int8', threads?: number }} args
   * @param {Context} context
   */
  async multiply({ name, nTokens, activation, threads }, { signal, onEvent }) {
    const file = this.#file;
    if (!file) throw new Error('No file is open.');
    const fm = await this.#make(threads);
    try {
      if (this.#weight?.name !== name) {
        this.#weight?.free();
        this.#weight = undefined;
        const { source, cache } = file;
        // The model's worker has filled the cache since this file was opened. Opening it again
        // finds what the cache has now.
        if (cache) file.gguf = await openGguf(source, { signal, cache });
        this.#weight = await fm.loadWeight(file.gguf, name, { signal, onProgress: throttled(onEvent) });
      }
      return { name, ...(await measure(fm, this.#weight, { nTokens, activation, signal })) };
    } finally {
      if (fm.memory().bytes > idleBytes) this.#drop();
    }
  }

  /** @param {{ threads?: number }} args @param {Context} context */
  async bench({ threads }, { signal, onEvent }) {
    this.#drop();
    return benchmark({ threads, signal, onEvent });
  }

  /**
   * The GPU that this browser gives to its workers, or in one word why there is none. Asking for it
   * here keeps the page free.
   */
  async gpu() {
    const adapter = await navigator.gpu
      ?.requestAdapter({ powerPreference: 'high-performance' })
      .catch(() => null);
    if (!adapter) return { name: '', problem: navigator.gpu ? 'adapter' : 'unavailable' };
    const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info;
    const name = description || [vendor, architecture, device].filter(Boolean).join(' ') || 'a GPU';
    return { name, problem: isFallbackAdapter ? 'software' : '' };
  }

  /** The files from links that this browser keeps. */
  async kept() {
    return listCachedGgufs();
  }

  /** @param {{ url: string }} args */
  async forget({ url }) {
    await deleteCachedGguf(url);
    return listCachedGgufs();
  }

  async forgetAll() {
    await clearCachedGgufs();
    return listCachedGgufs();
  }
}

serveCalls(new Lab(), ['kept', 'forget', 'forgetAll', 'gpu']);
