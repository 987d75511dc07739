/** The benchmark's buttons, progress and copies. */
import { measureModel } from '../bench-model.js';
import { byId } from '../dom.js';
import { digits } from '../format.js';
import { gpuOptions } from '../gpu.js';
import { alertUser, announce } from '../jobs.js';
import { GPU_LAB, Lab } from '../lab.js';
import { messageOf } from '../problems.js';
import { reportJson, reportText } from '../report.js';
import { showBench } from './bench-view.js';

/** @typedef {import('../../js/llama/worker.js').WorkerLlama} WorkerLlama */
/** @typedef {import('../report.js').GpuReport} GpuReport */
/** @typedef {{ done: number, total: number, label: string }} Step */

/**
 * @param {object} parts
 * @param {import('../lab.js').Lab} parts.lab
 * @param {import('../jobs.js').Jobs} parts.jobs
 * @param {import('./options.js').OptionsView} parts.options
 * @param {() => WorkerLlama | undefined} parts.model  that is loaded
 * @param {() => string} parts.file  of the loaded model; '' when there is none
 * @param {() => boolean} parts.hasGpu  whether there is a GPU to be measured
 * @param {(backend: 'cpu' | 'gpu', signal: AbortSignal) => Promise<WorkerLlama>} parts.loadOn  loads the model once more
 */
export function setUpBench({ lab, jobs, options, model, file, hasGpu, loadOn }) {
  const [run, stop, progress] = [byId('bench-run'), byId('bench-stop'), byId('bench-progress')];
  /** @type {import('../report.js').Report | undefined} */
  let report;

  /** @param {boolean} running */
  function show(running) {
    const [from, to] = running ? [run, stop] : [stop, run];
    const focused = document.activeElement === from;
    run.hidden = running;
    stop.hidden = !running;
    if (focused) to.focus();
    progress.hidden = !running;
    byId('bench-copy').hidden = running || !report;
  }

  /** @param {AbortSignal} signal */
  async function measure(signal) {
    const [onGpu, hasModel] = [hasGpu(), model() !== undefined];
    const nStages = (onGpu ? 2 : 1) * (hasModel ? 2 : 1);
    let stage = 0;
    const onEvent = (/** @type {Step} */ { done, total, label }) => {
      byId('bench-bar').value = (stage + done / total) / nStages;
      byId('bench-label').textContent = `Measuring ${label}`;
    };
    const next = (/** @type {string} */ label) => {
      stage += 1;
      onEvent({ done: 0, total: 1, label });
    };
    const kernels = await lab.call('bench', { threads: options.threads }, { signal, onEvent });
    if (hasModel) {
      next('the model');
      kernels.model = await measureOn('cpu', signal);
    }
    if (!onGpu) return kernels;
    /** @type {GpuReport} */
    const gpu = {};
    try {
      next('the GPU');
      const { rows, ...facts } = await measureGpu(kernels.many, { signal, onEvent });
      Object.assign(gpu, facts);
      for (const row of kernels.rows) row.gpu = timingOf(rows, row);
      if (hasModel) {
        next('the model on the GPU');
        gpu.model = await measureOn('gpu', signal);
      }
    } catch (error) {
      signal.throwIfAborted();
      // What was measured on the CPU is not lost with it.
      gpu.problem = messageOf(/** @type {Error} */ (error));
    }
    return { ...kernels, gpu };
  }

  /**
   * @param {number} many  tokens of the larger products
   * @param {{ signal: AbortSignal, onEvent: (step: Step) => void }} context
   */
  async function measureGpu(many, context) {
    const gpuLab = new Lab(GPU_LAB);
    try {
      return await gpuLab.call('bench', { many, gpu: gpuOptions }, context);
    } finally {
      await gpuLab.close();
    }
  }

  /**
   * Measures the model on a device: the loaded one, or another that is loaded for this. A model on a
   * GPU may have some layers on the CPU.
   * @param {'cpu' | 'gpu'} backend @param {AbortSignal} signal
   */
  async function measureOn(backend, signal) {
    const loaded = model();
    if (loaded?.info.backend.name === backend) return { ...(await measureModel(loaded, signal)), backend };
    const other = await loadOn(backend, signal);
    try {
      return { ...(await measureModel(other, signal)), backend };
    } finally {
      other.dispose();
    }
  }

  async function start() {
    byId('bench-result').dataset.state = 'running';
    byId('bench-label').textContent = 'Starting';
    byId('bench-bar').value = 0;
    show(true);
    announce('The benchmark runs.');
    const name = file();
    const outcome = await jobs.run(({ signal }) => measure(signal), {
      failed: (error) => alertUser('The benchmark could not be run', error),
    });
    if (outcome) {
      report = { ...outcome, file: name };
      showBench(/** @type {any} */ (report));
      const [first] = outcome.rows;
      announce(
        `The benchmark is done: ${digits(first.one.gflops)} GFLOP/s for ${first.type} with one token and one thread.`,
      );
    }
    byId('bench-result').dataset.state = outcome ? 'done' : 'stopped';
    show(false);
  }

  /** @param {string} id @param {(report: import('../report.js').Report) => string} form */
  function copies(id, form) {
    const button = byId(id);
    const label = button.textContent;
    button.addEventListener('click', async () => {
      if (!report) return;
      try {
        await navigator.clipboard.writeText(form(report));
        button.textContent = 'Copied';
        announce('Copied.');
      } catch {
        button.textContent = 'Copying is not allowed';
      }
      setTimeout(() => {
        button.textContent = label;
      }, 1500);
    });
  }

  run.addEventListener('click', start);
  stop.addEventListener('click', () => jobs.stop());
  copies('copy-text', reportText);
  copies('copy-json', reportJson);
}

/**
 * @param {{ type: string, nTokens: number, timing: import('../bench.js').Timing }[]} rows
 * @param {{ type: string, nTokens: number }} wanted
 */
const timingOf = (rows, wanted) =>
  rows.find(({ type, nTokens }) => type === wanted.type && nTokens === wanted.nTokens)?.timing;
