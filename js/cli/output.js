/* Output of the commands: text and results go to stdout, progress and notes to stderr. */

import { existsSync } from 'node:fs';
import { addAbortSignal } from 'node:stream';
import { resolveLink } from '../gguf/links.js';
import { Llama } from '../llama/model.js';
import { modelFile } from './folder.js';
import { given, MODEL, UsageError } from './options.js';

/**
 * @typedef {object} Io
 * @property {NodeJS.WritableStream & { isTTY?: boolean, columns?: number }} stdout
 * @property {NodeJS.WritableStream & { isTTY?: boolean, columns?: number }} stderr
 * @property {NodeJS.ReadableStream & { isTTY?: boolean }} stdin
 * @property {AbortSignal} signal  Aborted by Ctrl-C.
 */

/** @param {number} bytes */
export function formatBytes(bytes) {
  const units = ['B', 'KB', 'MB', 'GB'];
  let [value, unit] = [bytes, 0];
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return `${value.toFixed(unit === 0 || value >= 100 ? 0 : 1)} ${units[unit]}`;
}

/** @param {number} value */
export const formatRate = (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(1));

/**
 * @param {string[]} heads  column heads; a '>' in front aligns the column right
 * @param {string[][]} rows
 */
export function formatTable(heads, rows) {
  const lines = [heads.map((head) => head.replace(/^>/, '')), ...rows];
  const widths = heads.map((_, i) => Math.max(...lines.map((line) => line[i].length)));
  const cell = (/** @type {string} */ text, /** @type {number} */ i) =>
    heads[i].startsWith('>') ? text.padStart(widths[i]) : text.padEnd(widths[i]);
  return lines.map((line) => `${line.map(cell).join('  ').trimEnd()}\n`).join('');
}

/** A progress line on stderr that overwrites itself; it is not shown if stderr is no terminal. */
export class Progress {
  #stream;
  #what;
  #shown = '';

  /** @param {Io} io @param {string} what */
  constructor({ stderr }, what) {
    this.#stream = stderr;
    this.#what = what;
  }

  /** @param {{ loaded: number, total: number, note?: string }} progress */
  update({ loaded, total, note = `${formatBytes(loaded)} of ${formatBytes(total)}` }) {
    if (!this.#stream.isTTY) return;
    const share = total > 0 ? loaded / total : 0;
    const done = Math.round(24 * share);
    const text = `${this.#what} [${'#'.repeat(done)}${'.'.repeat(24 - done)}] ${String(Math.floor(100 * share)).padStart(3)} %  ${note}`;
    if (text === this.#shown) return;
    this.#shown = text;
    this.#stream.write(`\r\x1b[K${text.slice(0, (this.#stream.columns ?? 80) - 1)}`);
  }

  done() {
    if (this.#shown) this.#stream.write('\r\x1b[K');
    this.#shown = '';
  }
}

/**
 * The progress of a prompt, for the option onProgress. The line goes away when all is computed.
 * @param {Io} io
 */
export function promptProgress(io) {
  const line = new Progress(io, 'reading the prompt');
  return (/** @type {import('../llama/options.js').PromptProgress} */ { done: loaded, total }) => {
    if (loaded < total) line.update({ loaded, total, note: `${loaded} of ${total} tokens` });
    else line.done();
  };
}

/**
 * The source of a model: a path if the file exists, or a URL. A link to Hugging Face becomes the
 * URL of the file.
 * @param {string} text
 * @throws {UsageError} a link to Hugging Face that leads to no file
 */
export function modelSource(text) {
  if (existsSync(text)) return text;
  try {
    return resolveLink(text);
  } catch (error) {
    throw new UsageError(/** @type {Error} */ (error).message);
  }
}

/**
 * An adapter as it is typed: a file, or a file and a scale.
 * @param {string} text
 * @returns {import('../llama/load-options.js').AdapterOption}
 */
export function readAdapter(text) {
  const [, file, scale] = (!existsSync(text) && /^(.+)=([-+.\de]+)$/i.exec(text)) || [];
  // The last = may belong to the query of an address.
  if (file === undefined || /[?&][^=&]*$/.test(file)) return { source: modelSource(text) };
  if (Number.isNaN(Number(scale)))
    throw new UsageError(`--lora FILE=SCALE needs a number behind the =, got "${scale}"`);
  return { source: modelSource(file), scale: Number(scale) };
}

/**
 * @param {string} model
 * @param {import('./options.js').Values} values
 * @param {Io} io
 */
export async function loadModel(model, values, io) {
  const { adapters, ...options } = given(values, MODEL);
  const read = adapters?.map(readAdapter);
  const progress = new Progress(io, 'loading');
  try {
    return await Llama.load(await modelFile(modelSource(model)), {
      ...options,
      ...(read && { adapters: read }),
      signal: io.signal,
      onProgress: (state) => progress.update(state),
    });
  } finally {
    progress.done();
  }
}

/** @param {import('../llama/info.js').ModelInfo} info */
export function engineText({ kernels, memory, activation, kvType, adapters }) {
  const { isa, dot, threads } = kernels;
  return [
    `memory: ${formatBytes(memory.linear)} (weights ${formatBytes(memory.weights)}, KV cache ${formatBytes(memory.kvCache)} ${kvType})`,
    `instruction set: ${isa}${dot ? ` (dot ${dot})` : ''}, activations ${activation}, threads: ${threads}`,
    ...adapters.map(({ name, rank, scale }) => `LoRA adapter: ${name}, rank ${rank}, scale ${scale}`),
  ].join('\n');
}

/**
 * Reads all of stdin.
 * @param {Io} io
 * @param {string} [what]  what is read, for the message about a terminal
 */
export async function readStdin({ stdin, signal }, what = 'the prompt is') {
  if (stdin.isTTY) throw new UsageError(`${what} to come from stdin, which is a terminal`);
  /** @type {Buffer[]} */
  const chunks = [];
  const readable = addAbortSignal(signal, /** @type {import('node:stream').Readable} */ (stdin));
  for await (const chunk of readable) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks)
    .toString('utf8')
    .replace(/\r?\n$/, '');
}
