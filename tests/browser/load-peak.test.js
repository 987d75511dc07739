/**
 * The most memory that loading takes in Chromium: the weights and 16 MB, as in Node (tests/load-peak.test.js). Counted is what the
 * system has given to the renderer processes at their peak, everything included; Linux tells that, and starts counting anew when asked.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { wideGguf } from '../helpers/gguf-bytes.js';
import { rangeHandler } from '../helpers/range-server.js';
import { launchChromium, skipWithoutChromium } from './helpers.js';
import { ISOLATION, openLibrary } from './library-page.js';

const MB = 2 ** 20;
const LIMIT = 16 * MB;
const WEIGHTS = 192 * MB;

const skip =
  skipWithoutChromium() ||
  (existsSync('/proc/self/clear_refs') ? false : 'only Linux tells the peak of a process');

/** @param {number} pid @param {'VmRSS' | 'VmHWM'} key  now, or at the peak @returns {number} bytes */
const resident = (pid, key) =>
  1024 *
  Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]);

/** @param {import('playwright-core').Browser} browser */
async function renderers(browser) {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send('SystemInfo.getProcessInfo');
  await session.detach();
  const found = processInfo.filter(({ type }) => type === 'renderer').map(({ id }) => id);
  const sum = (/** @type {'VmRSS' | 'VmHWM'} */ key) => found.reduce((n, pid) => n + resident(pid, key), 0);
  const forget = () => {
    for (const pid of found) writeFileSync(`/proc/${pid}/clear_refs`, '5');
  };
  return { sum, forget };
}

for (const create of ['createKernels', 'createWorkerKernels']) {
  test(`${create}: loading from a URL takes the weights and 16 MB at most`, { skip }, async (t) => {
    const { bytes } = wideGguf({ nTensors: 1 + WEIGHTS / (16 * MB), bytes: 16 * MB });
    const browser = await launchChromium();
    t.after(() => browser.close());
    const routes = { '/model.gguf': rangeHandler(bytes).handler };
    const { evaluate, close } = await openLibrary(browser, { headers: ISOLATION, routes });
    t.after(close);
    // What is made once, such as compiled code, is no part of it.
    await evaluate(`
      globalThis.fm = await library.${create}();
      globalThis.gguf = await library.openGguf('/model.gguf');
      (await fm.loadWeight(gguf, 't0')).free();`);
    const { sum, forget } = await renderers(browser);
    forget();
    const before = sum('VmRSS');
    const loaded = await evaluate(`
      const weights = await fm.loadWeights(gguf, [...gguf.tensors.keys()].slice(1), { concurrency: 4 });
      return weights.reduce((n, w) => n + w.byteLength, 0);`);
    assert.equal(loaded, WEIGHTS);
    const [now, peak] = [sum('VmRSS'), sum('VmHWM')];
    assert.ok(
      now - before >= 0.9 * WEIGHTS,
      `only ${(now - before) / MB} MB more: the weights are not counted`,
    );
    const over = peak - before - WEIGHTS;
    t.diagnostic(`ran: ${create}: MB beyond the weights ${(over / MB).toFixed(1)}`);
    assert.ok(over <= LIMIT, `${over / MB} MB beyond the weights`);
  });
}
