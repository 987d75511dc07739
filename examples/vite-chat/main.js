/** A chat with a model from a file, in a worker: progress, streaming, stop and speed. */
import { createWorkerLlama } from 'fused-matmul/llama';

const byId = (id) => document.getElementById(id);
/** @type {import('fused-matmul/llama').WorkerLlama | undefined} */
let model;
/** @type {import('fused-matmul/llama').Message[]} */
let messages = [];

byId('file').addEventListener('change', async ({ target }) => {
  const [file] = target.files;
  if (!file) return;
  await model?.dispose();
  model = undefined;
  messages = [];
  byId('send').disabled = true;
  byId('conversation').replaceChildren();
  try {
    model = await createWorkerLlama(file, {
      backend: 'auto',
      onProgress: ({ loaded, total }) => {
        byId('loading').value = loaded / total;
      },
    });
    const { architecture, backend } = model.info;
    byId('status').textContent = `${architecture}, on the ${backend.name}`;
    byId('send').disabled = false;
  } catch (error) {
    byId('status').textContent = error.message;
  }
});

/** Adds a message to the page. @param {string} role @param {string} text */
function show(role, text) {
  const line = document.createElement('p');
  line.className = role;
  line.textContent = text;
  byId('conversation').append(line);
  return line;
}

byId('form').addEventListener('submit', async (event) => {
  event.preventDefault();
  const content = byId('question').value.trim();
  if (!content) return;
  byId('question').value = '';
  messages.push({ role: 'user', content });
  show('user', content);
  const line = show('assistant', '');
  byId('send').disabled = true;
  byId('stop').disabled = false;
  try {
    const answer = await model.chat(messages, {
      maxTokens: 500,
      overflow: 'drop-oldest',
      onProgress: ({ done, total }) => {
        byId('status').textContent = done < total ? `reading ${done} of ${total} tokens` : '';
      },
    });
    for await (const piece of answer) line.textContent += piece;
    messages.push({ role: 'assistant', content: answer.written });
    const { tokens, decodeTokensPerSecond, finishReason } = answer.stats;
    byId('status').textContent =
      `${tokens} tokens, ${decodeTokensPerSecond.toFixed(1)} per second (${finishReason})`;
  } catch (error) {
    byId('status').textContent = error.message;
  }
  byId('send').disabled = false;
  byId('stop').disabled = true;
});

byId('stop').addEventListener('click', () => model?.stop());
