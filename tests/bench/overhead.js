/**
 * Case `overhead`: the time of a library call beyond its kernel. The product is the smallest one
 * (one row of one block), so that the difference between fm.fusedMatmul and the bare export is
 * visible.
 */
import { createKernels } from '../../js/index.js';
import { addressIn } from '../../js/wasm/handles.js';
import { memoryOf } from '../../js/wasm/kernels.js';
import { referenceByName } from '../helpers/reference.js';
import { checkResult, makeData } from './data.js';
import { race } from './lab.js';
import { table } from './report.js';

/** @import { ReferenceType } from '../helpers/reference.js' */
/** @import { Lab, LabCase } from './bench.js' */
/** @import { Result } from './report.js' */

const BARE = 'the export alone';
const INT16 = 1;

/** @param {Lab} lab @param {number} nRows @param {number} nCols @returns {Promise<Result[]>} */
async function overhead({ limits }, nRows, nCols) {
  const type = /** @type {ReferenceType} */ (referenceByName.get('Q4_K'));
  const { w: data, x, expected } = makeData({ type, nRows, nCols, nTokens: 1 });
  const fm = await createKernels({ threads: 1 });
  const w = fm.weight({ type: 'Q4_K', nRows, nCols, data });
  const [xIn, yIn] = [fm.tensor({ nRows: 1, nCols, data: x }), fm.tensor({ nRows: 1, nCols: nRows })];
  const y = new Float32Array(nRows);
  const [atW, atX, atY] = [w, xIn, yIn].map((handle) => addressIn(handle, memoryOf(fm)));
  const { fused_matmul } = memoryOf(fm).exports;
  const contenders = [
    {
      name: BARE,
      run: () => fused_matmul(type.id, atW, atX, atY, 1, nRows, nCols, INT16),
      output: () => yIn.toArray(),
    },
    { name: 'Tensor, out', run: () => fm.fusedMatmul(w, xIn, { out: yIn }), output: () => yIn.toArray() },
    { name: 'Float32Array, out', run: () => fm.fusedMatmul(w, x, { out: y }), output: () => y },
    { name: 'Float32Array', run: () => fm.fusedMatmul(w, x), output: () => fm.fusedMatmul(w, x) },
    {
      name: 'Tensor',
      run: () => fm.fusedMatmul(w, xIn).free(),
      output: () => fm.fusedMatmul(w, xIn).toArray(),
    },
  ].map(({ name, run, output }) => {
    yIn.set(y.fill(Number.NaN));
    run();
    return {
      name,
      run,
      flops: 2 * nRows * nCols,
      bytes: data.length,
      error: checkResult(name, 'int16', output(), expected),
    };
  });
  const timings = await race(contenders, { ...limits, minRounds: Math.max(limits.minRounds, 30) });
  fm.dispose();
  return timings.map(({ name, run: _, ...timing }) => ({
    section: 'overhead',
    case: `overhead ${nRows}x${nCols}`,
    kernel: name,
    ...timing,
  }));
}

/** @param {Result[]} results  the results of one case */
function overheadTable(results) {
  const bare = results.find(({ kernel }) => kernel === BARE);
  const micros = (/** @type {number} */ ms) => (1000 * ms).toFixed(2);
  const rows = results.map(({ kernel, medianMs, minMs }) => [
    kernel,
    micros(medianMs),
    micros(minMs),
    bare && kernel !== BARE ? micros(medianMs - bare.medianMs) : '-',
    bare && kernel !== BARE ? micros(minMs - bare.minMs) : '-',
  ]);
  return table(['', 'median µs', 'min µs', 'beyond the kernel, median µs', 'min µs'], rows);
}

/** @returns {LabCase[]} */
export function overheadCases() {
  return [
    [1, 256],
    [256, 256],
  ].map(([nRows, nCols]) => ({
    name: `overhead ${nRows}x${nCols}`,
    byDefault: true,
    show: overheadTable,
    run: (lab) => overhead(lab, nRows, nCols),
  }));
}
