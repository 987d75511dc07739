/**
 * The GPU as the page uses it. An adapter that computes on the processor is slower than the CPU's own kernels; the tests of the
 * page, which have no GPU, ask for it with `?software-gpu`, and do without the self-test, which takes it a minute.
 */
const takesSoftware = new URLSearchParams(location.search).has('software-gpu');

export const gpuOptions = takesSoftware ? { allowSoftware: true, selfTest: false } : {};

/** @typedef {import('./lab-worker.js').FoundGpu} FoundGpu */

/** @param {FoundGpu} found */
export const isUsable = ({ problem }) => problem === '' || (problem === 'software' && takesSoftware);
