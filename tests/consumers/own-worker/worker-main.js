import { program } from './program.js';

/** @param {string} model */
export async function receive(model) {
  const outcome = await program(model).then(
    (result) => ({ result }),
    (error) => ({ error: `${error.name}: ${error.message}` }),
  );
  postMessage(outcome);
}
