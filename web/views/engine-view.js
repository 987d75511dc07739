/** What this browser supports, what the loader chose and why, and how to turn on what is off. */
import { breathe, byId, el } from '../dom.js';
import { bytes, duration } from '../format.js';
import { messageOf } from '../problems.js';

/** @type {Record<string, string>} */
const isaNames = { relaxed: 'Relaxed SIMD', simd128: 'SIMD128', scalar: 'Scalar' };
/** @type {Record<string, string>} */
const dotNames = { i16: '16-bit dot', i32: '32-bit dot' };

export const kernelName = (/** @type {{ isa: string, dot?: string }} */ { isa, dot }) =>
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
  threads: 'The kernels run on one thread.',
};

/** @param {boolean} on @param {string} name @param {string | Node} [note] */
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

/** A host without the headers: the service worker adds them from the next load on. */
function reloading() {
  const button = el(
    'button',
    { type: 'button', class: 'button quiet small', id: 'reload' },
    'Reload with threads',
  );
  button.addEventListener('click', () => location.reload());
  return el(
    'span',
    {},
    'This host does not send the headers for it. The page has them added from its next load on. ',
    button,
  );
}

/** @param {string} name @param {string} value */
const fact = (name, value) => el('div', {}, el('dt', {}, name), el('dd', {}, value));

/** Counts what was asked to be shown: what is made in parts must not replace what came later. */
let latest = 0;

/**
 * Made in parts, as the first elements of a kind take a page long.
 * @param {object} engine
 * @param {import('../../js/index.js').Kernels['info'] & { threads?: number, threadsReason?: string }} engine.info
 * @param {boolean} engine.isolated
 * @param {number} engine.cores
 * @param {boolean} engine.canReload  the service worker can isolate the page
 * @param {string} [engine.gpu]  name of the GPU that the model runs on
 */
export async function showEngine({ info, isolated, cores, canReload, gpu }) {
  const asked = ++latest;
  const { threads = 1, threadsReason = '' } = info;
  const line = byId('engine-line');
  line.dataset.state = 'on';
  byId('engine-link').textContent = gpu
    ? `GPU · ${gpu}`
    : `${isaNames[info.isa] ?? info.isa} · ${threads} ${threads === 1 ? 'thread' : 'threads'}`;
  const parts = [
    () => [
      el('p', { class: 'chosen' }, el('strong', {}, kernelName(info))),
      el('p', { class: 'muted reason' }, `${info.reason}.`),
      el('h4', {}, 'What was tried'),
      el('ul', { class: 'marks' }, ...info.steps.map(attempt)),
    ],
    () => [
      el('h4', {}, 'Features'),
      el(
        'ul',
        { class: 'marks' },
        feature(Boolean(info.features.simd), 'WebAssembly SIMD', help.simd128),
        feature(Boolean(info.features.relaxedSimd), 'Relaxed SIMD', help.relaxed),
        feature(isolated, 'Cross-origin isolation', canReload && !isolated ? reloading() : help.isolation),
        feature(threads > 1, 'Threads', threadsReason || help.threads),
      ),
    ],
    () => [
      el('h4', {}, 'Details'),
      el(
        'dl',
        { class: 'facts' },
        fact('Threads', cores ? `${threads}, of ${cores} cores` : String(threads)),
        fact('Ready after', duration(info.timings.totalMs)),
        fact('Module', info.wasmBytes ? bytes(info.wasmBytes) : 'unknown'),
        fact('Version', info.version),
      ),
    ],
  ];
  const nodes = [];
  for (const part of parts) {
    nodes.push(...part());
    await breathe();
  }
  if (asked === latest) byId('engine').replaceChildren(...nodes);
}

/** @param {Error} error */
export function showNoEngine(error) {
  latest++;
  byId('engine-line').dataset.state = 'off';
  byId('engine-link').textContent = 'No kernel can run here';
  byId('engine').replaceChildren(
    el('p', { class: 'chosen' }, el('strong', {}, 'No kernel can run here')),
    el('p', {}, messageOf(error)),
    el('p', { class: 'muted' }, help.simd128),
  );
}
