/* Script of the worker that createWorkerKernels starts. It is built into one file,
 * dist/worker-host.js, because import maps do not apply to workers. */

import { serve } from './scope.js';
import { Server } from './serve.js';

serve((post) => new Server(post));
