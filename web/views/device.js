/** Where the model runs: a switch, and what the model runs on. */
import { byId } from '../dom.js';
import { kernelName } from './engine-view.js';

/** @typedef {import('../lab-worker.js').FoundGpu} FoundGpu */

/** Why the switch cannot be used, or what it switches to. @param {FoundGpu} found @param {boolean} usable */
export function foundWords({ name, problem }, usable) {
  if (problem === 'unavailable') return 'No GPU: this browser does not offer WebGPU to this page.';
  if (problem === 'adapter') return 'No GPU: the browser finds none that WebGPU may use.';
  if (problem !== 'software') return `GPU: ${name}.`;
  return usable
    ? `The GPU is ${name}, which computes on the processor.`
    : `No GPU: the only adapter, ${name}, computes on the processor.`;
}

/** @param {import('../../js/llama/info.js').ModelInfo} info */
export function deviceWords({ gpu, kernels, backend }) {
  // Layers that a GPU cannot compute are on the CPU.
  const place = backend?.name === 'mixed' ? 'GPU and CPU' : 'GPU';
  if (gpu) return `${place}: ${gpu.adapter.name}${gpu.software ? ', which computes on the processor' : ''}`;
  const { threads } = kernels;
  return `CPU: ${kernelName(kernels)}, ${threads} ${threads === 1 ? 'thread' : 'threads'}`;
}

export class DeviceView {
  #cpu = /** @type {HTMLInputElement} */ (byId('device').querySelector('[value=cpu]'));
  #gpu = /** @type {HTMLInputElement} */ (byId('device').querySelector('[value=gpu]'));

  constructor() {
    // Browsers restore what was chosen before a reload.
    this.toCpu();
  }

  /** @param {FoundGpu} found @param {boolean} usable */
  found(found, usable) {
    this.#gpu.disabled = !usable;
    byId('device-note').textContent = foundWords(found, usable);
  }

  /** Turns the switch to the CPU. */
  toCpu() {
    this.#cpu.checked = true;
  }

  /** @param {import('../../js/llama/info.js').ModelInfo | undefined} info  of the model that is loaded */
  runs(info) {
    byId('device-line').textContent = info ? deviceWords(info) : '\u00a0';
  }
}
