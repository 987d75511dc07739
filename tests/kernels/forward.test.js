/**
 * The layer operations together, as a llama decoder built of nothing else. It is compared with
 * llama.cpp's logits of the same files (f32 activations, F32 cache), for a prompt at once and then
 * token by token.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createKernels, openGguf } from '../../js/layer-index.js';
import { dataPath, projectRoot, skipWithout } from '../helpers/test-data.js';
import { libraryVariants } from '../helpers/variants.js';

/** @import { Kernels, Tensor } from '../../js/layer-index.js' */

/** Models with a reference in logits/. The README there gives 2e-4 as the largest difference. */
const MODELS = [
  ['tiny-tales-Q4_K_M', join(projectRoot, 'web/public/tiny-tales-Q4_K_M.gguf')],
  ['stories260K-Q8_0', dataPath('models/stories260K-Q8_0.gguf')],
  ['TinyStories-656K-pad256-Q6_K', dataPath('models/TinyStories-656K-pad256-Q6_K.gguf')],
];
const MAX_DIFFERENCE = 2e-4;

/** @param {Kernels} fm @param {string} path */
async function loadDecoder(fm, path) {
  const gguf = await openGguf(path);
  const number = (/** @type {string} */ key) => Number(gguf.metadata[`llama.${key}`]);
  const nHeads = number('attention.head_count');
  const nEmbd = number('embedding_length');
  const nKvHeads = number('attention.head_count_kv') || nHeads;
  const headSize = number('rope.dimension_count') || nEmbd / nHeads;
  const eps = number('attention.layer_norm_rms_epsilon');
  const base = number('rope.freq_base') || 10000;
  const load = (/** @type {string} */ name) => fm.loadWeight(gguf, `${name}.weight`);
  const values = async (/** @type {string} */ name) => fm.dequantize(await load(name));
  const cache = { type: /** @type {const} */ ('F32'), nPositions: 256, nKvHeads, headSize };
  const layers = [];
  for (let i = 0; i < number('block_count'); i++) {
    const of = (/** @type {string} */ name) => load(`blk.${i}.${name}`);
    layers.push({
      qkv: [await of('attn_q'), await of('attn_k'), await of('attn_v')],
      output: await of('attn_output'),
      ffn: {
        gate: await of('ffn_gate'),
        up: await of('ffn_up'),
        down: await of('ffn_down'),
        norm: await values(`blk.${i}.ffn_norm`),
      },
      norm: await values(`blk.${i}.attn_norm`),
      keys: fm.kvCache(cache),
      values: fm.kvCache(cache),
    });
  }
  const table = await load('token_embd');
  const output = gguf.tensors.has('output.weight') ? await load('output') : table;
  const shape = { headSize, eps, base };
  return { ...shape, layers, table, output, norm: await values('output_norm') };
}

/**
 * The logits of tokens at positions from `position` on.
 * @param {Kernels} fm @param {Awaited<ReturnType<typeof loadDecoder>>} model
 * @param {number[]} tokens @param {number} position @returns {Float32Array}
 */
function forward(fm, { headSize, eps, base, layers, table, output, norm }, tokens, position) {
  const options = { headSize, position, base };
  const x = fm.embed(table, tokens, { out: fm.tensor({ nRows: tokens.length, nCols: table.nCols }) });
  /** @type {Tensor[]} */
  const used = [x];
  for (const layer of layers) {
    const [q, k, v] = fm.fusedRmsNormMatmul(layer.qkv, x, layer.norm, { eps });
    fm.rope(q, { ...options, out: q });
    fm.rope(k, { ...options, out: k });
    layer.keys.write(k, position);
    layer.values.write(v, position);
    const attended = fm.flashAttention(q, layer.keys, layer.values, { firstPosition: position });
    const projected = fm.fusedMatmul(layer.output, attended);
    fm.add(x, projected, { out: x });
    fm.fusedFfn(layer.ffn, x, { eps, residual: true, out: x });
    used.push(q, k, v, attended, projected);
  }
  const [logits] = fm.fusedRmsNormMatmul([output], x, norm, { eps });
  const result = logits.toArray();
  for (const tensor of [...used, logits]) tensor.free();
  return result;
}

/** @param {Float32Array} got @param {Float32Array} expected */
const largestDifference = (got, expected) =>
  got.reduce((worst, value, i) => Math.max(worst, Math.abs(value - expected[i])), 0);

for (const [name, path] of MODELS) {
  const skip = skipWithout(`logits/${name}.json`);
  for (const variant of libraryVariants) {
    const reason = skip || (existsSync(path) ? variant.skip : `no ${name}`);
    test(`forward: ${name}, ${variant.label}`, { skip: reason || false }, async (t) => {
      const { prompts, n_vocab: nVocab } = JSON.parse(readFileSync(dataPath(`logits/${name}.json`), 'utf8'));
      const bytes = readFileSync(dataPath(`logits/${name}.logits.f32`));
      const logits = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
      const fm = await createKernels({ isa: variant.isa, dot: variant.dot, activation: 'f32' });
      t.after(() => fm.dispose());
      const model = await loadDecoder(fm, path);
      for (const { tokens, logits_offset: offset } of prompts) {
        const expected = logits.subarray(offset, offset + tokens.length * nVocab);
        const whole = forward(fm, model, tokens, 0);
        assert.equal(whole.length, expected.length);
        const worst = largestDifference(whole, expected);
        assert.ok(worst <= MAX_DIFFERENCE, `prompt of ${tokens.length}: ${worst}`);
        for (const [position, token] of tokens.entries()) {
          const one = forward(fm, model, [token], position);
          const right = expected.subarray(position * nVocab, (position + 1) * nVocab);
          const difference = largestDifference(one, right);
          assert.ok(difference <= MAX_DIFFERENCE, `token ${position}: ${difference}`);
        }
      }
      t.diagnostic(`ran: a decoder of layer operations, ${variant.label}`);
    });
  }
}
