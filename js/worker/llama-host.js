/* Script of the worker that createWorkerLlama starts. It is built into one file,
 * dist/llama-host.js, because import maps do not apply to workers. */

import { LlamaServer } from './llama-serve.js';
import { serve } from './scope.js';

serve((post) => new LlamaServer(post));
