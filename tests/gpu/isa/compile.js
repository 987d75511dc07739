/**
 * A process that compiles shaders for an AMD GPU that is not there; the driver prints their machine
 * code to stderr.
 */
import { writeSync } from 'node:fs';
import { argv } from 'node:process';
import { create } from 'webgpu';
import { GpuDevice } from '../../../js/gpu/device.js';
import { Pipelines } from '../../../js/gpu/pipelines.js';

const { SHADERS } = await import('./shaders.js');
const names = argv.slice(2);
const gpu = await GpuDevice.open({ gpu: create([]), allowSoftware: true });
// There is no device that could take work.
gpu.device.queue.submit = () => undefined;
const pipelines = new Pipelines(gpu);
writeSync(2, `\n=== driver\n${gpu.name}\n`);
for (const [name, shader] of Object.entries(SHADERS)) {
  if (names.length > 0 && !names.includes(name)) continue;
  writeSync(2, `\n=== ${name}\n`);
  await pipelines.compile(shader);
}
writeSync(2, '\n=== end\n');
process.exit(0);
