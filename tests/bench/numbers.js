/**
 * The measured tables of RESULTS.md and README.md, from results.jsonl and results-intel.jsonl.
 * `node scripts/readme.js` writes them into the documents.
 */
import { curvesOf } from './growth.js';
import { readResults } from './records.js';
import { finder, gbps, gflops, markdown, number, ratio, table } from './report.js';
import { verdictTable } from './verdict.js';

/** @import { Result } from './report.js' */

/** @param {string} name */
const read = (name) => readResults(new URL(name, import.meta.url));

/** GFLOP/s of the fastest kernel of a mode, for each measured type. @param {Result[]} results */
function typeTable(results) {
  const square = results.filter(
    ({ section, nRows, nCols, cold }) => section === 'product' && nRows === 4096 && nCols === 4096 && !cold,
  );
  const rows = [...new Set(square.map(({ type }) => type))].map((type = '') => {
    const best = (/** @type {string} */ mode, /** @type {number} */ nTokens) =>
      finder(square.filter((r) => r.type === type && r.nTokens === nTokens && r.kernel.startsWith(mode)))({});
    const one = (/** @type {string} */ mode) => {
      const own = best(mode, 1);
      return own ? `${number(gflops(own))} (${number(gbps(own))})` : '-';
    };
    const many = (/** @type {string} */ mode, /** @type {number} */ nTokens) => {
      const own = best(mode, nTokens);
      return own ? number(gflops(own)) : '-';
    };
    const mode = best('int', 1) ? ['int8', 'int16'] : ['f32', '?'];
    return [type, ...mode.flatMap((m) => [one(m), many(m, 32), many(m, 128)])];
  });
  const head = ['int8', 'int16'].flatMap((mode) => [`${mode}, 1 token`, '32', '128']);
  return table(['type', ...head], rows);
}

/** @param {Result[]} results */
function limitTable(results) {
  const rows = results
    .filter(({ section }) => section === 'limit')
    .map((r) => [
      r.kernel.replace('limit: ', ''),
      r.flops > 0 ? `${number(gflops(r))} GFLOP/s` : `${number(gbps(r))} GB/s`,
    ]);
  return table(['limit of one core', 'median'], rows);
}

/** @param {Result[]} results */
function llamaTable(results) {
  const rows = results.flatMap(({ case: name, kernel, llama }) => {
    if (!llama) return [];
    const other = results.find((r) => r.case === name && r.kernel.startsWith('wllama'))?.llama;
    const to = (/** @type {number} */ own, /** @type {number | undefined} */ theirs) =>
      `${own.toFixed(1)} (${ratio(theirs && own / theirs)})`;
    const { promptPerSecond, decodePerSecond, firstMs, loadMs, megabytes } = llama;
    return [
      [
        name.replace('llama ', ''),
        kernel,
        to(promptPerSecond, other?.promptPerSecond),
        to(decodePerSecond, other?.decodePerSecond),
        firstMs.toFixed(0),
        loadMs.toFixed(0),
        megabytes.toFixed(0),
      ],
    ];
  });
  const head = ['file', 'engine', 'prompt tokens/s (to wllama)', 'decode tokens/s (to wllama)'];
  return table([...head, 'first token ms', 'load ms', 'memory MB'], rows);
}

/** @param {Result[]} results */
function threadTable(results) {
  const curves = [...curvesOf(results.filter((r) => r.case.startsWith('growth threads')))];
  const rows = curves.flatMap(([curve, points]) =>
    points.map((r) => [curve, String(r.at), number(r.minMs), ratio(points[0].minMs / r.minMs)]),
  );
  return table(['Q4_K 4096x4096', 'threads', 'min ms', 'to one thread'], rows);
}

/** @returns {string | undefined} Markdown; undefined if there are no results yet */
export function numbers() {
  const measured = read('results.jsonl');
  if (!measured) return undefined;
  const { machine, engine, date, results } = measured;
  const intel = read('results-intel.jsonl');
  const has = (/** @type {string} */ start) => results.some((r) => r.case.startsWith(start));
  return [
    `${machine}; ${engine}; ${date}.${intel ? ` The last column of the promises: ${intel.machine}; ${intel.engine}; ${intel.date}.` : ''}`,
    limitTable(results),
    `Promises, 4096 x 4096 where nothing else stands; one thread, each row from one interleaved race:`,
    verdictTable(results, intel && { machine: 'Intel', results: intel.results }),
    'GFLOP/s, medians (in brackets GB/s of weights):',
    typeTable(results),
    ...(has('growth threads') ? [threadTable(results)] : []),
    ...(has('llama')
      ? [
          'A llama of 2048/5632 columns and 8 layers in one page of Chromium, prompt of 128 tokens:',
          llamaTable(results),
        ]
      : []),
  ].join('\n\n');
}

/**
 * The fastest result of a case whose kernel's name starts with `kernel`.
 * @param {Result[]} results @param {string} name @param {string} kernel
 */
const fastest = (results, name, kernel) =>
  finder(results.filter((r) => r.case === name && r.kernel.startsWith(kernel)))({});

/** The summary in README.md. @returns {string | undefined} Markdown */
export function summaryNumbers() {
  const measured = read('results.jsonl');
  if (!measured) return undefined;
  const { machine, engine, results } = measured;
  const times = (/** @type {number | undefined} */ other, /** @type {number} */ own) =>
    (other ?? Number.NaN) / own;
  const products = [1, 128].flatMap((nTokens) => {
    const name = `Q4_K 4096x4096 M=${nTokens}`;
    const own = fastest(results, name, 'int8 relaxed');
    const onnx = fastest(results, `onnx 4096x4096 M=${nTokens}`, 'onnxruntime');
    const raced = fastest(results, `onnx 4096x4096 M=${nTokens}`, 'Q4_K int8');
    if (!own) return [];
    const toBaseline = times(fastest(results, name, 'baseline')?.minMs, own.minMs);
    const toOnnx =
      onnx && raced ? `, ${times(onnx.minMs, raced.minMs).toFixed(1)} times ONNX Runtime Web` : '';
    return [
      [
        `Q4_K product of 4096 x 4096, ${nTokens === 1 ? 'one token' : `${nTokens} tokens`}, one thread`,
        `${number(gflops(own))} GFLOP/s`,
        `${toBaseline.toFixed(1)} times a kernel in the style of llama.cpp's for wasm${toOnnx}`,
      ],
    ];
  });
  const model = 'llama Q4_K_M, 2 threads';
  const [own, wllama] = ['fused', 'wllama'].map((kernel) => fastest(results, model, kernel)?.llama);
  const llama =
    own && wllama
      ? [
          [
            'A llama of 8 layers, 2048 wide, in Q4_K_M, Chromium, two threads: prompt, then writing',
            `${own.promptPerSecond.toFixed(0)}, then ${own.decodePerSecond.toFixed(0)} tokens/s`,
            `${(own.promptPerSecond / wllama.promptPerSecond).toFixed(1)} and ${(own.decodePerSecond / wllama.decodePerSecond).toFixed(1)} times wllama on the CPU`,
          ],
        ]
      : [];
  const start = fastest(results, 'startup', 'threads: 1');
  const startup = start
    ? [
        [
          'From `createKernels()` to the first result, Node, one thread',
          `${start.medianMs.toFixed(0)} ms`,
          '',
        ],
      ]
    : [];
  // The budgets of the build and of tests/package/package.test.js check these numbers.
  const size = [
    'Download, gzipped: loader, operations and the one module in use',
    '12 KB, 10 KB and 30 to 82 KB',
    '',
  ];
  const rows = [...products, ...llama, size, ...startup];
  return `${markdown([['what', 'measured', 'compared'], ...rows])}\n\n${machine}; ${engine}.`;
}
