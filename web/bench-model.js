/** The benchmark of the loaded model. */

const promptLength = 128;
const mostTokens = 64;
/** It ends after this time, with what there is, if that is enough to measure a speed. */
const longestMs = 3000;
const fewestTokens = 4;
const seed = 20240607;

/**
 * Tokens per second of a model, on a prompt that it has not read before.
 * @param {import('../js/llama/worker.js').WorkerLlama} model
 * @param {AbortSignal} signal
 */
export async function measureModel(model, signal) {
  const { contextLength, architecture, name, activation, kernels, backend } = model.info;
  const sample = await model.tokenize('Once upon a time, there was a little fox who lived near the forest. ');
  const nPrompt = Math.max(1, Math.min(promptLength, contextLength - 32));
  const prompt = Array.from({ length: nPrompt }, (_, i) => sample[i % sample.length]);
  const maxTokens = Math.max(1, Math.min(mostTokens, contextLength - nPrompt));
  const start = performance.now();
  /** @type {import('../js/llama/generation.js').GenerationStats[]} */
  const runs = [];
  while (runs.length < 3 && (runs.length === 0 || performance.now() - start < longestMs / 3)) {
    // Another beginning: nothing of the prompt may be in the context already.
    await model.generate([...prompt].reverse().slice(0, 4), { maxTokens: 1, temperature: 0, signal }).text();
    const generation = model.generate(prompt, { maxTokens, temperature: 0.8, seed, signal });
    for await (const _ of generation)
      if (performance.now() - start > longestMs && generation.stats.tokens >= fewestTokens) break;
    runs.push(generation.stats);
  }
  const median = (/** @type {(run: typeof runs[number]) => number} */ of) =>
    runs.map(of).sort((a, b) => a - b)[runs.length >> 1];
  return {
    architecture,
    name,
    activation,
    backend: backend.name,
    threads: kernels?.threads ?? 0,
    promptTokens: runs[0].promptTokens,
    promptTokensPerSecond: median((run) => run.promptTokensPerSecond),
    timeToFirstToken: median((run) => run.timeToFirstToken),
    tokens: runs[0].tokens,
    decodeTokensPerSecond: median((run) => run.decodeTokensPerSecond),
  };
}
