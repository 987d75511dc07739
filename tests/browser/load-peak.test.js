/**
 * The most memory that loading takes in Chromium: the weights and 16 MB, as in Node (tests/load-peak.test.js). Counted is what the
 * system has given to the renderer processes at their peak, but for the pages of files, which is Chromium's own code; Linux tells that, and
 * starts counting anew when asked. No inspector is attached, as it would keep what is fetched: the page does all by itself, and
 * reports to its server.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { findChromium } from '../../scripts/setup.js';
import { countedBytes, ggufBytes } from '../helpers/gguf-bytes.js';
import { rangeHandler } from '../helpers/range-server.js';
import { projectRoot } from '../helpers/test-data.js';
import { CHROMIUM_FLAGS, serveFolder, skipWithoutChromium } from './helpers.js';
import { ISOLATION } from './library-page.js';

const MB = 2 ** 20;
const LIMIT = 16 * MB;
const WEIGHTS = 128 * MB;

const skip =
  skipWithoutChromium() ||
  (existsSync('/proc/self/clear_refs') ? false : 'only Linux tells the peak of a process');

/** A little tensor, and those that count. */
function modelBytes() {
  const tensors = [{ name: 'little', typeId: 0, shape: [256, 256], data: countedBytes(256 * 1024) }];
  const large = { typeId: 0, shape: [256, 16 * 1024], data: countedBytes(16 * MB) };
  for (let i = 0; i < WEIGHTS / (16 * MB); i++) tensors.push({ ...large, name: `t${i}` });
  return ggufBytes({ tensors }).bytes;
}

/** What is made once, such as compiled code, is no part of it. */
const PAGE = `<!doctype html>
<script type="importmap">{ "imports": { "wasm-feature-detect": "/node_modules/wasm-feature-detect/dist/esm/index.js" } }</script>
<script type="module">
  const say = (what) => fetch('/say', { method: 'POST', body: JSON.stringify(what) });
  try {
    const { create, from } = Object.fromEntries(new URLSearchParams(location.search));
    const library = await import('/js/index.js');
    const fm = await library[create]();
    const whole = from === 'blob' && (await (await fetch('/model.gguf', { cache: 'no-store' })).blob());
    const gguf = await library.openGguf(whole || '/model.gguf', { cache: from === 'cache' });
    const [first, ...names] = gguf.tensors.keys();
    (await fm.loadWeight(gguf, first)).free();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    await say('ready');
    const weights = await fm.loadWeights(gguf, names);
    await say({ loaded: weights.reduce((n, w) => n + w.byteLength, 0), cached: gguf.cached });
  } catch (error) {
    await say({ error: String(error) });
  }
</script>`;

/** @param {number} pid @param {string} file */
const tell = (pid, file) => {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return ''; // it has ended
  }
};

/** The renderers among the descendants of a process. @param {number} ancestor */
function renderers(ancestor) {
  const pids = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number);
  const parents = new Map(pids.map((pid) => [pid, Number(/^PPid:\s+(\d+)/m.exec(tell(pid, 'status'))?.[1])]));
  const isBelow = (/** @type {number | undefined} */ pid) => {
    for (let at = pid; at; at = parents.get(at)) if (at === ancestor) return true;
    return false;
  };
  return pids.filter((pid) => isBelow(pid) && tell(pid, 'cmdline').includes('--type=renderer'));
}

/** Bytes without pages of files, now or at the peak. @param {number[]} pids @param {'VmRSS' | 'VmHWM'} key */
function resident(pids, key) {
  const bytesOf = (/** @type {string} */ status, /** @type {string} */ name) =>
    1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0);
  const statuses = pids.map((pid) => tell(pid, 'status'));
  return statuses.reduce((sum, status) => sum + bytesOf(status, key) - bytesOf(status, 'RssFile'), 0);
}

/** Its last processes may still write. @param {string} folder */
async function remove(folder) {
  for (let left = 20; ; left--) {
    try {
      rmSync(folder, { recursive: true, force: true });
      return;
    } catch (error) {
      if (left === 0) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

/** @typedef {{ before: number, now: number, peak: number, loaded?: number, cached?: { hits: number }, error?: string }} Result */

/**
 * A browser that loads the weights once.
 * @param {string} url  of the page
 * @param {string} profile
 * @param {{ hear: (what: any) => void }} server
 * @returns {Promise<Result>}
 */
async function visit(url, profile, server) {
  const flags = [...CHROMIUM_FLAGS, '--headless', `--user-data-dir=${profile}`, url];
  const chromium = spawn(/** @type {string} */ (findChromium()), flags, { stdio: 'ignore' });
  const ended = new Promise((resolve) => chromium.on('exit', resolve));
  try {
    return await new Promise((resolve) => {
      /** @type {number[]} */
      let pids = [];
      let before = 0;
      server.hear = (what) => {
        if (what === 'ready') {
          pids = renderers(/** @type {number} */ (chromium.pid));
          for (const pid of pids) writeFileSync(`/proc/${pid}/clear_refs`, '5');
          before = resident(pids, 'VmRSS');
        } else resolve({ ...what, before, now: resident(pids, 'VmRSS'), peak: resident(pids, 'VmHWM') });
      };
    });
  } finally {
    chromium.kill();
    await ended;
  }
}

/** @type {{ title: string, create: string, from: string, headers?: Record<string, string>, rate?: number, visits?: number }[]} */
const CASES = [
  { title: 'at 40 MB a second', create: 'createKernels', from: 'url', rate: 20 },
  { title: 'at 40 MB a second, in a worker', create: 'createWorkerKernels', from: 'url', rate: 20 },
  {
    title: 'as fast as can be, of what is not to be stored',
    create: 'createKernels',
    from: 'url',
    headers: { 'cache-control': 'no-store' },
  },
  { title: 'from a Blob', create: 'createKernels', from: 'blob' },
  { title: 'from the cache', create: 'createKernels', from: 'cache', visits: 2 },
];

for (const { title, create, from, headers, rate, visits = 1 } of CASES) {
  test(`loading ${title} takes the weights and 16 MB at most`, { skip, timeout: 120_000 }, async (t) => {
    const bytes = modelBytes();
    const { handler } = rangeHandler(bytes, { rate });
    const reports = { hear: (/** @type {any} */ _) => {} };
    const server = await serveFolder(projectRoot, {
      headers: ISOLATION,
      routes: {
        '/model.gguf': (request, response) => {
          for (const [name, value] of Object.entries(headers ?? {})) response.setHeader(name, value);
          handler(request, response);
        },
        '/peak.html': (_, response) => {
          response.writeHead(200, { ...ISOLATION, 'content-type': 'text/html' }).end(PAGE);
        },
        '/say': async (request, response) => {
          reports.hear(JSON.parse(await new Response(/** @type {any} */ (request)).text()));
          response.end();
        },
      },
    });
    const profile = mkdtempSync(join(tmpdir(), 'fused-matmul-chromium-'));
    t.after(async () => {
      await server.close();
      await remove(profile);
    });
    const url = `${server.url}peak.html?create=${create}&from=${from}`;
    let result = await visit(url, profile, reports);
    for (let more = 1; more < visits; more++) result = await visit(url, profile, reports);
    const { loaded, cached, error, before, now, peak } = result;
    assert.equal(error, undefined);
    assert.equal(loaded, WEIGHTS);
    if (from === 'cache') assert.ok((cached?.hits ?? 0) >= WEIGHTS, `only ${cached?.hits} from the cache`);
    const grown = now - before;
    assert.ok(grown >= 0.9 * WEIGHTS, `only ${grown / MB} MB more: the weights are not counted`);
    const over = peak - before - WEIGHTS;
    t.diagnostic(`ran: loading ${title}: MB beyond the weights ${(over / MB).toFixed(1)}`);
    assert.ok(over <= LIMIT, `${over / MB} MB beyond the weights`);
  });
}
