/**
 * Measures causal convolutions in the shape of a model of 2048 values, over one token and over a
 * prompt: the best instruction set, the scalar kernel and plain JavaScript, beside fm_add, which
 * reads and writes as many values. Prints Markdown.
 *
 *   node tests/bench/recurrent.js [--seconds N] [--channels N] [--prompt N] [--length N]
 */
import { parseArgs } from 'node:util';
import { Prng } from '../helpers/prng.js';
import { bestModule, checked } from './best.js';
import { race } from './lab.js';
import { table } from './report.js';

const { values: options } = parseArgs({
  options: {
    seconds: { type: 'string', default: '2' },
    channels: { type: 'string', default: '2048' },
    prompt: { type: 'string', default: '512' },
    length: { type: 'string', default: '3' },
  },
});
const LIMITS = { minRounds: 5, maxRounds: 200, budgetMs: 1000 * Number(options.seconds) };
const [nChannels, length] = [Number(options.channels), Number(options.length)];
const PLAIN = -1;

/**
 * @param {Float32Array} x @param {Float32Array} weight @param {Float32Array} state  changed
 * @param {Float32Array} y
 */
function plainJavaScript(x, weight, state, y) {
  const n = nChannels;
  for (let at = 0; at < x.length; at += n) {
    for (let c = 0; c < n; c++) {
      let sum = weight[c * length + length - 1] * x[at + c];
      for (let j = 0; j < length - 1; j++) sum += weight[c * length + j] * state[j * n + c];
      y[at + c] = sum;
    }
    state.copyWithin(0, n);
    state.set(x.subarray(at, at + n), (length - 2) * n);
  }
}

const module = bestModule();
const { fm_causal_conv, fm_add, fm_select } = module.exports;
const best = module.variants[module.variants.length - 1];
console.log(`Node ${process.version}, ${module.name} module, ${nChannels} channels, length ${length}\n`);
for (const nTokens of [1, Number(options.prompt)]) {
  const prng = new Prng(7);
  const gaussians = (/** @type {number} */ n) => Float32Array.from({ length: n }, () => prng.gaussian());
  const inputs = [nTokens * nChannels, nChannels * length, nChannels * (length - 1)].map(gaussians);
  const [x, weight, state] = inputs;
  const pointers = [...inputs, x].map((values) => {
    const at = module.alloc(values.byteLength);
    new Float32Array(module.exports.memory.buffer, at, values.length).set(values);
    return at;
  });
  const [atX, atW, atS, atY] = pointers;
  const convolve = (/** @type {{ isa: number, dot: number }} */ { isa, dot }) => {
    checked(fm_select(isa, dot));
    checked(fm_causal_conv(atX, atW, 0, atS, atY, nTokens, nChannels, length, PLAIN));
  };
  const expected = new Float32Array(x.length);
  plainJavaScript(x, weight, state.slice(), expected);
  for (const variant of [best, module.variants[0]]) {
    new Float32Array(module.exports.memory.buffer, atS, state.length).set(state);
    convolve(variant);
    const got = new Float32Array(module.exports.memory.buffer, atY, x.length);
    const off = got.findIndex((value, i) => Math.abs(value - expected[i]) > 1e-5);
    if (off >= 0) throw new Error(`value ${off} is ${got[off]}, expected ${expected[off]}`);
  }
  const timings = await race(
    [
      { name: 'fm_add of as many values', run: () => checked(fm_add(atX, atX, atY, x.length)) },
      { name: 'fm_causal_conv', run: () => convolve(best) },
      { name: 'fm_causal_conv, scalar', run: () => convolve(module.variants[0]) },
      { name: 'plain JavaScript', run: () => plainJavaScript(x, weight, state, expected) },
    ],
    LIMITS,
  );
  for (const pointer of pointers) module.free(pointer);
  const rows = timings.map(({ name, medianMs, minMs }) => [
    name,
    medianMs.toFixed(4),
    minMs.toFixed(4),
    (medianMs / timings[0].medianMs).toFixed(2),
  ]);
  const head = ['', 'median ms', 'min ms', 'times fm_add, median'];
  console.log(`#### causal convolution, M=${nTokens}\n\n${table(head, rows)}\n`);
}
