/**
 * The documents are correct: their snippets run, their tables are those of the build, their
 * commands and files exist.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import { GUIDE, README, RESULTS, section, sizeTable, supportMatrix } from '../../scripts/readme.js';
import { root } from '../../scripts/setup/run.js';
import { relaxedNode, SetupError } from '../../scripts/setup.js';
import { numbers, summaryNumbers } from '../bench/numbers.js';
import { startServer } from '../helpers/range-server.js';

const text = readFileSync(README, 'utf8');
const guide = readFileSync(GUIDE, 'utf8');
const measured = readFileSync(RESULTS, 'utf8');
const contributing = readFileSync(path.join(root, 'CONTRIBUTING.md'), 'utf8');
const manifest = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));
const codeIn = (/** @type {string} */ markdown, language = 'js') =>
  [...markdown.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, 'gm'))].map(
    ([, code]) => code,
  );
const snippets = [...codeIn(text), ...codeIn(guide)];

/** The output of each snippet: those of README.md first, then those of js/README.md. */
const OUTPUTS = [
  /^, there was .*\n60 tokens, \d+ per second\nllama \[ 'F32', 'Q6_K', 'Q4_K' \] \d+ bytes/,
  /^(fox|bear)\n$/,
  /^Q4_K 768 x 256 by \w+: y\[0\] = -?\d/,
  /^(fox|bear)\n(yes|no)\n$/,
  /\d+ of \d+ drafts were right\n$/,
  /^\[\s+'[ ,.].*',\s+'[ ,.].*'\s+\]\ntrue\n$/,
  /^assistant \w+ \d+\ntrue\n$/,
  /true .*100.*256/,
  /^Float32Array\(4\) \[\s+-?\d/,
  /^1280\n$/,
  /^loaded \d+ bytes\ntensor 1x256 256\ntensor 1x256 256\n$/,
  /^2 2 threads were asked for\n$/,
  /^no GPU: unavailable\nQ4_K 768 x 256: y\[0\] = -?\d/,
  /^on the cpu, because the GPU cannot be used: .*no WebGPU/,
  /^\d{2} weights, \d+ bytes\n$/,
];

/** A folder inside the repository, so that `fused-matmul` resolves to this package. */
const folder = path.join(root, 'build/readme');
mkdirSync(folder, { recursive: true });
after(() => rmSync(folder, { recursive: true, force: true }));

/**
 * @param {string} file @param {string[]} args
 * @returns {Promise<{ status: number | null, output: string, errors: string }>}
 */
async function run(file, ...args) {
  const child = spawn(process.execPath, [file, ...args], { cwd: root });
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

test('the first snippets are ten-line examples, and README.md is short', () => {
  assert.equal(snippets.length, OUTPUTS.length);
  assert.ok(text.length < 10_752, `README.md has ${text.length} characters`);
  for (const snippet of snippets.slice(0, 2))
    assert.ok(snippet.trim().split('\n').filter(Boolean).length <= 10);
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

test('what is to be typed in a shell is a command of npm and this package', () => {
  const lines = codeIn(text, 'sh').flatMap((code) => code.trim().split('\n'));
  assert.deepEqual(lines, [`npm install ${manifest.name}`]);
});

test('every command that README.md shows explains itself', async () => {
  const commands = [...text.matchAll(/^\| `fused-matmul (\w+)/gm)].map(([, name]) => name);
  assert.ok(commands.length >= 4);
  for (const name of commands) {
    const { status, output } = await run(manifest.bin['fused-matmul'], name, '--help');
    assert.equal(status, 0, name);
    assert.match(output, new RegExp(`fused-matmul ${name}`));
  }
  const { status, output } = await run('scripts/bench.js', '--help');
  assert.equal(status, 0);
  assert.match(output, /--peers/);
});

test('the support matrix is what the modules say', async (t) => {
  try {
    await relaxedNode();
  } catch (error) {
    if (process.env.CI || !(error instanceof SetupError)) throw error;
    t.skip(error.message);
    return;
  }
  assert.equal(section(guide, 'support matrix'), await supportMatrix(), 'renew it: node scripts/readme.js');
});

test('the sizes are those of the modules, within what another Emscripten may change', () => {
  const numbers = (/** @type {string} */ table) =>
    [...table.matchAll(/([\d.]+) KB/g)].map(([, number]) => Number(number));
  const [written, made] = [numbers(section(measured, 'sizes')), numbers(sizeTable())];
  assert.equal(written.length, made.length);
  for (const [i, value] of written.entries()) {
    assert.ok(
      Math.abs(value / made[i] - 1) <= 0.1,
      `${value} KB are ${made[i]} KB now: node scripts/readme.js`,
    );
  }
});

test('the numbers are those of tests/bench/results.jsonl', (t) => {
  const made = numbers();
  if (made === undefined) return t.skip('there is no tests/bench/results.jsonl');
  assert.equal(section(measured, 'numbers'), made, 'renew them: node scripts/readme.js');
  assert.equal(section(text, 'summary'), summaryNumbers(), 'renew them: node scripts/readme.js');
});

test('every npm script is listed, and every one listed exists', () => {
  const listed = new Set([...contributing.matchAll(/`npm (?:run )?([a-z:]+)`/g)].map(([, name]) => name));
  const scripts = Object.keys(manifest.scripts).filter((name) => name !== 'prepack');
  for (const name of scripts) assert.ok(listed.has(name), `CONTRIBUTING.md does not list ${name}`);
  for (const name of listed)
    assert.ok(['install', 'ci'].includes(name) || scripts.includes(name), `there is no script ${name}`);
});

test('every link within the documents leads somewhere', () => {
  const documents = [
    'README.md',
    'js/README.md',
    'CONTRIBUTING.md',
    'SECURITY.md',
    'src/README.md',
    'src/kernels/README.md',
    'tests/bench/README.md',
    'tests/bench/RESULTS.md',
    'web/README.md',
  ];
  const anchors = (/** @type {string} */ markdown) =>
    [...markdown.matchAll(/^#+ (.*)$/gm)].map(([, title]) =>
      title
        .toLowerCase()
        .replace(/[^\w -]/g, '')
        .replaceAll(' ', '-'),
    );
  for (const document of documents) {
    const content = readFileSync(path.join(root, document), 'utf8');
    for (const [, target] of content.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target)) continue;
      const [file, anchor] = target.split('#');
      const full = file ? path.join(root, path.dirname(document), file) : path.join(root, document);
      assert.ok(existsSync(full), `${document}: ${target}`);
      if (anchor) assert.ok(anchors(readFileSync(full, 'utf8')).includes(anchor), `${document}: ${target}`);
    }
  }
});

test('every file and folder that README.md and CONTRIBUTING.md name exists', () => {
  const named = [
    ...`${text}${guide}${contributing}${measured}`.matchAll(
      /`((?:src|js|web|tests|scripts|dist|\.ci)\/[\w./-]*)`/g,
    ),
  ];
  assert.ok(named.length > 5);
  for (const [, name] of named) assert.ok(existsSync(path.join(root, name)), name);
  const layout = /```text\n([\s\S]*?)```/.exec(contributing)?.[1] ?? '';
  for (const line of layout
    .trim()
    .split('\n')
    .filter((row) => !row.startsWith(' ')))
    assert.ok(existsSync(path.join(root, line.split(' ')[0])), line);
});
