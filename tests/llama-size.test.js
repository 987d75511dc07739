/** What the model runner adds to a page, and what waits until it is needed. */
import assert from 'node:assert/strict';
import { accessSync, constants, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { projectRoot } from './helpers/test-data.js';

/** Minified and gzipped: the runner with all it needs of the rest, and what it adds to the layer operations. */
const LLAMA_BUDGET = 30 * 1024;
const RUNNER_BUDGET = 13 * 1024;

/** What a page loads at once. @param {string} entry */
async function bundle(entry) {
  const { outputFiles, warnings } = await build({
    absWorkingDir: projectRoot,
    stdin: { contents: `export * from './js/${entry}';`, resolveDir: projectRoot },
    bundle: true,
    minify: true,
    write: false,
    format: 'esm',
    platform: 'browser',
    target: 'es2022',
    logLevel: 'silent',
    splitting: true,
    outdir: path.join(projectRoot, 'build/out'),
  });
  assert.deepEqual(warnings, []);
  const text = (/** @type {string} */ name) =>
    outputFiles.find((file) => path.basename(file.path) === name)?.text ?? assert.fail(name);
  const loaded = new Set(['stdin.js']);
  for (const name of loaded) {
    for (const [, imported] of text(name).matchAll(/\b(?:from|import)"\.\/([^"]+)"/g)) loaded.add(imported);
  }
  const contents = [...loaded].map(text).join('');
  return { contents, bytes: gzipSync(contents, { level: 9 }).length };
}

test('llama: it is small, and the template engine waits for a conversation', async (t) => {
  const [layer, llama] = [await bundle('layer-index.js'), await bundle('llama/index.js')];
  const added = llama.bytes - layer.bytes;
  t.diagnostic(
    `llama: ${llama.contents.length} bytes minified, ${llama.bytes} gzipped, ${added} of them its own`,
  );
  assert.ok(llama.contents.includes('tokenizer.ggml.tokens'));
  assert.ok(!llama.contents.includes('raise_exception'), 'the template engine is no part of it');
  assert.ok(!llama.contents.includes('node:util'), 'nor is the command');
  assert.ok(llama.bytes <= LLAMA_BUDGET, `${llama.bytes} bytes, budget ${LLAMA_BUDGET}`);
  assert.ok(added <= RUNNER_BUDGET, `${added} bytes, budget ${RUNNER_BUDGET}`);
});

test('llama: the command is in the package, and may be run', () => {
  const { bin, exports, files } = JSON.parse(readFileSync(path.join(projectRoot, 'package.json'), 'utf8'));
  const command = path.join(projectRoot, bin['fused-matmul']);
  assert.match(readFileSync(command, 'utf8'), /^#!\/usr\/bin\/env node\n/);
  if (process.platform !== 'win32') accessSync(command, constants.X_OK);
  assert.ok(files.includes('js') && exports['./llama'].default === './js/llama/index.js');
});
