/* The command bench: speed of prompts and of decoding. */

import { COMMON, MODEL, UsageError } from './options.js';
import { engineText, formatRate, formatTable, loadModel, Progress } from './output.js';

/** @param {number[]} values */
function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, best: sorted[sorted.length - 1], worst: sorted[0] };
}

/** @type {import('./options.js').Command} */
export const bench = {
  name: 'bench',
  summary: 'Measures prompt and decode speed on random tokens: median, best and worst of several runs.',
  usage: 'MODEL.gguf [options]',
  nArguments: 1,
  options: {
    'prompt-tokens': { kind: 'number', value: 'N', help: 'tokens of the prompt (128)' },
    tokens: { kind: 'number', short: 'n', also: 'max-tokens', value: 'N', help: 'tokens written (64)' },
    runs: { kind: 'number', value: 'N', help: 'measured runs, after one to warm up (5)' },
    ...MODEL,
    ...COMMON,
  },
  async run(values, [file], io) {
    const { 'prompt-tokens': nPrompt = 128, tokens: nTokens = 64, runs = 5 } = values;
    for (const [name, value] of Object.entries({ 'prompt-tokens': nPrompt, tokens: nTokens, runs })) {
      if (!Number.isInteger(value) || value < 1)
        throw new UsageError(`--${name} must be an integer from 1 on, got ${value}`);
    }
    const begin = performance.now();
    const model = await loadModel(file, { context: nPrompt + nTokens, ...values }, io);
    const loadMs = performance.now() - begin;
    const progress = new Progress(io, 'measuring');
    /** @type {Record<'prompt' | 'decode' | 'firstToken', number[]>} */
    const times = { prompt: [], decode: [], firstToken: [] };
    try {
      for (let run = 0; run <= runs; run++) {
        progress.update({ loaded: run, total: runs + 1, note: `run ${run} of ${runs}` });
        const { prompt, decode, firstToken } = await measure(model, { nPrompt, nTokens, run }, io.signal);
        if (run === 0) continue;
        times.prompt.push(prompt);
        times.decode.push(decode);
        times.firstToken.push(firstToken);
      }
      progress.done();
      const { info } = model;
      const [prompt, decode, firstToken] = [times.prompt, times.decode, times.firstToken].map(summary);
      if (values.json) {
        const { kernels, memory, activation, kvType } = info;
        const engine = { isa: kernels.isa, dot: kernels.dot, threads: kernels.threads, activation, kvType };
        const measured = {
          promptTokensPerSecond: prompt,
          decodeTokensPerSecond: decode,
          firstTokenMs: firstToken,
        };
        io.stdout.write(
          `${JSON.stringify({ file, promptTokens: nPrompt, tokens: nTokens, runs, ...measured, loadMs, memory, ...engine })}\n`,
        );
        return;
      }
      const row = (
        /** @type {string} */ name,
        /** @type {ReturnType<typeof summary>} */ { median, best, worst },
      ) => [name, ...[median, best, worst].map(formatRate)];
      io.stdout.write(
        formatTable(
          ['tokens/s', '>median', '>best', '>worst'],
          [row(`prompt of ${nPrompt}`, prompt), row(`decode of ${nTokens}`, decode)],
        ),
      );
      io.stdout.write(
        `\nfirst token after ${firstToken.median.toFixed(0)} ms, loaded in ${loadMs.toFixed(0)} ms\n${engineText(info)}\n`,
      );
    } finally {
      progress.done();
      model.dispose();
    }
  },
};

/**
 * Runs one prompt and its continuation.
 * @param {import('../llama/model.js').Llama} model
 * @param {{ nPrompt: number, nTokens: number, run: number }} size
 * @param {AbortSignal} signal
 */
async function measure(model, { nPrompt, nTokens, run }, signal) {
  const { nVocab } = model.info;
  // Each run starts with another token, so the context of the last run cannot be reused.
  const token = (/** @type {number} */ i) => (run * 7919 + i * 104729 + 3) % nVocab;
  const prompt = Array.from({ length: nPrompt }, (_, i) => token(i));
  const options = { temperature: 0, maxTokens: nTokens + 1, ignoreEnd: true, signal };
  const generation = model.generate(prompt, options);
  await generation.text();
  const { stats } = generation;
  return {
    prompt: stats.promptTokensPerSecond,
    decode: stats.decodeTokensPerSecond,
    firstToken: stats.timeToFirstToken,
  };
}
