/** README.md is true: its snippets run, its tables are what the build makes, its commands and files exist. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import { README, section, sizeTable, supportMatrix } from '../scripts/readme.js';
import { root } from '../scripts/setup/run.js';
import { relaxedNode, SetupError } from '../scripts/setup.js';
import { numbers } from './bench/numbers.js';
import { startServer } from './helpers/range-server.js';

const text = readFileSync(README, 'utf8');
const manifest = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
const snippets = [...text.matchAll(/^```js\n([\s\S]*?)^```$/gm)].map(([, code]) => code);

/** What the snippets print. */
const OUTPUTS = [/^Q4_K 768 x 256 by \w+: y\[0\] = -?\d/, /true .*100.*256/, /^Float32Array\(4\) \[\s+-?\d/];

/** Inside the repository, so that `fused-matmul` is this package. */
const folder = path.join(root, 'build/readme');
mkdirSync(folder, { recursive: true });
after(() => rmSync(folder, { recursive: true, force: true }));

/** @param {string} file @returns {Promise<{ status: number | null, output: string, errors: string }>} */
async function run(file) {
  const child = spawn(process.execPath, [file], { cwd: root });
  let output = '';
  let errors = '';
  child.stdout.setEncoding('utf8').on('data', (chunk) => {
    output += chunk;
  });
  child.stderr.setEncoding('utf8').on('data', (chunk) => {
    errors += chunk;
  });
  const status = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve));
  return { status, output, errors };
}

test('the first snippet is the ten-line example', () => {
  assert.equal(snippets.length, OUTPUTS.length);
  assert.ok(snippets[0].trim().split('\n').filter(Boolean).length <= 10);
});

for (const [number, snippet] of snippets.entries()) {
  test(`snippet ${number + 1} runs`, async () => {
    const model = readFileSync(path.join(root, 'web/public/tiny-tales-Q4_K_M.gguf'));
    const server = await startServer(model);
    try {
      const file = path.join(folder, `snippet-${number + 1}.mjs`);
      writeFileSync(file, snippet.replaceAll('https://example.com/model.gguf', server.url));
      const { status, output, errors } = await run(file);
      assert.equal(status, 0, errors);
      assert.equal(errors, '');
      assert.doesNotMatch(output, /undefined|NaN|false/);
      assert.match(output, OUTPUTS[number]);
    } finally {
      await server.close();
    }
  });
}

test('the support matrix is what the modules say', async (t) => {
  try {
    await relaxedNode();
  } catch (error) {
    if (process.env.CI || !(error instanceof SetupError)) throw error;
    t.skip(error.message);
    return;
  }
  assert.equal(section(text, 'support matrix'), await supportMatrix(), 'renew it: node scripts/readme.js');
});

test('the sizes are those of the modules, within what another Emscripten may change', () => {
  const numbers = (/** @type {string} */ table) =>
    [...table.matchAll(/([\d.]+) KB/g)].map(([, number]) => Number(number));
  const [written, made] = [numbers(section(text, 'sizes')), numbers(sizeTable())];
  assert.equal(written.length, made.length);
  for (const [i, value] of written.entries()) {
    assert.ok(
      Math.abs(value / made[i] - 1) <= 0.1,
      `${value} KB are ${made[i]} KB now: node scripts/readme.js`,
    );
  }
});

test('the numbers are those of tests/bench/results.json', () => {
  assert.equal(section(text, 'numbers'), numbers(), 'renew them: node scripts/readme.js');
});

test('every npm script is listed, and every one listed exists', () => {
  const listed = new Set([...text.matchAll(/`npm (?:run )?([a-z]+)`/g)].map(([, name]) => name));
  const scripts = Object.keys(manifest.scripts).filter((name) => name !== 'prepack');
  for (const name of scripts) assert.ok(listed.has(name), `README.md does not list ${name}`);
  for (const name of listed)
    assert.ok(name === 'install' || scripts.includes(name), `there is no script ${name}`);
});

test('every file and folder that README.md and CONTRIBUTING.md name exists', () => {
  const contributing = readFileSync(path.join(root, 'CONTRIBUTING.md'), 'utf8');
  const named = [
    ...`${text}${contributing}`.matchAll(/`((?:src|js|web|tests|scripts|dist|\.ci)\/[\w./-]*)`/g),
  ];
  assert.ok(named.length > 5);
  for (const [, name] of named) assert.ok(existsSync(path.join(root, name)), name);
  const layout = /```text\n([\s\S]*?)```/.exec(text)?.[1] ?? '';
  for (const line of layout.trim().split('\n'))
    assert.ok(existsSync(path.join(root, line.split(' ')[0])), line);
});
