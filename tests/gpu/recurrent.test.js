/**
 * Recurrent blocks on the GPU: their kernels against float64, and whole models against the CPU, while
 * their states follow whatever a context does.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { openGguf } from '../../js/gguf/index.js';
import { GpuBackend } from '../../js/gpu/backend.js';
import { lacks } from '../../js/gpu/fit.js';
import { Pipelines } from '../../js/gpu/pipelines.js';
import { GpuState } from '../../js/gpu/recurrent-state.js';
import { up16 } from '../../js/gpu/shader.js';
import { causalConvolution, convolutionGroups } from '../../js/gpu/wgsl/convolution.js';
import { gatedNorm, gatedNormGroups } from '../../js/gpu/wgsl/gated-norm.js';
import { recurrence, recurrenceGroups } from '../../js/gpu/wgsl/recurrence.js';
import { NumericError } from '../../js/llama/index.js';
import { planModel } from '../../js/llama/plan.js';
import { openWasmBackend } from '../../js/wasm/backend.js';
import { countCalls, DEEP, gpuSkip, openTestDevice, SEED, sampled, TestGpu } from '../helpers/gpu.js';
import { u, within } from '../helpers/layer.js';
import { Prng } from '../helpers/prng.js';
import { CONTEXT, GREEDY, load, walk } from '../helpers/recurrent-walk.js';
import { makeHybrid } from '../helpers/synthetic-hybrid.js';
import { dataPath, skipWithout } from '../helpers/test-data.js';

/** @import { GpuDevice } from '../../js/gpu/device.js' */
/** @import { Model } from '../helpers/recurrent-walk.js' */
/** @import { RecurrenceOptions } from '../../js/gpu/wgsl/recurrence.js' */

const { abs, exp } = Math;
const KV = /** @type {const} */ ({ activation: 'f32', kvType: 'F32' });

test('what no kernel computes of recurrent blocks is named', async () => {
  const gguf = await openGguf(/** @type {ArrayBuffer} */ (makeHybrid([true, false]).bytes.buffer));
  const plan = planModel(gguf.metadata, 32);
  const settings = /** @type {const} */ ({ contextLength: 32, kvType: 'F16' });
  const limits = { bindingBytes: 2 ** 20 };
  assert.deepEqual(lacks(plan, [], settings, limits), []);
  const { recurrent } = plan.layers[0];
  const because = (/** @type {object} */ change) => {
    Object.assign(/** @type {object} */ (recurrent), change);
    return lacks(plan, [], settings, limits).join();
  };
  assert.match(because({ kind: 'memory' }), /kind "memory" are not supported on the GPU/);
  assert.match(because({ kind: 'convolution', length: 17 }), /length 17 .* must cover 2 to 16 tokens/);
  assert.match(because({ length: 3, nChannels: 2 ** 18 }), /state of a recurrent layer has 2097152 bytes/);
  const role = 'layers.0.recurrent.outputBias';
  plan.tensors.push({ ...plan.tensors[0], role, name: 'bias' });
  const tensors = /** @type {any} */ ([{ name: 'bias', type: 'F32', supported: true }]);
  assert.match(lacks(plan, tensors, settings, limits).join(), /biases of products in recurrent blocks/);
});

test('a state goes on where it ends, from its copy, and from the beginning', () => {
  const state = new GpuState(/** @type {any} */ ({ buffer: () => ({}) }), 4);
  const go = (/** @type {number} */ position, /** @type {number} */ nTokens, pass = 1) => {
    const restored = state.advance({ position, nTokens }, pass);
    return [restored, state.position, state.savedAt];
  };
  assert.deepEqual(go(0, 1), [false, 1, 0]);
  assert.deepEqual(go(1, 5), [false, 6, 5]);
  assert.deepEqual(go(6, 1), [false, 7, 5]);
  assert.deepEqual(go(5, 1), [true, 6, 5]);
  assert.throws(() => go(4, 1), /cannot go on at position 4: its states are those of 6 and 5/);
  assert.deepEqual(go(0, 3, 2), [false, 3, 2]);
  assert.deepEqual(go(3, 1, 3), [false, 4, 2]);
  // A pass before the state was zeros, one of another state, and the last one.
  for (const pass of [1, 7]) state.spoil(pass);
  assert.deepEqual([state.position, state.savedAt], [4, 2]);
  state.spoil(3);
  assert.deepEqual([state.position, state.savedAt], [-1, 2]);
  state.spoil(2);
  assert.deepEqual([state.position, state.savedAt], [-1, -1]);
});

const START = 1;
/** Rows of a buffer with a value for every column, zeros in the padding. */
const rowsOf = (
  /** @type {number} */ nRows,
  /** @type {number} */ nCols,
  /** @type {(row: number, col: number) => number} */ of,
) =>
  Float32Array.from({ length: nRows * up16(nCols) }, (_, i) => {
    const [row, col] = [Math.floor(i / up16(nCols)), i % up16(nCols)];
    return col < nCols ? of(row, col) : 0;
  });

describe('recurrent kernels', { skip: await gpuSkip() }, () => {
  /** @type {TestGpu} */
  let gpu;
  before(async () => {
    gpu = await TestGpu.open();
  });
  after(() => gpu.dispose());

  /**
   * Runs a kernel, and reads several of its buffers.
   * @template {string} K
   * @param {import('../../js/gpu/shader.js').Shader} shader
   * @param {Record<string, Float32Array>} data
   * @param {[number, number, number]} groups
   * @param {import('../../js/backend.js').Step} step
   * @param {readonly K[]} names
   * @returns {Promise<Record<K, Float32Array>>}
   */
  async function run(shader, data, groups, step, names) {
    const { device, commands, pipelines } = gpu;
    const buffers = Object.fromEntries(
      Object.entries(data).map(([name, values]) => [name, device.bufferOf(values)]),
    );
    commands.dispatch((await pipelines.compile(shader)).bind(buffers), groups, step);
    const regions = names.map((name) => ({ buffer: buffers[name], offset: 0, bytes: data[name].byteLength }));
    const read = await commands.read(regions);
    for (const buffer of Object.values(buffers)) buffer.free();
    const results = names.map((name, i) => [name, new Float32Array(read[i])]);
    return /** @type {any} */ (Object.fromEntries(results));
  }

  const prng = new Prng(SEED);
  for (const { nChannels, length, isGated, hasBias } of sampled(
    [
      { nChannels: 70, length: 3, isGated: true, hasBias: false },
      { nChannels: 64, length: 2, isGated: true, hasBias: true },
      { nChannels: 130, length: 4, isGated: false, hasBias: true },
      { nChannels: 5, length: 16, isGated: false, hasBias: false },
    ],
    2,
  )) {
    const what = `${nChannels} channels, ${length} tokens${isGated ? ', gates' : ''}${hasBias ? ', bias' : ''}`;
    test(`convolution of ${what}, seed ${SEED}`, async () => {
      const at = 6;
      const nCols = isGated ? 3 * nChannels : at + nChannels + 3;
      const options = {
        ...{ nChannels, length, stride: up16(nCols), bias: hasBias },
        ...(isGated ? { gates: { b: 0, c: nChannels, x: 2 * nChannels } } : { at }),
      };
      const shader = causalConvolution(options);
      const weight = rowsOf(nChannels, length, () => prng.gaussian());
      const bias = rowsOf(1, nChannels, () => prng.gaussian());
      for (const [position, nTokens] of [
        [0, 1],
        [0, length + 3],
        [9, 1],
        [9, 2],
        [9, length + 3],
      ]) {
        const nRows = START + nTokens + 1;
        const x = rowsOf(nRows, nCols, () => 2 * prng.gaussian());
        const state = Float32Array.from({ length: nChannels * (length - 1) }, () =>
          position === 0 ? Number.NaN : prng.gaussian(),
        );
        const saved = state.map(() => 7);
        const y = rowsOf(nRows, nChannels, () => 5);
        const data = { x, weight, state, saved, y, ...(hasBias && { bias }) };
        const step = { position, start: START, nTokens, seen: 0 };
        const got = await run(shader, data, convolutionGroups(options), step, ['x', 'y', 'state', 'saved']);
        const input = (/** @type {number} */ t, /** @type {number} */ i) => {
          const row = (START + t) * up16(nCols);
          if (!isGated) return x[row + at + i];
          return Math.fround(x[row + i] * x[row + 2 * nChannels + i]);
        };
        const past = (/** @type {number} */ t, /** @type {number} */ i) => {
          if (t >= 0) return input(t, i);
          return position === 0 ? 0 : state[(t + length - 1) * nChannels + i];
        };
        const sum = (
          /** @type {number} */ t,
          /** @type {number} */ i,
          of = (/** @type {number} */ v) => v,
        ) => {
          let all = hasBias ? of(bias[i]) : 0;
          for (let j = 0; j < length; j++)
            all += of(weight[up16(length) * i + j] * past(t + 1 - length + j, i));
          return all;
        };
        for (let t = 0; t < nTokens; t++) {
          const [to, stride] = isGated ? [got.y, up16(nChannels)] : [got.x.subarray(at), up16(nCols)];
          within(
            to.subarray((START + t) * stride, (START + t) * stride + nChannels),
            (i) => {
              const s = sum(t, i);
              return isGated ? x[(START + t) * up16(nCols) + nChannels + i] * s : s / (1 + exp(-s));
            },
            (i) => {
              const by = isGated ? abs(x[(START + t) * up16(nCols) + nChannels + i]) : 1.1;
              return by * (length + 24) * u * sum(t, i, abs);
            },
            `token ${t} of ${nTokens} from position ${position} on`,
          );
        }
        for (const [name, end] of /** @type {const} */ ([
          ['state', nTokens],
          ['saved', nTokens - 1],
        ])) {
          const expected = Array.from({ length: state.length }, (_, i) =>
            past(end + 1 - length + Math.floor(i / nChannels), i % nChannels),
          );
          if (name === 'saved' && nTokens === 1)
            assert.deepEqual(got.saved, saved, 'one token copies nothing');
          else assert.deepEqual([...got[name]], expected, `${name}, ${nTokens} from position ${position} on`);
        }
        // Rows of other tokens, columns of other values, and the padding.
        const others = (/** @type {Float32Array} */ of, /** @type {number} */ stride, first = 0) =>
          of.filter((_, i) => {
            const [row, col] = [Math.floor(i / stride), i % stride];
            return row < START || row >= START + nTokens || col < first || col >= first + nChannels;
          });
        if (isGated) assert.deepEqual(got.x, x);
        else assert.deepEqual(others(got.x, up16(nCols), at), others(x, up16(nCols), at));
        const ofY = isGated ? others : (/** @type {Float32Array} */ of) => of;
        assert.deepEqual(ofY(got.y, up16(nChannels)), ofY(y, up16(nChannels)));
      }
    });
  }

  /** @type {Pick<RecurrenceOptions, 'kind' | 'nHeads' | 'nKeyHeads' | 'rows' | 'cols'>[]} */
  const shapes = [
    { kind: 'delta', nHeads: 4, nKeyHeads: 2, rows: 32, cols: 32 },
    { kind: 'delta', nHeads: 3, nKeyHeads: 3, rows: 8, cols: 24 },
    { kind: 'delta', nHeads: 2, nKeyHeads: 1, rows: 128, cols: 64 },
    { kind: 'scan', nHeads: 4, nKeyHeads: 2, rows: 16, cols: 40 },
    { kind: 'scan', nHeads: 2, nKeyHeads: 1, rows: 12, cols: 5 },
    { kind: 'scan', nHeads: 2, nKeyHeads: 2, rows: 128, cols: 64 },
  ];
  for (const shape of sampled(shapes, 2)) {
    const { kind, nHeads, nKeyHeads, rows, cols } = shape;
    test(`${kind}, ${nHeads} heads of ${rows} x ${cols} with ${nKeyHeads} keys, seed ${SEED}`, async () => {
      const isDelta = kind === 'delta';
      const keys = nKeyHeads * rows;
      const value = 2 * keys + 4;
      const at = {
        key: 4,
        query: 4 + keys,
        value,
        step: value + nHeads * cols,
        beta: value + nHeads * (cols + 1),
      };
      const nCols = at.beta + nHeads;
      const first = 3;
      const numbers = isDelta ? 1 : 16;
      const eps = isDelta ? 0.3 : 0;
      const options = { ...shape, at, stride: up16(nCols), eps, numbers, first };
      const shader = recurrence(options);
      const [a, d] = [-0.4, 0.7].map((mean) => rowsOf(numbers * nHeads, 1, () => mean * (0.5 + prng.unit())));
      const perHead = (/** @type {Float32Array} */ of) =>
        Float32Array.from({ length: 16 * nHeads }, (_, i) => of[isDelta ? 16 * i : i] ?? 0);
      const [as, ds] = [perHead(a), perHead(d)];
      const bias = rowsOf(1, nHeads, () => prng.gaussian());
      for (const [position, nTokens] of [
        [0, 1],
        [0, 5],
        [9, 1],
        [9, 2],
      ]) {
        const nRows = START + nTokens + 1;
        const x = rowsOf(nRows, nCols, () => prng.gaussian());
        const size = first + nHeads * rows * cols;
        const state = Float32Array.from({ length: size }, (_, i) =>
          position === 0 && i >= first ? Number.NaN : 0.3 * prng.gaussian(),
        );
        const saved = state.map(() => 7);
        const y = rowsOf(nRows, nHeads * cols, () => 5);
        const data = { x, a: as, bias, state, saved, y, ...(!isDelta && { d: ds }) };
        const step = { position, start: START, nTokens, seen: 0 };
        const got = await run(shader, data, recurrenceGroups(options), step, ['y', 'state', 'saved']);
        const again = await run(shader, data, recurrenceGroups(options), step, ['y', 'state', 'saved']);
        assert.deepEqual(again, got, 'the same bits again');
        const now = Float64Array.from(state, (v, i) => (position === 0 && i >= first ? 0 : v));
        const copy = Float64Array.from(saved);
        const expected = Float64Array.from(y);
        for (let t = 0; t < nTokens; t++) {
          const row = x.subarray((START + t) * up16(nCols), (START + t + 1) * up16(nCols));
          if (nTokens > 1 && t + 1 === nTokens) copy.set(now.subarray(first), first);
          for (let h = 0; h < nHeads; h++) {
            const keyHead = isDelta ? h % nKeyHeads : Math.floor((h * nKeyHeads) / nHeads);
            const of = (/** @type {number} */ start) => {
              const values = Float64Array.from(
                row.subarray(start + keyHead * rows, start + (keyHead + 1) * rows),
              );
              const norm = isDelta ? Math.sqrt(values.reduce((sum, v) => sum + v * v, eps)) : 1;
              return values.map((v) => v / norm);
            };
            const [k, q] = [of(at.key), of(at.query)];
            const time = Math.log1p(exp(row[at.step + h] + bias[h]));
            const decay = exp(as[numbers * h] * time);
            for (let c = 0; c < cols; c++) {
              const cell = (/** @type {number} */ r) => first + (h * rows + r) * cols + c;
              const v = row[at.value + h * cols + c];
              const seen = k.reduce((sum, key, r) => sum + key * decay * now[cell(r)], 0);
              const w = isDelta ? (v - seen) / (1 + exp(-row[at.beta + h])) : time * v;
              for (let r = 0; r < rows; r++) now[cell(r)] = decay * now[cell(r)] + k[r] * w;
              const read = q.reduce((sum, query, r) => sum + query * now[cell(r)], 0);
              expected[(START + t) * up16(nHeads * cols) + h * cols + c] = isDelta
                ? read / Math.sqrt(rows)
                : read + ds[numbers * h] * v;
            }
          }
        }
        for (const [name, right] of /** @type {const} */ ([
          ['y', expected],
          ['state', now],
          ['saved', copy],
        ])) {
          const peak = right.reduce((most, v) => Math.max(most, abs(v)), 0);
          const far = got[name].findIndex((v, i) => !(abs(v - right[i]) <= 4e-6 * peak));
          const what = `${name} ${far} of ${nTokens} tokens from position ${position} on`;
          assert.equal(far, -1, `${what} is ${got[name][far]}, not ${right[far]}`);
        }
      }
    });
  }

  const norms = [
    { nGroups: 3, size: 32, eps: 0.5, shared: true },
    { nGroups: 2, size: 300, eps: 0.5, gateFirst: true },
    { nGroups: 1, size: 40, eps: undefined, gateFirst: true },
  ];
  for (const shape of sampled(norms, 1)) {
    const { nGroups, size, eps, gateFirst = false, shared = false } = shape;
    test(`gates and norms of ${nGroups} x ${size}, seed ${SEED}`, async () => {
      const nCols = nGroups * size;
      const options = { ...shape, stride: up16(nCols + 3), at: 3 };
      const gates = rowsOf(4, nCols + 3, () => 2 * prng.gaussian());
      const weight = rowsOf(shared ? 1 : nGroups, size, () => 1 + prng.gaussian());
      const y = rowsOf(4, nCols, () => prng.gaussian());
      const step = { position: 0, start: START, nTokens: 2, seen: 0 };
      const data = { gates, y, ...(eps !== undefined && { weight }) };
      const got = await run(gatedNorm(options), data, gatedNormGroups(options, 2), step, ['y']);
      const expected = Float64Array.from(y);
      for (const row of [START, START + 1]) {
        for (let g = 0; g < nGroups; g++) {
          const to = row * up16(nCols) + g * size;
          const gate = Float64Array.from({ length: size }, (_, i) => {
            const z = gates[row * up16(nCols + 3) + 3 + g * size + i];
            return z / (1 + exp(-z));
          });
          const values = gate.map((by, i) => y[to + i] * (gateFirst ? by : 1));
          const rms = Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / size + (eps ?? 0));
          for (let i = 0; i < size; i++) {
            const by = eps === undefined ? 1 : weight[(shared ? 0 : g * up16(size)) + i] / rms;
            expected[to + i] = values[i] * by * (gateFirst ? 1 : gate[i]);
          }
        }
      }
      const far = got.y.findIndex((v, i) => !(abs(v - expected[i]) <= 2e-6 * (1 + abs(expected[i]))));
      assert.equal(far, -1, `value ${far} is ${got.y[far]}, not ${expected[far]}`);
    });
  }
});

/** @param {readonly boolean[]} isRecurrent @param {{ nFf?: number }} [more] */
const hybridOf = (isRecurrent, more) =>
  /** @type {ArrayBuffer} */ (makeHybrid(isRecurrent, { context: CONTEXT, ...more }).bytes.buffer);

/** perToken: dispatches. @type {(Model & { perToken: number })[]} */
const MODELS = [
  { name: 'convolutions and attention', isRecurrent: [true, false, true], perToken: 22 },
  { name: 'convolutions alone', isRecurrent: [true, true], perToken: 16 },
].map(({ name, isRecurrent, perToken }) => ({
  ...{ name, perToken, nVocab: 40 },
  bytes: () => hybridOf(isRecurrent),
}));
for (const [name, perToken] of /** @type {[string, number][]} */ ([
  ['qwen35-A', 31],
  ['falcon-h1-A', 26],
])) {
  const path = `arch/models/${name}.gguf`;
  const absent = skipWithout(path);
  if (absent) test(`${name} on the GPU`, { skip: absent }, () => {});
  else
    MODELS.push({
      name,
      perToken,
      nVocab: 512,
      bytes: () => new Uint8Array(readFileSync(dataPath(path))).buffer,
    });
}

describe('models with recurrent layers on the GPU', { skip: await gpuSkip() }, () => {
  /** @type {GpuDevice} */
  let gpu;
  /** @type {Pipelines} */
  let pipelines;
  before(async () => {
    gpu = await openTestDevice();
    pipelines = new Pipelines(gpu);
  });
  after(() => gpu?.destroy());

  const onGpu = (ahead = 2) =>
    new GpuBackend(gpu, { kvType: 'F32', variants: { subgroups: false, int8: false }, pipelines, ahead });
  const onCpu = () => openWasmBackend(undefined, { isa: 'simd128', threads: 1 }, KV);

  for (const model of sampled(MODELS, 1)) {
    const { name, nVocab, perToken } = model;

    for (const batch of sampled([undefined, 3], 1)) {
      const label = batch ? `${batch} at a time` : 'at once';
      test(`${name}, ${label}, seed ${SEED}: random calls, as on the CPU from the beginning`, async (t) => {
        const one = await load(model, onGpu(), { picks: false, ...(batch && { batch }) });
        const { llama: fresh } = await load(model, await onCpu());
        t.after(() => [one.llama, fresh].forEach((llama) => void llama.dispose()));
        const options = {
          prng: new Prng(SEED),
          nVocab,
          rounds: DEEP ? 100 : 25,
          limit: 1e-3,
          hook: true,
        };
        const counts = await walk(one, fresh, options);
        t.diagnostic(`ran: ${name}, ${label}, seed ${SEED}: ${JSON.stringify(counts)}`);
        assert.ok(counts.checked > 5);
      });
    }

    test(`${name}: a token is one submission, and makes nothing new`, async (t) => {
      const backend = onGpu();
      const { llama } = await load(model, backend, { picks: false });
      t.after(() => llama.dispose());
      const calls = countCalls(gpu);
      const run = llama.generate([5, 9], { ...GREEDY, maxTokens: 8 });
      const at = [];
      while (!(await run.next()).done)
        at.push({ made: calls.createBuffer + calls.createBindGroup, ...backend.counts });
      // The last tokens begin nothing: two are ahead.
      const middle = at.slice(2, -2);
      for (const [i, now] of middle.slice(1).entries()) {
        const last = middle[i];
        const grown = [now.dispatches - last.dispatches, now.submits - last.submits, now.made - last.made];
        assert.deepEqual(grown, [perToken, 1, 0], `token ${i}`);
      }
    });
  }

  const attentionFirst = { ...MODELS[1], bytes: () => hybridOf([false, true], { nFf: 40 }) };
  for (const [what, model] of /** @type {const} */ ([
    ['between recurrent layers', MODELS[1]],
    ['behind a layer with odd rows', attentionFirst],
  ]))
    test(`a NaN ${what} is reported with its layer, and nothing of it is left`, async (t) => {
      const backend = onGpu();
      const { llama } = await load(model, backend, { picks: false });
      const { llama: fresh } = await load(model, await onCpu());
      const broken = backend.tensor({ nRows: 1, nCols: 32 });
      t.after(() => [llama, fresh].forEach((one) => void one.dispose()));
      backend.write(broken, 0, new Float32Array(32).fill(Number.NaN));
      const { recur } = backend;
      let isBroken = true;
      /** @type {Map<object, any>} */
      const blocks = new Map();
      backend.recur = (x, block, state, at) => {
        if (!isBroken || block.layer !== 1) return recur.call(backend, x, block, state, at);
        if (!blocks.has(block)) blocks.set(block, { ...block, weights: { ...block.weights, norm: broken } });
        return recur.call(backend, x, blocks.get(block), state, at);
      };
      const check = async (/** @type {number[]} */ prompt) =>
        assert.rejects(llama.generate(prompt, { ...GREEDY, maxTokens: 3 }).text(), (error) => {
          assert.ok(error instanceof NumericError, String(error));
          assert.deepEqual([error.part, error.layer], ['recurrent', 1]);
          return true;
        });
      const compare = async (/** @type {number[]} */ prompt) => {
        const [run, expected] = [llama, fresh].map((one) =>
          one.generate(prompt, { ...GREEDY, maxTokens: 3 }),
        );
        assert.equal(await run.text(), await expected.text());
        return [...prompt, ...run.tokens];
      };
      const prompt = [5, 9, 30];
      await check(prompt);
      isBroken = false;
      const text = await compare(prompt);
      isBroken = true;
      await check([...text, 8]);
      isBroken = false;
      await compare([...text, 8]);
    });
});
