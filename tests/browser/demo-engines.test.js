/** The demo page in Firefox and WebKit, from hosts that send the headers it needs, and that do not. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { buildDemo, serveDemo } from '../../web/serve.js';
import config from '../../web/vite.config.js';
import { projectRoot } from '../helpers/test-data.js';
import { FIREFOX, openSelfDriven, orSkip, WEBKIT } from './self-driven.js';

const engines = [FIREFOX, WEBKIT];
/** What the page is meant to be served with. */
const HEADERS = /** @type {Record<string, string>} */ (config.preview?.headers);

before(() => buildDemo());

/** In the page: waits for an element with such data, and returns all of it. */
const UNTIL = `
  const until = async (selector, state) => {
    for (let i = 0; i < 600; i++) {
      const { dataset } = document.querySelector(selector);
      if (dataset.state === state) return { ...dataset };
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    throw new Error(selector + ' never was ' + state + ': ' + JSON.stringify(document.querySelector(selector).dataset)
      + document.querySelector('#alerts').textContent);
  };
  const text = (selector) => document.querySelector(selector).textContent;`;

test('a worker is one file that no script imports: WebKit would run its first script again', () => {
  const folder = path.join(projectRoot, 'build/web/assets');
  const scripts = readdirSync(folder).filter((name) => name.endsWith('.js'));
  const scriptOf = (/** @type {string} */ name) => name.replace(/-.{8}\.js$/, '');
  const contentOf = (/** @type {string} */ name) => readFileSync(path.join(folder, name), 'utf8');
  const startedBy = {
    'lab-worker': ['index'],
    'gpu-worker': ['index'],
    'llama-host': ['llama-client'],
    'llama-host-gpu': ['llama-client'],
    thread: ['gpu-worker', 'lab-worker', 'llama-host', 'llama-host-gpu'],
  };
  for (const [worker, starters] of Object.entries(startedBy)) {
    const file = scripts.find((name) => scriptOf(name) === worker) ?? '';
    assert.doesNotMatch(
      contentOf(file),
      /\b(import|from)\s*\(?\s*["'`]\.{0,2}\//,
      `${worker} imports nothing`,
    );
    const naming = scripts.filter((name) => name !== file && contentOf(name).includes(file));
    assert.deepEqual(naming.map(scriptOf).sort(), starters, `what starts ${worker}`);
  }
});

test('what has not changed is answered with the headers, too: in a private window WebKit starts no worker without', async () => {
  const server = await serveDemo();
  try {
    const folder = path.join(projectRoot, 'build/web');
    const thread = readdirSync(path.join(folder, 'assets')).find((name) => /^thread-.*\.js$/.test(name));
    const url = `${server.url}assets/${thread}`;
    const first = await fetch(url);
    await first.arrayBuffer();
    const headers = { 'If-None-Match': first.headers.get('etag') ?? '', 'Cache-Control': 'max-age=0' };
    const again = await fetch(url, { headers });
    assert.deepEqual([first.status, again.status], [200, 304]);
    for (const name of Object.keys(HEADERS))
      assert.equal(again.headers.get(name), first.headers.get(name), name);
  } finally {
    await server.close();
  }
});

/** In the page: what it wrote, and with what. */
const LOOK = `${UNTIL}
  const { tokens } = await until('#stats', 'done');
  return { tokens: Number(tokens), story: text('#text'), line: text('#engine-line'), isolated: crossOriginIsolated };`;

/** @param {any} seen  by LOOK @param {boolean} mustBe  isolated */
function checkSeen({ tokens, story, line, isolated }, mustBe) {
  assert.match(story, /^Once upon a time.{100}/s);
  assert.ok(tokens > 50, `${tokens} tokens`);
  assert.equal(isolated, mustBe);
  assert.match(line, mustBe ? /[2-9] threads$/ : /1 thread$/);
}

for (const engine of engines) {
  const { name, version, lacks } = engine;
  const skip = version ? false : lacks;
  /** @param {import('node:test').TestContext} t @param {Record<string, string>} [headers] */
  const open = async (t, headers) => {
    const folder = path.join(projectRoot, 'build/web');
    const opened = await openSelfDriven(engine, { folder, page: 'index.html', headers });
    t.after(() => opened.close());
    return opened;
  };

  test(
    `${name}: the demo page writes, isolates itself on reload, multiplies and verifies`,
    { skip },
    orSkip(async (t) => {
      const { evaluate, reload, problems } = await open(t);
      checkSeen(await evaluate(LOOK), false);
      await reload(`
        const button = () => document.querySelector('#reload');
        for (let i = 0; i < 100 && !button(); i++) await new Promise((resolve) => setTimeout(resolve, 100));
        button().click();`);
      const seen = await evaluate(LOOK);
      checkSeen(seen, true);
      const verified = await evaluate(`${UNTIL}
        const buttons = [...document.querySelectorAll('button')];
        buttons.find((button) => button.textContent.trim() === 'Measure this file').click();
        return until('#verified', 'pass');`);
      assert.equal(verified.type, 'Q4_K');
      assert.ok(Number(verified.error) <= Number(verified.bound), JSON.stringify(verified));
      assert.deepEqual(problems, []);
      t.diagnostic(`ran: the demo page in ${name} ${version}: ${seen.line.trim()}`);
    }),
  );

  test(
    `${name}: with the headers it has threads at once, and is kept for use without a network while they run`,
    { skip },
    orSkip(async (t) => {
      const { evaluate, reload, problems } = await open(t, HEADERS);
      checkSeen(await evaluate(LOOK), true);
      const state = await evaluate(`
        const { active } = await navigator.serviceWorker.ready;
        for (let i = 0; i < 200 && active.state !== 'activated'; i++) await new Promise((resolve) => setTimeout(resolve, 100));
        return active.state;`);
      assert.equal(state, 'activated');
      await reload('location.reload();');
      checkSeen(await evaluate(LOOK), true);
      assert.deepEqual(problems, []);
    }),
  );
}
