/** Wires the page together. Nothing here computes: worker.js does. */
import { WorkerClient } from './client.js';
import { byId, el } from './dom.js';
import { showEngine, showNoEngine } from './engine-view.js';
import { bytes, count } from './format.js';
import { ResultView } from './result-view.js';
import { firstTensor, TensorsView } from './tensors-view.js';

const defaultFile = 'tiny-tales-Q4_K_M.gguf';
/** Work that is over sooner shows no progress bar, which would only flash. */
const progressDelayMs = 250;

const client = new WorkerClient();
const result = new ResultView();
const tensors = new TensorsView((name) => multiply(name));
/** @type {{ file: string, tensor: string, job: AbortController | undefined }} */
const state = { file: '', tensor: '', job: undefined };

/** @param {string} text */
function announce(text) {
  byId('announce').textContent = text;
}

/** @param {string} title @param {string} message */
function alertUser(title, message) {
  const close = el('button', { type: 'button', class: 'button quiet small' }, 'Dismiss');
  const box = el(
    'div',
    { class: 'alert' },
    el('div', {}, el('strong', {}, title), el('p', {}, message)),
    close,
  );
  close.addEventListener('click', () => {
    box.remove();
    byId('result').focus();
  });
  byId('alerts').replaceChildren(box);
}

/**
 * One job at a time: a new one cancels the one before, whose outcome is then dropped.
 * @template T
 * @param {string} label
 * @param {(options: { signal: AbortSignal, onProgress: (p: { loaded: number, total: number }) => void }) => Promise<T>} work
 * @param {string} failure  the alert's title when it fails
 * @returns {Promise<T | undefined>} undefined when it failed or was cancelled
 */
async function run(label, work, failure) {
  state.job?.abort();
  const job = new AbortController();
  state.job = job;
  byId('alerts').replaceChildren();
  byId('progress').hidden = true;
  byId('progress-label').textContent = label;
  byId('progress-bar').removeAttribute('value');
  const timer = setTimeout(() => {
    byId('progress').hidden = false;
  }, progressDelayMs);
  const onProgress = (/** @type {{ loaded: number, total: number }} */ { loaded, total }) => {
    if (state.job !== job) return;
    byId('progress-bar').value = total ? loaded / total : 0;
    byId('progress-label').textContent = `${label}: ${bytes(loaded)} of ${bytes(total)}`;
  };
  try {
    return await work({ signal: job.signal, onProgress });
  } catch (cause) {
    if (state.job !== job) return undefined;
    const error = /** @type {Error} */ (cause);
    if (error.name === 'AbortError') announce('Cancelled.');
    else alertUser(failure, error.message);
    result.stopped();
    return undefined;
  } finally {
    clearTimeout(timer);
    if (state.job === job) {
      state.job = undefined;
      byId('progress').hidden = true;
    }
  }
}

/** @param {string | File} source @param {string} file */
async function open(source, file) {
  const first = await run(
    `Opening ${file}`,
    async ({ signal }) => {
      const model = await client.call('open', { source }, { signal });
      signal.throwIfAborted();
      state.file = file;
      state.tensor = '';
      byId('source-name').textContent = file;
      byId('source-details').textContent = [
        model.title,
        model.architecture,
        `${count(model.tensors.length)} tensors`,
        bytes(model.byteLength),
      ]
        .filter(Boolean)
        .join(' · ');
      tensors.show(model.tensors);
      announce(`Opened ${file}.`);
      const tensor = firstTensor(model.tensors);
      if (!tensor) {
        const usable = model.tensors.some((/** @type {any} */ row) => !row.obstacle);
        result.message(
          usable
            ? 'Choose a tensor below to multiply by it.'
            : 'No tensor of this file can be multiplied yet.',
        );
      }
      return tensor?.name;
    },
    `${file} cannot be opened`,
  );
  if (first) await multiply(first);
}

const openDefault = () => open(new URL(defaultFile, document.baseURI).href, defaultFile);

/** @param {string} name */
function multiply(name) {
  const settings = new FormData(byId('controls'));
  const args = { name, nTokens: Number(settings.get('tokens')), activation: settings.get('activation') };
  return run(
    `Multiplying by ${name}`,
    async (options) => {
      result.running(name);
      const outcome = await client.call('multiply', args, options);
      options.signal.throwIfAborted();
      state.tensor = name;
      tensors.markCurrent(name);
      result.show(outcome, state.file);
      announce(ResultView.sentence(outcome));
      const { top, bottom } = byId('outcome').getBoundingClientRect();
      if (bottom < 0 || top > innerHeight) byId('result').scrollIntoView({ block: 'start' });
    },
    `Multiplying by ${name} failed`,
  );
}

function listen() {
  byId('default').addEventListener('click', openDefault);
  byId('cancel').addEventListener('click', () => state.job?.abort());
  byId('controls').addEventListener('change', () => state.tensor && multiply(state.tensor));
  byId('controls').addEventListener('submit', (/** @type {Event} */ event) => event.preventDefault());
  byId('choose').addEventListener('click', () => byId('file').click());
  byId('file').addEventListener('change', () => {
    const [file] = byId('file').files;
    if (file) open(file, file.name);
    byId('file').value = '';
  });

  const hasFiles = (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes('Files');
  addEventListener('dragover', (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.add('dropping');
  });
  addEventListener('dragleave', (event) => {
    if (!event.relatedTarget) document.body.classList.remove('dropping');
  });
  addEventListener('drop', (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.remove('dropping');
    const file = event.dataTransfer?.files[0];
    if (file) open(file, file.name);
  });
}

async function start() {
  listen();
  try {
    showEngine(await client.call('start'));
  } catch (cause) {
    const error = /** @type {Error} */ (cause);
    showNoEngine(error);
    result.message('Nothing can be multiplied in this browser.');
    alertUser('The kernels could not be started', error.message);
    return;
  }
  await openDefault();
}

start();
