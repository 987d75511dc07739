/* The command chat: a conversation, line by line. */

import { createInterface } from 'node:readline/promises';
import { takesSystem, withSystem } from '../llama/chat/system.js';
import { ContextError, ModelError } from '../llama/errors.js';
import { formOptions } from './form.js';
import { statsText } from './generate.js';
import { COMMON, FORM, given, MODEL, SAMPLING } from './options.js';
import { engineText, loadModel, promptProgress } from './output.js';

/** @typedef {import('../llama/chat/messages.js').Message} Message */
/** @typedef {import('../llama/model.js').Llama} Llama */

/** The messages of a conversation, with its system text. */
class Conversation {
  /** @type {Message[]} */
  #messages = [];
  #model;
  #system;
  #options;
  #note;

  /**
   * @param {Llama} model
   * @param {{ system: string, options: import('../llama/options.js').GenerateOptions,
   *   note: (text: string) => void }} settings
   */
  constructor(model, { system, options, note }) {
    this.#model = model;
    this.#system = system;
    this.#options = options;
    this.#note = note;
    /** Whether the template has a system role. */
    this.systemRole = true;
  }

  /**
   * Answers a line. The result is undefined if the line alone is too long for the context.
   * @param {string} line
   */
  async ask(line) {
    this.#messages.push({ role: 'user', content: line });
    let dropped = 0;
    try {
      for (;;) {
        const run = await this.#model.chat(this.#all(), { ...this.#options, overflow: 'drop-oldest' });
        this.#messages.splice(0, run.droppedMessages);
        dropped += run.droppedMessages;
        // A system text in a dropped first message is gone too: put it into the next message and
        // try again.
        if (run.droppedMessages > 0 && !this.systemRole) continue;
        if (dropped > 0) this.#note(`the context is full: the ${dropped} oldest messages were left out`);
        return { run, dropped };
      }
    } catch (error) {
      if (!(error instanceof ContextError)) throw error;
      this.#messages.pop();
      this.#note(`this line does not fit into the context and is left out: ${error.message}`);
      return undefined;
    }
  }

  /** @param {string} text */
  answered(text) {
    this.#messages.push({ role: 'assistant', content: text });
  }

  /** @returns {Message[]} */
  #all() {
    if (!this.#system) return this.#messages;
    if (!this.systemRole) return withSystem(this.#system, this.#messages);
    return [{ role: 'system', content: this.#system }, ...this.#messages];
  }
}

/** @type {import('./options.js').Command} */
export const chat = {
  name: 'chat',
  summary:
    "Talks, with the file's own chat template. Each line of stdin is a turn; an empty one, or the end of stdin, ends it. When the context is full, the oldest turns are left out.",
  usage: 'MODEL.gguf [options]',
  nArguments: 1,
  options: {
    system: {
      kind: 'text',
      value: 'TEXT',
      help: 'what the model is told first; in front of the first turn if the template has no system role',
    },
    ...SAMPLING,
    ...FORM,
    ...MODEL,
    ...COMMON,
  },
  async run(values, [file], io) {
    const form = await formOptions(values);
    const model = await loadModel(file, values, io);
    try {
      if (!model.info.tokenizer.chat)
        throw new ModelError('the file has no chat template (tokenizer.chat_template): use generate');
      const options = {
        ...given(values, SAMPLING),
        ...form,
        signal: io.signal,
        onProgress: promptProgress(io),
      };
      const note = (/** @type {string} */ text) => io.stderr.write(`fused-matmul: ${text}\n`);
      const system = values.system ?? '';
      const conversation = new Conversation(model, { system, options, note });
      if (system && !(await takesSystem(system, (messages) => model.formatChat(messages)))) {
        conversation.systemRole = false;
        note('the chat template has no system role: the system text goes in front of the first turn');
      }
      const lines = createInterface({ input: io.stdin, output: io.stdin.isTTY ? io.stderr : undefined });
      io.signal.addEventListener('abort', () => lines.close());
      lines.setPrompt('> ');
      const ask = () => {
        if (io.stdin.isTTY) lines.prompt();
      };
      ask();
      for await (const line of lines) {
        if (line.trim() === '') break;
        const asked = await conversation.ask(line);
        if (asked) {
          const { run, dropped } = asked;
          let answer = '';
          for await (const piece of run) {
            answer += piece;
            if (!values.json) io.stdout.write(piece);
          }
          conversation.answered(answer);
          const record = { prompt: line, text: answer, droppedMessages: dropped, ...run.stats };
          io.stdout.write(values.json ? `${JSON.stringify(record)}\n` : '\n');
          if (io.stdin.isTTY) io.stderr.write(`${statsText(run.stats)}\n`);
        }
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
