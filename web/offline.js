/// <reference types="vite/client" />
/**
 * Keeps the page for use without a network, by sw.js. Where a host sends no isolation headers, sw.js adds them from the
 * next load on: threads then need one reload.
 */

/** Built pages have one; the development server does not. */
const supported = import.meta.env.PROD && 'serviceWorker' in navigator;

/**
 * @returns {Promise<boolean>} whether the page is kept now
 */
export async function keepOffline() {
  if (!supported) return false;
  try {
    await navigator.serviceWorker.register(new URL('sw.js', document.baseURI), { updateViaCache: 'none' });
    const { active } = await navigator.serviceWorker.ready;
    return Boolean(active);
  } catch {
    // Private windows and some settings forbid it; the page works all the same.
    return false;
  }
}
