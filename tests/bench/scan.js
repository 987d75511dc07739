/**
 * Measures the selective scan of Mamba-2 with 48 heads of 64 and states of 128: one token, and 16 or
 * 128 tokens, which are computed in chunks, compared with the same tokens in calls of one, and with
 * plain JavaScript. Prints Markdown.
 *
 *   node tests/bench/scan.js [--seconds N] [--tokens 1,16,128]
 */
import { parseArgs } from 'node:util';
import { Prng } from '../helpers/prng.js';
import { STATUS } from '../helpers/raw.js';
import { makeScan, scanBytes, scanCols, softplus } from '../helpers/scan.js';
import { bestModule, put } from './best.js';
import { race } from './lab.js';
import { table } from './report.js';

/** @import { ScanCase } from '../helpers/scan.js' */

const { values: options } = parseArgs({
  options: { seconds: { type: 'string', default: '2' }, tokens: { type: 'string', default: '1,16,128' } },
});
const LIMITS = { minRounds: 5, maxRounds: 200, budgetMs: 1000 * Number(options.seconds) };
const SHAPE = { nHeads: 48, nGroups: 1, headSize: 64, stateSize: 128 };

const module = bestModule();

const store = (/** @type {ArrayBufferView} */ data) => put(module, data);

/** The recurrence in f32 arrays, with simple loops. @param {ScanCase} given */
function plainJavaScript({ shape: s, x, dt, a, d, dtBias, state: before }) {
  const [row, inner, state] = [scanCols(s), s.nHeads * s.headSize, before.slice()];
  const y = new Float32Array(s.nTokens * inner);
  return () => {
    for (let t = 0; t < s.nTokens; t++) {
      const [b, c] = [t * row + inner, t * row + inner + s.stateSize];
      for (let head = 0; head < s.nHeads; head++) {
        const step = softplus(dt[t * s.nHeads + head] + dtBias[head]);
        const decay = Math.exp(step * a[head]);
        const from = t * row + head * s.headSize;
        const out = t * inner + head * s.headSize;
        for (let p = 0; p < s.headSize; p++) y[out + p] = d[head] * x[from + p];
        for (let n = 0; n < s.stateSize; n++) {
          const at = (head * s.stateSize + n) * s.headSize;
          for (let p = 0; p < s.headSize; p++) {
            state[at + p] = state[at + p] * decay + x[b + n] * step * x[from + p];
            y[out + p] += x[c + n] * state[at + p];
          }
        }
      }
    }
  };
}

for (const nTokens of options.tokens.split(',').map(Number)) {
  const shape = { ...SHAPE, nTokens };
  const given = makeScan(shape, new Prng(1));
  const [row, inner] = [scanCols(shape), shape.nHeads * shape.headSize];
  const [all, one] = [store(scanBytes(shape)), store(scanBytes({ ...shape, nTokens: 1 }))];
  const [x, dt, a, d, bias, state] = [given.x, given.dt, given.a, given.d, given.dtBias, given.state].map(
    store,
  );
  const y = module.alloc(4 * nTokens * inner);
  const scan = (/** @type {number} */ struct, /** @type {number} */ t) => {
    const [atX, atDt, atY] = [x + 4 * t * row, dt + 4 * t * shape.nHeads, y + 4 * t * inner];
    const status = module.exports.fm_ssm_scan(struct, atX, atDt, a, d, bias, state, atY);
    if (status !== STATUS.OK) throw new Error(`status ${status}`);
  };
  const contenders = [
    { name: 'fm_ssm_scan', run: () => scan(all, 0) },
    { name: 'plain JavaScript', run: plainJavaScript(given) },
  ];
  if (nTokens > 1) {
    const run = () => {
      for (let t = 0; t < nTokens; t++) scan(one, t);
    };
    contenders.splice(1, 0, { name: 'a call a token', run });
  }
  const timings = await race(contenders, LIMITS);
  for (const p of [all, one, x, dt, a, d, bias, state, y]) module.free(p);
  const rows = timings.map(({ name, medianMs, minMs }) => [
    name,
    medianMs.toFixed(3),
    minMs.toFixed(3),
    (medianMs / timings[0].medianMs).toFixed(2),
  ]);
  console.log(`#### Selective scan, ${nTokens} token(s), ${module.name} module, one thread\n`);
  console.log(`${table(['', 'median ms', 'min ms', 'median, relative'], rows)}\n`);
}
