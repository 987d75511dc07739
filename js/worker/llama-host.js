/* The script of the worker that createWorkerLlama starts. It is built into one file, dist/llama-host.js: import maps do not reach
 * into workers. */

import { LlamaServer } from './llama-serve.js';
import { serve } from './scope.js';

serve((post) => new LlamaServer(post));
