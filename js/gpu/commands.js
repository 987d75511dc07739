/* The work that is given to a device: dispatches and copies are recorded, and submitted
 * together. */

import { GpuError } from './errors.js';
import { MAP_MODE_READ, USAGE } from './usage.js';

/** @typedef {import('../backend.js').Step} Step */
/** @typedef {import('./device.js').GpuBuffer} GpuBuffer */
/** @typedef {import('./device.js').GpuDevice} GpuDevice */
/** @typedef {import('./pipelines.js').Bound} Bound */
/** @typedef {import('./pipelines.js').Pipelines} Pipelines */

/** Bytes of a buffer. @typedef {{ buffer: GpuBuffer, offset: number, bytes: number }} Region */

/** Steps that one submission may have; more begin the next. */
const MAX_STEPS = 256;
/** Bytes of the smallest buffer for reading: those of a token's candidates, and of faults. */
const LEAST_STAGING = 2048;
/** Uniforms begin at multiples of this. */
const STEP_STRIDE = 256;

export class Commands {
  #gpu;
  #pipelines;
  /** Commands that are recorded, in order. @type {((encoder: Encoder) => void)[]} */
  #recorded = [];
  #steps = new Uint32Array((MAX_STEPS * STEP_STRIDE) / 4);
  #nSteps = 0;
  /** @type {{ buffer: GpuBuffer, group: GPUBindGroup } | undefined} */
  #uniform;
  /** Buffers for reading that are free. @type {GpuBuffer[]} */
  #staging = [];
  /** All of them. @type {Set<GpuBuffer>} */
  #allStaging = new Set();
  /** Dispatches, submissions and reads so far, for tests and measurements. */
  counts = { dispatches: 0, submits: 0, reads: 0 };

  /** @param {GpuDevice} gpu @param {Pipelines} pipelines */
  constructor(gpu, pipelines) {
    this.#gpu = gpu;
    this.#pipelines = pipelines;
  }

  /**
   * Records a dispatch.
   * @param {Bound} bound
   * @param {readonly [number, number, number]} groups  workgroups in x, y and z
   * @param {Step} [step]  for shaders that read it
   */
  dispatch({ pipeline, group, usesStep }, [x, y, z], step) {
    const offset = usesStep ? this.#offsetOf(/** @type {Step} */ (step)) : 0;
    const stepGroup = usesStep ? this.#stepUniform().group : undefined;
    this.#recorded.push((encoder) => {
      const pass = encoder.pass();
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      if (stepGroup) pass.setBindGroup(1, stepGroup, [offset]);
      pass.dispatchWorkgroups(x, y, z);
    });
    this.counts.dispatches += 1;
  }

  /**
   * Records a copy of whole words.
   * @param {Region} from
   * @param {GpuBuffer} to
   * @param {number} [offset]
   */
  copy({ buffer, offset: start, bytes }, to, offset = 0) {
    this.#recorded.push((encoder) => encoder.copy(buffer.raw, start, to.raw, offset, bytes));
  }

  /**
   * Records zeros.
   * @param {Region} region  of whole words
   */
  clear({ buffer, offset, bytes }) {
    this.#recorded.push((encoder) => encoder.clear(buffer.raw, offset, bytes));
  }

  /**
   * Writes bytes after everything that is recorded.
   * @param {GpuBuffer} buffer
   * @param {number} offset  a multiple of 4
   * @param {ArrayBufferView} data
   */
  write(buffer, offset, data) {
    this.flush();
    this.#gpu.check();
    this.#gpu.write(buffer, offset, data);
  }

  /** Submits what is recorded. */
  flush() {
    const { device } = this.#gpu;
    if (this.#recorded.length === 0) return;
    if (this.#gpu.failure) {
      this.#recorded.length = 0;
      this.#nSteps = 0;
      return;
    }
    if (this.#nSteps > 0) {
      const { buffer } = this.#stepUniform();
      device.queue.writeBuffer(buffer.raw, 0, this.#steps, 0, (this.#nSteps * STEP_STRIDE) / 4);
    }
    const encoder = new Encoder(device);
    for (const record of this.#recorded) record(encoder);
    device.queue.submit([encoder.finish()]);
    this.counts.submits += 1;
    this.#recorded.length = 0;
    this.#nSteps = 0;
  }

  /**
   * Makes the buffers that small reads need.
   * @param {number} n  reads at the same time
   */
  reserve(n) {
    for (let left = n - this.#staging.length; left > 0; left--) this.#staging.push(this.#newStaging(0));
  }

  /**
   * Copies of regions, after everything that is recorded. Several reads may be under way.
   * @param {readonly Region[]} regions  each of whole words
   * @returns {Promise<ArrayBuffer[]>}
   * @throws {GpuError} the device failed
   */
  async read(regions) {
    const total = regions.reduce((sum, { bytes }) => sum + bytes, 0);
    this.#gpu.check();
    this.counts.reads += 1;
    const staging = this.#takeStaging(total);
    let at = 0;
    for (const region of regions) {
      this.copy(region, staging, at);
      at += region.bytes;
    }
    this.flush();
    try {
      await this.#gpu.arrives(staging.raw.mapAsync(MAP_MODE_READ, 0, Math.max(4, total)));
    } catch (error) {
      this.#allStaging.delete(staging);
      staging.free();
      throw error;
    }
    const all = staging.raw.getMappedRange(0, Math.max(4, total)).slice(0);
    staging.raw.unmap();
    this.#staging.push(staging);
    // A map of a device that is being lost may succeed, with anything in it.
    this.#gpu.check();
    at = 0;
    return regions.map(({ bytes }) => {
      at += bytes;
      return all.slice(at - bytes, at);
    });
  }

  /** Waits until everything that is recorded is done. */
  async idle() {
    this.flush();
    this.#gpu.check();
    await this.#gpu.arrives(this.#gpu.device.queue.onSubmittedWorkDone());
    this.#gpu.check();
  }

  /** Frees what it holds. */
  free() {
    this.#recorded.length = 0;
    this.#uniform?.buffer.free();
    this.#staging.length = 0;
    for (const buffer of this.#allStaging) buffer.free();
  }

  /** Where a step lies in the uniform buffer. @param {Step | undefined} step */
  #offsetOf(step) {
    if (!step) throw new GpuError('a kernel was dispatched without its step', 'command');
    const { position, start, nTokens, seen } = step;
    const values = this.#steps;
    const last = ((this.#nSteps - 1) * STEP_STRIDE) / 4;
    const same =
      this.#nSteps > 0 &&
      values[last] === position &&
      values[last + 1] === start &&
      values[last + 2] === nTokens &&
      values[last + 3] === seen;
    if (!same) {
      if (this.#nSteps === MAX_STEPS) this.flush();
      values.set([position, start, nTokens, seen], (this.#nSteps * STEP_STRIDE) / 4);
      this.#nSteps += 1;
    }
    return (this.#nSteps - 1) * STEP_STRIDE;
  }

  /** The uniform buffer of steps and its bind group. */
  #stepUniform() {
    if (!this.#uniform) {
      const buffer = this.#gpu.buffer(MAX_STEPS * STEP_STRIDE, { usage: USAGE.uniform, label: 'steps' });
      const group = this.#gpu.device.createBindGroup({
        layout: this.#pipelines.stepLayout,
        entries: [{ binding: 0, resource: { buffer: buffer.raw, offset: 0, size: 16 } }],
      });
      this.#uniform = { buffer, group };
    }
    return this.#uniform;
  }

  /** A buffer that can be mapped, as small as there is. @param {number} bytes */
  #takeStaging(bytes) {
    const fitting = this.#staging.filter((buffer) => buffer.bytes >= bytes);
    const best = fitting.sort((a, b) => a.bytes - b.bytes)[0];
    if (!best) return this.#newStaging(bytes);
    this.#staging.splice(this.#staging.indexOf(best), 1);
    return best;
  }

  /** @param {number} bytes */
  #newStaging(bytes) {
    const size = Math.max(bytes, LEAST_STAGING);
    const buffer = this.#gpu.buffer(size, { usage: USAGE.staging, label: 'staging' });
    this.#allStaging.add(buffer);
    return buffer;
  }
}

/**
 * A command buffer whose dispatches follow one another in one pass, as far as no copy is between
 * them.
 */
class Encoder {
  #encoder;
  /** @type {GPUComputePassEncoder | undefined} */
  #pass;

  /** @param {GPUDevice} device */
  constructor(device) {
    this.#encoder = device.createCommandEncoder();
  }

  pass() {
    this.#pass ??= this.#encoder.beginComputePass();
    return this.#pass;
  }

  /**
   * @param {GPUBuffer} from
   * @param {number} start
   * @param {GPUBuffer} to
   * @param {number} offset
   * @param {number} bytes
   */
  copy(from, start, to, offset, bytes) {
    this.#end();
    this.#encoder.copyBufferToBuffer(from, start, to, offset, bytes);
  }

  /** @param {GPUBuffer} buffer @param {number} offset @param {number} bytes */
  clear(buffer, offset, bytes) {
    this.#end();
    this.#encoder.clearBuffer(buffer, offset, bytes);
  }

  finish() {
    this.#end();
    return this.#encoder.finish();
  }

  #end() {
    this.#pass?.end();
    this.#pass = undefined;
  }
}
