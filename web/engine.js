/**
 * What the worker holds: kernels, an open file, the model that was loaded from it, and a weight that is measured. The
 * weight lives in kernels of its own, so that measuring does not grow the model's memory.
 */
// Not from the index: the page has a worker of its own, and needs none of createWorkerKernels.

import { deleteCachedGguf, listCachedGgufs, openGguf } from '../js/gguf/index.js';
import { Llama } from '../js/llama/model.js';
import { createKernels } from '../js/wasm/create.js';
import { benchmark } from './bench.js';
import { measure } from './measure.js';

/** wasm memory never shrinks: above this, kernels that hold nothing are given up, and made anew when they are needed. */
const idleBytes = 256e6;
/** How often progress and text are sent: about once a frame. */
const frameMs = 16;
const warmUpMs = 100;

/** @typedef {{ signal: AbortSignal, onEvent: (event: any) => void }} Context */
/** @typedef {import('../js/index.js').GgufFile} GgufFile */
/** @typedef {import('../js/wasm/kernels.js').Kernels} Kernels */

/** @param {(event: any) => void} send @returns {(event: any, now?: boolean) => void} */
function throttled(send) {
  let last = 0;
  return (event, now = false) => {
    if (!now && performance.now() - last < frameMs) return;
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

/**
 * Runs a model for a moment, so that the engine has its kernels compiled in full when the first text is written.
 * @param {Llama} model @param {AbortSignal} signal
 */
async function warmUp(model, signal) {
  const start = performance.now();
  const tokens = Array.from({ length: Math.min(8, model.info.contextLength - 1) }, (_, i) => i + 1);
  const maxTokens = 1000;
  for await (const _ of model.generate(tokens, { maxTokens, temperature: 1, seed: 1, signal })) {
    if (performance.now() - start > warmUpMs) break;
  }
}

export class Engine {
  /** @type {Kernels | undefined} */
  #fm;
  /** @type {Kernels | undefined} */
  #lab;
  /** @type {GgufFile | undefined} */
  #gguf;
  /** @type {Llama | undefined} */
  #model;
  /** @type {import('../js/index.js').Weight | undefined} */
  #weight;
  /** @type {number | undefined} */
  #threads;

  async #kernels() {
    this.#fm ??= await createKernels({ threads: this.#threads });
    return this.#fm;
  }

  #dropModel() {
    this.#model?.dispose();
    this.#model = undefined;
    if (this.#fm && this.#fm.memory().bytes > idleBytes) this.#dropKernels();
  }

  #dropKernels() {
    this.#model?.dispose();
    this.#model = undefined;
    this.#fm?.dispose();
    this.#fm = undefined;
  }

  #dropWeight() {
    this.#weight?.free();
    this.#weight = undefined;
    if (this.#lab && this.#lab.memory().bytes > idleBytes) this.#dropLab();
  }

  #dropLab() {
    this.#lab?.dispose();
    this.#lab = undefined;
    this.#weight = undefined;
  }

  /** What this browser can do, and what the loader chose. @param {object} _ @param {Context} __ */
  async start(_, __) {
    const fm = await this.#kernels();
    /** @type {Record<string, Record<string, { isa: string, activation: string }>>} */
    const served = {};
    for (const { name } of fm.types) {
      served[name] = {
        int8: fm.servedBy(name, 'int8'),
        int16: fm.servedBy(name, 'int16'),
        f32: fm.servedBy(name, 'f32'),
      };
    }
    return { info: fm.info, isolated: crossOriginIsolated, cores: navigator.hardwareConcurrency, served };
  }

  /** @param {{ source: string | File[] }} args  files: one, or the parts of a model @param {Context} context */
  async open({ source }, { signal }) {
    const { types } = await this.#kernels();
    // What comes from elsewhere is kept, so that it is fetched once.
    const cache = typeof source === 'string' && new URL(source).origin !== location.origin;
    const opened = await openGguf(source, { signal, cache });
    const tensors = [...opened.tensors.values()]
      .sort((a, b) => a.offset - b.offset)
      .map((tensor) => ({
        name: tensor.name,
        type: tensor.type,
        shape: tensor.shape,
        nRows: tensor.nRows,
        nCols: tensor.nCols,
        byteLength: tensor.byteLength,
        obstacle: obstacle(tensor, types),
      }));
    // Only now: a bad file must not cost the user the good one that is open.
    this.#dropWeight();
    this.#dropModel();
    this.#gguf?.close();
    this.#gguf = opened;
    const text = (/** @type {string} */ key) =>
      typeof opened.metadata[key] === 'string' ? /** @type {string} */ (opened.metadata[key]) : '';
    return {
      tensors,
      byteLength: opened.byteLength,
      nParts: opened.parts.length,
      architecture: text('general.architecture'),
      title: text('general.name'),
      parameters: tensors.reduce((sum, { nRows, nCols }) => sum + nRows * nCols, 0),
    };
  }

  /**
   * Loads the open file as a model.
   * @param {{ activation: 'int8' | 'int16' | 'f32', threads?: number }} args @param {Context} context
   */
  async load({ activation, threads }, { signal, onEvent }) {
    if (!this.#gguf) throw new Error('No file is open.');
    this.#dropModel();
    if (threads !== this.#threads) {
      this.#dropKernels();
      this.#dropLab();
      this.#threads = threads;
    }
    const start = performance.now();
    const kernels = await this.#kernels();
    const progress = throttled(onEvent);
    this.#model = await Llama.load(this.#gguf, {
      kernels,
      activation,
      signal,
      onProgress: ({ loaded, total }) => progress({ loaded, total }, loaded === total),
    });
    const loadMs = performance.now() - start;
    await warmUp(this.#model, signal);
    return { info: this.#model.info, loadMs, memory: this.#memory() };
  }

  /**
   * Writes. Stopping is no failure: what there is by then is the result.
   * @param {{ prompt?: string, messages?: { role: string, content: string }[], options: object }} args
   * @param {Context} context
   */
  async generate({ prompt = '', messages, options }, { signal, onEvent }) {
    const model = this.#model;
    if (!model) throw new Error('No model is loaded.');
    const all = { ...options, signal };
    const generation = messages ? await model.chat(messages, all) : model.generate(prompt, all);
    let text = '';
    let last = 0;
    const flush = () => {
      last = performance.now();
      onEvent({ text, stats: generation.stats });
      text = '';
    };
    let stopped = false;
    try {
      for await (const piece of generation) {
        text += piece;
        if (performance.now() - last >= frameMs) flush();
      }
    } catch (error) {
      if (!signal.aborted) throw error;
      stopped = true;
    }
    flush();
    return { stats: generation.stats, stopped, memory: this.#memory() };
  }

  /** @param {{ name: string, nTokens: number, activation: 'f32' | 'int16' | 'int8' }} args @param {Context} context */
  async multiply({ name, nTokens, activation }, { signal, onEvent }) {
    const gguf = this.#gguf;
    if (!gguf) throw new Error('No file is open.');
    if (this.#weight?.name !== name) this.#dropWeight();
    this.#lab ??= await createKernels({ threads: this.#threads });
    const onProgress = throttled(onEvent);
    this.#weight ??= await this.#lab.loadWeight(gguf, name, { signal, onProgress });
    try {
      return { name, ...(await measure(this.#lab, this.#weight, { nTokens, activation, signal })) };
    } finally {
      if (this.#lab.memory().bytes > idleBytes) this.#dropLab();
    }
  }

  /** @param {object} _ @param {Context} context */
  async bench(_, { signal, onEvent }) {
    this.#dropLab();
    return benchmark({ model: this.#model, threads: this.#threads, signal, onEvent });
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

  #memory() {
    return this.#fm?.memory().bytes ?? 0;
  }
}
