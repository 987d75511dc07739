/**
 * Measures the gated delta net with the heads of Qwen 3.5 models: a prompt in chunks beside the same
 * prompt token by token. First the operation alone, in every instruction set; then the block of a
 * layer, products with Q4_0 weights and convolution included. Prints Markdown.
 *
 *   node tests/bench/delta.js [--seconds N] [--prompt N] [--heads N]
 */
import { parseArgs } from 'node:util';
import { createKernels } from '../../js/layer-index.js';
import { deltaBytes, deltaCase, deltaCols, deltaShape } from '../helpers/delta.js';
import { Prng } from '../helpers/prng.js';
import { STATUS } from '../helpers/raw.js';
import { bestModule, put } from './best.js';
import { race } from './lab.js';
import { table } from './report.js';

/** @import { DeltaShape } from '../helpers/delta.js' */
/** @import { RawModule } from '../helpers/raw.js' */

const { values: options } = parseArgs({
  options: {
    seconds: { type: 'string', default: '2' },
    prompt: { type: 'string', default: '512' },
    heads: { type: 'string', default: '32' },
  },
});
const LIMITS = { minRounds: 5, maxRounds: 200, budgetMs: 1000 * Number(options.seconds) };

/**
 * Calls for a prompt, `part` tokens at a time. Each goes on from the state that the call before left.
 * @param {RawModule} module @param {DeltaShape} shape
 */
function prompt(module, shape) {
  const { nTokens, nValueHeads } = shape;
  const made = deltaCase(shape, new Prng(1));
  const store = (/** @type {ArrayBufferView} */ data) => put(module, data);
  const { qkv, alpha, beta, dtBias, a, gate, normWeight, state } = made;
  if (!gate || !normWeight) throw new Error('the case has a gate');
  const [qkvAt, alphaAt, betaAt, biasAt, aAt] = [qkv, alpha, beta, dtBias, a].map(store);
  const [gateAt, weightAt, stateAt] = [gate, normWeight, state].map(store);
  const cols = deltaCols(shape);
  const outAt = module.alloc(4 * nTokens * cols.out);
  const shapeAt = module.alloc(24);
  return (/** @type {number} */ part) => {
    module.u8.set(deltaBytes({ ...shape, nTokens: part }), shapeAt);
    for (let t = 0; t + part <= nTokens; t += part) {
      const status = module.exports.fm_delta_net(
        ...[shapeAt, qkvAt + 4 * t * cols.qkv],
        ...[alphaAt + 4 * t * nValueHeads, betaAt + 4 * t * nValueHeads, biasAt, aAt],
        ...[gateAt + 4 * t * cols.out, weightAt, stateAt, outAt + 4 * t * cols.out],
      );
      if (status !== STATUS.OK) throw new Error(`status ${status}`);
    }
  };
}

/**
 * The block of a layer, `part` tokens at a time.
 * @param {Awaited<ReturnType<typeof createKernels>>} fm @param {DeltaShape} shape
 * @param {number} nEmbd
 */
function block(fm, shape, nEmbd) {
  const { nTokens, nKeyHeads, nValueHeads, keySize, valueSize } = shape;
  const prng = new Prng(2);
  const gaussian = (/** @type {number} */ n, sigma = 1) =>
    Float32Array.from({ length: n }, () => sigma * prng.gaussian());
  const weight = (/** @type {number} */ nRows, /** @type {number} */ nCols) => {
    const data = fm.quantize('Q4_0', gaussian(nRows * nCols, nCols ** -0.5), nRows, nCols);
    return fm.weight({ type: 'Q4_0', nRows, nCols, data });
  };
  const { qkv: nChannels, out: nValues } = deltaCols(shape);
  const inputs = [nChannels, nValues, nValueHeads, nValueHeads].map((n) => weight(n, nEmbd));
  const output = weight(nEmbd, nValues);
  const tensor = (/** @type {number} */ nRows, /** @type {number} */ nCols, sigma = 1) =>
    fm.tensor({ nRows, nCols, data: gaussian(nRows * nCols, sigma) });
  const [norm, conv] = [tensor(1, nEmbd), tensor(nChannels, 4, 0.5)];
  const [columns, state] = [tensor(3, nChannels), tensor(nValueHeads * keySize, valueSize)];
  const [dtBias, normWeight] = [tensor(1, nValueHeads), tensor(1, valueSize)];
  const a = fm.tensor({ nRows: 1, nCols: nValueHeads, data: new Float32Array(nValueHeads).fill(-0.1) });
  return (/** @type {number} */ part) => {
    const x = tensor(part, nEmbd);
    const work = [nChannels, nValues, nValueHeads, nValueHeads].map((nCols) =>
      fm.tensor({ nRows: part, nCols }),
    );
    const [qkv, gate, alpha, beta] = work;
    const [y, added] = [nValues, nEmbd].map((nCols) => fm.tensor({ nRows: part, nCols }));
    return () => {
      for (let t = 0; t + part <= nTokens; t += part) {
        fm.fusedRmsNormMatmul(inputs, x, norm, { out: work });
        fm.causalConv(qkv, conv, columns, { act: 'silu', out: qkv });
        fm.deltaNet(qkv, { alpha, beta, dtBias, a }, state, { nKeyHeads, gate, normWeight, out: y });
        fm.fusedMatmul(output, y, { out: added });
      }
    };
  };
}

const module = bestModule();
const nTokens = Number(options.prompt);
const nValueHeads = Number(options.heads);
const shape = deltaShape({ nTokens, nKeyHeads: 16, nValueHeads, keySize: 128, valueSize: 128 });
const run = prompt(module, shape);
console.log(`Node ${process.version}, one thread; ${nValueHeads} value heads with states of 128 x 128\n`);
const contenders = module.variants
  .filter(({ dot }) => dot === 0)
  .flatMap(({ isa, dot, label }) =>
    [nTokens, 1].map((part) => ({
      name: `${label}, ${part === 1 ? 'token by token' : 'in chunks'}`,
      run: () => {
        module.exports.fm_select(isa, dot);
        run(part);
      },
    })),
  );
const timings = await race(contenders, LIMITS);
const median = (/** @type {string} */ name) => timings.find((one) => one.name === name)?.medianMs ?? NaN;
// A token reads the state twice and writes it once: three multiply-adds for each of its numbers.
const flops = 2 * 3 * nTokens * nValueHeads * 128 * 128;
const rows = timings.map(({ name, medianMs, minMs }) => [
  name,
  medianMs.toFixed(2),
  minMs.toFixed(2),
  ((1000 * medianMs) / nTokens).toFixed(1),
  (flops / medianMs / 1e6).toFixed(1),
  `${(median(name.replace('in chunks', 'token by token')) / medianMs).toFixed(2)}x`,
]);
const head = ['', 'median ms', 'min ms', 'µs a token', 'GFLOP/s of the recurrence', 'to token by token'];
console.log(`#### gated delta net, prompt of ${nTokens}\n\n${table(head, rows)}\n`);

const N_EMBD = 2048;
const fm = await createKernels({ threads: 1, activation: 'int8' });
const ofPart = block(fm, shape, N_EMBD);
const blocks = await race(
  [nTokens, 1].map((part) => ({ name: part === 1 ? 'token by token' : 'in chunks', run: ofPart(part) })),
  LIMITS,
);
const one = blocks.find(({ name }) => name === 'token by token')?.medianMs ?? NaN;
const ofBlock = blocks.map(({ name, medianMs, minMs }) => [
  name,
  medianMs.toFixed(1),
  minMs.toFixed(1),
  `${(one / medianMs).toFixed(2)}x`,
]);
console.log(
  `#### block of a layer, ${N_EMBD} values, ${fm.info.isa}, int8, prompt of ${nTokens}\n\n${table(['', 'median ms', 'min ms', 'to token by token'], ofBlock)}\n`,
);
fm.dispose();
