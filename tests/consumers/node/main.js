/** Prints the result of the program, which runs in a worker on request. */
import { Worker } from 'node:worker_threads';
import { program } from './program.js';

const [model, where] = process.argv.slice(2);
if (where === 'worker') {
  const worker = new Worker(new URL('./worker.js', import.meta.url), { workerData: model });
  worker.on('message', (result) => console.log(JSON.stringify(result)));
} else {
  console.log(JSON.stringify(await program(model)));
}
