/* Hidden states of a batch in GPU memory, and the buffers that the blocks of a layer work in. Rows
 * are those of the batch everywhere; all are made once, for the largest batch and the widest
 * layer. */

import { workCols } from './recurrent.js';
import { up16 } from './shader.js';
import { innerLayout, logitStride, routeWords } from './wgsl/expert-layout.js';
import { FAULT_WORDS } from './wgsl/faults.js';

/** @typedef {import('../backend.js').DeviceTensor} DeviceTensor */
/** @typedef {import('../llama/plan.js').AttentionSettings} AttentionSettings */
/** @typedef {import('../llama/plan.js').Plan} Plan */
/** @typedef {import('./device.js').GpuBuffer} GpuBuffer */
/** @typedef {import('./device.js').GpuDevice} GpuDevice */

/**
 * Values of a token: queries, keys or values, and all three.
 * @param {AttentionSettings} attention
 */
export function widths({ nHeads, nKvHeads, headSize }) {
  const [q, kv] = [nHeads * headSize, nKvHeads * headSize];
  return { q, kv, qkv: q + 2 * kv };
}

/**
 * Values of a token that only blocks of experts have.
 * @param {Plan} plan
 * @returns {Record<string, number>}
 */
function expertCols({ nEmbd, layers }) {
  const mixtures = layers.flatMap(({ feed: { experts } }) => experts ?? []);
  if (mixtures.length === 0) return {};
  const most = (/** @type {(of: typeof mixtures[0]) => number} */ of) => up16(Math.max(...mixtures.map(of)));
  return {
    logits: most(({ nExperts }) => logitStride(nExperts)),
    routes: most(routeWords),
    ...(mixtures.some(({ norms }) => norms) && { mixed: up16(nEmbd) }),
  };
}

/**
 * f32 values of each buffer in a row of a batch.
 * @param {Plan} plan
 */
export function bufferCols(plan) {
  const { nEmbd, layers } = plan;
  const most = (/** @type {(layer: Plan['layers'][0]) => number} */ of) => up16(Math.max(...layers.map(of)));
  return {
    x: up16(nEmbd),
    // Input of a block after its norm, and what a block adds before its norm.
    normed: up16(nEmbd),
    // Kernels bind the note of faults with at least one value behind it.
    heads: most(({ attention }) => (attention ? widths(attention).qkv : 1)),
    // Also the result of a recurrent block.
    attended: most(({ attention, recurrent }) =>
      Math.max(attention ? widths(attention).q : 0, workCols(recurrent).result),
    ),
    // Also the inner values of experts, and the products of a recurrent block's input.
    gate: most(({ feed, recurrent }) =>
      Math.max(
        feed.experts ? innerLayout(feed.nFf, feed.experts).tokenStride : feed.nFf,
        workCols(recurrent).inputs,
      ),
    ),
    // Also gates of the result of attention.
    up: most(({ attention, feed }) =>
      Math.max(feed.experts ? 0 : feed.nFf, attention?.outputGate ? widths(attention).q : 0),
    ),
    ...expertCols(plan),
  };
}

/** @typedef {Record<keyof ReturnType<typeof bufferCols>, GpuBuffer>} HiddenBuffers */

/** @implements {DeviceTensor} */
export class GpuHidden {
  #gpu;
  /** @type {Map<string, GpuBuffer>} */
  #spare = new Map();
  freed = false;
  /** Passes that have begun, also those that wait. */
  pass = 0;
  /** The last pass that may have left a wrong number in work memory; -1 if there is none. */
  spoiltIn = -1;
  /** States that passes go through. @type {Set<import('./recurrent-state.js').GpuState>} */
  states = new Set();

  /**
   * @param {GpuDevice} gpu
   * @param {Plan} plan
   * @param {number} batch  rows
   */
  constructor(gpu, plan, batch) {
    this.#gpu = gpu;
    this.nRows = batch;
    this.nCols = plan.nEmbd;
    const cols = bufferCols(plan);
    const made = Object.entries(cols).map(([label, n]) => {
      const header = label === 'heads' ? FAULT_WORDS : 0;
      return [label, gpu.buffer(4 * (header + batch * n), { label })];
    });
    /** @type {HiddenBuffers} */
    this.buffers = Object.fromEntries(made);
    /** Where the note of a fault lies. */
    this.faults = { buffer: this.buffers.heads, offset: 0, bytes: 16 };
  }

  /**
   * A buffer for results in between, made when it is first asked for and larger when more is.
   * @param {string} label
   * @param {number} bytes
   */
  spare(label, bytes) {
    const found = this.#spare.get(label);
    if (found && found.bytes >= bytes) return found;
    const buffer = this.#gpu.buffer(bytes, { label });
    // Work that is recorded already may use the smaller one: it ends with the others.
    this.#spare.set(found ? `${label}, ${found.bytes}` : label, found ?? buffer);
    this.#spare.set(label, buffer);
    return buffer;
  }

  /** A number of a pass cannot be right. @param {number} pass */
  spoil(pass) {
    this.spoiltIn = Math.max(this.spoiltIn, pass);
    for (const state of this.states) {
      if (state.freed) this.states.delete(state);
      else state.spoil(pass);
    }
  }

  free() {
    this.freed = true;
    for (const buffer of [...Object.values(this.buffers), ...this.#spare.values()]) buffer.free();
  }
}
