/** The demo page in Firefox and WebKit, from a host that sends no special headers. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { buildDemo } from '../../web/serve.js';
import { projectRoot } from '../helpers/test-data.js';
import { FIREFOX, openSelfDriven, orSkip, WEBKIT } from './self-driven.js';

const engines = [FIREFOX, WEBKIT];

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

test('no script of the page imports the first script of its worker, which WebKit would run again', () => {
  const folder = path.join(projectRoot, 'build/web/assets');
  const scripts = readdirSync(folder).filter((name) => name.endsWith('.js'));
  const first = scripts.find((name) => /^worker-(?!main)/.test(name)) ?? '';
  const naming = scripts.filter(
    (name) => name !== first && readFileSync(path.join(folder, name), 'utf8').includes(first),
  );
  assert.deepEqual(
    naming.map((name) => name.replace(/-.*/, '')),
    ['index'],
    'the page starts it',
  );
});

for (const engine of engines) {
  const { name, version, lacks } = engine;
  test(
    `${name}: the demo page writes, isolates itself on reload, multiplies and verifies`,
    {
      skip: version ? false : lacks,
    },
    orSkip(async (t) => {
      const opened = await openSelfDriven(engine, {
        folder: path.join(projectRoot, 'build/web'),
        page: 'index.html',
      });
      t.after(() => opened.close());
      const look = `${UNTIL}
      const { tokens } = await until('#stats', 'done');
      return { tokens: Number(tokens), story: text('#text'), line: text('#engine-line'), isolated: crossOriginIsolated };`;
      const first = await opened.evaluate(look);
      assert.match(first.story, /^Once upon a time.{100}/s);
      assert.ok(first.tokens > 50, `${first.tokens} tokens`);
      assert.equal(first.isolated, false);
      assert.match(first.line, /1 thread$/);

      await opened.reload(`${UNTIL}
      for (let i = 0; i < 100 && !document.querySelector('#reload'); i++) await new Promise((resolve) => setTimeout(resolve, 100));
      document.querySelector('#reload').click();`);
      const second = await opened.evaluate(look);
      assert.equal(second.isolated, true);
      assert.match(second.line, /[2-9] threads$/);
      assert.match(second.story, /^Once upon a time.{100}/s);

      const verified = await opened.evaluate(`${UNTIL}
      [...document.querySelectorAll('button')].find((button) => button.textContent.trim() === 'Measure this file').click();
      return until('#verified', 'pass');`);
      assert.equal(verified.type, 'Q4_K');
      assert.ok(Number(verified.error) <= Number(verified.bound), JSON.stringify(verified));
      assert.deepEqual(opened.problems, []);
      t.diagnostic(`ran: the demo page in ${name} ${version}: ${second.line.trim()}`);
    }),
  );
}
