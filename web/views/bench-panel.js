/** The benchmark's buttons, progress and copies. */
import { byId } from '../dom.js';
import { digits } from '../format.js';
import { alertUser, announce } from '../jobs.js';
import { reportJson, reportText } from '../report.js';
import { showBench } from './bench-view.js';

/**
 * @param {object} parts
 * @param {import('../client.js').WorkerClient} parts.client
 * @param {import('../jobs.js').Jobs} parts.jobs
 * @param {() => string} parts.file  of the loaded model; '' when there is none
 */
export function setUpBench({ client, jobs, file }) {
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

  async function start() {
    byId('bench-result').dataset.state = 'running';
    byId('bench-label').textContent = 'Starting';
    byId('bench-bar').value = 0;
    show(true);
    announce('The benchmark runs.');
    const name = file();
    const outcome = await jobs.run(
      ({ signal }) =>
        client.call(
          'bench',
          {},
          {
            signal,
            onEvent: ({ done, total, label }) => {
              byId('bench-bar').value = done / total;
              byId('bench-label').textContent = `Measuring ${label}`;
            },
          },
        ),
      { failed: (error) => alertUser('The benchmark could not be run', error) },
    );
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
