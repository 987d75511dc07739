/* Choices of forms that were made before: in this process and, in browsers, in Cache Storage. Storage
 * that is not there or fails is no error, and neither is an entry that anything else has written. */

/** @typedef {import('./features.js').GpuVariants} GpuVariants */

/** The cache, beside that of files. */
const NAME = 'fused-matmul-gpu';
/** Cache Storage wants URLs as keys. Nothing is fetched from this one. */
const BASE = 'https://fused-matmul.invalid/gpu?';
/** Entries that are kept: an adapter has a few, and others after an update of its driver. */
const MOST = 32;

/** @type {Map<string, GpuVariants>} */
const inProcess = new Map();

/** @param {string} key */
const address = (key) => BASE + new URLSearchParams({ key });

/**
 * @template T
 * @param {(cache: Cache) => Promise<T>} action
 * @returns {Promise<T | undefined>}
 */
async function attempt(action) {
  try {
    const storage = globalThis.caches;
    return storage && (await action(await storage.open(NAME)));
  } catch {
    return undefined;
  }
}

/**
 * @param {string} key
 * @param {(forms: unknown) => boolean} isValid
 * @returns {Promise<GpuVariants | undefined>}
 */
export async function recall(key, isValid) {
  const known = inProcess.get(key);
  if (known) return { ...known };
  const found = await attempt(async (cache) => (await cache.match(address(key)))?.json());
  if (found?.key !== key || !isValid(found.forms)) return undefined;
  inProcess.set(key, found.forms);
  return { ...found.forms };
}

/** @param {string} key @param {GpuVariants} forms */
export async function keep(key, forms) {
  inProcess.set(key, { ...forms });
  await attempt(async (cache) => {
    const all = await cache.keys();
    for (const one of all.slice(0, Math.max(0, all.length + 1 - MOST))) await cache.delete(one);
    await cache.put(address(key), new Response(JSON.stringify({ key, forms })));
  });
}

/** Forgets what this process knows; for tests. */
export const forget = () => inProcess.clear();
