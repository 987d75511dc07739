/**
 * `npm run bench -- --engines`: runs the demo page's own benchmark in each installed browser, in
 * turns.
 */
import path from 'node:path';
import { buildDemo } from '../../web/serve.js';
import config from '../../web/vite.config.js';
import { CHROMIUM, FIREFOX, openSelfDriven, WEBKIT } from '../browser/self-driven.js';
import { projectRoot } from '../helpers/test-data.js';

/** @typedef {import('../../web/report.js').Report} Report */

/** Runs the benchmark as a visitor does, and reads what the page copies. */
const RUN = `
  let copied;
  Object.defineProperty(navigator, 'clipboard', { value: { writeText: async (text) => { copied = text; } } });
  const { dataset } = document.querySelector('#bench-result');
  const run = document.querySelector('#bench-run');
  const wait = () => new Promise((resolve) => setTimeout(resolve, 200));
  while (run.disabled || document.querySelector('#stats').dataset.state !== 'done') await wait();
  run.click();
  while (dataset.state !== 'done') await wait();
  document.querySelector('#copy-json').click();
  while (!copied) await wait();
  return JSON.parse(copied);`;

/** @param {import('../browser/self-driven.js').Engine} engine @returns {Promise<Report>} */
async function measure(engine) {
  const opened = await openSelfDriven(engine, {
    folder: path.join(projectRoot, 'build/web'),
    page: 'index.html',
    headers: /** @type {Record<string, string>} */ (config.preview?.headers),
  });
  try {
    return await opened.evaluate(RUN);
  } finally {
    await opened.close();
  }
}

/** The shortest time of all rounds counts. @param {Report[]} reports */
function row(reports) {
  const [{ isa, dot, threads, rows, nRows, nCols }] = reports;
  const gflops = rows.map(({ nTokens }, i) => {
    const ms = Math.min(...reports.map((report) => report.rows[i].one.min));
    return ((2 * nTokens * nRows * nCols) / ms / 1e6).toFixed(1);
  });
  const speed = Math.max(...reports.map(({ model }) => model?.decodeTokensPerSecond ?? 0));
  return [dot ? `${isa} ${dot}` : isa, ...gflops, `${speed.toFixed(0)} (${threads} threads)`];
}

/** @param {number} rounds @returns {Promise<string>} Markdown */
export async function enginesReport(rounds) {
  await buildDemo();
  const engines = [CHROMIUM, FIREFOX, WEBKIT];
  const found = engines.filter(({ version }) => version);
  /** @type {Report[][]} */
  const reports = found.map(() => []);
  for (let i = 0; i < rounds; i++)
    for (const [at, engine] of found.entries()) reports[at].push(await measure(engine));
  if (found.length === 0) return engines.map(({ lacks }) => lacks).join('\n');
  const [{ rows, nRows, nCols }] = reports[0];
  const columns = [
    'engine',
    'kernels',
    ...rows.map(({ type, nTokens }) => `${type}, ${nTokens}`),
    'story model, tokens/s',
  ];
  const lines = found.map(({ name, version }, at) => [`${name} ${version}`, ...row(reports[at])]);
  const table = [columns, columns.map(() => '---'), ...lines].map((cells) => `| ${cells.join(' | ')} |`);
  const missing = engines.filter(({ version }) => !version).map(({ lacks }) => `left out: ${lacks}`);
  const title = `GFLOP/s of int8 products of ${nRows} x ${nCols} by 1 and more tokens, one thread; shortest times of ${rounds}:`;
  return [title, '', ...table, ...missing].join('\n');
}
