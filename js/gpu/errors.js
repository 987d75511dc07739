/* The error of everything that can go wrong with a GPU. */

import { FmError } from '../errors.js';

/**
 * The reason of a GpuError.
 *
 * - `unavailable`: this browser or runtime has no WebGPU
 * - `adapter`: there is no GPU that WebGPU may use
 * - `software`: the only adapter computes on the processor, and `allowSoftware` is not set
 * - `limit`: the adapter allows less than a kernel needs
 * - `memory`: the GPU has not enough memory
 * - `lost`: the GPU was reset, unplugged, or its process ended
 * - `shader`: the driver rejects a kernel
 * - `command`: the driver rejects work that was given to it
 * - `selftest`: a kernel computes wrong results on this GPU
 * @typedef {'unavailable' | 'adapter' | 'software' | 'limit' | 'memory' | 'lost' | 'shader'
 *   | 'command' | 'selftest'} GpuReason
 */

/** The GPU cannot be used, or failed. `reason` says why in one word, the message in a sentence. */
export class GpuError extends FmError {
  code = 'FM_GPU';

  /**
   * @param {string} message
   * @param {GpuReason} reason
   * @param {{ asked?: number, limit?: number, cause?: unknown }} [details]
   */
  constructor(message, reason, { asked, limit, cause } = {}) {
    super(message, { cause });
    /** The name of its class. */
    this.name = 'GpuError';
    /** Why, in one word. */
    this.reason = reason;
    /** The bytes, or the number, that were asked for, where there is a limit. */
    this.asked = asked;
    /** The limit. */
    this.limit = limit;
  }
}
