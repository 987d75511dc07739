/**
 * The service worker: everything the build made is kept at the first visit, and served without a network. The build puts in
 * the list of files, and a version that changes with any of them.
 *
 * A page that is open goes on with the files it began with: a new version waits until the last page is closed.
 */

/** @type {{ version: string, files: string[] }} */
const { version, files } = /* built: */ { version: 'none', files: [] };

const prefix = 'fused-matmul-page-';
const cacheName = prefix + version;
const worker = /** @type {any} */ (self);

/** What makes a page cross-origin isolated, and its workers obey its policy, whatever the host sends. */
const headers = /* built: */ {};

/** @param {Response} response */
function withHeaders(response) {
  // An opaque or failed response cannot be copied.
  if (response.type === 'opaque' || response.type === 'error' || response.status === 0) return response;
  const all = new Headers(response.headers);
  for (const [name, value] of Object.entries(headers)) all.set(name, value);
  const { status, statusText } = response;
  return new Response([204, 205, 304].includes(status) ? null : response.body, {
    status,
    statusText,
    headers: all,
  });
}

worker.addEventListener('install', (/** @type {any} */ event) => {
  event.waitUntil(
    (async () => {
      const cache = await caches.open(cacheName);
      await cache.addAll(
        files.map((file) => new Request(new URL(file, worker.registration.scope), { cache: 'no-cache' })),
      );
    })(),
  );
});

worker.addEventListener('activate', (/** @type {any} */ event) => {
  // Not waited for: Firefox asks the page's threads, too, and those that sleep do not answer. It gives up after a minute, in which
  // the page could fetch nothing.
  worker.clients.claim();
  event.waitUntil(
    (async () => {
      const old = (await caches.keys()).filter((name) => name.startsWith(prefix) && name !== cacheName);
      await Promise.all(old.map((name) => caches.delete(name)));
    })(),
  );
});

/** @param {Request} request */
async function answer(request) {
  const cache = await caches.open(cacheName);
  const page = request.mode === 'navigate';
  // Hosts that vary their answers by Origin or encoding mean the same file.
  const how = { ignoreSearch: true, ignoreVary: true };
  const kept = () => cache.match(page ? new URL('./', worker.registration.scope) : request, how);
  // A page comes from the network where there is one, so that a new version is seen; its parts have their version in their name.
  const found = page ? undefined : await kept();
  if (found) return withHeaders(found);
  try {
    return withHeaders(await fetch(request));
  } catch (error) {
    const fallback = await kept();
    if (fallback) return withHeaders(fallback);
    throw error;
  }
}

worker.addEventListener('fetch', (/** @type {any} */ event) => {
  const { request } = event;
  const { scope } = worker.registration;
  // The library's reference lies beside the page, and is none of it.
  const ours = request.url.startsWith(scope) && !request.url.startsWith(`${scope}api/`);
  if (request.method === 'GET' && ours) event.respondWith(answer(request));
});
