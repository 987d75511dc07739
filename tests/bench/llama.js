/**
 * Cases `llama FILE, N threads`: the same synthetic GGUF file in wllama and in fused-matmul/llama,
 * in turns in one page of Chromium, with a prompt of 128 tokens and some decoded ones. Before, both
 * must agree on the most likely next tokens.
 */
import { existsSync, readFileSync } from 'node:fs';
import { relative } from 'node:path';
import { findChromium } from '../../scripts/setup/engines.js';
import { root } from '../../scripts/setup/run.js';
import { launchChromium } from '../browser/helpers.js';
import { median } from './lab.js';
import { FILE_TYPES, largeLlama, promptOf } from './large-llama.js';
import { servePages } from './page-server.js';
import { ensurePeers, PEERS } from './peers.js';
import { table } from './report.js';

/** @import { Browser, Page } from 'playwright-core' */
/** @import { Lab, LabCase } from './bench.js' */
/** @import { Likely, Run } from './page/engine.js' */
/** @import { Result } from './report.js' */
/** @import { FileType } from './large-llama.js' */

const PROMPT = 128;
const DECODED = 32;
const CONTEXT = 512;
/** Time for a round of wllama, which takes up to 40 s; more than one if there is time. */
const BUDGET_MS = 25_000;
/**
 * Number of candidates of one engine that must include the first choice of the other, since engines
 * round activations differently.
 */
const N_LIKELY = 10;
const MAX_LOG_DIFFERENCE = 0.5;

export const ENGINES = { ours: 'fused-matmul/llama', wllama: `wllama ${PEERS['@wllama/wllama']}` };
/** @typedef {keyof typeof ENGINES} EngineName */
export const ENGINE_NAMES = /** @type {EngineName[]} */ (Object.keys(ENGINES));

/** Resident megabytes of all renderer processes, NaN without /proc. @param {Browser} browser */
async function rendererMegabytes(browser) {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send('SystemInfo.getProcessInfo');
  await session.detach();
  const sizes = processInfo
    .filter(({ type }) => type === 'renderer')
    .map(({ id }) => {
      const file = `/proc/${id}/status`;
      const status = existsSync(file) ? readFileSync(file, 'utf8') : '';
      return ['RssAnon', 'RssShmem'].reduce(
        (sum, key) => sum + Number(new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(status)?.[1]) / 1000,
        0,
      );
    });
  return sizes.reduce((a, b) => a + b, 0);
}

/**
 * @param {Page} page @param {EngineName} engine @param {string} method @param {unknown[]} args
 * @returns {Promise<any>}
 */
const call = (page, engine, method, ...args) =>
  page.evaluate(
    ([name, what, list]) => /** @type {any} */ (globalThis).engines[name][what](...list),
    /** @type {const} */ ([engine, method, args]),
  );

/** @param {Record<EngineName, Likely[]>} likely  the most likely tokens after the same prompt */
export function checkAgreement({ ours, wllama }) {
  for (const [mine, other] of [
    [ours, wllama],
    [wllama, ours],
  ]) {
    const same = other.find(({ id }) => id === mine[0].id);
    const difference = Math.abs(mine[0].logProbability - (same?.logProbability ?? Number.NaN));
    if (!(difference <= MAX_LOG_DIFFERENCE))
      throw new Error(`the engines disagree on what comes next: ${JSON.stringify({ ours, wllama })}`);
  }
}

/**
 * A race of the engines with one file.
 * @typedef {object} Race
 * @property {string} file  path of the file
 * @property {number} threads
 * @property {boolean} gpu  whether all layers run on the GPU
 * @property {() => Promise<Browser>} launch
 * @property {number} prompt  words of the prompt
 * @property {number} decoded  tokens
 * @property {number} turns  of fused-matmul for each turn of wllama
 */

/**
 * @param {Race} race
 * @returns {Promise<{ runs: Record<EngineName, Run[]>, facts: Record<EngineName, Facts>,
 *   version: string, calls: Record<EngineName, Record<string, number>> }>} calls: of WebGPU, for a
 *   decoded token
 * @typedef {{ loadMs: number, megabytes: number, threads: number, note: string }} Facts
 */
export async function race({ file, threads, gpu, launch, prompt, decoded, turns }) {
  await ensurePeers();
  const url = `/${relative(root, file)}`;
  const server = await servePages();
  const browser = await launch();
  try {
    const page = await (await browser.newContext()).newPage();
    /** @type {string[]} */
    const errors = [];
    page.on('pageerror', ({ message }) => errors.push(message));
    await page.goto(`${server.url}/tests/bench/page/index.html`);
    await page.waitForFunction(() => 'engines' in globalThis);
    const facts = /** @type {Record<EngineName, Facts>} */ ({});
    const likely = /** @type {Record<EngineName, Likely[]>} */ ({});
    for (const engine of ENGINE_NAMES) {
      const before = await rendererMegabytes(browser);
      const loaded = await call(page, engine, 'load', url, { threads, nContext: CONTEXT, gpu });
      if (loaded.threads !== threads)
        throw new Error(`${ENGINES[engine]} runs on ${loaded.threads} threads, not ${threads}`);
      likely[engine] = await call(page, engine, 'likely', promptOf(16, 1), N_LIKELY);
      facts[engine] = { ...loaded, megabytes: (await rendererMegabytes(browser)) - before };
    }
    checkAgreement(likely);
    const runs = /** @type {Record<EngineName, Run[]>} */ ({ ours: [], wllama: [] });
    const calls = /** @type {Record<EngineName, Record<string, number>>} */ ({ ours: {}, wllama: {} });
    const start = performance.now();
    for (let round = 0; round === 0 || performance.now() - start < BUDGET_MS; round++) {
      for (const engine of ENGINE_NAMES) {
        for (let turn = 0; turn < (engine === 'ours' ? turns : 1); turn++) {
          const words = promptOf(prompt, 100 + 10 * round + turn);
          runs[engine].push(await call(page, engine, 'run', words, decoded));
        }
      }
    }
    if (gpu)
      for (const engine of ENGINE_NAMES) calls[engine] = await callsOfToken(page, engine, promptOf(16, 2));
    if (errors.length > 0) throw new Error(`the page: ${errors.join('; ')}`);
    return { runs, facts, version: browser.version(), calls };
  } finally {
    await browser.close();
    await server.close();
  }
}

/**
 * Calls of WebGPU that a decoded token takes: those of a long text less those of a short one.
 * @param {Page} page @param {EngineName} engine @param {string} words
 */
async function callsOfToken(page, engine, words) {
  const [short, long] = [4, 20];
  const count = () => page.evaluate(() => /** @type {any} */ (globalThis).gpuCalls());
  const counts = [];
  for (const tokens of [short, short, long]) {
    await call(page, engine, 'run', words, tokens);
    counts.push(await count());
  }
  const [first, second, third] = counts;
  if (!third.dispatchWorkgroups || counts.some((one) => Object.keys(one).length === 0))
    throw new Error(`${ENGINES[engine]}: no worker has told its calls of WebGPU`);
  return Object.fromEntries(
    Object.keys(third).map((name) => {
      const [ofShort, ofLong] = [second[name] - first[name], third[name] - second[name]];
      return [name, (ofLong - ofShort) / (long - short)];
    }),
  );
}

/**
 * @param {string} name @param {FileType} fileType @param {number} threads
 * @returns {Promise<Result[]>}
 */
async function compare(name, fileType, threads) {
  const { runs, facts, version } = await race({
    ...{ file: largeLlama(fileType), threads, gpu: false, launch: launchChromium },
    ...{ prompt: PROMPT, decoded: DECODED, turns: 3 },
  });
  return ENGINE_NAMES.map((engine) => summarise(name, engine, runs[engine], { ...facts[engine], version }));
}

/**
 * @param {string} name @param {EngineName} engine @param {Run[]} runs
 * @param {{ loadMs: number, megabytes: number, version: string }} facts @returns {Result}
 */
function summarise(name, engine, runs, { loadMs, megabytes, version }) {
  for (const { promptTokens, decodedTokens } of runs) {
    if (promptTokens < PROMPT - 1 || decodedTokens < DECODED)
      throw new Error(`${ENGINES[engine]}: ${promptTokens} tokens of prompt and ${decodedTokens} decoded`);
  }
  const middle = (/** @type {(run: Run) => number} */ of) => median(runs.map(of));
  return {
    section: 'llama',
    case: name,
    kernel: ENGINES[engine],
    medianMs: middle(({ promptMs }) => promptMs),
    minMs: Math.min(...runs.map(({ promptMs }) => promptMs)),
    samples: runs.length,
    flops: 0,
    bytes: 0,
    llama: {
      chromium: version,
      promptPerSecond: middle((run) => (1000 * run.promptTokens) / run.promptMs),
      decodePerSecond: middle((run) => (1000 * (run.decodedTokens - 1)) / run.decodeMs),
      firstMs: middle(({ firstMs }) => firstMs),
      loadMs,
      megabytes,
    },
  };
}

/** @param {Result[]} results  the results of one case */
function llamaTable(results) {
  const other = results.find(({ kernel }) => kernel === ENGINES.wllama)?.llama;
  const rows = results.map(({ kernel, samples, llama }) => {
    if (!llama) throw new Error(`${kernel} has no numbers`);
    const { promptPerSecond, decodePerSecond, firstMs, loadMs, megabytes } = llama;
    return [
      kernel,
      promptPerSecond.toFixed(1),
      decodePerSecond.toFixed(1),
      other ? `${(promptPerSecond / other.promptPerSecond).toFixed(2)}x` : '-',
      other ? `${(decodePerSecond / other.decodePerSecond).toFixed(2)}x` : '-',
      firstMs.toFixed(0),
      loadMs.toFixed(0),
      megabytes.toFixed(0),
      String(samples),
    ];
  });
  const head = ['', 'prompt tokens/s', 'decode tokens/s', 'prompt, to wllama', 'decode, to wllama'];
  head.push('first token ms', 'load ms', 'memory MB', 'runs');
  return `${table(head, rows)}\n\nChromium ${results[0].llama?.chromium}; prompt of ${PROMPT} tokens, ${DECODED} decoded`;
}

/** @param {Lab} lab @returns {LabCase[]} */
export function llamaCases({ peers }) {
  if (!findChromium()) return [];
  return /** @type {FileType[]} */ (Object.keys(FILE_TYPES)).flatMap((fileType) =>
    [1, 2].map((threads) => {
      const name = `llama ${fileType}, ${threads} thread${threads > 1 ? 's' : ''}`;
      return { name, byDefault: peers, show: llamaTable, run: () => compare(name, fileType, threads) };
    }),
  );
}
