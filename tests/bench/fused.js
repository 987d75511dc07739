/**
 * Measures the fused products of a layer with 2048 columns. fused_rmsnorm_matmul for q (2048 rows),
 * k and v (512 each) is compared with its products alone, on activations that are already
 * normalised (the promise: at most 3 % slower), with the unfused sequence, and for one token with
 * plain JavaScript. fused_ffn (5632 inner columns) is compared with its sequence, with each gate.
 * Prints Markdown.
 *
 *   node tests/bench/fused.js [--seconds N] [--tokens 1,8,128] [--type Q4_K] [--filter REGEX]
 */
import { parseArgs } from 'node:util';
import { makeWeights } from '../helpers/blocks.js';
import { ACTIVATION_NAMES } from '../helpers/bounds.js';
import { GATES } from '../helpers/fused.js';
import { Prng } from '../helpers/prng.js';
import { referenceByName } from '../helpers/reference.js';
import { bestModule, checked, put } from './best.js';
import { race } from './lab.js';
import { table } from './report.js';

/** @import { Contender } from './lab.js' */

const { values: options } = parseArgs({
  options: {
    seconds: { type: 'string', default: '2' },
    tokens: { type: 'string', default: '1,2,8,128' },
    type: { type: 'string', default: 'Q4_K' },
    filter: { type: 'string', default: '' },
  },
});
const LIMITS = { minRounds: 9, maxRounds: 400, budgetMs: 1000 * Number(options.seconds) };
const [N_EMBD, N_KV, N_FF] = [2048, 512, 5632];
const EPS = 1e-5;

const type = referenceByName.get(options.type);
if (!type) throw new Error(`no type ${options.type}`);
const prng = new Prng(1);

const module = bestModule();
const wasm = module.exports;

const store = (/** @type {ArrayBufferView} */ data) => put(module, data);

const floats = (/** @type {number} */ n) => module.alloc(4 * n);
const view = (/** @type {number} */ at, /** @type {number} */ n) =>
  new Float32Array(wasm.memory.buffer, at, n);

/** A matrix in which the blocks of one row repeat. @param {number} nRows @param {number} nCols */
function weight(nRows, nCols) {
  const row = makeWeights(/** @type {any} */ (type), 'natural', 1, nCols, prng);
  const bytes = new Uint8Array(nRows * row.length);
  for (let r = 0; r < nRows; r++) bytes.set(row, r * row.length);
  return { at: store(bytes), nRows, nCols };
}

/** @param {{ at: number, nRows: number }[]} weights @param {number[]} outputs  addresses */
const targetList = (weights, outputs) =>
  store(
    Int32Array.from(
      weights.flatMap(({ at, nRows }, i) => [/** @type {any} */ (type).id, nRows, at, outputs[i]]),
    ),
  );

/** @param {number} nTokens @param {number} nCols */
const gaussians = (nTokens, nCols) =>
  store(Float32Array.from({ length: nTokens * nCols }, () => prng.gaussian()));

const qkv = [N_EMBD, N_KV, N_KV].map((nRows) => weight(nRows, N_EMBD));
const [gate, up] = [weight(N_FF, N_EMBD), weight(N_FF, N_EMBD)];
const down = weight(N_EMBD, N_FF);
const norm = store(Float32Array.from({ length: N_EMBD }, () => 1 + 0.1 * prng.gaussian()));

/** @param {{ at: number, nRows: number, nCols: number }} w */
const matmul = (
  w,
  /** @type {number} */ x,
  /** @type {number} */ y,
  /** @type {number} */ nTokens,
  mode = 1,
) => checked(wasm.fused_matmul(/** @type {any} */ (type).id, w.at, x, y, nTokens, w.nRows, w.nCols, mode));

/** q, k and v of one token in plain JavaScript: f32 weights, simple loops. @param {number} x */
function plainJavaScript(x) {
  const dense = qkv.map(({ at, nRows, nCols }) => {
    const to = floats(nRows * nCols);
    checked(wasm.fm_dequantize_rows(/** @type {any} */ (type).id, at, to, nRows, nCols));
    const copy = view(to, nRows * nCols).slice();
    module.free(to);
    return copy;
  });
  const [input, normWeight] = [view(x, N_EMBD).slice(), view(norm, N_EMBD).slice()];
  const normed = new Float32Array(N_EMBD);
  const outputs = qkv.map(({ nRows }) => new Float32Array(nRows));
  return () => {
    let squares = 0;
    for (let c = 0; c < N_EMBD; c++) squares += input[c] * input[c];
    const factor = 1 / Math.sqrt(squares / N_EMBD + EPS);
    for (let c = 0; c < N_EMBD; c++) normed[c] = input[c] * factor * normWeight[c];
    dense.forEach((w, i) => {
      const y = outputs[i];
      for (let r = 0, at = 0; r < y.length; r++) {
        let sum = 0;
        for (let c = 0; c < N_EMBD; c++, at++) sum += w[at] * normed[c];
        y[r] = sum;
      }
    });
  };
}

/**
 * @param {number} nTokens @param {number} mode
 * @returns {{ contenders: Contender[], free: () => void }}
 */
function enterQkv(nTokens, mode) {
  const x = gaussians(nTokens, N_EMBD);
  const normed = floats(nTokens * N_EMBD);
  const outputs = qkv.map(({ nRows }) => floats(nTokens * nRows));
  const list = targetList(qkv, outputs);
  const normalise = () => checked(wasm.fm_rms_norm(x, norm, normed, nTokens, N_EMBD, EPS));
  const each = (/** @type {number} */ from) => {
    qkv.forEach((w, i) => {
      matmul(w, from, outputs[i], nTokens, mode);
    });
  };
  normalise();
  const contenders = [
    { name: 'its matmuls alone', run: () => each(normed) },
    {
      name: 'fused_rmsnorm_matmul',
      run: () => checked(wasm.fused_rmsnorm_matmul(list, qkv.length, x, norm, EPS, nTokens, N_EMBD, mode)),
    },
    {
      name: 'fused_matmul_many',
      run: () => checked(wasm.fused_matmul_many(list, qkv.length, normed, nTokens, N_EMBD, mode)),
    },
    {
      name: 'fm_rms_norm, then matmuls',
      run: () => {
        normalise();
        each(normed);
      },
    },
  ];
  if (nTokens === 1) contenders.push({ name: 'plain JavaScript', run: plainJavaScript(x) });
  const owned = [x, normed, list, ...outputs];
  return { contenders, free: () => owned.forEach((p) => void module.free(p)) };
}

/**
 * @param {number} nTokens @param {number} mode
 * @param {number} act  of the gate, in GATES
 * @returns {{ contenders: Contender[], free: () => void }}
 */
function enterFfn(nTokens, mode, act) {
  const x = gaussians(nTokens, N_EMBD);
  const [normed, product, y] = [1, 2, 3].map(() => floats(nTokens * N_EMBD));
  const workspace = floats(2 * nTokens * N_FF);
  const [gateAt, upAt] = [workspace, workspace + 4 * nTokens * N_FF];
  const { id } = /** @type {any} */ (type);
  const list = store(Int32Array.from([id, id, id, gate.at, up.at, down.at]));
  const contenders = [
    {
      name: 'its matmuls alone',
      run: () => {
        matmul(gate, normed, gateAt, nTokens, mode);
        matmul(up, normed, upAt, nTokens, mode);
        matmul(down, workspace, product, nTokens, mode);
      },
    },
    {
      name: 'fused_ffn',
      run: () =>
        checked(wasm.fused_ffn(list, x, norm, EPS, y, workspace, nTokens, N_EMBD, N_FF, act, 1, mode)),
    },
    {
      name: 'unfused sequence',
      run: () => {
        checked(wasm.fm_rms_norm(x, norm, normed, nTokens, N_EMBD, EPS));
        matmul(gate, normed, gateAt, nTokens, mode);
        matmul(up, normed, upAt, nTokens, mode);
        checked(wasm.fm_gated(gateAt, upAt, gateAt, nTokens * N_FF, act));
        matmul(down, gateAt, product, nTokens, mode);
        checked(wasm.fm_add(product, x, y, nTokens * N_EMBD));
      },
    },
  ];
  checked(wasm.fm_rms_norm(x, norm, normed, nTokens, N_EMBD, EPS));
  const owned = [x, normed, product, y, workspace, list];
  return { contenders, free: () => owned.forEach((p) => void module.free(p)) };
}

console.log(`Node ${process.version}, ${module.name} module, ${type.name}, one thread\n`);
const pattern = new RegExp(options.filter);
for (const [what, enter] of /** @type {const} */ ([
  ['rms norm, q, k, v', enterQkv],
  ...GATES.map(
    (gate, act) =>
      /** @type {const} */ ([
        `feed-forward block, ${gate}`,
        (/** @type {number} */ nTokens, /** @type {number} */ mode) => enterFfn(nTokens, mode, act),
      ]),
  ),
])) {
  for (const nTokens of options.tokens.split(',').map(Number)) {
    for (const mode of [1, 2]) {
      const title = `${what}, M=${nTokens}, ${ACTIVATION_NAMES[mode]}`;
      if (!pattern.test(title)) continue;
      const { contenders, free } = enter(nTokens, mode);
      const timings = await race(contenders, LIMITS);
      free();
      const rows = timings.map(({ name, medianMs, minMs }) => [
        name,
        medianMs.toFixed(3),
        minMs.toFixed(3),
        `${(100 * (medianMs / timings[0].medianMs - 1)).toFixed(1)} %`,
        `${(100 * (minMs / timings[0].minMs - 1)).toFixed(1)} %`,
      ]);
      const head = ['', 'median ms', 'min ms', 'to matmuls, median', 'to matmuls, min'];
      console.log(`#### ${title}\n\n${table(head, rows)}\n`);
    }
  }
}
