/**
 * The code that the model runner adds to a page, and the code that is loaded only when it is
 * needed.
 */
import assert from 'node:assert/strict';
import { accessSync, constants, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { bundleForBrowser } from '../helpers/bundle.js';
import { projectRoot } from '../helpers/test-data.js';

/**
 * Sizes, minified and gzipped: the runner with all its imports, and the part that it adds to the
 * layer operations.
 */
const LLAMA_BUDGET = 27.5 * 1024;
const RUNNER_BUDGET = 13.25 * 1024;
/**
 * Size of the code that is fetched beside a file's header: the architectures, the tokenizers (byte
 * pairs, SentencePiece, unigrams, WordPiece), the CPU's blocks and their operations.
 */
const LATER_BUDGET = 34 * 1024;

/** @param {string} entry */
const bundle = (entry) => bundleForBrowser(`export * from './js/${entry}';`);

test('llama: it is small, and the template engine waits for a conversation', async (t) => {
  const [layer, llama] = [await bundle('layer-index.js'), await bundle('llama/index.js')];
  const added = llama.bytes - layer.bytes;
  t.diagnostic(
    `llama: ${llama.contents.length} bytes minified, ${llama.bytes} gzipped, ${added} of them its own`,
  );
  assert.ok(llama.contents.includes('the prompt has no tokens'));
  const marks = [
    'is not supported; supported are',
    'add_bos_token',
    'types without kernels',
    'fused_matmul_many(',
  ];
  const isMarked = (/** @type {string} */ text) => marks.some((mark) => text.includes(mark));
  const later = new Set(
    llama.chunks
      .filter(({ texts }) => texts.some(isMarked))
      .flatMap(({ texts: [own, ...others] }) => [own, ...others.filter(isMarked)]),
  );
  assert.ok(marks.every((mark) => !llama.contents.includes(mark)));
  assert.ok(marks.every((mark) => [...later].some((text) => text.includes(mark))));
  const laterBytes = [...later].reduce((sum, text) => sum + gzipSync(text, { level: 9 }).length, 0);
  t.diagnostic(`llama: ${laterBytes} bytes gzipped are fetched beside a file's header`);
  assert.ok(laterBytes <= LATER_BUDGET, `${laterBytes} bytes, budget ${LATER_BUDGET}`);
  assert.ok(!llama.contents.includes('raise_exception'), 'the template engine is no part of it');
  assert.ok(!llama.contents.includes('node:util'), 'nor is the command');
  assert.ok(llama.bytes <= LLAMA_BUDGET, `${llama.bytes} bytes, budget ${LLAMA_BUDGET}`);
  assert.ok(added <= RUNNER_BUDGET, `${added} bytes, budget ${RUNNER_BUDGET}`);
});

/** Size of the interface of OpenAI's API, minified and gzipped, without the model that it is given. */
const OPENAI_BUDGET = 11 * 1024;

test("llama: the interface of OpenAI's API is small, and is not loaded with a model", async (t) => {
  const openai = await bundle('openai/index.js');
  t.diagnostic(`openai: ${openai.contents.length} bytes minified, ${openai.bytes} gzipped`);
  assert.ok(openai.contents.includes('chat.completion.chunk'));
  assert.ok(openai.bytes <= OPENAI_BUDGET, `${openai.bytes} bytes, budget ${OPENAI_BUDGET}`);
  assert.ok(!openai.contents.includes('tokenizer.ggml'), 'it brings no model with it');
  const { files } = await bundle('llama/index.js');
  assert.ok(!files.some((file) => file.text.includes('chat.completion')));
});

test('llama: the command is in the package, and may be run', () => {
  const { bin, exports, files } = JSON.parse(readFileSync(path.join(projectRoot, 'package.json'), 'utf8'));
  const command = path.join(projectRoot, bin['fused-matmul']);
  assert.match(readFileSync(command, 'utf8'), /^#!\/usr\/bin\/env node\n/);
  if (process.platform !== 'win32') accessSync(command, constants.X_OK);
  assert.ok(files.includes('js') && exports['./llama'].default === './js/llama/index.js');
});
