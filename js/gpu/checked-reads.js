/* Reads of results together with the note of numbers that cannot be right, so that no result of
 * such numbers is given out.
 *
 * A pass begins with an empty note, and a read has what was noted up to its place in the order of
 * work. So a read belongs to one pass, however many passes follow it. */

import { KV_LARGEST, numericError } from '../llama/numeric.js';
import { FAULT_WORDS, readFault } from './wgsl/faults.js';

/** @typedef {import('../llama/numeric.js').Advice} Advice */
/** @typedef {import('./commands.js').Commands} Commands */
/** @typedef {import('./commands.js').Region} Region */
/** @typedef {import('./hidden.js').GpuHidden} GpuHidden */

export class CheckedReads {
  #commands;
  #advice;
  /** @type {Set<GpuHidden>} */
  #hiddens = new Set();
  /** The last pass that began, by their hidden states. @type {WeakMap<GpuHidden, number>} */
  #passes = new WeakMap();

  /** @param {Commands} commands @param {() => Advice} advice  settings, for messages */
  constructor(commands, advice) {
    this.#commands = commands;
    this.#advice = advice;
  }

  /** Hidden states whose note is read. @param {GpuHidden} hidden */
  watch(hidden) {
    this.#hiddens.add(hidden);
  }

  /** Records the empty note of a pass that begins, after a fault also empty work memory. @param {GpuHidden} hidden @param {number} pass */
  begin(hidden, pass) {
    this.#passes.set(hidden, pass);
    this.#commands.clear(hidden.faults);
    if (hidden.spoiltIn < 0) return;
    // Norms write the padding as well, and blocks with rows of other lengths share buffers: kernels
    // read it, times zero.
    const { x, normed, gate, up, attended } = hidden.buffers;
    for (const buffer of [x, normed, gate, up, attended])
      this.#commands.clear({ buffer, offset: 0, bytes: buffer.bytes });
  }

  /**
   * Reads regions.
   * @param {readonly Region[]} regions
   * @throws {import('../llama/errors.js').NumericError} a fault is noted
   */
  async read(regions) {
    for (const hidden of this.#hiddens) if (hidden.freed) this.#hiddens.delete(hidden);
    const hiddens = [...this.#hiddens].map((hidden) => ({ hidden, pass: this.#passOf(hidden) }));
    const all = await this.#commands.read([...regions, ...hiddens.map(({ hidden }) => hidden.faults)]);
    for (const [i, { hidden, pass }] of hiddens.entries())
      this.#throwFault(hidden, pass, all[regions.length + i]);
    return all.slice(0, regions.length);
  }

  /** @param {GpuHidden} hidden */
  #passOf(hidden) {
    return this.#passes.get(hidden) ?? 0;
  }

  /** @param {GpuHidden} hidden @param {number} pass @param {ArrayBuffer} bytes */
  #throwFault(hidden, pass, bytes) {
    const fault = readFault(bytes);
    if (!fault) {
      if (pass > hidden.spoiltIn) hidden.spoiltIn = -1;
      return;
    }
    // An error is thrown once. The next pass clears the note by itself.
    if (pass === this.#passOf(hidden) && !hidden.freed)
      this.#commands.write(hidden.buffers.heads, 0, new Uint32Array(FAULT_WORDS));
    hidden.spoil(pass);
    const { value, ...place } = fault;
    const advice = this.#advice();
    throw numericError(value, place, advice, Number.isFinite(value) ? KV_LARGEST[advice.kvType] : undefined);
  }
}
