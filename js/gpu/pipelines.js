/**
 * Compiled shaders, each once a device. They are compiled asynchronously and ahead of use, so that
 * dispatching never waits.
 */

import { GpuError } from './errors.js';
import { STAGE_COMPUTE } from './usage.js';

/** @typedef {import('./device.js').GpuBuffer} GpuBuffer */
/** @typedef {import('./device.js').GpuDevice} GpuDevice */
/** @typedef {import('./shader.js').Shader} Shader */

/**
 * A buffer, or a part of one: offset and size in bytes.
 * @typedef {GpuBuffer | { buffer: GpuBuffer, offset: number, bytes: number }} Bindable
 */

/**
 * A pipeline with its buffers.
 * @typedef {{ pipeline: GPUComputePipeline, group: GPUBindGroup, usesStep: boolean }} Bound
 */

export class Pipelines {
  #gpu;
  /** By the code of the shader. @type {Map<string, Promise<Pipeline>>} */
  #made = new Map();
  /** @type {GPUBindGroupLayout | undefined} */
  #stepLayout;

  #rewrite;

  /**
   * @param {GpuDevice} gpu
   * @param {{ rewrite?: (shader: Shader) => Shader }} [options] rewrite: changes every shader
   *   before it is compiled; for tests
   */
  constructor(gpu, { rewrite = (shader) => shader } = {}) {
    this.#gpu = gpu;
    this.#rewrite = rewrite;
  }

  /** The layout of group 1, shared by all shaders that read `step`. */
  get stepLayout() {
    this.#stepLayout ??= this.#gpu.device.createBindGroupLayout({
      entries: [
        {
          binding: 0,
          visibility: STAGE_COMPUTE,
          buffer: { type: 'uniform', hasDynamicOffset: true, minBindingSize: 16 },
        },
      ],
    });
    return this.#stepLayout;
  }

  /**
   * @param {Shader} given
   * @returns {Promise<Pipeline>}
   * @throws {GpuError} the driver rejects it
   */
  compile(given) {
    const shader = this.#rewrite(given);
    let made = this.#made.get(shader.code);
    if (!made) {
      made = this.#compile(shader);
      made.catch(() => {});
      this.#made.set(shader.code, made);
    }
    return made;
  }

  /** How many there are. */
  get size() {
    return this.#made.size;
  }

  /** @param {Shader} shader @returns {Promise<Pipeline>} */
  async #compile({ name, code, bindings, usesStep }) {
    const { device } = this.#gpu;
    this.#gpu.check();
    // A shader that is rejected must not end the device: there may be another form of it.
    device.pushErrorScope('validation');
    const module = device.createShaderModule({ code, label: name });
    const layout = device.createBindGroupLayout({
      entries: bindings.map(({ writes }, binding) => ({
        binding,
        visibility: STAGE_COMPUTE,
        buffer: { type: writes ? 'storage' : 'read-only-storage' },
      })),
    });
    const bindGroupLayouts = usesStep ? [layout, this.stepLayout] : [layout];
    const compiling = device.createComputePipelineAsync({
      label: name,
      layout: device.createPipelineLayout({ bindGroupLayouts }),
      compute: { module, entryPoint: 'main' },
    });
    const rejected = device.popErrorScope();
    try {
      const [pipeline] = await this.#gpu.arrives(Promise.all([compiling, rejected]));
      return new Pipeline(device, pipeline, layout, { name, bindings, usesStep });
    } catch (cause) {
      this.#gpu.check();
      const { messages } = await module.getCompilationInfo();
      const why = messages.map(({ lineNum, message }) => `line ${lineNum}: ${message}`).join('; ');
      throw new GpuError(`the GPU driver rejects the kernel ${name}: ${why || String(cause)}`, 'shader', {
        cause,
      });
    }
  }
}

/** A compiled shader. */
export class Pipeline {
  #device;
  #pipeline;
  #layout;

  /**
   * @param {GPUDevice} device
   * @param {GPUComputePipeline} pipeline
   * @param {GPUBindGroupLayout} layout
   * @param {Pick<Shader, 'name' | 'bindings' | 'usesStep'>} shader
   */
  constructor(device, pipeline, layout, { name, bindings, usesStep }) {
    this.#device = device;
    this.#pipeline = pipeline;
    this.#layout = layout;
    this.name = name;
    this.bindings = bindings;
    this.usesStep = usesStep;
  }

  /**
   * Gives it its buffers.
   * @param {Record<string, Bindable>} buffers  by variable
   * @returns {Bound}
   */
  bind(buffers) {
    const entries = this.bindings.map(({ name }, binding) => {
      const given = buffers[name];
      if (!given) throw new TypeError(`${this.name}: no buffer for ${name}`);
      const resource =
        'buffer' in given
          ? { buffer: given.buffer.raw, offset: given.offset, size: given.bytes }
          : { buffer: given.raw };
      return { binding, resource };
    });
    const group = this.#device.createBindGroup({ layout: this.#layout, entries });
    return { pipeline: this.#pipeline, group, usesStep: this.usesStep };
  }
}
