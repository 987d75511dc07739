/** Wires the page together. Nothing here computes: the workers do, one with the model, and the lab. */
import { breathe, byId, frame } from './dom.js';
import { count } from './format.js';
import { isUsable } from './gpu.js';
import { alertUser, announce, Jobs } from './jobs.js';
import { LAB, Lab } from './lab.js';
import { loadAhead, loadModel } from './model.js';
import { keepOffline } from './offline.js';
import { isUnrunnable } from './problems.js';
import { setUpBench } from './views/bench-panel.js';
import { setUpChooser } from './views/chooser.js';
import { DeviceView } from './views/device.js';
import { showEngine, showNoEngine } from './views/engine-view.js';
import { ModelCard } from './views/model-card.js';
import { OptionsView } from './views/options.js';
import { ResultView } from './views/result-view.js';
import { firstTensor, TensorsView } from './views/tensors-view.js';
import { showModelFacts, showTypes } from './views/types-view.js';
import { setUpWriting } from './writing.js';

const builtInFile = 'tiny-tales-Q4_K_M.gguf';

const lab = new Lab(LAB);
const jobs = new Jobs();
const card = new ModelCard();
const device = new DeviceView();
const result = new ResultView();
const tensors = new TensorsView((name) => multiply(name));
const options = new OptionsView(() => {
  dropAhead();
  if (state.file) load();
});

/** @typedef {import('./model.js').Source} Source */
/** @typedef {import('./lab-worker.js').Opened & import('./lab-worker.js').Place & { name: string }} OpenFile */

/**
 * @type {{ file?: OpenFile, model?: import('./model.js').WorkerLlama, tensor: string, engine?: any, kept: boolean,
 *   hasGpu: boolean, ahead?: ReturnType<typeof loadAhead> }} ahead: the model of a file that is not open yet
 */
const state = { tensor: '', kept: false, hasGpu: false };

const model = () => state.model;
/** @param {{ url: string, file: string }} link */
const runLink = ({ url, file }) => run(url, file);

/** The file of the model, with its address where it came from a link. */
function modelFile() {
  if (!state.file) return undefined;
  const { name, source, cache } = state.file;
  return { name, ...(cache && typeof source === 'string' ? { url: source } : {}) };
}

const writing = setUpWriting({ jobs, options, model, file: modelFile, link: runLink });
setUpBench({
  lab,
  jobs,
  options,
  model,
  file: () => (state.model ? (state.file?.name ?? '') : ''),
  hasGpu: () => state.hasGpu,
  loadOn: (backend, signal) => {
    const { source, cache } = /** @type {OpenFile} */ (state.file);
    return loadModel(source, { ...options.loadingOn(backend), cache, signal });
  },
});
setUpChooser({
  files: (files) => run(files, nameOf(files)),
  link: runLink,
  builtIn: () => runBuiltIn(),
  kept: () => lab.call('kept'),
  forget: (url) => lab.call('forget', { url }),
  forgetAll: () => lab.call('forgetAll'),
});

const runBuiltIn = (file = fetchBuiltIn()) => run(file, builtInFile);
const wayOut = { label: 'Use the story model', run: () => runBuiltIn() };
const toCpu = {
  label: 'Use the CPU',
  run: () => {
    device.toCpu();
    options.summarise();
    load();
  },
};

/**
 * The story model as a file, fetched once for both workers. If that fails it is the address, and
 * the lab's error says why.
 * @returns {Promise<Source>}
 */
async function fetchBuiltIn() {
  const url = new URL(builtInFile, document.baseURI).href;
  try {
    const response = await fetch(url);
    return response.ok ? [new File([await response.blob()], builtInFile)] : url;
  } catch {
    return url;
  }
}

/** Several files are the parts of one model, named by the first. @param {File[]} files */
function nameOf(files) {
  const [first, ...others] = files.map(({ name }) => name).sort();
  return others.length > 0 ? `${first} and ${count(others.length)} more` : first;
}

function dropAhead() {
  state.ahead?.stop.abort();
  state.ahead?.loading.then((unwanted) => unwanted.dispose()).catch(() => {});
  state.ahead = undefined;
}

/**
 * Opens a file, or one in parts, and, where it is one, loads the model in it.
 * @param {Source | Promise<Source>} given @param {string} name
 */
async function run(given, name) {
  if (given !== state.ahead?.source) dropAhead();
  /** @param {import('./jobs.js').JobContext} context */
  const open = async ({ signal }) => {
    const aborted = new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
    /** @type {Source} */
    const source = await Promise.race([given, aborted]);
    // Files of other origins are cached, so that each is fetched once.
    const cache = typeof source === 'string' && new URL(source).origin !== location.origin;
    return { ...(await lab.call('open', { source, cache }, { signal })), name, source, cache };
  };
  /** @type {OpenFile | undefined} */
  const file = await jobs.run(open, {
    label: `Opening ${name}`,
    failed: (error) => alertUser(`${name} cannot be opened`, error),
  });
  if (!file) {
    if (given === state.ahead?.source) dropAhead();
    return false;
  }
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
  const usable = file.tensors.some((row) => !row.obstacle);
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
  state.model?.dispose();
  state.model = undefined;
  device.runs(undefined);
  writing.model(undefined, words);
}

/** Loads the open file as a model, with the options as they are. */
async function load() {
  const file = /** @type {OpenFile} */ (state.file);
  const { ahead } = state;
  state.ahead = undefined;
  noModel('The model is on its way…');
  card.startLoading();
  const loaded = await jobs.run(
    ({ signal, progress }) => {
      const onProgress = (/** @type {{ loaded: number, total: number }} */ step) => {
        progress(step);
        card.progress(step);
      };
      signal.addEventListener('abort', () => ahead?.stop.abort());
      const { cache, source } = file;
      return ahead?.loading ?? loadModel(source, { ...options.loading, cache, signal, onProgress });
    },
    {
      label: `Loading ${file.name}`,
      cancelled: () => {
        card.note('Loading was cancelled.');
        noModel('No model is loaded.');
      },
      failed: (error) => {
        const what = isUnrunnable(error) ? 'cannot write' : 'cannot be loaded';
        noModel(`${file.name} ${what}.`);
        const way = file.name === builtInFile ? undefined : wayOut;
        alertUser(`${file.name} ${what}`, error, options.loading.backend === 'gpu' ? toCpu : way);
      },
    },
  );
  card.endLoading();
  if (!loaded) return false;
  const { info } = loaded;
  // A GPU takes f16 only where its kernels are told that they may be inexact.
  const activation = /** @type {import('fused-matmul').Activation} */ (info.activation);
  state.model = loaded;
  card.loaded(info, file);
  device.runs(info);
  await breathe();
  showTypes(file.tensors, info.gpu ? servedBy(info) : state.engine.served, activation);
  showModelFacts(info);
  tensors.kernels(state.engine.served, activation);
  await breathe();
  const { kernels = state.engine.info, gpu } = info;
  await engine({ ...state.engine, info: kernels, gpu: gpu?.adapter.name });
  if (state.model !== loaded) return false;
  writing.model(info);
  announce(`${file.name} is ready: ${info.architecture}, ${count(info.parameters)} parameters.`);
  return true;
}

/** The kernels by weight type and activation mode. @param {import('../js/llama/info.js').ModelInfo} info */
function servedBy({ types, activation }) {
  return Object.fromEntries(Object.entries(types).map(([type, by]) => [type, { [activation]: by }]));
}

/** @param {string} name */
function multiply(name) {
  const settings = new FormData(byId('controls'));
  const [nTokens, activation] = [Number(settings.get('tokens')), settings.get('activation')];
  const args = { name, nTokens, activation, threads: options.threads };
  const failed = (/** @type {Error} */ error) => {
    alertUser(`Multiplying by ${name} failed`, error);
    result.stopped();
  };
  return jobs.run(
    async ({ signal, progress }) => {
      result.running(name);
      const outcome = await lab.call('multiply', args, { signal, onEvent: progress });
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
  const { info, isolated, cores, gpu } = found;
  await showEngine({ info, isolated, cores, canReload: state.kept, gpu });
  await breathe();
  const threads = info.threads ?? 1;
  options.offerThreads(threads, isolated ? cores : 1, info.threadsReason);
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

/** A browser may take its time for this. */
async function lookForGpu() {
  const nothing = { name: '', problem: 'adapter' };
  /** @type {import('./gpu.js').FoundGpu} */
  const found = await lab.call('gpu').catch(() => nothing);
  state.hasGpu = isUsable(found);
  device.found(found, state.hasGpu);
}

async function start() {
  frame().then(() => {
    byId('stage').dataset.shown = '';
  });
  listen();
  // The model's worker starts beside the lab's.
  const file = fetchBuiltIn();
  state.ahead = loadAhead(file, options.loading);
  try {
    await engine(await lab.call('start'));
  } catch (cause) {
    dropAhead();
    const error = /** @type {Error} */ (cause);
    showNoEngine(error);
    writing.model(undefined, 'No kernel can run in this browser.');
    alertUser('The kernels could not be started', error);
    return;
  }
  lookForGpu();
  byId('bench-run').disabled = false;
  if (await runBuiltIn(file)) await writing.first();
  state.kept = await keepOffline();
  const line = byId('offline-line');
  line.dataset.offline = state.kept ? 'ready' : 'no';
  if (state.kept)
    line.textContent = 'This page now works without a network: everything it needs is kept in this browser.';
  if (state.kept && !state.engine.isolated) engine(state.engine);
}

start();
