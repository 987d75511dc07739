/* Script of the worker that createWorkerLlama starts, built into one file because import maps do not
 * apply to workers: dist/llama-host.js, and with the code of GPUs dist/llama-host-gpu.js. */

import { LlamaServer } from './llama-serve.js';
import { serve } from './scope.js';

serve((post) => new LlamaServer(post));
