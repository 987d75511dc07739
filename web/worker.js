/**
 * Everything that computes, away from the page's own thread. Requests { id, op, args } are served one after the other;
 * answers are { id, result }, { id, error } or { id, progress }. { cancel: id } stops a request at its next breath.
 */
import { createKernels, openGguf } from '../js/index.js';
import { measure } from './measure.js';

/** wasm memory never shrinks: above this, an idle instance is given up and a fresh one made for the next multiply. */
const idleBytes = 256e6;

/** @typedef {{ loaded: number, total: number }} Progress */
/** @typedef {{ signal: AbortSignal, onProgress: (progress: Progress) => void }} Context */

/** @type {import('../js/index.js').Kernels | undefined} */
let fm;
/** @type {import('../js/index.js').GgufFile | undefined} */
let gguf;
/** @type {import('../js/index.js').Weight | undefined} */
let weight;

async function kernels() {
  fm ??= await createKernels();
  return fm;
}

function dropWeight() {
  weight?.free();
  weight = undefined;
}

/**
 * Why a tensor cannot be multiplied by, or '' when it can.
 * @param {import('../js/index.js').GgufFile['tensors'] extends Map<string, infer T> ? T : never} tensor
 * @param {import('../js/index.js').Kernels['types']} types  what the module's own table serves
 */
function obstacle(tensor, types) {
  const type = types.find((row) => row.name === tensor.type);
  if (!type || !tensor.supported) return 'type not supported yet';
  if (tensor.shape.length < 2) return 'vector, not a matrix';
  return tensor.nCols % type.blockValues === 0 ? '' : `rows are no multiple of ${type.blockValues}`;
}

const operations = {
  async start() {
    const { info } = await kernels();
    return { info, isolated: crossOriginIsolated, cores: navigator.hardwareConcurrency };
  },

  async open(/** @type {{ source: string | File }} */ { source }, /** @type {Context} */ { signal }) {
    const { types } = await kernels();
    const opened = await openGguf(source, { signal });
    const tensors = [...opened.tensors.values()].map((tensor) => ({
      name: tensor.name,
      type: tensor.type,
      shape: tensor.shape,
      nRows: tensor.nRows,
      nCols: tensor.nCols,
      byteLength: tensor.byteLength,
      obstacle: obstacle(tensor, types),
    }));
    // Only now: a bad file must not cost the user the good one that is open.
    dropWeight();
    gguf?.close();
    gguf = opened;
    const text = (/** @type {string} */ key) =>
      typeof opened.metadata[key] === 'string' ? opened.metadata[key] : '';
    return {
      tensors,
      byteLength: opened.byteLength,
      architecture: text('general.architecture'),
      title: text('general.name'),
    };
  },

  async multiply(
    /** @type {any} */ { name, nTokens, activation },
    /** @type {Context} */ { signal, onProgress },
  ) {
    if (!gguf) throw new Error('No file is open.');
    const current = await kernels();
    if (weight?.name !== name) dropWeight();
    weight ??= await current.loadWeight(gguf, name, { signal, onProgress });
    try {
      return { name, ...(await measure(current, weight, { nTokens, activation, signal })) };
    } finally {
      if (current.memory().bytes > idleBytes) {
        dropWeight();
        current.dispose();
        fm = undefined;
      }
    }
  },
};

/** @type {Map<number, AbortController>} */
const running = new Map();
let queue = Promise.resolve();

/** @param {{ id: number, op: keyof typeof operations, args: any }} request @param {AbortSignal} signal */
async function serve({ id, op, args }, signal) {
  try {
    signal.throwIfAborted();
    const onProgress = (/** @type {Progress} */ progress) => postMessage({ id, progress });
    postMessage({ id, result: await operations[op](args, { signal, onProgress }) });
  } catch (cause) {
    const error = cause instanceof Error ? cause : new Error(String(cause));
    postMessage({ id, error: { name: signal.aborted ? 'AbortError' : error.name, message: error.message } });
  } finally {
    running.delete(id);
  }
}

addEventListener('message', ({ data }) => {
  if ('cancel' in data) {
    running.get(data.cancel)?.abort();
    return;
  }
  const controller = new AbortController();
  running.set(data.id, controller);
  queue = queue.then(() => serve(data, controller.signal));
});
