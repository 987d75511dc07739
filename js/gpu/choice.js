/* The fastest forms of the kernels on a device, by measurement.
 *
 * Products with a synthetic weight are timed in every form, one property after the other: what is
 * best so far is kept while the next one is varied. Before a form is timed, its results are compared
 * with those of the wasm module, as in the self-test. A sample is the same product many times in one
 * submission, long enough that the wait for it counts little; candidates take turns, the smallest
 * time of each counts, and one that is far behind is timed no more. A form replaces the standard one
 * only if it is clearly faster.
 *
 * The self-test then runs on what was chosen. */

import { Remembered } from '../remembered.js';
import { GpuError } from './errors.js';
import { PLAIN, precisionOf } from './features.js';
import { productWork } from './products.js';
import { chooseVariants } from './selftest.js';
import { Trials } from './trials.js';
import { loadTypes } from './wgsl/types.js';

/** @typedef {import('./features.js').GpuActivation} GpuActivation */
/** @typedef {import('./features.js').GpuVariants} GpuVariants */
/** @typedef {import('./products.js').Form} Form */
/** @typedef {import('./selftest.js').SelfTestOptions} SelfTestOptions */
/** @typedef {import('./trials.js').Shape} Shape */
/** @typedef {import('../wasm/kernels.js').Kernels} Kernels */

/**
 * How the choice is made; for tests.
 * @typedef {object} Trial
 * @property {boolean} [timed]  measures. Default: where the adapter does not compute on the processor,
 *   since such a one compiles for seconds
 * @property {(forms: GpuVariants, run: () => Promise<void>) => Promise<number>} [time]  runs a sample
 *   and says how many milliseconds it took
 * @property {Shape} [shape]
 */

/**
 * @typedef {object} ChoiceOptions
 * @property {import('./device.js').GpuDevice} gpu
 * @property {import('./pipelines.js').Pipelines} pipelines
 * @property {string} type  of the weight
 * @property {GpuActivation} activation
 * @property {GpuVariants} variants  the standard forms
 * @property {Trial} [trial]
 */

/** Forms, and sentences about them. @typedef {{ variants: GpuVariants, report: string[] }} Choice */

/** Choices of earlier runs. @type {Remembered<GpuVariants>} */
export const choices = new Remembered('fused-matmul-gpu');

/** @type {Shape} */
const SHAPE = { nRows: 2048, nCols: 4096, few: [256, 1024], nTokens: 128 };

/**
 * A property of forms that is chosen at a time.
 * @typedef {object} Stage
 * @property {Form} form  of the products
 * @property {readonly number[]} rows  of their weights
 * @property {Partial<GpuVariants>[]} candidates
 * @property {string} what  it is, before the name
 * @property {(forms: GpuVariants) => string} name
 */

/**
 * @param {ReadonlySet<import('./features.js').GpuFeature>} features
 * @param {GpuActivation} activation
 * @param {Shape} shape
 * @returns {Stage[]}
 */
function stagesOf(features, activation, { nRows, few }) {
  const sides = [64, 32];
  const subgroups = features.has('subgroups') ? [true, false] : [false];
  const allowed = activation === 'int8';
  const precisions = [
    { int8: false, f16: false },
    ...(allowed && features.has('shader-f16') ? [{ int8: false, f16: true }] : []),
    ...(allowed && features.has('dot4I8Packed') ? [{ int8: true, f16: false }] : []),
  ];
  return [
    {
      form: 'one',
      rows: [nRows],
      candidates: subgroups.flatMap((by) => [4, 2, 1, 8].map((rows) => ({ subgroups: by, rows }))),
      what: 'rows a workgroup: ',
      name: ({ subgroups: by, rows }) => `${rows}${by ? ' with subgroups' : ''}`,
    },
    {
      form: 'one',
      rows: [nRows],
      candidates: [64, 32, 128, 256].map((invocations) => ({ invocations })),
      what: 'invocations: ',
      name: ({ invocations }) => `${invocations}`,
    },
    {
      form: 'one',
      rows: few,
      candidates: [256, 1, 1024, 4096].map((groups) => ({ groups })),
      what: '',
      name: ({ groups }) => (groups === 1 ? 'whole columns' : `columns in parts below ${groups} workgroups`),
    },
    {
      form: 'many',
      rows: [nRows],
      candidates: precisions.flatMap((of) => sides.map((tile) => ({ ...of, tile }))),
      what: '',
      name: (forms) => `tiles of ${forms.tile} in ${precisionOf(forms, true)}`,
    },
  ];
}

/** The forms in words. @param {Stage[]} stages @param {GpuVariants} forms */
const namesOf = (stages, forms) => stages.map(({ what, name }) => what + name(forms)).join(', ');

/** Whether the forms are among the candidates. @param {Stage[]} stages @param {any} forms */
const isCandidate = (stages, forms) =>
  Object.keys(forms ?? {}).length === Object.keys(PLAIN).length &&
  stages.every(({ candidates }) =>
    candidates.some((one) => Object.entries(one).every(([property, value]) => forms[property] === value)),
  );

/**
 * The forms for this device: measured, remembered from an earlier measurement, or the standard
 * ones.
 * @param {ChoiceOptions} options
 * @param {Kernels} fm
 * @returns {Promise<Choice>}
 */
export async function chooseForms(options, fm) {
  const { gpu, activation, variants, trial = {} } = options;
  const { timed = !gpu.software, shape = SHAPE } = trial;
  const stages = stagesOf(gpu.features, activation, shape);
  if (!timed) {
    const line = `No forms are timed, since ${gpu.name} computes on the processor: ${namesOf(stages, variants)}.`;
    return { variants, report: [line] };
  }
  const key = keyOf(options, shape);
  const remembered = await choices.recall(key, (forms) => isCandidate(stages, forms));
  if (remembered) {
    const line = `Forms that were the fastest before: ${namesOf(stages, remembered)}.`;
    return { variants: remembered, report: [line] };
  }
  const trials = new Trials(options, shape, fm);
  try {
    const choice = await measure(trials, stages, variants);
    await choices.keep(key, choice.variants);
    return choice;
  } catch (error) {
    if (!(error instanceof GpuError) || gpu.failure) throw error;
    return { variants, report: [`No forms are timed: ${error.message}.`] };
  } finally {
    trials.free();
  }
}

/**
 * @param {Trials} trials
 * @param {Stage[]} stages
 * @param {GpuVariants} variants
 * @returns {Promise<Choice>}
 */
async function measure(trials, stages, variants) {
  let forms = variants;
  const parts = [];
  const report = [];
  for (const stage of stages) {
    const { forms: fastest, ratio, wrong } = await trials.fastest(stage, forms);
    for (const one of wrong)
      report.push(`Not timed, because its results are wrong: ${stage.what}${stage.name(one)}.`);
    const of = ratio < 1 ? ` (${ratio.toFixed(2)} of the time of ${stage.name(forms)})` : '';
    parts.push(`${stage.what}${stage.name(fastest)}${of}`);
    forms = fastest;
  }
  report.push(`The fastest forms, by samples of ${Math.round(trials.spent)} ms: ${parts.join(', ')}.`);
  return { variants: forms, report };
}

/**
 * The key of a choice: the adapter, its features and limits, the weight type, and the kernels.
 * @param {ChoiceOptions} options
 * @param {Shape} shape
 */
function keyOf({ gpu, type, activation, variants }, shape) {
  const { vendor, architecture, device, description } = gpu.adapter;
  const units = [{ type, nRows: shape.nRows, nCols: shape.nCols, nBlocks: 1, firstBlock: 0 }];
  const buffer = /** @type {any} */ ({ bytes: 0 });
  const weights = [{ ...units[0], units: () => [{ unit: units[0], buffer, firstRow: 0 }] }];
  const product = /** @type {any} */ ({ weights, x: buffer, y: buffer });
  let hash = 0;
  for (const form of /** @type {const} */ (['one', 'many']))
    for (const { shader } of productWork(product, form, { variants, spare: () => buffer }))
      for (let i = 0; i < shader.code.length; i++)
        hash = Math.imul(hash ^ shader.code.charCodeAt(i), 16777619);
  return JSON.stringify([
    ...[vendor, architecture, device, description, [...gpu.features].sort(), gpu.limits],
    ...[type, activation, variants, shape, hash],
  ]);
}

/** The choice of each device: it is made once. @type {WeakMap<object, Promise<string[]>>} */
const made = new WeakMap();

/**
 * Chooses the forms of a device before its first self-test, and tests the kernels.
 * @param {Omit<SelfTestOptions, 'variants'> & ChoiceOptions & { exact: boolean }} options  type: the
 *   most common one of the weights; variants: in use, changed to what is chosen; exact: products in
 *   f32 are tested, whatever was chosen
 * @returns {Promise<string[]>} what was chosen and why, in sentences
 * @throws {GpuError} not even the plain kernels compute what the wasm module does
 */
export async function proveKernels({ exact, variants, ...options }) {
  const { openWasmBackend } = await import('../wasm/backend.js');
  await loadTypes(options.types);
  const wasm = await openWasmBackend(undefined, { threads: 1 }, { activation: 'f32', kvType: 'F32' });
  try {
    let choosing = made.get(options.gpu);
    const isFirst = !choosing;
    choosing ??= chooseForms({ ...options, variants: { ...variants } }, wasm.kernels).then((choice) => {
      Object.assign(variants, choice.variants);
      return choice.report;
    });
    made.set(options.gpu, choosing);
    // Another self-test may choose again.
    choosing.catch(() => made.delete(options.gpu));
    const chosen = await choosing;
    const tried = { ...variants, ...(exact && { int8: false, f16: false }) };
    const { variants: good, report } = await chooseVariants({ ...options, variants: tried }, wasm);
    // Forms that have failed are not used any more.
    for (const [name, value] of Object.entries(good))
      if (value !== Reflect.get(tried, name)) Object.assign(variants, { [name]: value });
    return [...(isFirst ? chosen : []), ...report];
  } finally {
    wasm.dispose();
  }
}
