/**
 * WebGPU in Node, without a GPU: Dawn (the npm package `webgpu`) on a Vulkan driver that computes
 * on the processor. By default the driver is the SwiftShader that comes with Chromium;
 * FM_TEST_VULKAN names the JSON file of another one.
 */
import { existsSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Commands } from '../../js/gpu/commands.js';
import { GpuDevice } from '../../js/gpu/device.js';
import { Pipelines } from '../../js/gpu/pipelines.js';
import { DEEP, samplerOf } from './drawn.js';

export { DEEP } from './drawn.js';

/** @import { DeviceOptions } from '../../js/gpu/device.js' */
/** @import { Shader } from '../../js/gpu/shader.js' */

const CHROMIUM = '/usr/lib/chromium';
const DRIVER = process.env.FM_TEST_VULKAN ?? path.join(CHROMIUM, 'vk_swiftshader_icd.json');
/**
 * Dawn's settings. Without them it fills workgroup memory with zeros before each kernel, and
 * SwiftShader compiles two to three times as long. Kernels may not rely on the zeros. Other drivers,
 * browsers, and FM_TEST_DEEP=1 fill the memory.
 */
const SETTINGS = process.env.FM_TEST_VULKAN || DEEP ? [] : ['enable-dawn-features=disable_workgroup_init'];
/** Cases are drawn by this seed, since a driver without a GPU compiles each for seconds. */
export const SEED = Number(process.env.FM_GPU_SEED ?? Date.now() % 1e6);

export const sampled = samplerOf(SEED);

/** Turns of the event loop in which Dawn looks for results before it is slowed down. */
const EAGER_TURNS = 20;

/** Keeps a library in the process when Node unloads it again. */
const RTLD_NODELETE = 0x1000;

/** @type {Promise<{ gpu: GPU } | { skip: string }> | undefined} */
let opened;

/**
 * What another program needs to find the Vulkan driver.
 * @returns {{ environment: Record<string, string> } | { skip: string }}
 */
export function softwareVulkan() {
  if (existsSync(DRIVER)) return { environment: { VK_ICD_FILENAMES: DRIVER, LD_LIBRARY_PATH: CHROMIUM } };
  return { skip: `no Vulkan driver without a GPU: ${DRIVER} is not there (it comes with Chromium)` };
}

/**
 * Dawn looks for results in each turn of the event loop, by setImmediate, which keeps a processor
 * busy as long as the driver compiles. From now on, one that has looked for long does so each
 * millisecond.
 */
function calmDawn() {
  const immediate = globalThis.setImmediate;
  let isInside = false;
  let turns = 0;
  globalThis.setImmediate = /** @type {any} */ (
    (/** @type {(...args: any[]) => void} */ callback, /** @type {any[]} */ ...args) => {
      turns = isInside ? turns + 1 : 0;
      const turn = () => {
        isInside = true;
        try {
          callback(...args);
        } finally {
          isInside = false;
        }
      };
      return turns < EAGER_TURNS ? immediate(turn) : setTimeout(turn, 1);
    }
  );
}

/** The WebGPU of this process, or why there is none. */
export function webGpu() {
  opened ??= open();
  return opened;
}

/** @returns {Promise<{ gpu: GPU } | { skip: string }>} */
async function open() {
  const driver = softwareVulkan();
  if ('skip' in driver) return driver;
  process.env.VK_ICD_FILENAMES = DRIVER;
  const loader = path.join(CHROMIUM, 'libvulkan.so.1');
  try {
    // Dawn asks for libvulkan.so.1 by this name only, and finds it where it is loaded already.
    process.dlopen({ exports: {} }, loader, os.constants.dlopen.RTLD_NOW | RTLD_NODELETE);
  } catch (error) {
    // It is loaded, but no module of Node: that is expected.
    if (!String(error).includes('did not self-register')) return { skip: `${loader}: ${error}` };
  }
  try {
    const { create } = await import('webgpu');
    calmDawn();
    const gpu = create(SETTINGS);
    if (await gpu.requestAdapter()) return { gpu };
    return { skip: `the Vulkan driver ${DRIVER} gives WebGPU no adapter` };
  } catch (error) {
    return { skip: `the npm package webgpu does not load: ${error}` };
  }
}

/** Why tests that need WebGPU are skipped, or false. */
export async function gpuSkip() {
  const found = await webGpu();
  return 'skip' in found ? found.skip : false;
}

/**
 * A device for a test.
 * @param {DeviceOptions} [options]
 */
export async function openTestDevice(options = {}) {
  const found = await webGpu();
  if ('skip' in found) throw new Error(found.skip);
  return GpuDevice.open({ gpu: found.gpu, allowSoftware: true, ...options });
}

/** A device with pipelines and commands, for tests of single shaders. */
export class TestGpu {
  /** @param {GpuDevice} device */
  constructor(device) {
    this.device = device;
    this.pipelines = new Pipelines(device);
    this.commands = new Commands(device, this.pipelines);
  }

  /** @param {DeviceOptions} [options] */
  static async open(options) {
    return new TestGpu(await openTestDevice(options));
  }

  /**
   * Runs a shader on data and reads one of its buffers back.
   * @param {Shader} shader
   * @param {Record<string, ArrayBufferView>} data by variable; what the shader writes is here too,
   *   with what is in it before
   * @param {readonly [number, number, number]} groups
   * @param {string} result the variable to read
   * @param {import('../../js/backend.js').Step} [step]
   * @returns {Promise<ArrayBuffer>}
   */
  async run(shader, data, groups, result, step) {
    const pipeline = await this.pipelines.compile(shader);
    const entries = Object.entries(data).map(([name, values]) => [name, this.device.bufferOf(values)]);
    const buffers = Object.fromEntries(entries);
    this.commands.dispatch(pipeline.bind(buffers), groups, step);
    const { byteLength } = data[result];
    const bytes = Math.ceil(byteLength / 4) * 4;
    const [out] = await this.commands.read([{ buffer: buffers[result], offset: 0, bytes }]);
    for (const buffer of Object.values(buffers)) buffer.free();
    return out.slice(0, byteLength);
  }

  /** Ends the device. */
  dispose() {
    this.commands.free();
    this.device.destroy();
  }
}

/**
 * Counts calls of a device.
 * @param {GpuDevice} gpu
 */
export function countCalls({ device }) {
  const calls = { createBuffer: 0, createBindGroup: 0, submit: 0, writeBuffer: 0 };
  const count = (/** @type {any} */ of, /** @type {keyof typeof calls} */ name) => {
    const original = of[name];
    of[name] = (/** @type {any[]} */ ...args) => {
      // A submission of nothing only wakes the device.
      if (name !== 'submit' || args[0].length > 0) calls[name] += 1;
      return original.apply(of, args);
    };
  };
  for (const name of /** @type {const} */ (['createBuffer', 'createBindGroup'])) count(device, name);
  for (const name of /** @type {const} */ (['submit', 'writeBuffer'])) count(device.queue, name);
  return calls;
}
