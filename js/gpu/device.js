/* An adapter and its device: opened with what the kernels can use, watched for being lost, its
 * memory counted. */

import { GpuError } from './errors.js';
import { FEATURES } from './features.js';
import { PROMISED } from './shader.js';
import { USAGE } from './usage.js';

/** The name of integer dot products among WGSL's language features. */
const DOT_4_I8 = 'packed_4x8_integer_dot_product';

/** @typedef {import('./features.js').GpuFeature} GpuFeature */

/**
 * @typedef {object} DeviceOptions
 * @property {GPU | undefined} [gpu]  default: `navigator.gpu`
 * @property {GPUPowerPreference | undefined} [powerPreference]
 * @property {boolean | undefined} [allowSoftware]  takes an adapter that computes on the processor
 * @property {readonly GpuFeature[] | undefined} [features]  the only ones that may be used
 */

/**
 * Descriptions of adapters that compute on the processor, where the browser does not say so itself.
 */
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|warp|basic render/i;

/** How often a wait asks the device whether it is done, in milliseconds; see arrives(). */
const NUDGE_MS = 2;

export class GpuDevice {
  #inUse = 0;
  /** @type {GpuError | undefined} */
  #failure;
  /** @type {(error: GpuError) => void} */
  #fail = () => {};
  /** Ends what waits for the device. @type {Set<(error: GpuError) => void>} */
  #waiting = new Set();
  #isNudging = false;

  /**
   * Opens a device.
   * @param {DeviceOptions} [options]
   * @returns {Promise<GpuDevice>}
   * @throws {GpuError} there is none to be had; `reason` says why
   */
  static async open({
    gpu,
    powerPreference = 'high-performance',
    allowSoftware = false,
    features = FEATURES,
  } = {}) {
    const api = gpu ?? /** @type {GPU | undefined} */ (globalThis.navigator?.gpu);
    if (!api)
      throw new GpuError('this browser or runtime has no WebGPU (navigator.gpu is not there)', 'unavailable');
    const adapter = await api.requestAdapter({ powerPreference }).catch((cause) => {
      throw new GpuError('WebGPU gives no adapter', 'adapter', { cause });
    });
    if (!adapter) throw new GpuError('WebGPU has no adapter here: no GPU, or one that is blocked', 'adapter');
    const software = isSoftware(adapter.info);
    if (software && !allowSoftware) {
      throw new GpuError(
        `the only adapter, ${nameOf(adapter.info)}, computes on the processor: pass allowSoftware: true to use it`,
        'software',
      );
    }
    const wanted = features.filter((name) => adapter.features.has(name));
    const { maxBufferSize, maxStorageBufferBindingSize, maxStorageBuffersPerShaderStage } = adapter.limits;
    let device;
    try {
      device = await adapter.requestDevice({
        requiredFeatures: /** @type {GPUFeatureName[]} */ (wanted),
        requiredLimits: { maxBufferSize, maxStorageBufferBindingSize, maxStorageBuffersPerShaderStage },
      });
    } catch (cause) {
      throw new GpuError(`${nameOf(adapter.info)} gives no device`, 'adapter', { cause });
    }
    if (features.includes('dot4I8Packed') && api.wgslLanguageFeatures?.has(DOT_4_I8))
      wanted.push('dot4I8Packed');
    return new GpuDevice(device, adapter.info, { features: new Set(wanted), software, api });
  }

  /**
   * @param {GPUDevice} device
   * @param {GPUAdapterInfo} adapter
   * @param {{ features: Set<GpuFeature>, software: boolean, api: GPU }} facts
   */
  constructor(device, adapter, { features, software, api }) {
    this.device = device;
    /** In Node the device ends with the object that it comes from. */
    this.api = api;
    this.adapter = adapter;
    this.features = features;
    this.software = software;
    const { maxBufferSize, maxStorageBufferBindingSize, minStorageBufferOffsetAlignment } = device.limits;
    /** Bytes and counts that this device allows. */
    this.limits = {
      bufferBytes: maxBufferSize,
      bindingBytes: Math.min(maxStorageBufferBindingSize, maxBufferSize),
      offsetAlignment: minStorageBufferOffsetAlignment,
      workgroupBytes: PROMISED.workgroupBytes,
    };
    /**
     * Resolves with the error that ended the device: lost, or disposed while something waited.
     * @type {Promise<GpuError>}
     */
    this.lost = new Promise((resolve) => {
      this.#fail = (error) => {
        this.#failure ??= error;
        resolve(this.#failure);
        for (const stop of this.#waiting) stop(this.#failure);
      };
    });
    device.lost.then(({ reason, message }) => {
      const how = reason === 'destroyed' ? 'the GPU device was disposed' : 'the GPU device was lost';
      this.#fail(new GpuError(message ? `${how}: ${message}` : how, 'lost'));
    });
    device.onuncapturederror = ({ error }) => {
      // Work that the driver rejects is discarded: results after it would be those of other work.
      const full = error.constructor.name === 'GPUOutOfMemoryError';
      const what = full ? 'the GPU has no room for a buffer' : 'the GPU driver rejects work';
      this.#fail(new GpuError(`${what}: ${error.message}`, full ? 'memory' : 'command', { cause: error }));
    };
  }

  /** The adapter's name for people. */
  get name() {
    return nameOf(this.adapter);
  }

  /** Bytes of all buffers that are not destroyed. */
  get inUse() {
    return this.#inUse;
  }

  /** Why the device cannot be used any more. */
  get failure() {
    return this.#failure;
  }

  /** @throws {GpuError} the device is lost, or work was rejected */
  check() {
    if (this.#failure) throw this.#failure;
  }

  /**
   * A buffer of zeros. Its size is rounded up to whole words, and 16 bytes at least.
   * @param {number} bytes
   * @param {{ usage?: number, label?: string }} [options]
   * @returns {GpuBuffer}
   * @throws {GpuError} it is larger than a buffer may be
   */
  buffer(bytes, { usage = USAGE.storage, label = '' } = {}) {
    this.check();
    const size = Math.max(16, Math.ceil(bytes / 4) * 4);
    const { bufferBytes } = this.limits;
    if (size > bufferBytes) {
      throw new GpuError(`a buffer of ${size} bytes (${label}): this GPU allows ${bufferBytes}`, 'memory', {
        asked: size,
        limit: bufferBytes,
      });
    }
    const raw = this.device.createBuffer({ size, usage, label });
    this.#inUse += size;
    return new GpuBuffer(raw, () => {
      this.#inUse -= size;
    });
  }

  /**
   * A buffer with values.
   * @param {ArrayBufferView} data
   * @param {{ usage?: number, label?: string }} [options]
   */
  bufferOf(data, options) {
    const buffer = this.buffer(data.byteLength, options);
    this.write(buffer, 0, data);
    return buffer;
  }

  /**
   * Writes bytes, after everything that was submitted before. A rest of less than a word is padded
   * with zeros.
   * @param {GpuBuffer} buffer
   * @param {number} offset  a multiple of 4
   * @param {ArrayBufferView} data
   */
  write(buffer, offset, { buffer: memory, byteOffset, byteLength }) {
    const { queue } = this.device;
    const whole = byteLength & ~3;
    if (whole > 0) queue.writeBuffer(buffer.raw, offset, memory, byteOffset, whole);
    if (whole === byteLength) return;
    const rest = new Uint8Array(4);
    rest.set(new Uint8Array(memory, byteOffset + whole, byteLength - whole));
    queue.writeBuffer(buffer.raw, offset + whole, rest);
  }

  /**
   * Makes something that takes memory, and knows whether there was enough.
   * @template T
   * @param {() => T} make
   * @param {(made: T) => void} free  called where there was not
   * @param {number} bytes  for the message
   * @returns {Promise<T>}
   * @throws {GpuError} there is not enough memory
   */
  async reserve(make, free, bytes) {
    const { device } = this;
    // Browsers report what is too large as the one or the other.
    device.pushErrorScope('out-of-memory');
    device.pushErrorScope('validation');
    let made;
    let failed;
    try {
      made = make();
    } finally {
      const errors = Promise.all([device.popErrorScope(), device.popErrorScope()]);
      const [invalid, full] = await this.arrives(errors).catch(() => [null, null]);
      failed = full ?? invalid;
    }
    if (failed || this.#failure) {
      free(made);
      this.check();
      throw new GpuError(
        `the GPU has no room for ${bytes} bytes, with ${this.#inUse} in use: ${failed?.message}`,
        'memory',
        { asked: bytes, cause: failed },
      );
    }
    return made;
  }

  /**
   * Waits for something that the device does. Firefox looks for finished work every 100 ms, and
   * whenever something is submitted, so empty submissions are made meanwhile. Other browsers do not
   * need them.
   * @template T
   * @param {Promise<T>} work
   * @returns {Promise<T>}
   * @throws {GpuError} the device was lost meanwhile
   */
  async arrives(work) {
    /** @type {(error: GpuError) => void} */
    let stop = () => {};
    const stopped = new Promise((_, reject) => {
      stop = reject;
    });
    // Not a reaction to `lost`: that promise lives as long as the device, and would keep every wait.
    this.#waiting.add(stop);
    if (this.#failure) stop(this.#failure);
    else this.#nudge();
    try {
      return /** @type {T} */ (await Promise.race([work, stopped]));
    } catch (cause) {
      this.check();
      throw cause instanceof GpuError
        ? cause
        : new GpuError('the GPU ended its work with an error', 'lost', { cause });
    } finally {
      this.#waiting.delete(stop);
    }
  }

  /** Makes an empty submission every few milliseconds, as long as something is waited for. */
  async #nudge() {
    if (this.#isNudging) return;
    this.#isNudging = true;
    for (;;) {
      await new Promise((wake) => setTimeout(wake, NUDGE_MS));
      if (this.#waiting.size === 0 || this.#failure) break;
      this.device.queue.submit([]);
    }
    this.#isNudging = false;
  }

  /** Ends the device and all of its memory. */
  destroy() {
    this.#fail(new GpuError('the GPU device was disposed', 'lost'));
    this.device.destroy();
    this.#inUse = 0;
  }
}

/** A buffer of a device, counted. */
export class GpuBuffer {
  #count;
  freed = false;

  /** @param {GPUBuffer} raw @param {() => void} count  takes its bytes off the sum */
  constructor(raw, count) {
    this.raw = raw;
    this.#count = count;
  }

  get bytes() {
    return this.raw.size;
  }

  free() {
    if (this.freed) return;
    this.freed = true;
    this.raw.destroy();
    this.#count();
  }
}

/** @param {GPUAdapterInfo} info */
function isSoftware({ isFallbackAdapter, vendor, architecture, device, description }) {
  return isFallbackAdapter === true || SOFTWARE.test(`${vendor} ${architecture} ${device} ${description}`);
}

/** @param {GPUAdapterInfo} info */
function nameOf({ vendor, architecture, device, description }) {
  return (
    description || [vendor, architecture, device].filter(Boolean).join(' ') || 'an adapter without a name'
  );
}
