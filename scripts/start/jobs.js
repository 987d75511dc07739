/**
 * The matrices that `npm start` multiplies by: one of each shape and type in a file, and a large
 * one made of its blocks.
 */

/** @typedef {import('../../js/index.js').GgufFile} GgufFile */
/** @typedef {import('../../js/index.js').Kernels} Kernels */
/** @typedef {import('../../js/index.js').Weight} Weight */

/**
 * @typedef {object} Job
 * @property {string} label  a tensor's name, or the tensor whose blocks fill the matrix
 * @property {string} type
 * @property {number} nRows
 * @property {number} nCols
 * @property {number} alike  number of tensors in the file with this shape and type
 * @property {{ nTokens: number, activation: 'int16' | 'int8' }[]} runs
 * @property {boolean} filled  made of the blocks of a tensor, and not itself one of the file
 * @property {() => Promise<Weight>} load
 */

/** The size that benchmarks in this field quote. Small models have no matrix as large. */
const LARGE = 4096;
const LARGE_TYPE = 'Q4_K';
/** Types without quantised blocks, of which no large matrix is made. */
const FLOATS = ['F32', 'F16', 'BF16'];

const decode = { nTokens: 1, activation: /** @type {const} */ ('int16') };
const largeRuns = [1, 32].flatMap((nTokens) => [
  { nTokens, activation: /** @type {const} */ ('int16') },
  { nTokens, activation: /** @type {const} */ ('int8') },
]);

/**
 * @param {GgufFile} gguf
 * @param {Kernels} fm
 * @returns {{ jobs: Job[], unsupported: string[] }}  unsupported: one line per shape and type that
 *   is not served
 */
export function planJobs(gguf, fm) {
  const served = new Set(fm.types.map(({ name }) => name));
  const matrices = [...gguf.tensors.values()].filter(({ nRows, nCols }) => nRows > 1 && nCols > 1);
  /** @type {Map<string, Job>} */
  const groups = new Map();
  for (const { name, type, nRows, nCols } of matrices) {
    const key = `${type} ${nRows} ${nCols}`;
    const known = groups.get(key);
    if (known) known.alike++;
    else {
      const load = () => fm.loadWeight(gguf, name);
      groups.set(key, { label: name, type, nRows, nCols, alike: 1, runs: [decode], filled: false, load });
    }
  }
  const all = [...groups.values()];
  const jobs = all.filter(({ type }) => served.has(type));
  const unsupported = all
    .filter(({ type }) => !served.has(type))
    .map(({ type, nRows, nCols, alike, label }) => `${type} ${nRows} x ${nCols}: ${label}${others(alike)}`);
  const bySize = [...jobs].sort((a, b) => b.nRows * b.nCols - a.nRows * a.nCols);
  const source =
    bySize.find(({ type }) => type === LARGE_TYPE) ?? bySize.find(({ type }) => !FLOATS.includes(type));
  if (source) jobs.push(largeJob(source, gguf, fm));
  return { jobs, unsupported };
}

/** @param {number} alike */
export const others = (alike) => (alike > 1 ? ` and ${alike - 1} more` : '');

/**
 * A 4096 x 4096 matrix, filled with copies of a tensor's blocks.
 * @param {Job} source
 * @param {GgufFile} gguf
 * @param {Kernels} fm
 * @returns {Job}
 */
function largeJob({ label, type }, gguf, fm) {
  const shape = { type, nRows: LARGE, nCols: LARGE };
  const load = async () => {
    const blocks = await gguf.read(label);
    const { blockValues, blockBytes } = /** @type {Kernels['types'][0]} */ (
      fm.types.find(({ name }) => name === type)
    );
    const data = new Uint8Array(((LARGE * LARGE) / blockValues) * blockBytes);
    for (let at = 0; at < data.length; at += blocks.length) {
      data.set(blocks.subarray(0, data.length - at), at);
    }
    return fm.weight({ ...shape, data });
  };
  const runs = largeRuns.filter(({ activation }) => activation === fm.servedBy(type, activation).activation);
  return { ...shape, label: `blocks of ${label}, over and over`, alike: 1, runs, filled: true, load };
}

/**
 * Bytes that one product reads from and writes to memory. Each buffer counts once per pass over it.
 * Registers, and a strip of a few KB in L1, do not count.
 *
 *   fused  reads W and X, writes and reads the quantised X, writes Y
 *   naive  reads W, writes W as f32, reads it and X, writes Y
 *   dense  reads a W that was dequantised before, and X, writes Y
 *
 * @param {{ nRows: number, nCols: number, nTokens: number, weightBytes: number,
 *   activation: string }} multiply
 */
export function bytesMoved({ nRows, nCols, nTokens, weightBytes, activation }) {
  const x = 4 * nTokens * nCols;
  const y = 4 * nTokens * nRows;
  const quantised = { int16: 2, int8: 1 }[activation] ?? 0;
  const dense = 4 * nRows * nCols;
  return {
    fused: weightBytes + x + 2 * quantised * nTokens * nCols + y,
    naive: weightBytes + 2 * dense + x + y,
    dense: dense + x + y,
  };
}
