/* The memory of a module with threads. */

/** Pages of 64 KiB. The first number is what every module says it needs, the others what it can have at most; some engines give only
 * less of a shared memory. */
const INITIAL_PAGES = 32;
const PAGES_32 = [65536, 32768, 16384];
const PAGES_64 = [262144, 131072, 65536];
const PAGE_BYTES = 65536;

/** @param {boolean} is64 */
export function sharedMemory(is64) {
  let cause;
  for (const pages of is64 ? PAGES_64 : PAGES_32) {
    const descriptor = is64
      ? { address: 'i64', initial: BigInt(INITIAL_PAGES), maximum: BigInt(pages), shared: true }
      : { initial: INITIAL_PAGES, maximum: pages, shared: true };
    try {
      const memory = new WebAssembly.Memory(/** @type {WebAssembly.MemoryDescriptor} */ (descriptor));
      return { memory, limit: pages * PAGE_BYTES };
    } catch (error) {
      cause = error;
    }
  }
  throw cause;
}
