/**
 * Draws the charts of the README from results, with Vega-Lite (see peers.js):
 * `npm run bench -- --json FILE --charts FOLDER`.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { linesOf } from './growth.js';
import { ensurePeers } from './peers.js';
import { gflops } from './report.js';

/** @import { Result } from './report.js' */

const [OURS, OURS_16, OTHERS] = ['#0b6e4f', '#6fb98f', '#9aa5b1'];
const CONFIG = {
  background: 'white',
  font: 'sans-serif',
  axis: { labelFontSize: 11, titleFontSize: 11, titleFontWeight: 'normal', labelLimit: 300, tickCount: 6 },
  header: { labelFontSize: 12, titleFontSize: 12 },
  legend: { orient: 'top', title: null, labelLimit: 300 },
};

/**
 * @param {Record<string, unknown>} spec  a Vega-Lite specification @returns {Promise<string>} SVG
 */
async function draw(spec) {
  const folder = await ensurePeers();
  const load = (/** @type {string} */ file) => import(pathToFileURL(join(folder, 'node_modules', file)).href);
  const [vega, vegaLite] = await Promise.all([
    load('vega/build/vega.module.js'),
    load('vega-lite/build/index.js'),
  ]);
  const { spec: compiled } = vegaLite.compile({ config: CONFIG, ...spec });
  return new vega.View(vega.parse(compiled), { renderer: 'none', logLevel: vega.Warn }).toSVG();
}

/**
 * Bars of GFLOP/s, one group for each number of tokens: Q4_K, compared with the other contenders on
 * the same shape.
 * @param {Result[]} results
 */
function productChart(results) {
  const shape = '4096x4096';
  const values = [1, 32, 128].flatMap((nTokens) => {
    const race = [`Q4_K ${shape} M=${nTokens}`, `onnx ${shape} M=${nTokens}`].map((name) =>
      results.filter((result) => result.case === name),
    );
    const best = (/** @type {Result[]} */ of, /** @type {string} */ start) =>
      Math.max(0, ...of.filter(({ kernel }) => kernel.startsWith(start)).map(gflops));
    return Object.entries({
      'int8, relaxed SIMD': best(race[0], 'int8 relaxed'),
      'int16, SIMD128': best(race[0], 'int16 simd128'),
      'as llama.cpp for wasm works': best(race[0], 'baseline'),
      'dequantise, then multiply': best(race[0], 'naive'),
      'ONNX Runtime Web': best(race[1], 'onnxruntime'),
    }).flatMap(([who, value]) =>
      value > 0 ? [{ who, value, tokens: nTokens === 1 ? '1 token' : `${nTokens} tokens` }] : [],
    );
  });
  const who = [...new Set(values.map((value) => value.who))];
  const tokens = [...new Set(values.map((value) => value.tokens))];
  return {
    values,
    spec: {
      data: { values },
      facet: {
        column: { field: 'tokens', title: `4-bit weight ${shape}, one thread: GFLOP/s`, sort: tokens },
      },
      spec: {
        width: 190,
        height: { step: 22 },
        encoding: {
          y: { field: 'who', type: 'nominal', sort: who, title: null },
          x: { field: 'value', type: 'quantitative', title: null },
        },
        layer: [
          {
            mark: { type: 'bar' },
            encoding: {
              color: {
                field: 'who',
                type: 'nominal',
                sort: who,
                legend: null,
                scale: { domain: who, range: [OURS, OURS_16, OTHERS, OTHERS, OTHERS] },
              },
            },
          },
          {
            mark: { type: 'text', align: 'left', dx: 3 },
            encoding: { text: { field: 'value', type: 'quantitative', format: '.3~r' } },
          },
        ],
      },
    },
  };
}

/**
 * Measured points and fitted lines, with logarithmic axes. For products over tokens, a line begins
 * where the matrix-matrix kernels do.
 * @param {Result[]} results
 */
function growthChart(results) {
  const growth = results.filter(({ section }) => section === 'growth');
  const cases = [...new Set(growth.map((result) => result.case))];
  const panels = cases.map((name) => {
    const curves = growth.filter((result) => result.case === name);
    const lines = new Map(linesOf(curves).map((line) => [line.curve, line]));
    const values = curves.map(({ at = 0, curve = '', minMs, flops }) => {
      const { a = 0, b = 0, from = 0 } = lines.get(curve) ?? {};
      return { at, curve, ms: minMs, line: at < from ? null : a + b * flops };
    });
    return {
      data: { values },
      title: { text: name.replace('growth ', ''), fontSize: 12, fontWeight: 'normal' },
      width: 230,
      height: 170,
      encoding: {
        x: { field: 'at', type: 'quantitative', scale: { type: 'log', base: 2 }, title: null },
        color: { field: 'curve', type: 'nominal' },
      },
      layer: [
        {
          mark: { type: 'line', strokeWidth: 1 },
          encoding: {
            y: { field: 'line', type: 'quantitative', scale: { type: 'log' }, title: 'ms' },
          },
        },
        {
          mark: { type: 'point', size: 25, filled: true },
          encoding: { y: { field: 'ms', type: 'quantitative' } },
        },
      ],
    };
  });
  return { values: panels, spec: { concat: panels, columns: 3 } };
}

/** Tokens a second of whole models. @param {Result[]} results */
function llamaChart(results) {
  const values = results.flatMap(({ case: name, kernel, llama }) =>
    llama
      ? [
          {
            who: kernel,
            what: 'prompt of 128',
            value: llama.promptPerSecond,
            name: name.replace('llama ', ''),
          },
          { who: kernel, what: 'decode', value: llama.decodePerSecond, name: name.replace('llama ', '') },
        ]
      : [],
  );
  return {
    values,
    spec: {
      data: { values },
      facet: {
        column: {
          field: 'what',
          title: 'tokens/s, 2048/5632 llama of 8 layers, Chromium',
          sort: ['prompt of 128', 'decode'],
        },
      },
      spec: {
        width: 300,
        height: { step: 16 },
        encoding: {
          y: { field: 'name', type: 'nominal', title: null },
          yOffset: { field: 'who' },
          x: { field: 'value', type: 'quantitative', title: null },
        },
        layer: [
          {
            mark: { type: 'bar' },
            encoding: { color: { field: 'who', type: 'nominal', scale: { range: [OURS, OTHERS] } } },
          },
          {
            mark: { type: 'text', align: 'left', dx: 3, fontSize: 10 },
            encoding: { text: { field: 'value', type: 'quantitative', format: '.3~r' } },
          },
        ],
      },
    },
  };
}

/**
 * @param {Result[]} results @param {string} folder @returns {Promise<string[]>} the files written
 */
export async function drawCharts(results, folder) {
  mkdirSync(folder, { recursive: true });
  const files = [];
  for (const [name, make] of Object.entries({
    products: productChart,
    growth: growthChart,
    llama: llamaChart,
  })) {
    const { values, spec } = make(results);
    if (values.length === 0) continue;
    const file = join(folder, `${name}.svg`);
    writeFileSync(file, `${await draw(spec)}\n`);
    files.push(file);
  }
  return files;
}
