// Multiplies a batch of activations by two matrices of a file, which share one pass over the
// activations, and applies a gate: the first half of a feed-forward block.
//   node kernels.mjs model.gguf
import { createKernels, openGguf } from 'fused-matmul/layer';

const gguf = await openGguf(process.argv[2]);
const fm = await createKernels();
const gate = await fm.loadWeight(gguf, 'blk.0.ffn_gate.weight');
const up = await fm.loadWeight(gguf, 'blk.0.ffn_up.weight');
const nTokens = 3;
const data = Float32Array.from({ length: nTokens * gate.nCols }, (_, i) => Math.sin(i));
const x = fm.tensor({ nRows: nTokens, nCols: gate.nCols, data });
const [g, u] = fm.fusedMatmulMany([gate, up], x);
const y = fm.gated(g, u, { act: 'silu' });
console.log(`${y.nRows} x ${y.nCols} values by ${fm.info.isa}, the first is ${y.toArray()[0]}`);
for (const one of [x, g, u, y, gate, up]) one.free();
gguf.close();
fm.dispose();
