/** What a file is made of: its weights by type, and which kernels serve each. */
import { byId, el } from '../dom.js';
import { bytes, count, digits } from '../format.js';
import { byType } from './palette.js';

/** @typedef {Record<string, Record<string, { isa: string, activation: string }>>} Served */

/** relaxed · int8, or why not. @param {Served} served @param {string} type @param {string} activation */
export function kernelFor(served, type, activation) {
  const by = served[type]?.[activation];
  return by ? `${by.isa} · ${by.activation}` : 'none';
}

/**
 * @param {import('./tensors-view.js').TensorRow[]} tensors
 * @param {Served} served
 * @param {'int8' | 'int16' | 'f32'} activation
 */
export function showTypes(tensors, served, activation) {
  const types = byType(tensors);
  const total = types.reduce((sum, row) => sum + row.bytes, 0);
  if (total === 0) {
    byId('types').replaceChildren(el('p', { class: 'muted' }, 'The file has no tensors.'));
    return;
  }
  const stack = el('div', { class: 'stack', 'aria-hidden': 'true' });
  for (const { type, bytes: size, className } of types) {
    const part = el('span', { class: className, title: `${type}: ${bytes(size)}` });
    part.style.setProperty('--share', String(size));
    stack.append(part);
  }
  const values = new Map(types.map(({ type }) => [type, 0]));
  for (const { type, nRows, nCols } of tensors) values.set(type, (values.get(type) ?? 0) + nRows * nCols);
  const rows = types.map(({ type, count: n, bytes: size, className }) =>
    el(
      'tr',
      {},
      el('th', { scope: 'row' }, el('span', { class: `swatch ${className}`, 'aria-hidden': 'true' }), type),
      el('td', { class: 'number' }, count(n)),
      el('td', { class: 'number' }, bytes(size)),
      el('td', { class: 'number' }, `${digits((100 * size) / total)}\u00a0%`),
      el('td', { class: 'number' }, digits((8 * size) / (values.get(type) || 1))),
      el('td', { class: 'kernel' }, kernelFor(served, type, activation)),
    ),
  );
  const head = [
    el('th', { scope: 'col' }, 'Type'),
    ...['Tensors', 'Size', 'Share', 'Bits/weight'].map((text) =>
      el('th', { scope: 'col', class: 'number' }, text),
    ),
    el('th', { scope: 'col' }, 'Kernel'),
  ];
  byId('types').replaceChildren(
    stack,
    el(
      'div',
      { class: 'types-scroll', role: 'region', tabindex: 0, 'aria-label': 'Weights by type, scrollable' },
      el(
        'table',
        { class: 'plain', 'aria-labelledby': 'types-heading' },
        el('thead', {}, el('tr', {}, ...head)),
        el('tbody', {}, ...rows),
      ),
    ),
    el('dl', { class: 'facts model-facts', id: 'model-facts' }),
  );
}

/** Numbers of the model that runs. @param {import('../../js/llama/info.js').ModelInfo} info */
export function showModelFacts(info) {
  const {
    nLayers,
    nEmbd,
    nFf,
    nHeads,
    nKvHeads,
    headSize,
    nVocab,
    tied,
    contextLength,
    trainedContext,
    kvType,
  } = info;
  const { weights, kvCache, workspace } = info.memory;
  const facts = [
    ['Shape', `${nLayers} layers, width ${count(nEmbd)}, feed-forward ${count(nFf)}`],
    ['Attention', `${nHeads} heads of ${headSize}, ${nKvHeads} for keys and values`],
    ['Vocabulary', `${count(nVocab)} tokens${tied ? ', output tied to the embedding' : ''}`],
    [
      'Context',
      `${count(contextLength)} tokens in ${kvType}${contextLength < trainedContext ? `, of ${count(trainedContext)}` : ''}`,
    ],
    ['Memory', `${bytes(weights)} weights, ${bytes(kvCache)} cache, ${bytes(workspace)} workspace`],
  ];
  byId('model-facts').replaceChildren(
    ...facts.map(([name, value]) => el('div', {}, el('dt', {}, name), el('dd', {}, value))),
  );
}
