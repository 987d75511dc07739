/* fused-matmul chat: a conversation, line by line. */

import { createInterface } from 'node:readline/promises';
import { ModelError } from '../llama/errors.js';
import { statsText } from './generate.js';
import { COMMON, given, MODEL, SAMPLING } from './options.js';
import { engineText, loadModel } from './output.js';

/** @type {import('./options.js').Command} */
export const chat = {
  name: 'chat',
  summary:
    "Talks, with the file's own chat template. Each line of stdin is a turn; an empty one, or the end of stdin, ends it.",
  usage: 'MODEL.gguf [options]',
  nArguments: 1,
  options: {
    system: { kind: 'text', value: 'TEXT', help: 'what the model is told first' },
    ...SAMPLING,
    ...MODEL,
    ...COMMON,
  },
  async run(values, [file], io) {
    const model = await loadModel(file, values, io);
    try {
      if (!model.info.tokenizer.chat)
        throw new ModelError('the file has no chat template (tokenizer.chat_template): use generate');
      const messages = values.system ? [{ role: 'system', content: values.system }] : [];
      const lines = createInterface({ input: io.stdin, output: io.stdin.isTTY ? io.stderr : undefined });
      io.signal.addEventListener('abort', () => lines.close());
      lines.setPrompt('> ');
      const ask = () => {
        if (io.stdin.isTTY) lines.prompt();
      };
      ask();
      for await (const line of lines) {
        if (line.trim() === '') break;
        messages.push({ role: 'user', content: line });
        const run = await model.chat(messages, { ...given(values, SAMPLING), signal: io.signal });
        let answer = '';
        for await (const piece of run) {
          answer += piece;
          if (!values.json) io.stdout.write(piece);
        }
        messages.push({ role: 'assistant', content: answer });
        if (values.json) io.stdout.write(`${JSON.stringify({ prompt: line, text: answer, ...run.stats })}\n`);
        else io.stdout.write('\n');
        if (io.stdin.isTTY) io.stderr.write(`${statsText(run.stats)}\n`);
        ask();
      }
      lines.close();
      io.signal.throwIfAborted();
      if (!values.json) io.stderr.write(`${engineText(model.info)}\n`);
    } finally {
      model.dispose();
    }
  },
};
