/**
 * A GPU in Node for measurements: contenders are lists of dispatches, whose result is checked before they are timed. A sample
 * submits many dispatches and waits for the last one.
 */
import { Commands } from '../../js/gpu/commands.js';
import { GpuDevice } from '../../js/gpu/device.js';
import { GpuError } from '../../js/gpu/errors.js';
import { Pipelines } from '../../js/gpu/pipelines.js';
import { groupsOf, shader } from '../../js/gpu/shader.js';
import { uploadWeight } from '../../js/gpu/upload.js';
import { makeWeights } from '../helpers/blocks.js';
import { ReferenceWeight } from '../helpers/bounds.js';
import { webGpu } from '../helpers/gpu.js';
import { race } from './lab.js';

/** @import { Step } from '../../js/backend.js' */
/** @import { GpuBuffer } from '../../js/gpu/device.js' */
/** @import { Product, Work } from '../../js/gpu/products.js' */
/** @import { Prng } from '../helpers/prng.js' */
/** @import { ReferenceType } from '../helpers/reference.js' */
/** @import { Limits } from './lab.js' */
/** @import { Result } from './report.js' */

/** What a measurement of a GPU has besides. @typedef {Result & { dispatches: number, workgroups: number, invocations: number, ofCopy: number }} GpuResult */

/**
 * @typedef {object} GpuContender
 * @property {string} name
 * @property {readonly (readonly Work[])[]} copies  the same work on copies of its weights, which take turns
 * @property {readonly Step[]} steps  each runs all of the work
 * @property {number} flops
 * @property {number} bytes  that must be read or written at least
 * @property {{ y: GpuBuffer, check: (y: Float32Array) => number }} [result]  check throws if it is wrong; it gives the error
 */

const MIB = 2 ** 20;
/** What is read before a weight is read again, and the size of what is copied: more than caches hold. */
const COLD = 256 * MIB;
/** On the processor its caches do not matter: calls and instructions decide. */
const SOFTWARE = 16 * MIB;
/** Time of a batch in milliseconds: many times that of a submission. */
const BATCH_MS = 20;
/** The most dispatches of a batch. */
const MOST = 2000;
/** Different rows of a weight; the others repeat them. */
const DISTINCT = 64;

export const COPY = 'copy';

/** Four vec4f an invocation, neighbours by neighbours. @param {number} n  vec4f */
const copyShader = (n) =>
  shader({
    name: `copy of ${16 * n} bytes`,
    bindings: { x: 'read array<vec4f>', y: 'read_write array<vec4f>' },
    size: [256],
    code: `@compute
fn main(@builtin(local_invocation_index) tid: u32, @builtin(workgroup_id) wid: vec3u, @builtin(num_workgroups) count: vec3u) {
  let first = (wid.x + wid.z * count.x) * 1024u + tid;
  for (var i = first; i < min(${n}u, first + 1024u); i += 256u) { y[i] = x[i]; }
}`,
  });

/** There is nothing to measure. */
export class NoGpuError extends Error {
  name = 'NoGpuError';
}

/** @param {boolean} software */
async function openDevice(software) {
  if (software) {
    const found = await webGpu();
    if ('skip' in found) throw new NoGpuError(found.skip);
    return GpuDevice.open({ gpu: found.gpu, allowSoftware: true });
  }
  const { create } = await import('webgpu');
  try {
    return await GpuDevice.open({ gpu: create([]) });
  } catch (error) {
    if (!(error instanceof GpuError)) throw error;
    const hint = '--software measures a driver that computes on the processor';
    throw new NoGpuError(`${error.message}; ${hint}`, { cause: error });
  }
}

export class GpuLab {
  /** @param {GpuDevice} gpu @param {{ limits: Limits, quick: boolean }} options */
  constructor(gpu, { limits, quick }) {
    this.gpu = gpu;
    this.limits = limits;
    this.batchMs = quick ? BATCH_MS / 4 : BATCH_MS;
    this.pipelines = new Pipelines(gpu);
    this.commands = new Commands(gpu, this.pipelines);
    this.coldBytes = gpu.software || quick ? SOFTWARE : Math.min(COLD, gpu.limits.bindingBytes);
    /** @type {GpuContender | undefined} */
    this.copy = undefined;
  }

  /** @param {{ software: boolean, limits: Limits, quick: boolean }} options */
  static async open({ software, ...options }) {
    return new GpuLab(await openDevice(software), options);
  }

  /** A contender that copies memory: what all others are compared with. @returns {GpuContender} */
  copying() {
    const bytes = this.coldBytes;
    const [x, y] = [this.gpu.buffer(bytes), this.gpu.buffer(bytes)];
    const groups = groupsOf(Math.ceil(bytes / 16 / 1024));
    const work = { shader: copyShader(bytes / 16), buffers: { x, y }, groups: () => groups };
    this.copy ??= { name: COPY, copies: [[work]], steps: [stepOf(1)], flops: 0, bytes: 2 * bytes };
    return this.copy;
  }

  /**
   * A weight of random blocks: as productWork() takes it, often enough for reads from memory.
   * @param {ReferenceType} type @param {number} nRows @param {number} nCols @param {Prng} prng
   */
  async weight(type, nRows, nCols, prng) {
    const n = Math.min(DISTINCT, nRows);
    const some = makeWeights(type, 'natural', n, nCols, prng);
    const rowBytes = some.length / n;
    const bytes = new Uint8Array(nRows * rowBytes);
    for (let r = 0; r < nRows; r += n) bytes.set(some.subarray(0, (nRows - r) * rowBytes), r * rowBytes);
    const shape = { type: type.name, nRows, nCols, name: '' };
    const weight = await uploadWeight(this.gpu, this.pipelines, this.commands, shape, bytes);
    const [{ unit, buffer }, ...others] = weight.units();
    if (others.length > 0) throw new Error(`${weight} is larger than a binding of this GPU`);
    const buffers = [buffer];
    while (buffers.length * buffer.bytes < this.coldBytes) {
      const copy = this.gpu.buffer(buffer.bytes);
      this.commands.copy({ buffer, offset: 0, bytes: buffer.bytes }, copy);
      buffers.push(copy);
    }
    const weights = buffers.map((one) => ({
      ...shape,
      units: () => [{ unit, buffer: one, firstRow: 0 }],
    }));
    return {
      weights: /** @type {Product['weights']} */ (/** @type {unknown} */ (weights)),
      reference: new ReferenceWeight(type, some, n, nCols),
      bytes: buffer.bytes,
      free: () => {
        for (const one of buffers) one.free();
      },
    };
  }

  /** @param {number} values */
  floats(values) {
    return this.gpu.buffer(4 * values);
  }

  /** @param {GpuBuffer} buffer */
  async read(buffer) {
    const [bytes] = await this.commands.read([{ buffer, offset: 0, bytes: buffer.bytes }]);
    return new Float32Array(bytes);
  }

  /** @param {GpuContender} contender */
  async #prepare({ name, copies, steps, flops, bytes, result }) {
    /** @type {{ bound: import('../../js/gpu/pipelines.js').Bound, groups: [number, number, number][] }[][]} */
    const ready = [];
    for (const work of copies) {
      const bound = work.map(async ({ shader: of, buffers, groups }) => ({
        bound: (await this.pipelines.compile(of)).bind(buffers),
        groups: steps.map(groups),
      }));
      ready.push(await Promise.all(bound));
    }
    let turn = 0;
    const batch = async (/** @type {number} */ n) => {
      for (let i = 0; i < n; i++) {
        const work = ready[turn++ % ready.length];
        for (const [s, step] of steps.entries())
          for (const { bound, groups } of work) this.commands.dispatch(bound, groups[s], step);
      }
      await this.commands.idle();
    };
    let error = 0;
    if (result) {
      // A result of each copy, where there was nothing.
      for (let i = 0; i < Math.min(2, copies.length); i++) {
        this.gpu.write(result.y, 0, new Float32Array(result.y.bytes / 4).fill(Number.NaN));
        await batch(1);
        error = Math.max(error, result.check(await this.read(result.y)));
      }
    }
    await batch(1);
    let n = 1;
    for (let round = 0; round < 2; round++) {
      const start = performance.now();
      await batch(n);
      const perCall = (performance.now() - start) / n;
      n = Math.max(1, Math.min(MOST, Math.ceil(this.batchMs / perCall)));
    }
    const launched = copies[0].flatMap(({ shader: { code }, groups }) =>
      steps.map((step) => ({ groups: product(groups(step)), size: invocationsOf(code) })),
    );
    const workgroups = launched.reduce((sum, { groups }) => sum + groups, 0);
    const invocations = launched.reduce((sum, { groups, size }) => sum + groups * size, 0);
    const facts = {
      flops,
      bytes,
      error,
      workgroups,
      invocations,
      dispatches: copies[0].length * steps.length,
    };
    return { name, run: () => batch(n), n, facts };
  }

  /**
   * Measures contenders in turns, and a copy beside them.
   * @param {Pick<Result, 'case'> & Partial<Result>} what
   * @param {readonly GpuContender[]} contenders
   * @returns {Promise<GpuResult[]>}
   */
  async race(what, contenders) {
    const prepared = [];
    for (const contender of [...contenders, this.copy ?? this.copying()])
      prepared.push(await this.#prepare(contender));
    const timings = (await race(prepared, this.limits)).map(({ name, n, facts, samples, ...times }) => ({
      ...{ section: 'gpu', ...what, kernel: name, ...facts, samples },
      medianMs: times.medianMs / n,
      minMs: times.minMs / n,
    }));
    const copied = timings[timings.length - 1];
    const rate = copied.bytes / copied.medianMs;
    return timings.map((timing) => ({ ...timing, ofCopy: timing.bytes / timing.medianMs / rate }));
  }

  dispose() {
    this.commands.free();
    this.gpu.destroy();
  }
}

/** @param {number} nTokens @param {Partial<Step>} [step] @returns {Step} */
export const stepOf = (nTokens, step) => ({ position: 0, start: 0, nTokens, seen: nTokens, ...step });

/** @param {readonly number[]} list */
const product = (list) => list.reduce((all, n) => all * n, 1);

/** Invocations of a workgroup. @param {string} code */
function invocationsOf(code) {
  const [, size] = /** @type {RegExpExecArray} */ (/@workgroup_size\(([^)]*)\)/.exec(code));
  return product(size.split(',').map(Number));
}
