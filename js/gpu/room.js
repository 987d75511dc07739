/* How much memory a GPU has left. WebGPU does not tell, so memory is asked for until it is refused. */

import { GpuError } from './errors.js';

/** @typedef {import('./device.js').GpuBuffer} GpuBuffer */
/** @typedef {import('./device.js').GpuDevice} GpuDevice */

/** The share of what was asked for that stays free, for other programs and for drivers. */
const SPARE = 1 / 16;

/**
 * How many pieces of memory, in order, there is room for.
 * @param {GpuDevice} gpu
 * @param {readonly number[]} pieces  bytes
 * @returns {Promise<number>}
 */
export async function roomFor(gpu, pieces) {
  const most = Math.floor(gpu.limits.bufferBytes / 4) * 4;
  /** @type {GpuBuffer[]} */
  const made = [];
  /** @param {number} bytes */
  const take = async (bytes) => {
    const make = () => {
      for (let left = bytes; left > 0; left -= most) {
        const buffer = gpu.buffer(Math.min(left, most), { label: 'room for layers' });
        made.push(buffer);
        // Some drivers promise memory that they do not have, until it is written.
        gpu.write(buffer, buffer.bytes - 4, new Uint8Array(4));
      }
    };
    await gpu.reserve(make, () => {}, bytes);
    await gpu.arrives(gpu.device.queue.onSubmittedWorkDone());
    gpu.check();
  };
  let n = 0;
  try {
    for (; n < pieces.length; n++) await take(Math.ceil(pieces[n] * (1 + SPARE)));
    return n;
  } catch (error) {
    if (error instanceof GpuError && error.reason === 'memory' && !gpu.failure) return n;
    throw error;
  } finally {
    for (const buffer of made) buffer.free();
  }
}
