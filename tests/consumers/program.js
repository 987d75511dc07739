/**
 * The program of every consumer app: it multiplies some tokens by a weight of the demo's model, in
 * this thread and in a worker, generates a few words with the whole model, and reports what the
 * library says about itself.
 */
import { createKernels, createWorkerKernels, openGguf } from 'fused-matmul';
import { Llama } from 'fused-matmul/llama';

export const TENSOR = 'blk.0.ffn_gate.weight';
export const PROMPT = 'Once upon a time';

/** @param {string | URL} model  address or path of the GGUF file */
export async function program(model) {
  const gguf = await openGguf(model);
  const fm = await createKernels();
  const w = await fm.loadWeight(gguf, TENSOR);
  const x = Float32Array.from({ length: 3 * w.nCols }, (_, i) => Math.sin(i) * (1 + (i % 7)));
  const y = fm.fusedMatmul(w, x);
  const { info } = fm;
  const { type, nRows, nCols } = w;
  fm.dispose();
  return {
    type,
    nRows,
    nCols,
    y: Array.from(y),
    info,
    worker: await inWorker(gguf, x),
    text: await write(model),
  };
}

/** @param {import('fused-matmul').GgufFile} gguf @param {Float32Array} x */
async function inWorker(gguf, x) {
  const fm = await createWorkerKernels();
  const w = await fm.loadWeight(gguf, TENSOR);
  const y = await fm.fusedMatmul(w, x);
  const { info } = fm;
  await fm.dispose();
  return { y: Array.from(y), info };
}

/** @param {string | URL} model */
async function write(model) {
  const llama = await Llama.load(model);
  let text = '';
  for await (const piece of llama.generate(PROMPT, { maxTokens: 12, temperature: 0 })) text += piece;
  llama.dispose();
  return text;
}
