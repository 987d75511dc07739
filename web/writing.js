/** Writing: what the prompt, its buttons and the paper do. */
import { byId, el } from './dom.js';
import { count } from './format.js';
import { alertUser, announce } from './jobs.js';
import { write as writeWith } from './model.js';
import { SpeedView } from './views/speed.js';
import { WriterView } from './views/writer.js';

/** The first text, which nobody asked for, is always the same. */
const firstSeed = 11;

const examples = {
  text: ['Once upon a time', 'One day, a little fox', 'Long ago, in a forest,'],
  chat: ['Why is the sky blue?', 'Write a haiku about the sea.', 'Explain recursion to a child.'],
};

/**
 * @param {object} parts
 * @param {import('./jobs.js').Jobs} parts.jobs
 * @param {import('./views/options.js').OptionsView} parts.options
 * @param {() => import('./model.js').WorkerLlama | undefined} parts.model  that is loaded
 */
export function setUpWriting({ jobs, options, model }) {
  const writer = new WriterView();
  const speed = new SpeedView();
  const prompt = /** @type {HTMLTextAreaElement} */ (byId('prompt'));
  const [writeButton, stopButton] = [byId('write-button'), byId('stop')];
  let busy = false;
  let full = false;

  const modeOf = () =>
    /** @type {HTMLInputElement | null} */ (byId('mode').querySelector('input:checked'))?.value ?? 'text';
  const isChat = () => modeOf() === 'chat';

  function buttons() {
    const written = writer.text !== '' || writer.messages.length > 0;
    const canWrite = Boolean(model()) && !busy;
    writeButton.hidden = busy;
    writeButton.disabled = !canWrite;
    stopButton.hidden = !busy;
    byId('copy').hidden = !written || busy;
    byId('clear').hidden = !written || busy;
    byId('continue').hidden = !written || !canWrite || full || writer.messages.length > 0;
  }

  function mode() {
    const chat = isChat();
    byId('writer-heading').textContent = chat ? 'Chat' : 'Story';
    byId('prompt-label').textContent = chat ? 'Your message' : 'How the text begins';
    writeButton.textContent = chat ? 'Send' : 'Write';
    byId('system-field').hidden = !chat;
    prompt.placeholder = chat ? 'Ask something' : 'How the text begins';
    byId('examples').replaceChildren(
      ...examples[chat ? 'chat' : 'text'].map((text) =>
        el('button', { type: 'button', class: 'chip' }, text),
      ),
    );
  }

  /**
   * @param {object} request  what the model continues: { prompt } or { messages }
   * @param {{ seed?: number, quiet?: boolean }} [how]  quiet: the text is not read out
   */
  async function write(request, { seed, quiet = false } = {}) {
    busy = true;
    speed.reset();
    // A button that vanishes must not take the focus with it.
    const handsOver = document.activeElement === writeButton || document.activeElement === byId('continue');
    buttons();
    if (handsOver) stopButton.focus();
    writer.line('Reading the prompt…');
    if (!quiet) announce('Writing.');
    let begun = false;
    const llama = /** @type {import('./model.js').WorkerLlama} */ (model());
    const settings = { ...options.generation, ...(seed === undefined ? {} : { seed }) };
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
        failed: (error) => {
          speed.failed();
          writer.line('');
          alertUser('The model could not go on', error);
        },
      },
    );
    const hadFocus = document.activeElement === stopButton;
    busy = false;
    writer.close();
    if (outcome) {
      const { stats, stopped } = outcome;
      full = stats.finishReason === 'context';
      speed.finish(stats, stopped);
      speed.memory(llama.info.memory.linear);
      writer.line(WriterView.outcome(stats, stopped, llama.info.contextLength));
      if (!quiet)
        announce(`${stopped ? 'Stopped' : 'Finished'} after ${count(stats.tokens)} tokens. ${writer.text}`);
    } else if (!byId('alerts').childElementCount) {
      // Another job took the model away in the middle.
      speed.failed();
      writer.line('Broken off.');
    }
    buttons();
    if (hadFocus) (writeButton.disabled ? prompt : writeButton).focus();
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
      if (writer.messages.length === 0) writer.clear();
      writer.ask(text.trim());
      prompt.value = '';
      const system = options.system ? [{ role: 'system', content: options.system }] : [];
      write({ messages: [...system, ...writer.messages] });
    } else {
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
  byId('clear').addEventListener('click', () => {
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
  byId('mode').addEventListener('change', () => {
    writer.clear();
    mode();
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
        const { chat } = info.tokenizer;
        const hadModes = !byId('mode').hidden;
        byId('mode').hidden = !chat;
        const wanted = chat && (hadModes ? modeOf() : 'chat');
        const radio = byId('mode').querySelector(`[value=${wanted || 'text'}]`);
        /** @type {HTMLInputElement} */ (radio).checked = true;
        if (chat !== hadModes) {
          writer.clear();
          prompt.value = chat ? '' : examples.text[0];
        }
        mode();
        speed.memory(info.memory.linear);
        writer.placeholder(chat ? 'Ask something below.' : 'Give it a beginning below, and it writes on.');
      } else {
        writer.placeholder(words);
      }
      buttons();
    },

    /** Shows what the page does before anything was clicked. */
    async first() {
      const text = prompt.value;
      if (busy || text.trim() === '' || isChat()) return;
      writer.begin(text);
      await write({ prompt: text }, { seed: firstSeed, quiet: true });
    },
  };
}
