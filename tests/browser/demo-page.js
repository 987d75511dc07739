/** The demo page as the tests use it: opened fresh for each, watched for problems, with models to give it. */
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { serveDemo } from '../../web/serve.js';
import { makeWeights } from '../helpers/blocks.js';
import { ggufBytes } from '../helpers/gguf-bytes.js';
import { Prng } from '../helpers/prng.js';
import { referenceByName } from '../helpers/reference.js';
import { projectRoot } from '../helpers/test-data.js';
import { launchChromium, openPage, skipWithoutChromium } from './helpers.js';

export const skip = skipWithoutChromium();
export const defaultFile = 'tiny-tales-Q4_K_M.gguf';

/** @typedef {Awaited<ReturnType<typeof openPage>>} Opened */
/** @typedef {import('playwright-core').Page} Page */

/** Of the test file that imports this. @type {{ browser: import('playwright-core').Browser, server: Awaited<ReturnType<typeof serveDemo>>, folder: string }} */
export const shared = /** @type {any} */ ({});

before(async () => {
  if (skip) return;
  shared.folder = mkdtempSync(join(tmpdir(), 'fused-matmul-demo-'));
  shared.server = await serveDemo();
  shared.browser = await launchChromium();
});

after(async () => {
  await shared.browser?.close();
  await shared.server?.close();
  if (shared.folder) rmSync(shared.folder, { recursive: true });
});

/**
 * One test on a fresh page that must stay free of console messages, failed and external requests.
 * @param {string} name
 * @param {(opened: Opened) => Promise<void>} body
 * @param {import('playwright-core').BrowserContextOptions} [options]
 */
export function pageTest(name, body, options) {
  test(name, { skip }, async () => {
    const opened = await openPage(shared.browser, shared.server.url, options);
    try {
      await body(opened);
      assert.deepEqual(opened.problems, []);
    } finally {
      await opened.close();
    }
  });
}

/** @param {string} name @param {Uint8Array} data @returns {string} its path */
export function writeTemporary(name, data) {
  const path = join(shared.folder, name);
  writeFileSync(path, data);
  return path;
}

/**
 * Waits until a text is finished, and returns what the page says about it.
 * @param {Page} page
 * @param {Record<string, string>} [wanted]  of its data, e.g. { seed: '5' }
 * @returns {Promise<Record<string, string>>}
 */
export async function written(page, wanted = {}) {
  const attributes = Object.entries({ state: 'done', ...wanted }).map(
    ([key, value]) => `[data-${key}="${value}"]`,
  );
  const stats = page.locator(`#stats${attributes.join('')}`);
  try {
    await stats.waitFor({ timeout: 30_000 });
  } catch {
    const shown = await page
      .locator('#stats')
      .evaluate((node) => ({ .../** @type {HTMLElement} */ (node).dataset }));
    const alert = await page.locator('#alerts').textContent();
    throw new Error(
      `no text with ${attributes.join('')}: ${JSON.stringify(shown)}, alert ${JSON.stringify(alert)}`,
    );
  }
  return stats.evaluate(
    (node) => /** @type {Record<string, string>} */ ({ .../** @type {HTMLElement} */ (node).dataset }),
  );
}

/** What stands on the paper. @param {Page} page */
export const paper = (page) => page.locator('#text').textContent();

/** @param {Page} page @param {string} path */
export const chooseFile = (page, path) => page.locator('#file').setInputFiles(path);

/** Scrolls through the table of tensors, whose rows are made as they are about to be seen. @param {Page} page */
export async function scrollTensors(page) {
  await page.locator('#table-frame').scrollIntoViewIfNeeded();
  await page.waitForFunction(() => {
    const frame = /** @type {HTMLElement} */ (document.querySelector('#table-frame'));
    frame.scrollTop = frame.scrollHeight;
    const count = Number(frame.querySelector('table')?.getAttribute('aria-rowcount'));
    return frame.querySelectorAll('#tensors tr').length === count - 1;
  });
}

export const storyModel = () => readFileSync(join(projectRoot, 'web/public', defaultFile));

/** The story model as another architecture. @param {string} name  as long as llama */
export function renamedArchitecture(name) {
  const bytes = storyModel();
  const at = bytes.indexOf('llama', bytes.indexOf('general.architecture'));
  bytes.write(name, at);
  return bytes;
}

/** The story model with a chat template. @param {string} template */
export function chatModel(template) {
  const bytes = storyModel();
  const key = 'tokenizer.chat_template';
  const fixed = 8 + key.length + 4 + 8;
  // What is put in must not move the tensors off their alignment.
  const padded = template.padEnd(template.length + ((32 - ((fixed + template.length) % 32)) % 32));
  const entry = Buffer.alloc(fixed + padded.length);
  entry.writeBigUInt64LE(BigInt(key.length), 0);
  entry.write(key, 8);
  entry.writeUInt32LE(8, 8 + key.length);
  entry.writeBigUInt64LE(BigInt(padded.length), 12 + key.length);
  entry.write(padded, fixed);
  const header = Buffer.from(bytes.subarray(0, 24));
  header.writeBigUInt64LE(header.readBigUInt64LE(16) + 1n, 16);
  return Buffer.concat([header, entry, bytes.subarray(24)]);
}

/**
 * A model that takes a while: 40 MB, random blocks, and no token that ends a text.
 * @param {{ nLayers?: number, nEmbd?: number, nFf?: number, context?: number }} [shape]
 */
export function slowModel({ nLayers = 8, nEmbd = 1024, nFf = 2816, context = 4096 } = {}) {
  const type = /** @type {import('../helpers/reference.js').ReferenceType} */ (referenceByName.get('Q4_K'));
  const prng = new Prng(5);
  const nVocab = 256;
  const [nHeads, nKvHeads] = [16, 4];
  const kv = (nEmbd / nHeads) * nKvHeads;
  /** @type {Map<number, Uint8Array>} */
  const made = new Map();
  /** @param {string} name @param {number} nRows @param {number} nCols */
  const matrix = (name, nRows, nCols) => {
    const some = made.get(nCols) ?? makeWeights(type, 'natural', 8, nCols, prng);
    made.set(nCols, some);
    const data = Buffer.alloc((some.length / 8) * nRows, some);
    return { name, typeId: type.id, shape: [nCols, nRows], data };
  };
  const ones = new Uint8Array(new Float32Array(nEmbd).fill(1).buffer);
  const vector = (/** @type {string} */ name) => ({ name, typeId: 0, shape: [nEmbd], data: ones });
  const layers = Array.from({ length: nLayers }, (_, i) => [
    vector(`blk.${i}.attn_norm.weight`),
    matrix(`blk.${i}.attn_q.weight`, nEmbd, nEmbd),
    matrix(`blk.${i}.attn_k.weight`, kv, nEmbd),
    matrix(`blk.${i}.attn_v.weight`, kv, nEmbd),
    matrix(`blk.${i}.attn_output.weight`, nEmbd, nEmbd),
    vector(`blk.${i}.ffn_norm.weight`),
    matrix(`blk.${i}.ffn_gate.weight`, nFf, nEmbd),
    matrix(`blk.${i}.ffn_up.weight`, nFf, nEmbd),
    matrix(`blk.${i}.ffn_down.weight`, nEmbd, nFf),
  ]);
  const tokens = Array.from({ length: nVocab }, (_, i) =>
    i === 0 ? '<unk>' : String.fromCharCode(i < 128 ? i : 0x100 + i),
  );
  const { bytes } = ggufBytes({
    pairs: [
      ['general.architecture', 'string', 'llama'],
      ['general.name', 'string', 'slow'],
      ['llama.block_count', 'u32', nLayers],
      ['llama.context_length', 'u32', context],
      ['llama.embedding_length', 'u32', nEmbd],
      ['llama.feed_forward_length', 'u32', nFf],
      ['llama.attention.head_count', 'u32', nHeads],
      ['llama.attention.head_count_kv', 'u32', nKvHeads],
      ['llama.attention.layer_norm_rms_epsilon', 'f32', 1e-5],
      ['tokenizer.ggml.model', 'string', 'llama'],
      ['tokenizer.ggml.tokens', 'array', { of: 'string', items: tokens }],
      ['tokenizer.ggml.scores', 'array', { of: 'f32', items: tokens.map(() => 0) }],
      ['tokenizer.ggml.token_type', 'array', { of: 'i32', items: tokens.map((_, i) => (i === 0 ? 2 : 1)) }],
      ['tokenizer.ggml.add_bos_token', 'bool', false],
      ['tokenizer.ggml.add_space_prefix', 'bool', false],
    ],
    tensors: [matrix('token_embd.weight', nVocab, nEmbd), ...layers.flat(), vector('output_norm.weight')],
  });
  return bytes;
}

/** The button. */
export const write = (/** @type {Page} */ page) => page.getByRole('button', { name: 'Write', exact: true });

/** @param {Page} page @param {Record<string, string>} values */
export async function setOptions(page, values) {
  await page.locator('#options').evaluate((node) => {
    /** @type {HTMLDetailsElement} */ (node).open = true;
  });
  for (const [label, value] of Object.entries(values))
    await page.getByLabel(label, { exact: true }).fill(value);
}
