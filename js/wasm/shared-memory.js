/* Makes the memory of a module with threads. */

/**
 * Sizes in pages of 64 KiB: the initial size that every module declares, and the largest sizes to
 * try, as some engines only allow less for shared memory.
 */
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
