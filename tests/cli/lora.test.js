/** The command with LoRA adapters. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, test } from 'node:test';
import { readAdapter } from '../../js/cli/output.js';
import { Llama } from '../../js/llama/index.js';
import { makeAdapter, shapesOf } from '../helpers/adapters.js';
import { TINY_TALES } from '../helpers/llama.js';
import { projectRoot } from '../helpers/test-data.js';

const folder = mkdtempSync(path.join(tmpdir(), 'fused-matmul-lora-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const shapes = await shapesOf(TINY_TALES);
const source = makeAdapter({ shapes, rank: 8, alpha: 64 });
const file = path.join(folder, 'tales=2.gguf');
writeFileSync(file, source);

/**
 * @param {string[]} args
 * @returns {Promise<{ code: number, out: string, err: string }>}
 */
const run = (...args) =>
  new Promise((resolve) => {
    const main = path.join(projectRoot, 'js/cli/main.js');
    execFile(process.execPath, [main, ...args], (error, out, err) =>
      resolve({ code: Number(error?.code ?? 0), out, err }),
    );
  });

const PROMPT = 'Once upon a time';
const GREEDY = ['--prompt', PROMPT, '--temperature', '0', '--max-tokens', '12', '--threads', '1'];

test('cli: --lora applies adapters, with their scales', async () => {
  /** @param {{ scale?: number }[]} scales */
  const textWith = async (...scales) => {
    const adapters = scales.map(({ scale = 1 }) => ({ source, scale }));
    const model = await Llama.load(TINY_TALES, { threads: 1, adapters });
    const text = await model.generate(PROMPT, { temperature: 0, maxTokens: 12 }).text();
    model.dispose();
    return text;
  };
  const [none, one, two] = [await textWith(), await textWith({}), await textWith({}, { scale: 0.5 })];
  assert.equal(new Set([none, one, two]).size, 3, `${none}, ${one}, ${two}`);
  const single = await run('generate', TINY_TALES, '--lora', file, ...GREEDY);
  assert.equal(single.out, `${PROMPT}${one}\n`, single.err);
  assert.match(single.err, /^LoRA adapter: adapter 1, rank 8, scale 1$/m);
  const both = await run('generate', TINY_TALES, '--lora', file, '--lora', `${file}=0.5`, ...GREEDY);
  assert.equal(both.out, `${PROMPT}${two}\n`, both.err);
  assert.match(both.err, /scale 0\.5$/m);
});

test('cli: wrong adapters, help, and an adapter in place of a model', async () => {
  const wrong = await run('generate', TINY_TALES, '--lora', TINY_TALES, ...GREEDY);
  assert.equal(wrong.code, 1);
  assert.match(wrong.err, /adapters\[0\] \(.*\) is no adapter: its general\.type is/);
  const scale = await run('generate', TINY_TALES, '--lora', `${file}=1.2.3`, ...GREEDY);
  assert.equal(scale.code, 2);
  assert.match(scale.err, /--lora FILE=SCALE needs a number behind the =, got "1\.2\.3"/);
  const instead = await run('generate', file, ...GREEDY);
  assert.equal(instead.code, 1);
  assert.match(instead.err, /this is no model but an adapter for one of the architecture "llama"/);
  for (const command of ['generate', 'chat', 'embed', 'serve', 'bench'])
    assert.match((await run(command, '--help')).out, /--lora FILE\[=SCALE\]/);
});

test('cli: the scale of an adapter is not taken from the query of an address', () => {
  const url = 'https://models.test/a.gguf?dl=1';
  assert.deepEqual(readAdapter(url), { source: url });
  assert.deepEqual(readAdapter(`${url}&v=2`), { source: `${url}&v=2` });
  assert.deepEqual(readAdapter(`${url}=0.5`), { source: url, scale: 0.5 });
  assert.deepEqual(readAdapter('https://models.test/a.gguf=-2'), {
    source: 'https://models.test/a.gguf',
    scale: -2,
  });
});

test('cli: inspect says what an adapter is', async () => {
  const { code, out } = await run('inspect', file);
  assert.equal(code, 0);
  const n = Object.keys(shapes).length;
  assert.match(
    out,
    new RegExp(
      `an adapter \\(lora\\) for ${n} matrices of a model of the architecture llama, rank 8, alpha 64: .*--lora FILE`,
    ),
  );
  const { adapter, runs } = JSON.parse((await run('inspect', file, '--json')).out);
  assert.deepEqual(adapter, { type: 'lora', architecture: 'llama', matrices: n, rank: 8, alpha: 64 });
  assert.equal(runs, false);
  assert.equal(JSON.parse((await run('inspect', TINY_TALES, '--json')).out).adapter, undefined);
});
