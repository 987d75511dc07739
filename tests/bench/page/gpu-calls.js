/**
 * Counts calls of WebGPU in the workers of a page. A worker that is to be counted runs
 * countGpuCalls() before anything else; the page asks all of them with gpuCalls().
 */

const CHANNEL = 'gpu-calls';
/** Time for all workers to answer, in milliseconds. */
const ANSWERS_MS = 300;

/** Calls by method, since the worker began. @typedef {Record<string, number>} GpuCalls */

/** Uses nothing of this module, so that its source can be put in front of another worker's. */
export function countGpuCalls() {
  const scope = /** @type {any} */ (globalThis);
  if (!scope.GPUDevice) return;
  const methods = {
    GPUComputePassEncoder: ['dispatchWorkgroups', 'dispatchWorkgroupsIndirect'],
    GPUDevice: ['createBindGroup', 'createBuffer'],
    GPUQueue: ['submit', 'writeBuffer', 'onSubmittedWorkDone'],
    GPUBuffer: ['mapAsync'],
  };
  /** @type {GpuCalls} */
  const calls = {};
  for (const [type, names] of Object.entries(methods)) {
    for (const name of names) {
      const { prototype } = scope[type];
      const original = prototype[name];
      calls[name] = 0;
      prototype[name] = function (/** @type {any[]} */ ...args) {
        calls[name] += 1;
        return original.apply(this, args);
      };
    }
  }
  const channel = new BroadcastChannel('gpu-calls');
  channel.onmessage = ({ data }) => {
    if (data === 'ask') channel.postMessage(calls);
  };
}

/** The calls of all workers together. @returns {Promise<GpuCalls>} */
export async function gpuCalls() {
  const channel = new BroadcastChannel(CHANNEL);
  /** @type {GpuCalls} */
  const sum = {};
  channel.onmessage = ({ data }) => {
    for (const [name, n] of Object.entries(data)) sum[name] = (sum[name] ?? 0) + Number(n);
  };
  channel.postMessage('ask');
  await new Promise((resolve) => setTimeout(resolve, ANSWERS_MS));
  channel.close();
  return sum;
}

/**
 * Puts the counting in front of workers that are made of a Blob with their source.
 */
export function countInBlobWorkers() {
  const Plain = globalThis.Blob;
  globalThis.Blob = class extends Plain {
    /** @param {BlobPart[]} [parts] @param {BlobPropertyBag} [options] */
    constructor(parts = [], options = {}) {
      const isScript = /javascript/.test(options.type ?? '');
      super(isScript ? [`(${countGpuCalls})();\n`, ...parts] : parts, options);
    }
  };
}
