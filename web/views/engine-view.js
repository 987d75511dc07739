/** What this browser supports, what the loader chose and why, and how to turn on what is off. */
import { byId, el } from './dom.js';
import { bytes, duration } from './format.js';

/** @type {Record<string, string>} */
const isaNames = { relaxed: 'Relaxed SIMD', simd128: 'SIMD128', scalar: 'Scalar' };
/** @type {Record<string, string>} */
const dotNames = { i16: '16-bit dot', i32: '32-bit dot' };

const kernelName = (/** @type {{ isa: string, dot?: string }} */ { isa, dot }) =>
  [isaNames[isa] ?? isa, dot && (dotNames[dot] ?? dot)].filter(Boolean).join(', ');

const help = {
  relaxed:
    'Relaxed SIMD makes the int8 kernels fast. Chrome and Edge have it on since version 114. In Firefox, update, or set ' +
    'javascript.options.wasm_relaxed_simd to true in about:config. Elsewhere plain SIMD is used.',
  simd128:
    'WebAssembly SIMD is in every current browser. Update this one, or leave its lockdown or strict mode for this page.',
  isolation:
    'Gives a finer clock and the shared memory that threads need. The server turns it on with two headers: ' +
    'Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp.',
};

/** @param {boolean} on @param {string} name @param {string} [note] */
function feature(on, name, note) {
  return el(
    'li',
    { class: on ? 'on' : 'off' },
    el('span', { class: 'mark', 'aria-hidden': 'true' }, on ? '✓' : '–'),
    el(
      'span',
      {},
      name,
      el('span', { class: 'state' }, on ? ' on' : ' off'),
      ...(note && !on ? [el('span', { class: 'help' }, note)] : []),
    ),
  );
}

/** @param {{ isa: string, dot?: string, ok: boolean, reason: string }} step */
function attempt(step) {
  return el(
    'li',
    { class: step.ok ? 'on' : 'off' },
    el('span', { class: 'mark', 'aria-hidden': 'true' }, step.ok ? '✓' : '–'),
    el('span', {}, kernelName(step), el('span', { class: 'state' }, `: ${step.reason}`)),
  );
}

/** @param {{ info: import('../js/index.js').Kernels['info'], isolated: boolean, cores: number }} engine */
export function showEngine({ info, isolated, cores }) {
  byId('engine').replaceChildren(
    el('p', { class: 'chosen' }, el('strong', {}, kernelName(info))),
    el('p', { class: 'muted reason' }, `${info.reason}.`),
    el('h3', {}, 'What was tried'),
    el('ul', { class: 'marks' }, ...info.steps.map(attempt)),
    el('h3', {}, 'Features'),
    el(
      'ul',
      { class: 'marks' },
      feature(Boolean(info.features.simd), 'WebAssembly SIMD', help.simd128),
      feature(Boolean(info.features.relaxedSimd), 'Relaxed SIMD', help.relaxed),
      feature(isolated, 'Cross-origin isolation', help.isolation),
    ),
    el('h3', {}, 'Details'),
    el(
      'dl',
      { class: 'facts' },
      el('div', {}, el('dt', {}, 'Ready after'), el('dd', {}, duration(info.timings.totalMs))),
      el('div', {}, el('dt', {}, 'Module'), el('dd', {}, info.wasmBytes ? bytes(info.wasmBytes) : 'unknown')),
      el('div', {}, el('dt', {}, 'Threads'), el('dd', {}, cores ? `1, of ${cores} cores` : '1')),
      el('div', {}, el('dt', {}, 'Version'), el('dd', {}, info.version)),
    ),
  );
}

/** @param {Error} error */
export function showNoEngine(error) {
  byId('engine').replaceChildren(
    el('p', { class: 'chosen' }, el('strong', {}, 'No kernel can run here')),
    el('p', {}, error.message),
    el('p', { class: 'muted' }, help.simd128),
  );
}
