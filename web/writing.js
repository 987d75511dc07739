/** Writing: what the prompt, its buttons and the paper do. */
import { Chat } from './chat.js';
import { byId, el } from './dom.js';
import { count } from './format.js';
import { alertUser, announce } from './jobs.js';
import { write as writeWith } from './model.js';
import { askFirst } from './views/confirm.js';
import { SpeedView } from './views/speed.js';
import { WriterView } from './views/writer.js';

/** The first text, which nobody asked for, is always the same. */
const firstSeed = 11;

const examples = {
  text: ['Once upon a time', 'One day, a little fox', 'Long ago, in a forest,'],
  chat: ['Why is the sky blue?', 'Write a haiku about the sea.', 'Explain recursion to a child.'],
};

/** Whether what was written is JSON. @param {string} text */
function jsonWords(text) {
  try {
    JSON.parse(text);
    return 'valid JSON';
  } catch {
    return 'the JSON is cut off';
  }
}

/** @param {number} n  messages that were left out */
const droppedWords = (n) =>
  `the oldest ${n === 1 ? 'message was' : `${count(n)} messages were`} left out: the context is full`;

/**
 * @param {object} parts
 * @param {import('./jobs.js').Jobs} parts.jobs
 * @param {import('./views/options.js').OptionsView} parts.options
 * @param {() => import('./model.js').WorkerLlama | undefined} parts.model  that is loaded
 * @param {() => import('./conversations.js').ModelFile | undefined} parts.file  of the model
 * @param {(link: { url: string, file: string }) => void} parts.link  runs the model of a link
 */
export function setUpWriting({ jobs, options, model, file, link }) {
  const writer = new WriterView();
  const speed = new SpeedView();
  const prompt = /** @type {HTMLTextAreaElement} */ (byId('prompt'));
  const [writeButton, stopButton] = [byId('write-button'), byId('stop')];
  let busy = false;
  let full = false;
  /** The question without an answer that was put into the prompt. */
  let offered = '';

  const modeOf = () =>
    /** @type {HTMLInputElement | null} */ (byId('mode').querySelector('input:checked'))?.value ?? 'text';
  const isChat = () => modeOf() === 'chat' && !byId('mode').hidden;
  /** @param {string} value */
  const check = (value) => {
    const radio = /** @type {HTMLInputElement} */ (byId('mode').querySelector(`[value=${value}]`));
    radio.checked = true;
  };
  const chat = new Chat({
    ...{ writer, options, link, isChat, ask },
    toChat: () => {
      if (isChat() || byId('mode').hidden) return;
      check('chat');
      mode();
    },
    changed: () => {
      full = false;
      buttons();
    },
  });

  /** @param {string} question */
  const withPrompt = (question) => [question, prompt.value].filter(Boolean).join('\n\n');

  /** @param {string} question  without an answer, for asking again; '' takes the one before away */
  function ask(question) {
    if (prompt.value === offered) prompt.value = '';
    offered = question;
    // It may still be there, with more that was typed after it.
    if (!prompt.value.startsWith(question)) prompt.value = withPrompt(question);
  }

  function buttons() {
    const isTalk = writer.messages.length > 0;
    const written = writer.text !== '' || isTalk;
    const canWrite = Boolean(model()) && !busy;
    writeButton.hidden = busy;
    writeButton.disabled = !canWrite;
    stopButton.hidden = !busy;
    byId('mode').disabled = busy;
    byId('copy').hidden = !written || busy;
    byId('clear').hidden = !written || busy || isChat();
    byId('continue').hidden = !written || !canWrite || full || isTalk || options.isJson;
    byId('regenerate').hidden = !isTalk || !canWrite || !isChat();
    byId('delete').hidden = !chat.isOpen || busy;
    chat.show(busy);
  }

  function mode() {
    const isTalk = isChat();
    byId('writer-heading').textContent = isTalk ? 'Chat' : 'Story';
    byId('prompt-label').textContent = isTalk ? 'Your message' : 'How the text begins';
    writeButton.textContent = isTalk ? 'Send' : 'Write';
    byId('system-field').hidden = !isTalk;
    prompt.placeholder = isTalk ? 'Ask something' : 'How the text begins';
    byId('examples').replaceChildren(
      ...examples[isTalk ? 'chat' : 'text'].map((text) =>
        el('button', { type: 'button', class: 'chip' }, text),
      ),
    );
    options.summarise();
  }

  /**
   * @param {object} request  what the model continues: { prompt } or { messages }
   * @param {object} [how]
   * @param {import('../js/llama/options.js').GenerateOptions} [how.settings]  instead of the options of the page
   * @param {boolean} [how.quiet]  the text is not read out
   */
  async function write(request, { settings = options.generation, quiet = false } = {}) {
    busy = true;
    speed.reset();
    // A button that vanishes must not take the focus with it.
    const leaving = [writeButton, byId('continue'), byId('regenerate')];
    const handsOver = leaving.includes(document.activeElement);
    buttons();
    if (handsOver) stopButton.focus();
    writer.line('Reading the prompt…');
    if (!quiet) announce('Writing.');
    let begun = false;
    let isStopped = false;
    const llama = /** @type {import('./model.js').WorkerLlama} */ (model());
    const outcome = await jobs.run(
      ({ signal }) =>
        writeWith(llama, request, { ...settings, signal }, (text, stats) => {
          if (signal.aborted && !busy) return;
          if (!begun) writer.line('Writing…');
          begun = true;
          writer.append(text);
          speed.update(stats);
        }),
      {
        cancelled: () => {
          isStopped = true;
        },
        failed: (error) => {
          speed.failed();
          writer.line('');
          alertUser('The model could not go on', error);
        },
      },
    );
    const hadFocus = document.activeElement === stopButton;
    busy = false;
    writer.close(outcome !== undefined && !outcome.stopped);
    if (outcome) {
      const { stats, stopped } = outcome;
      full = stats.finishReason === 'context';
      speed.finish(stats, stopped);
      speed.runsOn(llama.info);
      const json = settings.responseFormat && jsonWords(outcome.text);
      const older = outcome.dropped && droppedWords(outcome.dropped);
      const words = [WriterView.outcome(stats, stopped, llama.info.contextLength), json, older];
      writer.line(words.filter(Boolean).join(' · '));
      if (!quiet)
        announce(`${stopped ? 'Stopped' : 'Finished'} after ${count(stats.tokens)} tokens. ${writer.text}`);
    } else if (!byId('alerts').childElementCount) {
      // It was stopped before the first token, or another job took the model away in the middle.
      speed.failed();
      writer.line(isStopped ? 'Stopped.' : 'Broken off.');
    }
    buttons();
    if (hadFocus) (writeButton.disabled ? prompt : writeButton).focus();
  }

  /**
   * The model answers the last message. If it cannot, all is as before, and a new question is given back.
   * @param {readonly import('./conversations.js').Message[]} before
   * @param {string} [question]  that is new
   */
  async function answer(before, question = '') {
    const by = /** @type {import('./conversations.js').ModelFile} */ (file());
    if (question) chat.save(by);
    await write({ messages: chat.messages });
    const isAnswered = writer.messages.at(-1)?.role === 'assistant';
    if (!isAnswered) {
      const line = byId('outcome-line').textContent;
      writer.show(before);
      writer.line(line);
      prompt.value = withPrompt(question);
    }
    if (isAnswered || question) await chat.save(by);
    buttons();
  }

  function submit() {
    const text = prompt.value;
    if (busy || !model()) return;
    if (!options.check()) return;
    if (text.trim() === '') {
      prompt.focus();
      writer.line(isChat() ? 'Write a message first.' : 'Give the text a beginning first.');
      return;
    }
    full = false;
    if (isChat()) {
      const before = [...writer.messages];
      if (before.length === 0) writer.clear();
      const question = text.trim();
      writer.ask(question);
      prompt.value = '';
      offered = '';
      answer(before, question);
    } else {
      chat.leave();
      writer.begin(text);
      write({ prompt: text });
    }
  }

  byId('composer').addEventListener('submit', (/** @type {Event} */ event) => {
    event.preventDefault();
    submit();
  });
  prompt.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  byId('examples').addEventListener('click', (/** @type {MouseEvent} */ event) => {
    const chip = /** @type {HTMLElement} */ (event.target).closest('button');
    if (!chip) return;
    prompt.value = chip.textContent ?? '';
    if (model() && !busy) submit();
    else prompt.focus();
  });
  stopButton.addEventListener('click', () => jobs.stop());
  byId('continue').addEventListener('click', () => {
    if (!options.check()) return;
    writer.resume();
    write({ prompt: writer.text });
  });
  byId('regenerate').addEventListener('click', () => {
    if (!options.check()) return;
    const before = [...writer.messages];
    writer.askAgain();
    answer(before);
  });
  askFirst(
    byId('delete'),
    () => 'Delete for good?',
    () => chat.delete(),
  );
  byId('clear').addEventListener('click', () => {
    chat.leave();
    writer.clear();
    full = false;
    buttons();
    prompt.focus();
  });
  byId('copy').addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(writer.copyable);
      announce('Copied.');
      writer.line('Copied.');
    } catch {
      writer.line('The browser does not let this page copy: select the text instead.');
    }
  });
  /** The paper of the mode: the current conversation, or an empty one. */
  function turnPaper() {
    if (isChat()) {
      chat.resume();
      return;
    }
    chat.leave();
    ask('');
    writer.clear();
  }
  byId('mode').addEventListener('change', () => {
    turnPaper();
    mode();
    buttons();
  });
  byId('form-field').addEventListener('change', buttons);
  chat.load().then(() => {
    if (isChat() && !busy && writer.messages.length === 0) chat.resume();
    buttons();
  });

  return {
    /**
     * Another model, or none.
     * @param {import('../js/llama/info.js').ModelInfo | undefined} info
     * @param {string} [words]  where there is none
     */
    model(info, words = '') {
      if (info) {
        const { chat: canChat } = info.tokenizer;
        const hadModes = !byId('mode').hidden;
        byId('mode').hidden = !canChat;
        const wanted = canChat && (hadModes ? modeOf() : 'chat');
        check(wanted || 'text');
        if (canChat !== hadModes) {
          ask('');
          if (!prompt.value || examples.text.includes(prompt.value))
            prompt.value = canChat ? '' : examples.text[0];
          turnPaper();
        }
        mode();
        speed.runsOn(info);
        writer.placeholder(canChat ? 'Ask something below.' : 'Give it a beginning below, and it writes on.');
      } else {
        writer.placeholder(words);
      }
      buttons();
    },

    /** Shows what the page does before anything was clicked. */
    async first() {
      const text = prompt.value;
      if (busy || text.trim() === '' || isChat() || chat.isOpen) return;
      writer.begin(text);
      const settings = { ...options.numbers, seed: firstSeed };
      await write({ prompt: text }, { settings, quiet: true });
    },
  };
}
