/** Wires the page together. Nothing here computes: worker-main.js does. */
import { WorkerClient } from './client.js';
import { breathe, byId, frame } from './dom.js';
import { count } from './format.js';
import { alertUser, announce, Jobs } from './jobs.js';
import { keepOffline } from './offline.js';
import { isUnrunnable } from './problems.js';
import { setUpBench } from './views/bench-panel.js';
import { setUpChooser } from './views/chooser.js';
import { showEngine, showNoEngine } from './views/engine-view.js';
import { ModelCard } from './views/model-card.js';
import { OptionsView } from './views/options.js';
import { ResultView } from './views/result-view.js';
import { firstTensor, TensorsView } from './views/tensors-view.js';
import { showModelFacts, showTypes } from './views/types-view.js';
import { setUpWriting } from './writing.js';

const builtInFile = 'tiny-tales-Q4_K_M.gguf';

const client = new WorkerClient();
const jobs = new Jobs();
const card = new ModelCard();
const result = new ResultView();
const tensors = new TensorsView((name) => multiply(name));
const options = new OptionsView(() => state.file && load());

/**
 * @typedef {object} OpenFile
 * @property {string} name
 * @property {number} byteLength
 * @property {number} nParts
 * @property {import('./views/tensors-view.js').TensorRow[]} tensors
 * @property {string} architecture
 * @property {string} title
 * @property {number} parameters
 */

/** @type {{ file?: OpenFile, model?: import('../js/llama/info.js').ModelInfo, tensor: string, engine?: any, kept: boolean }} */
const state = { tensor: '', kept: false };

const writing = setUpWriting({ client, jobs, options, model: () => state.model });
setUpBench({ client, jobs, file: () => (state.model ? (state.file?.name ?? '') : '') });
setUpChooser({
  files: (files) => run(files, nameOf(files)),
  link: ({ url, file }) => run(url, file),
  builtIn: () => runBuiltIn(),
  kept: () => client.call('kept'),
  forget: (url) => client.call('forget', { url }),
});

const runBuiltIn = () => run(new URL(builtInFile, document.baseURI).href, builtInFile);
const wayOut = { label: 'Use the story model', run: () => runBuiltIn() };

/** Several files are the parts of one model, named by the first. @param {File[]} files */
function nameOf(files) {
  const [first, ...others] = files.map(({ name }) => name).sort();
  return others.length > 0 ? `${first} and ${count(others.length)} more` : first;
}

/** Opens a file, or one in parts, and, where it is one, loads the model in it. @param {string | File[]} source @param {string} name */
async function run(source, name) {
  const opened = await jobs.run(({ signal }) => client.call('open', { source }, { signal }), {
    label: `Opening ${name}`,
    failed: (error) => alertUser(`${name} cannot be opened`, error),
  });
  if (!opened) return false;
  const file = { ...opened, name };
  state.file = file;
  state.tensor = '';
  noModel('The model is on its way…');
  card.show(file, name);
  await breathe();
  if (state.file !== file) return false;
  tensors.show(file.tensors, state.engine.served, options.loading.activation);
  await breathe();
  if (state.file !== file) return false;
  showTypes(file.tensors, state.engine.served, options.loading.activation);
  const usable = file.tensors.some((/** @type {any} */ row) => !row.obstacle);
  result.message(
    usable
      ? 'Multiplies by one tensor of the file, fused and dequantised first, and checks the result against float64.'
      : 'No tensor of this file can be multiplied yet.',
    usable,
  );
  return load();
}

/** @param {string} words */
function noModel(words) {
  state.model = undefined;
  writing.model(undefined, words);
}

/** Loads the open file as a model, with the options as they are. */
async function load() {
  const file = /** @type {OpenFile} */ (state.file);
  noModel('The model is on its way…');
  card.startLoading();
  const loaded = await jobs.run(
    ({ signal, progress }) =>
      client.call('load', options.loading, {
        signal,
        onEvent: (event) => {
          progress(event);
          card.progress(event);
        },
      }),
    {
      label: `Loading ${file.name}`,
      cancelled: () => {
        card.note('Loading was cancelled.');
        noModel('No model is loaded.');
      },
      failed: (error) => {
        const what = isUnrunnable(error) ? 'cannot write' : 'cannot be loaded';
        noModel(`${file.name} ${what}.`);
        alertUser(`${file.name} ${what}`, error, file.name === builtInFile ? undefined : wayOut);
      },
    },
  );
  card.endLoading();
  if (!loaded) return false;
  state.model = loaded.info;
  card.loaded(loaded, file);
  await breathe();
  showTypes(file.tensors, state.engine.served, loaded.info.activation);
  showModelFacts(loaded.info);
  tensors.kernels(state.engine.served, loaded.info.activation);
  await breathe();
  await engine({ ...state.engine, info: loaded.info.kernels });
  if (state.model !== loaded.info) return false;
  writing.model(loaded);
  announce(
    `${file.name} is ready: ${loaded.info.architecture}, ${count(loaded.info.parameters)} parameters.`,
  );
  return true;
}

/** @param {string} name */
function multiply(name) {
  const settings = new FormData(byId('controls'));
  const args = { name, nTokens: Number(settings.get('tokens')), activation: settings.get('activation') };
  const failed = (/** @type {Error} */ error) => {
    alertUser(`Multiplying by ${name} failed`, error);
    result.stopped();
  };
  return jobs.run(
    async ({ signal, progress }) => {
      result.running(name);
      const outcome = await client.call('multiply', args, { signal, onEvent: progress });
      signal.throwIfAborted();
      state.tensor = name;
      tensors.markCurrent(name);
      result.show(outcome, state.file?.name ?? '');
      announce(ResultView.sentence(outcome));
      const { top, bottom } = byId('outcome').getBoundingClientRect();
      if (bottom < 0 || top > innerHeight) byId('result').scrollIntoView({ block: 'start' });
    },
    { label: `Multiplying by ${name}`, failed, cancelled: () => result.stopped() },
  );
}

/** @param {any} found */
async function engine(found) {
  state.engine = found;
  const { info, isolated, cores } = found;
  await showEngine({ info, isolated, cores, canReload: state.kept });
  await breathe();
  const threads = info.threads ?? 1;
  options.threads(threads, isolated ? cores : 1, info.threadsReason);
  await breathe();
}

function listen() {
  byId('controls').addEventListener('change', () => state.tensor && multiply(state.tensor));
  byId('controls').addEventListener('submit', (/** @type {Event} */ event) => event.preventDefault());
  byId('multiply-first').addEventListener('click', () => {
    const first = state.file && firstTensor(state.file.tensors);
    if (first) multiply(first.name);
  });
}

async function start() {
  frame().then(() => {
    byId('stage').dataset.shown = '';
  });
  listen();
  try {
    await engine(await client.call('start'));
  } catch (cause) {
    const error = /** @type {Error} */ (cause);
    showNoEngine(error);
    writing.model(undefined, 'No kernel can run in this browser.');
    alertUser('The kernels could not be started', error);
    return;
  }
  byId('bench-run').disabled = false;
  if (await runBuiltIn()) await writing.first();
  state.kept = await keepOffline();
  const line = byId('offline-line');
  line.dataset.offline = state.kept ? 'ready' : 'no';
  if (state.kept)
    line.textContent = 'This page now works without a network: everything it needs is kept in this browser.';
  if (state.kept && !state.engine.isolated) engine(state.engine);
}

start();
