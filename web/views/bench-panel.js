/** The benchmark's buttons, progress and copies. */
import { measureModel } from '../bench-model.js';
import { byId } from '../dom.js';
import { digits } from '../format.js';
import { alertUser, announce } from '../jobs.js';
import { reportJson, reportText } from '../report.js';
import { showBench } from './bench-view.js';

/**
 * @param {object} parts
 * @param {import('../lab.js').Lab} parts.lab
 * @param {import('../jobs.js').Jobs} parts.jobs
 * @param {import('./options.js').OptionsView} parts.options
 * @param {() => import('../../js/llama/worker.js').WorkerLlama | undefined} parts.model  that is loaded
 * @param {() => string} parts.file  of the loaded model; '' when there is none
 */
export function setUpBench({ lab, jobs, options, model, file }) {
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
    const writer = model();
    const { threads } = options.loading;
    const parts = writer ? 1 : 0;
    const onEvent = (
      /** @type {{ done: number, total: number, label: string }} */ { done, total, label },
    ) => {
      byId('bench-bar').value = done / (total + parts);
      byId('bench-label').textContent = `Measuring ${label}`;
    };
    const kernels = await lab.call('bench', { threads }, { signal, onEvent });
    if (!writer) return kernels;
    onEvent({ done: kernels.rows.length, total: kernels.rows.length, label: 'the model' });
    return { ...kernels, model: await measureModel(writer, signal) };
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
