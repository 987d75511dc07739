/**
 * Measures products with experts: 8 matrices of 1024 x 2048, of which every token takes 2. They are
 * compared with a dense product of the same work: one matrix with as many rows as there are pairs of
 * a token and an expert (the promise for a prompt of 128: at least 0.7 of its speed), or for one token
 * one matrix with as many bytes as the chosen experts have. Prints Markdown.
 *
 *   node tests/bench/experts.js [--seconds N] [--tokens 1,8,128] [--type Q4_K] [--filter REGEX]
 */
import { parseArgs } from 'node:util';
import { makeWeights } from '../helpers/blocks.js';
import { ACTIVATION_NAMES } from '../helpers/bounds.js';
import { Prng } from '../helpers/prng.js';
import { referenceByName } from '../helpers/reference.js';
import { bestModule, checked, put } from './best.js';
import { race } from './lab.js';
import { table } from './report.js';

const { values: options } = parseArgs({
  options: {
    seconds: { type: 'string', default: '2' },
    tokens: { type: 'string', default: '1,8,128' },
    type: { type: 'string', default: 'Q4_K' },
    filter: { type: 'string', default: '' },
  },
});
const LIMITS = { minRounds: 9, maxRounds: 400, budgetMs: 1000 * Number(options.seconds) };
const [N_EXPERTS, N_USED, N_ROWS, N_COLS] = [8, 2, 1024, 2048];
const NO_GATE = -1;

/** The type that was asked for. @param {string} name */
function typeNamed(name) {
  const found = referenceByName.get(name);
  if (!found) throw new Error(`no type ${name}`);
  return found;
}

const type = typeNamed(options.type);
const prng = new Prng(1);

const module = bestModule();
const wasm = module.exports;

const store = (/** @type {ArrayBufferView} */ data) => put(module, data);

/** The matrices of all experts, in which the blocks of one row repeat. */
function weight() {
  const row = makeWeights(type, 'natural', 1, N_COLS, prng);
  const bytes = new Uint8Array(N_EXPERTS * N_ROWS * row.length);
  for (let r = 0; r < N_EXPERTS * N_ROWS; r++) bytes.set(row, r * row.length);
  return store(bytes);
}

/** Random numbers of a normal distribution. @param {number} n */
const gaussians = (n) => store(Float32Array.from({ length: n }, () => prng.gaussian()));

const w = weight();
/** Work of the two products in one call, in operations. @param {number} nTokens */
const flops = (nTokens) => 2 * nTokens * N_USED * N_ROWS * N_COLS;

/** @param {number} nTokens @param {number} mode */
function enter(nTokens, mode) {
  const nPairs = nTokens * N_USED;
  const [logits, x, pairs] = [nTokens * N_EXPERTS, nTokens * N_COLS, nPairs * N_COLS].map(gaussians);
  const [rows, ends, weights, workspace] = [nPairs, N_EXPERTS, nPairs, 2 * nPairs].map((n) =>
    module.alloc(4 * n),
  );
  const [y, mixed] = [module.alloc(4 * nPairs * N_ROWS), module.alloc(4 * nTokens * N_ROWS)];
  const shape = Int32Array.of(nTokens, N_EXPERTS, N_USED, 1, 1, 0, 1, 0);
  new Float32Array(shape.buffer)[7] = 1;
  const routing = store(shape);
  const target = store(Int32Array.of(type.id, N_ROWS, w, 0, y));
  const route = () => checked(wasm.fm_route(routing, logits, 0, rows, ends, weights, workspace));
  route();
  const dense =
    nTokens === 1
      ? () => checked(wasm.fused_matmul(type.id, w, x, y, 1, N_USED * N_ROWS, N_COLS, mode))
      : () => checked(wasm.fused_matmul(type.id, w, pairs, y, nPairs, N_ROWS, N_COLS, mode));
  const contenders = [
    { name: 'dense product', run: dense },
    {
      name: 'fm_matmul_experts',
      run: () =>
        checked(
          wasm.fm_matmul_experts(
            ...[target, 1, rows, ends, nPairs, N_EXPERTS, x, 0, nTokens, N_COLS, NO_GATE, mode],
          ),
        ),
    },
    { name: 'fm_route', run: route },
    {
      name: 'fm_mix_rows',
      run: () => checked(wasm.fm_mix_rows(y, rows, weights, mixed, nPairs, nTokens, N_ROWS)),
    },
  ];
  const owned = [logits, x, pairs, rows, ends, weights, workspace, y, mixed, routing, target];
  return { contenders, free: () => owned.forEach((p) => void module.free(p)) };
}

console.log(`Node ${process.version}, ${module.name} module, ${type.name}, one thread\n`);
const pattern = new RegExp(options.filter);
for (const nTokens of options.tokens.split(',').map(Number)) {
  for (const mode of [1, 2]) {
    const title = `${N_USED} of ${N_EXPERTS} experts, M=${nTokens}, ${ACTIVATION_NAMES[mode]}`;
    if (!pattern.test(title)) continue;
    const { contenders, free } = enter(nTokens, mode);
    const timings = await race(contenders, LIMITS);
    free();
    const rows = timings.map(({ name, medianMs, minMs }, i) => [
      name,
      medianMs.toFixed(3),
      minMs.toFixed(3),
      i < 2 ? (flops(nTokens) / medianMs / 1e6).toFixed(1) : '',
      i < 2 ? (timings[0].medianMs / medianMs).toFixed(2) : '',
    ]);
    const head = ['', 'median ms', 'min ms', 'GFLOP/s', 'speed to dense'];
    console.log(`#### ${title}\n\n${table(head, rows)}\n`);
  }
}
