/**
 * Measures flash attention with 32 heads of 64 over 8 KV heads and an F16 cache: one token at 4096
 * positions, compared with a plain read loop over as many bytes, and a prompt of 512. Both are
 * compared with the unfused sequence of this package's own operations, with the layout that suits
 * it best (keys and values by head, values transposed). Prints Markdown. The read loop needs
 * build/wasm/bench-baseline.wasm.
 *
 *   node tests/bench/attention.js [--seconds N] [--positions N] [--prompt N] [--cold]
 */
import { parseArgs } from 'node:util';
import { KV, makeCase, makeShape, referenceAttention, shapeBytes } from '../helpers/attention.js';
import { numberToF16 } from '../helpers/floats.js';
import { Prng } from '../helpers/prng.js';
import { bestModule, checked, put } from './best.js';
import { race } from './lab.js';
import { COLD_BYTES, readLimit } from './limits.js';
import { table } from './report.js';

/** @import { Case } from '../helpers/attention.js' */
/** @import { RawModule } from '../helpers/raw.js' */

const { values: options } = parseArgs({
  options: {
    seconds: { type: 'string', default: '2' },
    positions: { type: 'string', default: '4096' },
    prompt: { type: 'string', default: '512' },
    cold: { type: 'boolean', default: false },
  },
});
const LIMITS = { minRounds: 5, maxRounds: 200, budgetMs: 1000 * Number(options.seconds) };
const READ_LOOP = 'read loop';

/**
 * The same sums from dequantised keys: scores, softmax, and a product with transposed values, head
 * by head.
 */
function unfused(/** @type {RawModule} */ module, /** @type {Case} */ { shape: s, q, k, v }) {
  const { fm_dequantize_rows, fused_attention_score, fused_matmul } = module.exports;
  const group = s.nHeads / s.nKvHeads;
  const at = (/** @type {number} */ j, /** @type {number} */ h, /** @type {number} */ c) =>
    (j * s.nKvHeads + h) * s.headSize + c;
  const headValues = s.nPositions * s.headSize;
  const keys = new Uint16Array(k.values.length);
  const values = new Uint16Array(v.values.length);
  const queries = new Float32Array(q.length);
  for (let h = 0; h < s.nKvHeads; h++) {
    for (let j = 0; j < s.nPositions; j++) {
      for (let c = 0; c < s.headSize; c++) {
        keys[h * headValues + j * s.headSize + c] = numberToF16(k.values[at(j, h, c)]);
        values[h * headValues + c * s.nPositions + j] = numberToF16(v.values[at(j, h, c)]);
      }
    }
  }
  /* for one token, the heads of a group are its queries */
  const perCall = s.nTokens === 1 ? group : s.nTokens;
  for (let h = 0; h < s.nHeads; h++) {
    for (let t = 0; t < s.nTokens; t++) {
      const from = (t * s.nHeads + h) * s.headSize;
      queries.set(q.subarray(from, from + s.headSize), (h * s.nTokens + t) * s.headSize);
    }
  }
  const [kAt, vAt, qAt] = [keys, values, queries].map((data) => put(module, data));
  const denseAt = module.alloc(4 * headValues);
  const scoresAt = module.alloc(4 * perCall * s.nPositions);
  const outAt = module.alloc(4 * q.length);
  return () => {
    for (let call = 0; call < q.length / s.headSize / perCall; call++) {
      const kvHead = Math.floor((call * perCall) / s.nTokens / group);
      const qOffset = 4 * call * perCall * s.headSize;
      checked(fm_dequantize_rows(KV.F16, kAt + 2 * kvHead * headValues, denseAt, s.nPositions, s.headSize));
      checked(
        fused_attention_score(
          qAt + qOffset,
          denseAt,
          scoresAt,
          perCall,
          s.nPositions,
          s.headSize,
          s.scale,
          s.causal,
        ),
      );
      checked(
        fused_matmul(
          KV.F16,
          vAt + 2 * kvHead * headValues,
          scoresAt,
          outAt + qOffset,
          perCall,
          s.headSize,
          s.nPositions,
          0,
        ),
      );
    }
  };
}

/**
 * Attention of one token in plain JavaScript: f32 keys and values, simple loops.
 * @param {Case} made
 */
function plainJavaScript({ shape: s, q, k, v }) {
  const [keys, values] = [k.values, v.values].map((x) => Float32Array.from(x));
  const group = s.nHeads / s.nKvHeads;
  const scores = new Float32Array(s.nPositions);
  const out = new Float32Array(s.nHeads * s.headSize);
  return () => {
    out.fill(0);
    for (let h = 0; h < s.nHeads; h++) {
      const first = Math.floor(h / group) * s.headSize;
      const rowValues = s.nKvHeads * s.headSize;
      let max = Number.NEGATIVE_INFINITY;
      for (let j = 0; j < s.nPositions; j++) {
        let sum = 0;
        for (let c = 0; c < s.headSize; c++) sum += q[h * s.headSize + c] * keys[j * rowValues + first + c];
        scores[j] = sum * s.scale;
        if (scores[j] > max) max = scores[j];
      }
      let total = 0;
      for (let j = 0; j < s.nPositions; j++) total += scores[j] = Math.exp(scores[j] - max);
      for (let j = 0; j < s.nPositions; j++) {
        const weight = scores[j] / total;
        for (let c = 0; c < s.headSize; c++)
          out[h * s.headSize + c] += weight * values[j * rowValues + first + c];
      }
    }
  };
}

/** @param {RawModule} module @param {Case} made */
function flash(module, made) {
  const bytes = made.k.bytes.length + made.v.bytes.length;
  const copies = options.cold ? Math.ceil(COLD_BYTES / bytes) : 1;
  const shapeAt = put(module, shapeBytes(made.shape));
  const qAt = put(module, made.q);
  const kv = Array.from({ length: copies }, () => [put(module, made.k.bytes), put(module, made.v.bytes)]);
  const outAt = module.alloc(4 * made.q.length);
  let turn = 0;
  const run = () => {
    const [kAt, vAt] = kv[turn++ % copies];
    checked(module.exports.fm_flash_attention(shapeAt, qAt, kAt, vAt, outAt));
  };
  const result = () => new Float32Array(module.exports.memory.buffer, outAt, made.q.length).slice();
  return { run, result, bytes };
}

/** @param {RawModule} module @param {Case} made @param {string} title @param {boolean} isDecode */
async function compare(module, made, title, isDecode) {
  const { run, result, bytes } = flash(module, made);
  /** @type {{ name: string, run: () => void }[]} */
  const contenders = [];
  const errors = new Map();
  const reference = referenceAttention(made);
  for (const { isa, dot, label } of module.variants) {
    if (isa === 0 || dot > 0) continue;
    const name = `flash ${label}`;
    const select = () => module.exports.fm_select(isa, dot);
    const timed = () => {
      select();
      run();
    };
    timed();
    const error = result().reduce((worst, y, i) => Math.max(worst, Math.abs(y - reference.out[i])), 0);
    errors.set(name, error.toExponential(1));
    contenders.push({ name, run: timed });
  }
  contenders.push({ name: 'unfused sequence', run: unfused(module, made) });
  if (isDecode) contenders.push({ name: 'plain JavaScript', run: plainJavaScript(made) });
  const [read] = isDecode ? readLimit(bytes, options.cold) : [];
  if (read) contenders.push({ ...read, name: READ_LOOP });
  const timings = await race(contenders, LIMITS);
  const median = (/** @type {string} */ name) =>
    timings.find((timing) => timing.name === name)?.medianMs ?? NaN;
  const { nTokens, nHeads, headSize, nPositions } = made.shape;
  /* a causal prompt sees half of its square */
  const flops = 4 * nHeads * headSize * (isDecode ? nPositions : (nTokens * (nTokens + 1)) / 2);
  const rows = timings.map(({ name, medianMs, minMs }) => [
    name,
    medianMs.toFixed(3),
    minMs.toFixed(3),
    name === READ_LOOP ? '-' : (flops / medianMs / 1e6).toFixed(1),
    isDecode ? (bytes / medianMs / 1e6).toFixed(1) : '-',
    isDecode ? `${((100 * median(READ_LOOP)) / medianMs).toFixed(0)} %` : '-',
    `${(median('unfused sequence') / medianMs).toFixed(2)}x`,
    errors.get(name) ?? '-',
  ]);
  const head = ['', 'median ms', 'min ms', 'GFLOP/s', 'GB/s', 'of read loop', 'to unfused', 'max error'];
  console.log(`#### ${title}\n\n${table(head, rows)}\n`);
}

const heads = { nHeads: 32, nKvHeads: 8, headSize: 64, kvType: KV.F16, causal: 1 };
const nPositions = Number(options.positions);
const nTokens = Number(options.prompt);
console.log(`Node ${process.version}, one thread${options.cold ? ', cache from memory (cold)' : ''}\n`);
const decode = makeCase(makeShape({ ...heads, nPositions, firstPosition: nPositions - 1 }), new Prng(1));
await compare(bestModule(), decode, `decode, ${nPositions} positions, 32 heads of 64, 8 KV heads, F16`, true);
const prompt = makeCase(makeShape({ ...heads, nTokens, nPositions: nTokens }), new Prng(2));
await compare(bestModule(), prompt, `prompt of ${nTokens}, 32 heads of 64, 8 KV heads, F16, causal`, false);
