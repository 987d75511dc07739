/* The command generate: continues a text. */

import { formOptions } from './form.js';
import { COMMON, FORM, given, MODEL, SAMPLING, UsageError } from './options.js';
import { engineText, formatRate, loadModel, promptProgress, readStdin } from './output.js';

/** @typedef {import('../llama/generation.js').GenerationStats} Stats */

/** @param {Stats} stats */
export function statsText(stats) {
  const reused = stats.reusedTokens > 0 ? `, ${stats.reusedTokens} of them known` : '';
  const { draftedTokens, acceptedTokens, notDrafted } = stats;
  const drafts = notDrafted
    ? `; nothing drafted (${notDrafted})`
    : draftedTokens > 0
      ? `; ${acceptedTokens} of ${draftedTokens} drafts accepted`
      : '';
  return [
    `prompt: ${stats.promptTokens} tokens${reused}, ${formatRate(stats.promptTokensPerSecond)} tokens/s; first token after ${stats.timeToFirstToken.toFixed(0)} ms`,
    `decode: ${stats.tokens} tokens, ${formatRate(stats.decodeTokensPerSecond)} tokens/s; seed ${stats.seed}${drafts}`,
  ].join('\n');
}

/** @type {import('./options.js').Command} */
export const generate = {
  name: 'generate',
  summary: 'Continues a text. The text goes to stdout; speed, memory and instruction set to stderr.',
  usage: 'MODEL.gguf --prompt TEXT [options]',
  nArguments: 1,
  options: {
    prompt: {
      kind: 'text',
      short: 'p',
      value: 'TEXT',
      help: 'what the text begins with; - reads it from stdin',
    },
    ...SAMPLING,
    ...FORM,
    ...MODEL,
    ...COMMON,
  },
  examples: [
    'examples:',
    '  fused-matmul generate model.gguf --prompt "Once upon a time" --max-tokens 100',
    '  cat letter.txt | fused-matmul generate model.gguf --prompt - --temperature 0',
  ].join('\n'),
  async run(values, [file], io) {
    if (values.prompt === undefined)
      throw new UsageError('--prompt is missing: a text, or - to read it from stdin');
    const form = await formOptions(values);
    const prompt = values.prompt === '-' ? await readStdin(io) : values.prompt;
    const model = await loadModel(file, values, io);
    try {
      const showProgress = promptProgress(io);
      const run = model.generate(prompt, {
        ...given(values, SAMPLING),
        ...form,
        signal: io.signal,
        onProgress: (step) => {
          showProgress(step);
          if (step.done === step.total && !values.json) io.stdout.write(prompt);
        },
      });
      let text = '';
      try {
        for await (const piece of run) {
          text += piece;
          if (!values.json) io.stdout.write(piece);
        }
      } finally {
        if (!values.json) io.stdout.write('\n');
      }
      const { info } = model;
      if (values.json) {
        const { kernels, memory, activation, kvType } = info;
        const { isa, dot, threads } = kernels;
        const engine = { isa, dot, threads, activation, kvType };
        io.stdout.write(`${JSON.stringify({ prompt, text, ...run.stats, memory, ...engine })}\n`);
      } else io.stderr.write(`\n${statsText(run.stats)}\n${engineText(info)}\n`);
    } finally {
      model.dispose();
    }
  },
};
