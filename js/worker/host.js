/* The script of the worker that createWorkerKernels starts. It is built into one file, dist/worker-host.js: import maps do not
 * reach into workers. */

import { serve } from './scope.js';
import { Server } from './serve.js';

serve((post) => new Server(post));
