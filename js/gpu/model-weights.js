/* The tensors of a model in GPU memory, by their roles. */

import { arrange } from '../llama/weights.js';
import { factorsOf } from './fit.js';
import { loadTensors } from './load-weights.js';
import { up16 } from './shader.js';
import { GpuVector } from './vectors.js';
import { GpuWeight } from './weight.js';
import { embed, embedGroups } from './wgsl/embed.js';
import { tailAt } from './wgsl/types.js';

/** @typedef {import('../backend.js').LoadedWeights} LoadedWeights */
/** @typedef {import('../backend.js').LoadOptions} LoadOptions */
/** @typedef {import('../gguf/file.js').GgufFile} GgufFile */
/** @typedef {import('../llama/plan.js').Plan} Plan */
/** @typedef {import('../llama/plan.js').PlannedTensor} PlannedTensor */
/** @typedef {import('./load-weights.js').Means} Means */

/**
 * Loads the tensors of a plan.
 * @param {Means} means
 * @param {GgufFile} gguf
 * @param {Plan} plan
 * @param {readonly PlannedTensor[]} tensors
 * @param {LoadOptions} options
 * @returns {Promise<LoadedWeights>}
 */
export async function loadWeights(means, gguf, plan, tensors, options) {
  const weights = await loadTensors(
    means,
    gguf,
    tensors.map(({ name }) => gguf.tensor(name)),
    { ...options, alternating: tensors.map(({ alternating }) => alternating) },
  );
  /** @type {Map<string, GpuWeight | GpuVector>} */
  const byRole = new Map();
  /** @type {Set<GpuWeight | GpuVector>} */
  const owned = new Set(weights);
  const free = () => {
    for (const one of owned) if (!one.freed) one.free();
  };
  try {
    for (const { matrix, factor } of factorsOf(tensors))
      setFactor(means, weights[tensors.indexOf(matrix)], weights[tensors.indexOf(factor)]);
    // Submitted now, so that weights may be freed at any time.
    means.commands.flush();
    for (const [i, { role, use }] of tensors.entries()) {
      const weight = weights[i];
      if (use === 'factor') {
        owned.delete(weight);
        continue;
      }
      if (use === 'matrix' || use === 'table' || use === 'experts') {
        byRole.set(role, weight);
        continue;
      }
      const nRows = use === 'values' ? weight.nRows : 1;
      const vector = await vectorOf(means, weight, nRows, role.startsWith('rope.'));
      owned.add(vector);
      owned.delete(weight);
      byRole.set(role, vector);
    }
    await means.commands.idle();
    for (const weight of weights) if (!owned.has(weight)) weight.free();
    const slice = (
      /** @type {GpuWeight | GpuVector} */ of,
      /** @type {import('../backend.js').Rows} */ rows,
    ) => {
      if (of instanceof GpuWeight) return of.rows(rows.start, rows.nRows);
      const part = partOf(means, of, rows);
      owned.add(part);
      return part;
    };
    const arranged = arrange(plan, byRole, slice);
    means.commands.flush();
    return {
      byRole: arranged,
      free,
      get freed() {
        return [...owned].every(({ freed }) => freed);
      },
    };
  } catch (error) {
    for (const weight of weights) owned.add(weight);
    free();
    throw error;
  }
}

/**
 * Sets the factor that the kernels of a matrix read.
 * @param {Means} means
 * @param {GpuWeight} matrix
 * @param {GpuWeight} factor  one F32 number
 */
function setFactor({ commands }, { type, parts }, { parts: [{ buffer: from }] }) {
  for (const { buffer, nBlocks } of parts)
    commands.copy({ buffer: from, offset: 0, bytes: 4 }, buffer, tailAt({ type, nBlocks }));
}

/**
 * A copy of some values of a vector: shaders read vectors from their beginning, with a padding of zeros.
 * @param {Means} means
 * @param {GpuVector} vector
 * @param {import('../backend.js').Rows} values
 */
function partOf({ gpu, commands }, { buffer: from }, { start, nRows: n }) {
  const buffer = gpu.buffer(4 * up16(n), { label: 'part of a vector' });
  commands.copy({ buffer: from, offset: 4 * start, bytes: 4 * n }, buffer);
  return new GpuVector(buffer, n);
}

/** Rows that are decoded at a time: workgroups of one dimension. */
const ROWS = 32_768;

/**
 * The first rows of a weight as f32 numbers.
 * @param {Means} means
 * @param {GpuWeight} weight
 * @param {number} nRows
 * @param {boolean} isRead  the values of a single row are needed here too
 */
async function vectorOf({ gpu, pipelines, commands }, weight, nRows, isRead) {
  const { nCols } = weight;
  const units = weight.rows(0, nRows).units();
  const shaders = units.map(({ unit, firstRow }) => embed({ unit, scale: 1, firstRow }));
  const compiled = await Promise.all(shaders.map((shader) => pipelines.compile(shader)));
  const y = gpu.buffer(4 * nRows * up16(nCols), { label: weight.name });
  /** @type {import('./device.js').GpuBuffer | undefined} */
  let ids;
  try {
    ids = gpu.bufferOf(
      Uint32Array.from({ length: nRows }, (_, i) => i),
      { label: 'row numbers' },
    );
    for (const [i, { unit, buffer }] of units.entries()) {
      const bound = compiled[i].bind({ w: buffer, ids, y });
      for (let start = 0; start < nRows; start += ROWS) {
        const nTokens = Math.min(ROWS, nRows - start);
        commands.dispatch(bound, embedGroups(unit, nTokens), { position: start, start, nTokens, seen: 0 });
      }
    }
    if (!isRead) {
      commands.flush();
      return new GpuVector(y, nCols, undefined, nRows);
    }
    const [bytes] = await commands.read([{ buffer: y, offset: 0, bytes: 4 * nCols }]);
    return new GpuVector(y, nCols, new Float32Array(bytes));
  } catch (error) {
    y.free();
    throw error;
  } finally {
    ids?.free();
  }
}
