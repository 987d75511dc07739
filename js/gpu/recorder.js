/* Work of blocks, compiled once and recorded in order. A block says what its work is when it is
 * first called; from then on its pipelines and bind groups are remembered, and a call only records
 * dispatches. */

import { HandleError } from '../errors.js';
import { Queue } from '../queue.js';

/** @typedef {import('../backend.js').Step} Step */
/** @typedef {import('./commands.js').Commands} Commands */
/** @typedef {import('./device.js').GpuBuffer} GpuBuffer */
/** @typedef {import('./pipelines.js').Bound} Bound */
/** @typedef {import('./pipelines.js').Pipelines} Pipelines */
/** @typedef {import('./products.js').Work} Work */

/** Compiled work. @typedef {{ bound: Bound, groups: Work['groups'] }} Ready */

/**
 * The place of compiled work: its name, its operands, and the owner, with which it is forgotten.
 * @typedef {object} Key
 * @property {object} owner
 * @property {readonly object[]} operands
 * @property {string} name
 */

export class Recorder {
  #pipelines;
  #commands;
  #queue = new Queue();
  /**
   * Compiled work by owner, then by name and operands.
   * @type {WeakMap<object, Map<string, Ready[] | Promise<void>>>}
   */
  #ready = new WeakMap();
  /** A number for each operand, to tell them apart in keys. @type {WeakMap<object, number>} */
  #numbers = new WeakMap();
  #lastNumber = 0;
  /** @type {WeakMap<object, Map<string, any>>} */
  #memory = new WeakMap();
  /** Buffers that belong to no handle. @type {Set<GpuBuffer>} */
  #owned = new Set();
  disposed = false;

  /** @param {Pipelines} pipelines @param {Commands} commands */
  constructor(pipelines, commands) {
    this.#pipelines = pipelines;
    this.#commands = commands;
  }

  /**
   * Records work, which is compiled the first time; what follows waits for it.
   * @param {Key} key
   * @param {Step} step
   * @param {() => Work[]} make
   */
  run(key, step, make) {
    const ready = this.#compiled(key, make);
    this.add(() => {
      const known = ready();
      if (known instanceof Promise) return known;
      for (const { bound, groups } of known) this.#commands.dispatch(bound, groups(step), step);
      return undefined;
    });
  }

  /**
   * Compiles work that will be needed; what follows waits for it.
   * @param {Key} key
   * @param {() => Work[]} make
   */
  prepare(key, make) {
    const ready = this.#compiled(key, make);
    this.add(() => {
      const known = ready();
      return known instanceof Promise ? known : undefined;
    });
  }

  /** Does something after all work that was given before. @param {import('../queue.js').Work} work */
  add(work) {
    this.#queue.add(work);
  }

  /** Resolves when everything is recorded; see Queue. */
  drained() {
    return this.#queue.drained();
  }

  /**
   * A value that is made once.
   * @template T
   * @param {object} owner  it is remembered as long as this is there
   * @param {string} name
   * @param {() => T} make
   * @returns {T}
   */
  remembered(owner, name, make) {
    const of = this.#memory.get(owner) ?? new Map();
    this.#memory.set(owner, of);
    if (!of.has(name)) of.set(name, make());
    return of.get(name);
  }

  /** Frees a buffer with the backend. @param {GpuBuffer} buffer */
  own(buffer) {
    this.#owned.add(buffer);
    return buffer;
  }

  dispose() {
    this.disposed = true;
    this.#queue.end(disposedError());
    for (const buffer of this.#owned) buffer.free();
  }

  /**
   * Compiling begins at once, beside that of the work that follows.
   * @param {Key} key
   * @param {() => Work[]} make
   * @returns {() => Ready[] | Promise<void>}
   */
  #compiled({ owner, operands, name }, make) {
    if (this.disposed) throw disposedError();
    const key = `${name} ${operands.map((one) => this.#numberOf(one)).join(' ')}`;
    const all = this.#ready.get(owner) ?? new Map();
    this.#ready.set(owner, all);
    if (!all.has(key)) {
      const compiling = this.#compile(make()).then((ready) => void all.set(key, ready));
      // Heard of by the work that waits for it, unless that is dropped.
      compiling.catch(() => {});
      all.set(key, compiling);
    }
    return () => /** @type {Ready[] | Promise<void>} */ (all.get(key));
  }

  /** @param {Work[]} work @returns {Promise<Ready[]>} */
  async #compile(work) {
    const pipelines = await Promise.all(work.map(({ shader }) => this.#pipelines.compile(shader)));
    return work.map(({ buffers, groups }, i) => ({ bound: pipelines[i].bind(buffers), groups }));
  }

  /** @param {object} one */
  #numberOf(one) {
    let number = this.#numbers.get(one);
    if (number === undefined) {
      number = ++this.#lastNumber;
      this.#numbers.set(one, number);
    }
    return number;
  }
}

const disposedError = () => new HandleError('the GPU of this model is disposed', 'disposed');
