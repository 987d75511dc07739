/** The outcome of one measurement: a headline, bars for time and memory, and the check against float64. */
import { byId, el } from '../dom.js';
import { bytes, count, digits, dimensions, duration, scientific } from '../format.js';

/** @typedef {Awaited<ReturnType<typeof import('../measure.js').measure>> & { name: string }} Outcome */

/** @typedef {{ label: string, value: number, shown: string, note: string, kind: 'fused' | 'dense' }} Bar */

/** @param {number} ratio  dense time / fused time @returns {[string, string]} a figure, and the words that follow it */
function comparison(ratio) {
  const fixed = (/** @type {number} */ x) => (x >= 10 ? digits(x) : x.toFixed(1));
  if (ratio > 1 / 1.05 && ratio < 1.05) return ['1×', 'as fast as'];
  return ratio >= 1 ? [`${fixed(ratio)}×`, 'faster than'] : [`${fixed(1 / ratio)}×`, 'slower than'];
}

/** @param {string} title @param {Bar[]} bars */
function chart(title, bars) {
  const longest = Math.max(...bars.map((bar) => bar.value));
  const rows = bars.map(({ label, value, shown, note, kind }) => {
    const fill = el('span', { class: `fill ${kind}` });
    // Through the CSSOM: the page's policy allows no style attributes.
    fill.style.setProperty('--part', String(value / longest));
    return el(
      'div',
      { class: 'bar' },
      el('dt', {}, label),
      el(
        'dd',
        {},
        el('span', { class: 'track', 'aria-hidden': 'true' }, fill),
        el('span', { class: 'figures' }, el('strong', {}, shown), ' ', el('span', { class: 'muted' }, note)),
      ),
    );
  });
  return el('div', { class: 'chart' }, el('h3', {}, title), el('dl', {}, ...rows));
}

const speed = (/** @type {{ gflops: number }} */ time) => `${digits(time.gflops)}\u00a0GFLOP/s`;

/** @param {Outcome} outcome */
function headline({ fused, dense, skipped }) {
  if (!dense)
    return el(
      'p',
      { class: 'headline' },
      el('strong', {}, speed(fused)),
      ' ',
      el('span', { class: 'headline-words' }, skipped),
    );
  const [figure, words] = comparison(dense.ms / fused.ms);
  return el(
    'p',
    { class: 'headline' },
    el('strong', {}, figure),
    ' ',
    el('span', { class: 'headline-words' }, `${words} dequantising first`),
  );
}

/** @param {Outcome} outcome */
function charts({ fused, dense, memory }) {
  const label = 'Dequantise, then multiply';
  /** @type {Bar[]} */
  const time = [
    { label: 'Fused', value: fused.ms, shown: duration(fused.ms), note: speed(fused), kind: 'fused' },
  ];
  /** @type {Bar[]} */
  const space = [
    {
      label: 'Fused',
      value: memory.weight,
      shown: bytes(memory.weight),
      note: 'as in the file',
      kind: 'fused',
    },
  ];
  if (dense) {
    time.push({ label, value: dense.ms, shown: duration(dense.ms), note: speed(dense), kind: 'dense' });
  }
  if (memory.dense) {
    const value = memory.weight + memory.dense;
    space.push({
      label,
      value,
      shown: bytes(value),
      note: `${bytes(memory.dense)} of it f32`,
      kind: 'dense',
    });
  }
  return [chart('Time per multiply', time), chart('Memory for the weights', space)];
}

/** @param {Outcome} outcome */
function verdict({ verified, served, tensor, isa, activation }) {
  const sampled =
    verified.rows < tensor.nRows ? ` on ${count(verified.rows)} of ${count(tensor.nRows)} rows` : '';
  const words = verified.pass ? 'Verified against float64' : 'Does not match float64';
  const kernel =
    served.isa === isa
      ? `${isa} kernels`
      : `${served.isa} kernels serve ${tensor.type} with ${served.activation}`;
  const replaced = served.activation === activation ? '' : `, ${activation} served by ${served.activation}`;
  return [
    el('strong', {}, el('span', { 'aria-hidden': 'true' }, verified.pass ? '✓ ' : '✗ '), words),
    el('span', {}, `error ${scientific(verified.error)}, allowed ${scientific(verified.bound)}${sampled}`),
    el(
      'span',
      { class: 'muted' },
      `${count(verified.outputs)} outputs checked one by one · ${kernel}${replaced}`,
    ),
  ];
}

export class ResultView {
  #outcome = byId('outcome');
  #verified = byId('verified');
  #matrix = byId('matrix');
  #placeholder = /** @type {HTMLElement} */ (this.#outcome.querySelector('.placeholder'));

  /** @param {string} name */
  running(name) {
    this.#outcome.setAttribute('aria-busy', 'true');
    this.#verified.dataset.state = 'running';
    const placeholder = this.#placeholder.querySelector('p');
    if (placeholder) placeholder.textContent = `Multiplying by ${name}…`;
  }

  /** @param {string} text  in place of an outcome @param {boolean} usable  whether there is something to measure */
  message(text, usable) {
    this.#outcome.setAttribute('aria-busy', 'false');
    this.#outcome.replaceChildren(this.#placeholder);
    byId('outcome-placeholder').textContent = text;
    byId('multiply-first').disabled = !usable;
    byId('multiply-first').parentElement.hidden = !usable;
    this.#matrix.textContent = '\u00a0';
    this.#clearVerified();
  }

  /** The last outcome stays as it is. */
  stopped() {
    this.#outcome.setAttribute('aria-busy', 'false');
    if (this.#verified.dataset.error)
      this.#verified.dataset.state = this.#verified.dataset.pass === 'true' ? 'pass' : 'fail';
    else this.message('Choose a tensor below to multiply by it.', true);
  }

  #clearVerified() {
    for (const key of Object.keys(this.#verified.dataset)) {
      if (key !== 'testid') delete this.#verified.dataset[key];
    }
    this.#verified.dataset.state = 'waiting';
    this.#verified.replaceChildren();
  }

  /** @param {Outcome} outcome @param {string} file */
  show(outcome, file) {
    const { name, tensor, nTokens, activation, isa, served, fused, dense, memory, verified } = outcome;
    const tokens = nTokens === 1 ? '1 token' : `${nTokens} tokens`;
    this.#matrix.replaceChildren(
      el('span', { class: 'name' }, name),
      ' ',
      el(
        'span',
        { class: 'muted' },
        `${tensor.type} · ${dimensions([tensor.nCols, tensor.nRows])} · ${tokens}`,
      ),
    );
    const saved = memory.dense
      ? [el('p', { class: 'saved' }, el('strong', {}, bytes(memory.dense)), ' of f32 never written')]
      : [];
    this.#outcome.replaceChildren(
      el('div', { class: 'claim' }, headline(outcome), ...saved),
      ...charts(outcome),
    );
    this.#outcome.setAttribute('aria-busy', 'false');
    this.#verified.replaceChildren(...verdict(outcome));
    Object.assign(this.#verified.dataset, {
      state: verified.pass ? 'pass' : 'fail',
      pass: String(verified.pass),
      file,
      tensor: name,
      type: tensor.type,
      tokens: String(nTokens),
      activation,
      isa,
      servedIsa: served.isa,
      servedActivation: served.activation,
      error: String(verified.error),
      bound: String(verified.bound),
      worst: String(verified.worst),
      outputs: String(verified.outputs),
      ms: String(fused.ms),
      denseMs: dense ? String(dense.ms) : '',
    });
  }

  /** One sentence for the live region. @param {Outcome} outcome */
  static sentence({ name, fused, dense, verified }) {
    const ratio = dense ? `, ${comparison(dense.ms / fused.ms).join(' ')} dequantising first` : '';
    const check = verified.pass ? 'Verified against float64.' : 'It does not match float64.';
    return `Multiplied by ${name}: ${duration(fused.ms)}${ratio}. ${check}`;
  }
}
