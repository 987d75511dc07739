/* The command inspect: contents of a file, and the kernels that would serve it. */

import { FmError } from '../errors.js';
import { openGguf } from '../gguf/index.js';
import { ARCHITECTURES } from '../llama/architectures/names.js';
import { POOLING_TYPES } from '../llama/embedding.js';
import { ModelError } from '../llama/errors.js';
import { isCausal } from '../llama/layers.js';
import { planModel } from '../llama/plan.js';
import { Tokenizer } from '../llama/tokenizer/tokenizer.js';
import { checkTensors } from '../llama/weights.js';
import { createKernels } from '../wasm/create.js';
import { lacks } from '../wasm/fit.js';
import { modelFile } from './folder.js';
import { COMMON } from './options.js';
import { formatBytes, formatTable, modelSource } from './output.js';

const LONGEST = 60;

/** @param {unknown} value */
function shorten(value) {
  const text = Array.isArray(value)
    ? `[${value.length}] ${value.slice(0, 3).map(String).join(', ')}${value.length > 3 ? ', ...' : ''}`
    : String(value).replaceAll('\n', '\\n');
  return text.length > LONGEST ? `${text.slice(0, LONGEST - 3)}...` : text;
}

/**
 * Facts about a LoRA adapter; undefined for a model.
 * @param {import('../gguf/index.js').GgufFile} gguf
 */
function adapterIn({ metadata, tensors }) {
  if (metadata['general.type'] !== 'adapter') return undefined;
  const ofB = [...tensors.values()].filter(({ name }) => name.endsWith('.lora_b'));
  return {
    type: metadata['adapter.type'],
    architecture: metadata['general.architecture'],
    matrices: ofB.length,
    rank: ofB.reduce((most, { nCols }) => Math.max(most, nCols), 0),
    alpha: metadata['adapter.lora.alpha'] ?? 0,
  };
}

/**
 * Tells whether the runner takes the file, and why not.
 * @param {import('../gguf/index.js').GgufFile} gguf
 */
function judge(gguf) {
  try {
    const plan = planModel(gguf.metadata);
    void new Tokenizer(gguf.metadata);
    const tensors = checkTensors(gguf, plan).map(({ name }) => gguf.tensor(name));
    const lacking = lacks(plan, tensors);
    if (lacking.length > 0) throw new ModelError(lacking.join('; '));
    const causal = isCausal(plan.layers);
    const pooling = /** @type {any} */ (gguf.metadata[`${plan.architecture}.pooling_type`]);
    if (!causal && POOLING_TYPES[pooling] === 'rank')
      throw new ModelError('it scores documents for a query (pooling_type 4): use Llama.rank');
    const { models: reason } = ARCHITECTURES[plan.architecture];
    return { runs: true, command: causal ? 'generate' : 'embed', reason };
  } catch (error) {
    if (error instanceof FmError) return { runs: false, command: undefined, reason: error.message };
    throw error;
  }
}

/** @type {import('./options.js').Command} */
export const inspect = {
  name: 'inspect',
  summary:
    'Lists metadata, parts and tensors, the kernels that serve each, and whether generate or embed takes the file.',
  usage: 'MODEL.gguf [options]',
  nArguments: 1,
  options: {
    activation: { kind: 'text', value: 'MODE', help: 'asked for: f32, int16 or int8 (int8)' },
    isa: {
      kind: 'text',
      value: 'SET',
      help: 'instruction set: scalar, simd128 or relaxed (the best that works)',
    },
    metadata: { kind: 'switch', help: 'metadata only' },
    ...COMMON,
  },
  async run(values, [file], io) {
    const gguf = await openGguf(await modelFile(modelSource(file)), { signal: io.signal });
    const fm = await createKernels({ isa: values.isa, activation: values.activation ?? 'int8' });
    try {
      const verdict = judge(gguf);
      const adapter = adapterIn(gguf);
      const nParts = gguf.parts.length;
      const tensors = [...gguf.tensors.values()].map(({ name, type, shape, byteLength, supported }) => ({
        ...{ name, type, shape, byteLength },
        servedBy: supported ? fm.servedBy(type) : undefined,
      }));
      if (values.json) {
        const { metadata, version, byteLength, parts } = gguf;
        const text = JSON.stringify(
          { file, version, byteLength, parts, ...verdict, adapter, metadata, tensors },
          (_, value) => (typeof value === 'bigint' ? String(value) : value),
        );
        io.stdout.write(`${text}\n`);
        return;
      }
      io.stdout.write(
        `${file}: GGUF version ${gguf.version}, ${formatBytes(gguf.byteLength)}${nParts > 1 ? ` in ${nParts} parts` : ''}, ${gguf.tensors.size} tensors\n\n`,
      );
      if (nParts > 1) io.stdout.write(`${partTable(gguf.parts)}\n`);
      const pairs = Object.entries(gguf.metadata).map(([key, value]) => [key, shorten(value)]);
      io.stdout.write(`${formatTable(['metadata', ''], pairs)}\n`);
      if (!values.metadata) {
        io.stdout.write(`${tensorTable(tensors)}\n${typeTable(tensors)}\n`);
        io.stdout.write(`instruction set: ${fm.info.isa}: ${fm.info.reason}\n`);
      }
      if (adapter) {
        const { type, architecture, matrices, rank, alpha } = adapter;
        io.stdout.write(
          `an adapter (${type}) for ${matrices} matrices of a model of the architecture ${architecture}, rank ${rank}, alpha ${alpha}: generate, chat, embed, serve and bench take it with --lora FILE, beside that model\n`,
        );
        return;
      }
      io.stdout.write(
        verdict.runs
          ? `${verdict.command} takes this file: ${gguf.metadata['general.architecture']} (${verdict.reason})\n`
          : `neither generate nor embed takes this file: ${verdict.reason}\n`,
      );
    } finally {
      gguf.close();
      fm.dispose();
    }
  },
};

/**
 * @typedef {{ name: string, type: string, shape: readonly number[], byteLength: number,
 *   servedBy: { isa: string, activation: string } | undefined }} Row
 */

/** @param {Row['servedBy']} served */
const kernelOf = (served) => (served ? `${served.isa} ${served.activation}` : 'none');

/** @param {readonly import('../gguf/index.js').GgufFilePart[]} parts */
const partTable = (parts) =>
  formatTable(
    ['part', '>tensors', '>size'],
    parts.map(({ name, nTensors, byteLength }) => [name, `${nTensors}`, formatBytes(byteLength)]),
  );

/** @param {Row[]} tensors */
const tensorTable = (tensors) =>
  formatTable(
    ['tensor', 'type', '>shape', '>size', 'kernels'],
    tensors.map(({ name, type, shape, byteLength, servedBy }) => [
      name,
      type,
      shape.join(' x '),
      formatBytes(byteLength),
      kernelOf(servedBy),
    ]),
  );

/** @param {Row[]} tensors */
function typeTable(tensors) {
  /** @type {Map<string, { count: number, bytes: number, kernel: string }>} */
  const types = new Map();
  for (const { type, byteLength, servedBy } of tensors) {
    const row = types.get(type) ?? { count: 0, bytes: 0, kernel: kernelOf(servedBy) };
    types.set(type, { ...row, count: row.count + 1, bytes: row.bytes + byteLength });
  }
  const rows = [...types].sort(([, a], [, b]) => b.bytes - a.bytes);
  return formatTable(
    ['type', '>tensors', '>size', 'kernels'],
    rows.map(([type, { count, bytes, kernel }]) => [type, `${count}`, formatBytes(bytes), kernel]),
  );
}
