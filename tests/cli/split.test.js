/** The command with split models: a first part, an address, a folder. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { serveParts, splitGguf } from '../helpers/split-gguf.js';
import { makeModel } from '../helpers/synthetic-llama.js';
import { projectRoot } from '../helpers/test-data.js';

const MAIN = path.join(projectRoot, 'js/cli/main.js');
const folder = mkdtempSync(path.join(tmpdir(), 'fused-matmul-cli-split-'));
after(() => rmSync(folder, { recursive: true, force: true }));

const made = makeModel({});
const nTensors = made.file.tensors.length;
const files = splitGguf(made.file, [0, 5, nTensors - 5]);
const parts = path.join(folder, 'parts');
mkdirSync(parts);
for (const { name, bytes } of files) writeFileSync(path.join(parts, name), bytes);

/** @param {string[]} args @returns {Promise<{ code: number, out: string, err: string }>} */
const run = (...args) =>
  new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], (error, out, err) =>
      resolve({ code: error ? Number(error.code) : 0, out, err }),
    );
  });

const greedy = ['-p', '\u4e05\u4e06', '--temperature', '0', '--max-tokens', '5', '--ignore-end', '--json'];

test('cli: inspect shows the parts and their sum', async () => {
  const total = files.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const { code, out, err } = await run('inspect', path.join(parts, files[0].name));
  assert.equal(code, 0, err);
  assert.match(
    out,
    new RegExp(`^.*: GGUF version 3, ${Math.round(total / 1000)} KB in 3 parts, ${nTensors} tensors\\n`),
  );
  assert.match(
    out,
    /\npart +tensors +size\n.*model-00001-of-00003\.gguf +0 +[\d.]+ KB\n.*00002.* 5 .*\n.*00003/,
  );
  const json = JSON.parse((await run('inspect', parts, '--json')).out);
  assert.equal(json.byteLength, total);
  assert.deepEqual(
    json.parts.map((/** @type {any} */ part) => [path.basename(part.name), part.nTensors, part.byteLength]),
    files.map(({ name, bytes }, i) => [name, [0, 5, nTensors - 5][i], bytes.length]),
  );
  const whole = path.join(folder, 'whole.gguf');
  writeFileSync(whole, made.bytes);
  const plain = await run('inspect', whole);
  assert.match(plain.out, /^.*: GGUF version 3, [\d.]+ KB, \d+ tensors\n\nmetadata/);
});

test('cli: generate from a first part, a folder and an address', async (t) => {
  const server = await serveParts(t, files);
  const texts = [];
  for (const model of [path.join(parts, files[0].name), parts, server.url(`${files[0].name}?key=1`)]) {
    const { code, out, err } = await run('generate', model, ...greedy);
    assert.equal(code, 0, err);
    texts.push(JSON.parse(out).text);
  }
  assert.ok(texts[0].length > 0);
  assert.deepEqual(new Set(texts).size, 1);
});

test('cli: a part that is missing, a later part, a folder that does not tell', async () => {
  const incomplete = path.join(folder, 'incomplete');
  const many = path.join(folder, 'many');
  const none = path.join(folder, 'none');
  for (const made of [incomplete, many, none]) mkdirSync(made);
  for (const { name, bytes } of files.slice(0, 2)) {
    writeFileSync(path.join(incomplete, name), bytes);
    writeFileSync(path.join(many, name), bytes);
  }
  writeFileSync(path.join(many, 'other.gguf'), made.bytes);
  /** @type {[string, number, RegExp][]} */
  const cases = [
    [incomplete, 1, /^fused-matmul: part 3 of 3 cannot be opened: .*model-00003-of-00003\.gguf: ENOENT/],
    [path.join(parts, files[1].name), 1, /part 2 of 3: open the first, "model-00001-of-00003\.gguf"/],
    [many, 2, /holds 2 models, name one of them: model-00001-of-00003\.gguf, other\.gguf\n$/],
    [none, 2, /holds no file that ends with \.gguf\n$/],
  ];
  for (const [model, exit, message] of cases) {
    const { code, err } = await run('inspect', model);
    assert.match(err, message);
    assert.equal(code, exit);
  }
});
