/* The command embed: vectors of texts. */

import { COMMON, given, MODEL, UsageError } from './options.js';
import { loadModel, readStdin } from './output.js';

/** Texts of one call, whose vectors are printed together. */
const TEXTS = 256;

/** @type {import('./options.js').Options} */
const EMBED = {
  pooling: { kind: 'text', value: 'KIND', help: 'mean, cls, last or none (what the file says)' },
  dimensions: { kind: 'number', value: 'N', help: 'keep the first N values (all)' },
};

/** @type {import('./options.js').Command} */
export const embed = {
  name: 'embed',
  summary:
    'Turns texts into vectors of length 1. Prints a line of JSON for each text: { "text", "embedding" }.',
  usage: 'MODEL.gguf [TEXT...] [options]',
  nArguments: 1,
  more: true,
  options: {
    ...EMBED,
    raw: { kind: 'switch', help: 'do not scale the vectors to length 1' },
    ...MODEL,
    help: COMMON.help,
  },
  examples: [
    'Without a TEXT, every line of stdin is one.',
    '',
    'examples:',
    '  fused-matmul embed model.gguf "search_query: What is a fox?"',
    '  fused-matmul embed model.gguf --dimensions 256 < lines.txt > vectors.jsonl',
  ].join('\n'),
  async run(values, [file, ...words], io) {
    const texts = words.length > 0 ? words : await stdinLines(io);
    const options = { ...given(values, EMBED), normalize: !values.raw, signal: io.signal };
    const model = await loadModel(file, values, io);
    try {
      for (let start = 0; start < texts.length; start += TEXTS) {
        const some = texts.slice(start, start + TEXTS);
        const vectors = await model.embed(some, options);
        for (const [i, vector] of vectors.entries())
          io.stdout.write(`${JSON.stringify({ text: some[i], embedding: [...vector] })}\n`);
      }
    } finally {
      model.dispose();
    }
  },
};

/** The lines of stdin that are not empty. @param {import('./output.js').Io} io */
async function stdinLines(io) {
  const lines = (await readStdin(io, 'texts are')).split(/\r?\n/).filter((line) => line !== '');
  if (lines.length === 0) throw new UsageError('there are no texts: give some, or lines on stdin');
  return lines;
}
