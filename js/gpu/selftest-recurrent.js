/* The part of the self-test for recurrent blocks: one block with the settings of the model, through
 * which tokens go in steps of every form, from the beginning, on, from the copy of the state, and from
 * the beginning again. */

import { servedType } from '../types.js';
import { GpuBackend } from './backend.js';
import { precisionOf } from './features.js';
import { FEW } from './products.js';
import { shapeOf } from './recurrent.js';
import { normedSize, normOf, productErrors, sumError } from './selftest-bounds.js';
import { generator, makeMatrix, makeStates, makeVector } from './selftest-data.js';
import { COLUMNS, meanFor, toGpu, toWasm } from './selftest-model.js';
import { PARTS, recurrentErrors } from './selftest-recurrent-parts.js';
import { RUNS, readSafely } from './selftest-run.js';

/** @typedef {import('../backend.js').Weights} Weights */
/** @typedef {import('../llama/plan.js').RecurrentSettings} RecurrentSettings */
/** @typedef {import('./selftest.js').SelfTestOptions} SelfTestOptions */
/** @typedef {import('./selftest-data.js').Matrix} Matrix */
/** @typedef {import('./selftest-model.js').Tree} Tree */

/** A comparison to be made; see Comparison. @typedef {Parameters<import('./selftest.js').Comparison['add']>} Compared */

/** Position and tokens of each step. The copy of the third has seen 46 tokens. @type {[number, number, string][]} */
const STEPS = [
  [0, 41, ''],
  [41, 1, ' from position 41 on'],
  [42, 5, ' from position 42 on'],
  [47, 1, ' from position 47 on'],
  [46, 2, ' from the copy'],
  [0, 3, ' from the beginning'],
];
const COUNT = 53;
/** Tensors that some models lack. */
const OPTIONAL = ['convBias', 'gateNorm'];

/**
 * @param {SelfTestOptions & { recurrent: RecurrentSettings }} options
 * @param {import('../wasm/backend.js').WasmBackend} wasmBackend
 * @returns {Promise<Compared[]>}
 */
export async function compareRecurrent(options, wasmBackend) {
  const { gpu, pipelines, variants, recurrent, recurrentRoles, columns } = options;
  const fm = wasmBackend.kernels;
  const random = generator(0x6b43a9b5);
  const blockOf = (/** @type {string} */ type) => servedType(type).blockValues;
  // The output takes the first type, which is one that matrices have; routers and gates have others.
  const types = [...options.types].sort((one, other) => blockOf(other) - blockOf(one));
  const block = blockOf(types[0]);
  const [nEmbd] = columns ?? COLUMNS[/** @type {keyof typeof COLUMNS} */ (block)];
  const kind = PARTS[recurrent.kind];
  const settings = { ...recurrent, ...kind.fewer(recurrent, { nEmbd, block }), postNorm: undefined };
  const shape = /** @type {import('./recurrent.js').RecurrentShape} */ (shapeOf(settings));
  let turn = 0;
  const matrix = (/** @type {number} */ nRows, /** @type {number} */ nCols, /** @type {number} */ mean) => {
    const fitting = types.filter((type) => nCols % blockOf(type) === 0);
    const type = fitting[turn++ % Math.max(1, fitting.length)] ?? 'F32';
    return makeMatrix(fm, { type, nRows, nCols, mean }, random);
  };
  const norm = makeVector(nEmbd, 1, random);
  const output = matrix(nEmbd, shape.result(settings), 0.02);
  // The products that are computed together are rows of one matrix.
  const groups = shape.products(settings).map((roles) => {
    const nRows = Object.values(roles).reduce((sum, n) => sum + n, 0);
    return { roles: Object.entries(roles), matrix: matrix(nRows, nEmbd, meanFor(1, nEmbd)) };
  });
  const vectors = Object.fromEntries(
    Object.entries(kind.vectors(settings, random)).filter(
      ([role]) => !OPTIONAL.includes(role) || (recurrentRoles?.includes(role) ?? true),
    ),
  );
  const joined = Object.fromEntries(groups.map((group, i) => [`in${i}`, group.matrix]));
  const tree = /** @type {Tree} */ ({ norm, output, ...joined, ...vectors });
  const withViews = (/** @type {Weights} */ weights) => {
    const views = { ...weights };
    for (const [i, { roles }] of groups.entries()) {
      let start = 0;
      for (const [role, n] of roles) {
        views[role] = weights[`in${i}`].rows(start, n);
        start += n;
      }
    }
    return views;
  };
  const states = makeStates(COUNT, nEmbd, random, 'rms');
  const plan = /** @type {import('../llama/plan.js').Plan} */ (
    /** @type {unknown} */ ({
      ...{ nEmbd, nVocab: 1, embedding: {}, tensors: [] },
      layers: [{ attention: undefined, recurrent: settings, feed: { kind: 'gated', nFf: 16 } }],
    })
  );
  const backend = new GpuBackend(gpu, { kvType: 'F32', variants, pipelines });
  /** @type {{ free: () => void }[]} */
  const owned = [];
  try {
    const onGpu = await toGpu({ gpu, pipelines }, [tree]);
    owned.push(...onGpu.owned);
    const made = await compute(backend, plan, withViews(onGpu.trees[0]), states, RUNS.length);
    const onCpu = toWasm(fm, [tree]);
    owned.push(...onCpu.owned);
    const weights = withViews(onCpu.trees[0]);
    const expected = await compute(wasmBackend, plan, weights, states, 1);
    const precision = precisionOf(variants, true);
    const errorsOf = recurrentErrors(settings, /** @type {any} */ (vectors));
    const { eps } = settings.norm;
    let start = 0;
    return STEPS.map(([position, nTokens, where]) => {
      const rows = [start, start + nTokens].map((row) => row * nEmbd);
      start += nTokens;
      const x = states.subarray(...rows);
      const mode = nTokens > FEW ? precision : 'f32';
      const ofOutput = productErrors(output, mode);
      const inputs = groups.map((group, i) => ({
        roles: group.roles,
        errors: productErrors(group.matrix, mode, true).errors,
        values: fm.fusedRmsNormMatmul([weights[`in${i}`]], x, norm, { eps, activation: 'f32' })[0],
      }));
      const bounds = Array.from({ length: nTokens }, (_, t) => {
        const size = normedSize(x.subarray(t * nEmbd, (t + 1) * nEmbd), norm, eps);
        const token = Object.fromEntries(
          inputs.flatMap(({ roles, errors, values }) => {
            let at = 0;
            return roles.map(([role, n]) => {
              const first = t * errors.length + at;
              const e = Float64Array.from({ length: n }, (_, i) => size * errors[at + i]);
              at += n;
              return [role, { v: Float64Array.from(values.subarray(first, first + n)), e }];
            });
          }),
        );
        const isCopied = nTokens > 1 && t + 1 === nTokens;
        const { v, e } = errorsOf(token, position + t, isCopied);
        const [of, off] = [normOf(v), normOf(e)];
        return ofOutput.sizes.map((norm, r) => norm * off + ofOutput.errors[r] * (of + off));
      });
      const [got, again] = RUNS.map((run) =>
        made.subarray(run * states.length + rows[0], run * states.length + rows[1]),
      );
      const right = expected.subarray(...rows);
      const boundOf = (/** @type {number} */ t) => (/** @type {number} */ c) => {
        const at = t * nEmbd + c;
        return sumError(bounds[t][c], x[at], right[at], settings.residualScale);
      };
      const tokens = nTokens === 1 ? '1 token' : `${nTokens} tokens`;
      return [`recurrent ${settings.kind}, ${tokens}${where}`, nEmbd, got, again, right, boundOf];
    });
  } finally {
    for (const one of owned) one.free();
    backend.dispose();
  }
}

/**
 * Hidden states after all steps, once or several times below one another.
 * @param {import('../backend.js').Backend} backend
 * @param {import('../llama/plan.js').Plan} plan
 * @param {Weights} weights
 * @param {Float32Array} states
 * @param {number} nRuns
 */
async function compute(backend, plan, weights, states, nRuns) {
  const [{ recurrent }] = plan.layers;
  const settings = /** @type {RecurrentSettings} */ (recurrent);
  const x = backend.hidden(plan, { batch: nRuns * COUNT, part: COUNT });
  const state = backend.state(settings, { contextLength: COUNT, kvType: 'F32' }, 0);
  const block = { settings, weights, layer: 0 };
  try {
    const all = new Float32Array(nRuns * states.length);
    for (let run = 0; run < nRuns; run++) all.set(states, run * states.length);
    backend.write(x, 0, all);
    let start = 0;
    for (let run = 0; run < nRuns; run++) {
      for (const [position, nTokens] of STEPS) {
        backend.recur(x, block, state, { position, start, nTokens, seen: position + nTokens });
        start += nTokens;
      }
    }
    backend.flush();
    return await readSafely(() => backend.read(x));
  } finally {
    state.free();
    x.free();
  }
}
