/* Results of measurements that are kept: in this process and, in browsers, in Cache Storage. Storage
 * that is not there or fails is no error, and neither is an entry that other code has written. */

/** Cache Storage wants URLs as keys. Nothing is fetched from this one. */
const BASE = 'https://fused-matmul.invalid/remembered?';
/** Entries that are kept. */
const MOST = 32;

/** Results by key. @template T */
export class Remembered {
  #name;
  /** @type {Map<string, T>} */
  #inProcess = new Map();

  /** @param {string} name  of the cache */
  constructor(name) {
    this.#name = name;
  }

  /**
   * @param {string} key
   * @param {(value: any) => boolean} isValid  whether a stored value can be used
   * @returns {Promise<T | undefined>}
   */
  async recall(key, isValid) {
    const known = this.#inProcess.get(key);
    if (known) return structuredClone(known);
    const found = await this.#attempt(async (cache) => (await cache.match(address(key)))?.json());
    if (found?.key !== key || !isValid(found.value)) return undefined;
    this.#inProcess.set(key, found.value);
    return structuredClone(found.value);
  }

  /** @param {string} key @param {T} value  of JSON */
  async keep(key, value) {
    this.#inProcess.set(key, structuredClone(value));
    await this.#attempt(async (cache) => {
      const all = await cache.keys();
      for (const one of all.slice(0, Math.max(0, all.length + 1 - MOST))) await cache.delete(one);
      await cache.put(address(key), new Response(JSON.stringify({ key, value })));
    });
  }

  /** Forgets everything that this process knows. */
  forget() {
    this.#inProcess.clear();
  }

  /**
   * @template R
   * @param {(cache: Cache) => Promise<R>} action
   * @returns {Promise<R | undefined>}
   */
  async #attempt(action) {
    try {
      const storage = globalThis.caches;
      return storage && (await action(await storage.open(this.#name)));
    } catch {
      return undefined;
    }
  }
}

/** @param {string} key */
const address = (key) => BASE + new URLSearchParams({ key });
