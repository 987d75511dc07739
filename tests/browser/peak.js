/**
 * How much memory a page takes at its peak. Counted is what the system has given to the renderer processes, but for the pages of files,
 * which is Chromium's own code; Linux tells that, and starts counting anew when asked. No inspector is attached, as it would keep
 * what is fetched: the page does all by itself, and reports to its server.
 */
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findChromium } from '../../scripts/setup.js';
import { rangeHandler } from '../helpers/range-server.js';
import { projectRoot } from '../helpers/test-data.js';
import { CHROMIUM_FLAGS, serveFolder, skipWithoutChromium } from './helpers.js';
import { ISOLATION } from './library-page.js';
import { startBrowser } from './process.js';

/** To the page's first line, and from each word of it to the next. */
const START_MS = 60_000;
const PATIENCE_MS = 90_000;
/** Browsers at most, for each that must start, load and end as it should. */
const TRIES = 3;

/** Why peaks cannot be told here. */
export const skipWithoutPeaks = () =>
  skipWithoutChromium() ||
  (existsSync('/proc/self/clear_refs') ? false : 'only Linux tells the peak of a process');

/** @param {string} body  of a module that calls say('ready') once, and later say(result) */
const pageOf = (body) => `<!doctype html>
<script type="module">
  const say = (what) => fetch('/say', { method: 'POST', body: JSON.stringify(what) });
  try {
    await say('started');
    ${body}
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

/** @typedef {{ before: number, now: number, peak: number, error?: string, [said: string]: any }} Result */

/**
 * A browser that loads the weights once.
 * @param {string} url  of the page
 * @param {string} profile
 * @param {{ hear: (what: any) => void }} server
 * @returns {Promise<{ result?: Result, trouble?: string }>}  trouble: the browser did not get as far as the page, or not to its own end
 */
async function visit(url, profile, server) {
  const flags = [...CHROMIUM_FLAGS, '--headless', `--user-data-dir=${profile}`, url];
  const chromium = startBrowser([/** @type {string} */ (findChromium()), ...flags], profile);
  let stage = 'not started';
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  /** @type {Result | undefined} */
  let result;
  /** @type {string | undefined} */
  let trouble;
  try {
    result = await new Promise((resolve, reject) => {
      const fail = (/** @type {string} */ why) =>
        reject(new Error(`the page, ${stage}, ${why}; Chromium said: ${chromium.said()}`));
      const wait = (/** @type {number} */ ms) => {
        clearTimeout(timer);
        timer = setTimeout(fail, ms, `said nothing for ${ms / 1000} s`);
      };
      /** @type {number[]} */
      let pids = [];
      let before = 0;
      server.hear = (what) => {
        wait(PATIENCE_MS);
        if (what === 'ready') {
          pids = renderers(chromium.pid);
          for (const pid of pids) writeFileSync(`/proc/${pid}/clear_refs`, '5');
          before = resident(pids, 'VmRSS');
        }
        if (typeof what === 'string') stage = what;
        else resolve({ ...what, before, now: resident(pids, 'VmRSS'), peak: resident(pids, 'VmHWM') });
      };
      wait(START_MS);
      chromium.ended.then(() => fail('has lost its browser'));
    });
  } catch (error) {
    if (stage !== 'not started') throw error;
    trouble = /** @type {Error} */ (error).message;
  } finally {
    server.hear = () => {};
    clearTimeout(timer);
    if (!(await chromium.close())) trouble ??= 'Chromium did not end when it was asked to';
  }
  return { result, trouble };
}

/**
 * @param {import('node:test').TestContext} t
 * @param {object} what
 * @param {string} what.body  of the page's script
 * @param {string} [what.search]  of the page's address
 * @param {Uint8Array} what.bytes  of /model.gguf
 * @param {Record<string, string>} [what.headers]  of its answers
 * @param {import('../helpers/range-server.js').Behaviour} [what.behaviour]
 * @param {number} [what.visits]  by a browser each; the last one counts
 * @returns {Promise<Result>}
 */
export async function peakOf(t, { body, search = '', bytes, headers = {}, behaviour, visits = 1 }) {
  const { handler } = rangeHandler(bytes, behaviour);
  const reports = { hear: (/** @type {any} */ _) => {} };
  const server = await serveFolder(projectRoot, {
    headers: ISOLATION,
    routes: {
      '/model.gguf': (request, response) => {
        for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
        handler(request, response);
      },
      '/peak.html': (_, response) => {
        response.writeHead(200, { ...ISOLATION, 'content-type': 'text/html' }).end(pageOf(body));
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
  const url = `${server.url}peak.html${search}`;
  /** @type {Awaited<ReturnType<typeof visit>>} */
  let last = {};
  for (let tries = TRIES * visits; visits > 0; tries--) {
    if (tries === 0) throw new Error(`no browser did what it should; the last: ${last.trouble}`);
    last = await visit(url, profile, reports);
    if (last.trouble) t.diagnostic(last.trouble);
    else visits -= 1;
  }
  return /** @type {Result} */ (last.result);
}
