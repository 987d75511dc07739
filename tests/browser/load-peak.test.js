/**
 * The most memory that loading takes in Chromium: the weights and 16 MB, as in Node (tests/load-peak.test.js). Counted is what the
 * system has given to the renderer processes at their peak, everything included; Linux tells that, and starts counting anew when asked.
 * No inspector is attached, as it would keep what is fetched: the page does all by itself, and reports to its server.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { findChromium } from '../../scripts/setup.js';
import { wideGguf } from '../helpers/gguf-bytes.js';
import { rangeHandler } from '../helpers/range-server.js';
import { projectRoot } from '../helpers/test-data.js';
import { CHROMIUM_FLAGS, serveFolder, skipWithoutChromium } from './helpers.js';
import { ISOLATION } from './library-page.js';

const MB = 2 ** 20;
const LIMIT = 16 * MB;
const WEIGHTS = 192 * MB;

const skip =
  skipWithoutChromium() ||
  (existsSync('/proc/self/clear_refs') ? false : 'only Linux tells the peak of a process');

/** What is made once, such as compiled code, is no part of it. */
const PAGE = `<!doctype html>
<script type="importmap">{ "imports": { "wasm-feature-detect": "/node_modules/wasm-feature-detect/dist/esm/index.js" } }</script>
<script type="module">
  const say = (what) => fetch('/say', { method: 'POST', body: JSON.stringify(what) });
  try {
    const library = await import('/js/index.js');
    const fm = await library[location.hash.slice(1)]();
    const gguf = await library.openGguf('/model.gguf');
    const [first, ...names] = gguf.tensors.keys();
    (await fm.loadWeight(gguf, first)).free();
    await say('ready');
    const weights = await fm.loadWeights(gguf, names, { concurrency: 4 });
    await say({ loaded: weights.reduce((n, w) => n + w.byteLength, 0) });
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

/** Bytes, now or at the peak. @param {number[]} pids @param {'VmRSS' | 'VmHWM'} key */
const resident = (pids, key) =>
  pids.reduce((sum, pid) => {
    const kilobytes = new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(tell(pid, 'status'))?.[1];
    return sum + 1024 * Number(kilobytes ?? 0);
  }, 0);

for (const create of ['createKernels', 'createWorkerKernels']) {
  test(`${create}: loading from a URL takes the weights and 16 MB at most`, {
    skip,
    timeout: 120_000,
  }, async (t) => {
    const { bytes } = wideGguf({ nTensors: 1 + WEIGHTS / (16 * MB), bytes: 16 * MB });
    /** @type {(result: { before: number, now: number, peak: number, loaded?: number, error?: string }) => void} */
    let finish = () => {};
    const finished = new Promise((resolve) => {
      finish = resolve;
    });
    /** @type {number[]} */
    let pids = [];
    let before = 0;
    const routes = {
      '/model.gguf': rangeHandler(bytes).handler,
      '/peak.html': (/** @type {any} */ _, /** @type {import('node:http').ServerResponse} */ response) => {
        response.writeHead(200, { ...ISOLATION, 'content-type': 'text/html' }).end(PAGE);
      },
      '/say': async (
        /** @type {import('node:http').IncomingMessage} */ request,
        /** @type {import('node:http').ServerResponse} */ response,
      ) => {
        const what = JSON.parse(await new Response(/** @type {any} */ (request)).text());
        if (what === 'ready') {
          pids = renderers(/** @type {number} */ (chromium.pid));
          for (const pid of pids) writeFileSync(`/proc/${pid}/clear_refs`, '5');
          before = resident(pids, 'VmRSS');
        } else finish({ ...what, before, now: resident(pids, 'VmRSS'), peak: resident(pids, 'VmHWM') });
        response.end();
      },
    };
    const server = await serveFolder(projectRoot, { headers: ISOLATION, routes });
    const profile = mkdtempSync(join(tmpdir(), 'fused-matmul-chromium-'));
    const address = `${server.url}peak.html#${create}`;
    const flags = [...CHROMIUM_FLAGS, '--headless', `--user-data-dir=${profile}`, address];
    const chromium = spawn(/** @type {string} */ (findChromium()), flags, { stdio: 'ignore' });
    const ended = new Promise((resolve) => chromium.on('exit', resolve));
    t.after(async () => {
      chromium.kill();
      await ended;
      await server.close();
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    });
    const { loaded, error, now, peak, before: start } = await finished;
    assert.equal(error, undefined);
    assert.equal(loaded, WEIGHTS);
    assert.ok(
      now - start >= 0.9 * WEIGHTS,
      `only ${(now - start) / MB} MB more: the weights are not counted`,
    );
    const over = peak - start - WEIGHTS;
    t.diagnostic(`ran: ${create}: MB beyond the weights ${(over / MB).toFixed(1)}`);
    assert.ok(over <= LIMIT, `${over / MB} MB beyond the weights`);
  });
}
