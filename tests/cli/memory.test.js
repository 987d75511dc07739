/**
 * The peak memory of text in the terminal beyond Node itself, the file and the KV cache. Counted is
 * all memory that the system gives to the process, except pages of files, which are Node's own
 * code. The model is as wide as one of a billion parameters.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { makeModel } from '../helpers/synthetic-llama.js';
import { projectRoot } from '../helpers/test-data.js';

const LIMIT = 48e6;
const skip = existsSync('/proc/self/status') ? false : 'only Linux tells the peak of a process';

/**
 * @param {string[]} args  the arguments of Node
 * @returns {Promise<{ peak: number, out: string }>}  bytes
 */
async function peakOf(args) {
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    out += text;
  });
  let peak = 0;
  const timer = setInterval(() => {
    try {
      const status = readFileSync(`/proc/${child.pid}/status`, 'utf8');
      const bytesOf = (/** @type {string} */ name) =>
        1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0);
      peak = Math.max(peak, bytesOf('VmHWM') - bytesOf('RssFile'));
    } catch {
      // The process has ended.
    }
  }, 2);
  const code = await new Promise((resolve) => child.on('close', resolve));
  clearInterval(timer);
  assert.equal(code, 0);
  return { peak, out };
}

test('text in the terminal: file, KV cache and 48 MB beyond Node itself', { skip }, async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), 'fused-matmul-memory-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const wide = { nEmbd: 2048, nFf: 5632, nLayers: 1, nHeads: 32, nKvHeads: 8, nVocab: 2000, context: 512 };
  const { bytes } = makeModel({ ...wide, type: 'Q4_K', qkType: 'Q4_K' });
  const file = path.join(folder, 'wide.gguf');
  writeFileSync(file, bytes);
  const node = await peakOf(['-e', 'setTimeout(() => {}, 300)']);
  const prompt = String.fromCharCode(...Array.from({ length: 300 }, (_, i) => 0x4e03 + (i % 97)));
  const main = path.join(projectRoot, 'js/cli/main.js');
  const { peak, out } = await peakOf([
    main,
    'generate',
    file,
    '--prompt',
    prompt,
    '--max-tokens',
    '32',
    '--json',
  ]);
  const { memory, promptTokens } = JSON.parse(out);
  assert.ok(promptTokens >= 300, `${promptTokens} tokens`);
  assert.ok(memory.weights > 25e6 && peak > memory.weights + memory.kvCache, 'the weights are not counted');
  assert.ok(
    memory.linear <= memory.weights + memory.kvCache + 32e6,
    `linear memory of ${memory.linear} bytes`,
  );
  const over = peak - node.peak - bytes.length - memory.kvCache;
  t.diagnostic(
    `ran: MB beyond Node (${(node.peak / 1e6).toFixed(1)}), file and KV cache ${(over / 1e6).toFixed(1)}`,
  );
  assert.ok(over <= LIMIT, `${over / 1e6} MB`);
});
