/**
 * The reference of the public interface is complete, and has a page for each entry and each export.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import * as library from '../../js/llama/index.js';
import { buildDocs } from '../../scripts/docs.js';

test('it is made without a warning: every public thing has a word of documentation', async () => {
  const { folder, warnings } = await buildDocs();
  assert.equal(warnings, '');
  const start = readFileSync(path.join(folder, 'index.html'), 'utf8');
  for (const entry of ['fused-matmul', 'fused-matmul/layer', 'fused-matmul/llama', 'fused-matmul/openai'])
    assert.ok(start.includes(entry));
});

test('everything that can be imported is in it', async () => {
  const { folder } = await buildDocs();
  const kinds = ['functions', 'classes', 'variables', 'types'];
  const entries = [
    'fused-matmul',
    'fused-matmul_layer',
    'fused-matmul_llama',
    'fused-matmul_openai',
    'fused-matmul_gpu',
  ];
  const pages = (/** @type {string} */ name) =>
    kinds.flatMap((kind) => entries.map((entry) => path.join(folder, kind, `${entry}.${name}.html`)));
  for (const name of [
    ...Object.keys(library),
    'KvCache',
    'KernelsOptions',
    'FlashOptions',
    'GenerateOptions',
    'createOpenAI',
    'LocalOpenAI',
    'ChatRequest',
    'ChatChunk',
    'createGpuKernels',
    'GpuKernels',
    'GpuWeight',
    'GpuOptions',
    'GpuInfo',
  ])
    assert.ok(pages(name).some(existsSync), name);
});
