/**
 * Browsers without a driver: started with the address of a page, which asks this process what to do and answers. Any browser
 * that opens an address can be tested so.
 */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { findChromium, findFirefox, findWebKit } from '../../scripts/setup/engines.js';
import { ask } from '../../scripts/setup/run.js';
import { CHROMIUM_FLAGS, serveFolder } from './helpers.js';
import { startBrowser } from './process.js';

/** To say that it is there; a slow machine starts a browser in a few seconds. */
const START_MS = 60_000;
const TASK_MS = 180_000;
/** How long the page's question waits for a task before it is asked again. */
const POLL_MS = 5_000;

const FIREFOX_SETTINGS = {
  'app.normandy.enabled': false,
  'app.update.auto': false,
  'browser.aboutwelcome.enabled': false,
  'browser.safebrowsing.downloads.enabled': false,
  'browser.safebrowsing.malware.enabled': false,
  'browser.safebrowsing.phishing.enabled': false,
  'browser.shell.checkDefaultBrowser': false,
  'datareporting.policy.dataSubmissionEnabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'toolkit.telemetry.reportingpolicy.firstRun': false,
};

/**
 * @typedef {object} Engine
 * @property {string} name
 * @property {string | undefined} version  undefined: it is not installed
 * @property {string} lacks  what to say then
 * @property {(folder: string) => Promise<string[]>} command  to which the address is added; folder: an empty one, for all it keeps
 * @property {Record<string, string>} [environment]
 * @property {Record<string, string | number | boolean>} [settings]  of Firefox, besides those that tests always make
 */

const chromium = findChromium();
const firefox = findFirefox();
const webKit = findWebKit();

/** Tests drive it; benchmarks treat it as the others. @type {Engine} */
export const CHROMIUM = {
  name: 'Chromium',
  version: chromium && ask(chromium, ['--version'])?.match(/[\d.]+/)?.[0],
  lacks: 'no Chromium: none on PATH, and CHROMIUM_PATH names none',
  command: async (folder) => [String(chromium), ...CHROMIUM_FLAGS, '--headless', `--user-data-dir=${folder}`],
};

/** @type {Engine} */
export const FIREFOX = {
  name: 'Firefox',
  version: firefox && ask(firefox, ['--version'])?.match(/[\d.]+/)?.[0],
  lacks: 'no Firefox: none on PATH, and FIREFOX_PATH names none; Debian has it as firefox-esr',
  async command(folder) {
    const settings = { ...FIREFOX_SETTINGS, ...this.settings };
    const lines = Object.entries(settings).map(
      ([key, value]) => `user_pref(${JSON.stringify(key)}, ${JSON.stringify(value)});`,
    );
    await writeFile(path.join(folder, 'user.js'), lines.join('\n'));
    return [String(firefox), '--headless', '--no-remote', '--profile', folder];
  },
};

/** The engine of Safari, of which it differs here in one setting: there isolated pages have SharedArrayBuffer. @type {Engine} */
export const WEBKIT = {
  name: 'WebKit',
  version: webKit && ask(webKit[0], [...webKit.slice(1), '--version'])?.match(/[\d.]+/)?.[0],
  lacks:
    'no WebKitGTK: Debian has its MiniBrowser in libwebkit2gtk-4.1-0, and a screen for it in xvfb and xauth',
  command: async () => webKit ?? [],
  environment: { JSC_useSharedArrayBuffer: '1' },
};

/** @type {Engine} */
export const WEBKIT_RELAXED = {
  ...WEBKIT,
  name: 'WebKit with relaxed SIMD switched on',
  environment: { ...WEBKIT.environment, JSC_useWasmRelaxedSIMD: '1' },
};

/** @typedef {Awaited<ReturnType<typeof openSelfDriven>>} Opened */

/** A browser that is there, but does not get as far as the first line of a page. */
export class StartError extends Error {
  name = 'StartError';
}

/**
 * The body of a test, which is skipped where the browser it opens cannot be started.
 * @param {(t: import('node:test').TestContext) => Promise<void>} body
 * @returns {(t: import('node:test').TestContext) => Promise<void>}
 */
export const orSkip = (body) => async (t) => {
  try {
    await body(t);
  } catch (error) {
    if (!(error instanceof StartError)) throw error;
    t.skip(error.message.split('\n')[0]);
  }
};

/**
 * A page in a browser of its own.
 * @param {Engine} engine
 * @param {object} options
 * @param {string} options.folder  that is served
 * @param {string} options.page  path of an HTML file in it
 * @param {Record<string, string>} [options.headers]  may be changed before a page loads again
 * @param {Record<string, import('node:http').RequestListener>} [options.routes]
 */
export async function openSelfDriven(engine, { folder, page, headers, routes: more }) {
  const home = await mkdtemp(path.join(tmpdir(), 'fused-matmul-browser-'));
  const html = await readFile(path.join(folder, page), 'utf8');
  const address = page.replace(/\bindex\.html$/, ''); // as visitors open it
  const script = await readFile(new URL('./fixtures/self-driven.js', import.meta.url));

  /** @type {string[]} */
  const problems = [];
  /** Of the task that is being waited for. */
  let awaited = { task: '', settle: (/** @type {any} */ _) => {} };
  /** @type {import('node:http').ServerResponse | undefined} */
  let question;
  /** @type {string | undefined} */
  let task;
  let nTasks = 0;
  const send = () => {
    if (!question || task === undefined) return;
    question.end(task);
    question = task = undefined;
  };
  /** @param {string} type @param {() => string | Uint8Array} body @returns {import('node:http').RequestListener} */
  const answerWith = (type, body) => (_, response) =>
    response.writeHead(200, { ...headers, 'Content-Type': type, 'Cache-Control': 'no-store' }).end(body());
  /** @param {(value: any) => void} take @returns {import('node:http').RequestListener} */
  const receive = (take) => async (request, response) => {
    let text = '';
    for await (const part of request.setEncoding('utf8')) text += part;
    response.writeHead(204, headers).end();
    take(JSON.parse(text));
  };

  /** @type {Record<string, import('node:http').RequestListener>} */
  const routes = {
    ...more,
    [`/${address}`]: answerWith('text/html; charset=utf-8', () =>
      html.replace('</html>', '<script type="module" src="/self-driven.js"></script></html>'),
    ),
    '/self-driven.js': answerWith('text/javascript', () => script),
    '/self-driven/next': (_, response) => {
      const type = { 'Content-Type': 'text/plain', 'Cache-Control': 'no-store' };
      question = response.writeHead(200, { ...headers, ...type });
      setTimeout(() => {
        if (question === response) question = undefined;
        response.end(); // again
      }, POLL_MS).unref();
      send();
    },
    '/self-driven/answer': receive((answer) => {
      if (answer.task === 'ready') question = undefined; // of the page before
      if (answer.task === awaited.task) awaited.settle(answer);
    }),
    '/self-driven/problem': receive((problem) => problems.push(problem)),
  };
  const server = await serveFolder(folder, { headers, routes });

  const browser = startBrowser([...(await engine.command(home)), server.url + address], home, {
    ...engine.environment,
    HOME: home,
    XDG_CACHE_HOME: home,
    XDG_CONFIG_HOME: home,
    XDG_DATA_HOME: home,
  });

  /** @param {string} name @param {number} ms @returns {Promise<any>} */
  const answered = (name, ms) =>
    new Promise((resolve, reject) => {
      const fail = (/** @type {string} */ why) => {
        clearTimeout(timer);
        const facts = `problems: ${JSON.stringify(problems)}; it said: ${browser.said()}`;
        reject(new Error(`${engine.name} ${why}: ${name}; ${facts}`));
      };
      const timer = setTimeout(fail, ms, `gave no answer in ${ms / 1000} s`);
      browser.ended.then(() => fail('is gone'));
      const settle = (/** @type {any} */ { value, error }) => {
        clearTimeout(timer);
        if (error) reject(new Error(`${engine.name}: ${error}`));
        else resolve(value);
      };
      awaited = { task: name, settle };
    });

  /** @param {string} code @returns {string}  the task's name */
  function give(code) {
    task = `/self-driven/task-${nTasks++}.js`;
    routes[task] = answerWith('text/javascript', () => `export default async () => { ${code} };`);
    const name = task;
    send();
    return name;
  }

  const opened = {
    problems,
    url: server.url,
    /**
     * Runs the body of an async function in the page.
     * @param {string} code
     * @returns {Promise<any>}  what it returns, as JSON has it
     */
    evaluate: (code) => answered(give(code), TASK_MS),
    /** Runs code that makes the page load again, and waits for that. @param {string} code */
    reload(code) {
      give(code);
      return answered('ready', START_MS);
    },
    async close() {
      await browser.close();
      await server.close();
      await rm(home, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
    },
  };
  try {
    await answered('ready', START_MS);
  } catch (cause) {
    await opened.close();
    throw new StartError(`cannot be started here: ${/** @type {Error} */ (cause).message}`, { cause });
  }
  return opened;
}
