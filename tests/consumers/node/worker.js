import { parentPort, workerData } from 'node:worker_threads';
import { program } from './program.js';

parentPort.postMessage(await program(workerData));
