/** The script of a page. The test waits for globalThis.outcome. */
import { program } from './program.js';

globalThis.outcome = program('model.gguf').then(
  (result) => ({ result }),
  (error) => ({ error: `${error.name}: ${error.message}` }),
);
