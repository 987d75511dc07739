/** The worker that measures kernels on a GPU. It is started for that only, as it has the code of GPUs. */
import { benchmarkGpu } from './bench-gpu.js';
import { serveCalls } from './lab-serve.js';

serveCalls({ bench: benchmarkGpu });
