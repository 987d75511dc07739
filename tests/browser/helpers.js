/** Chromium, the built demo and a plain file server for the browser tests. */
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, normalize, sep } from 'node:path';
import { chromium } from 'playwright-core';
import { findChromium } from '../../scripts/setup.js';

const flags = [
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Chromium does not start as root with its sandbox, as in most CI containers. */
const isRoot = process.getuid?.() === 0;

/**
 * Why the browser tests cannot run; false when they can (for node:test's `skip`). In CI their absence is a failure.
 * @returns {string | false}
 */
export function skipWithoutChromium() {
  if (findChromium()) return false;
  const reason = 'no Chromium: none on PATH, and CHROMIUM_PATH names none';
  if (process.env.CI) throw new Error(`${reason}; in CI the browser tests must run`);
  return reason;
}

export const CHROMIUM_FLAGS = isRoot ? ['--no-sandbox', ...flags] : flags;

/** The same with WebGPU, on a driver that computes on the processor. */
export const CHROMIUM_GPU_FLAGS = [
  ...CHROMIUM_FLAGS.filter((flag) => flag !== '--disable-gpu'),
  ...['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'],
];

/** @param {{ gpu?: boolean }} [options]  gpu: with WebGPU */
export function launchChromium({ gpu = false } = {}) {
  const args = gpu ? CHROMIUM_GPU_FLAGS : CHROMIUM_FLAGS;
  return chromium.launch({ executablePath: findChromium(), headless: true, args });
}

/**
 * A page that notes everything that must not happen: console errors and warnings, uncaught exceptions, failed requests,
 * requests to other origins.
 * @param {import('playwright-core').Browser} browser
 * @param {string} url
 * @param {import('playwright-core').BrowserContextOptions} [options]
 */
export async function openPage(browser, url, options = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  /** @type {string[]} */
  const problems = [];
  const { origin } = new URL(url);
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type()))
      problems.push(`console ${message.type()}: ${message.text()}`);
  });
  page.on('pageerror', (error) => problems.push(`uncaught: ${error.message}`));
  context.on('requestfailed', (request) =>
    problems.push(`failed: ${request.url()} ${request.failure()?.errorText}`),
  );
  context.on('response', (response) => {
    if (response.status() >= 400) problems.push(`${response.status()}: ${response.url()}`);
  });
  context.on('request', (request) => {
    const target = new URL(request.url());
    if (!['data:', 'blob:'].includes(target.protocol) && target.origin !== origin) {
      problems.push(`external request: ${request.url()}`);
    }
  });
  await page.goto(url);
  return { page, problems, close: () => context.close() };
}

/**
 * Waits until the page shows a result with these data attributes, and returns all of them.
 * @param {import('playwright-core').Page} page
 * @param {Record<string, string>} [wanted]  e.g. { tensor, tokens, activation }
 * @returns {Promise<Record<string, string>>}
 */
export async function verifiedResult(page, wanted = {}) {
  const attributes = Object.entries({ state: 'pass', ...wanted }).map(
    ([key, value]) => `[data-${key}="${value}"]`,
  );
  const element = page.locator(`[data-testid="verified"]${attributes.join('')}`);
  try {
    await element.waitFor({ timeout: 30_000 });
  } catch {
    const shown = await page
      .getByTestId('verified')
      .evaluate((node) => ({ .../** @type {HTMLElement} */ (node).dataset }));
    const alert = await page.getByRole('alert').textContent();
    throw new Error(
      `no result with ${attributes.join('')}: shown ${JSON.stringify(shown)}, alert ${JSON.stringify(alert)}`,
    );
  }
  return element.evaluate(
    (node) => /** @type {Record<string, string>} */ ({ .../** @type {HTMLElement} */ (node).dataset }),
  );
}

const contentTypes = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
};

/**
 * Serves a folder as the simplest web hosts do: no special headers, no Range requests.
 * @param {string} folder
 * @param {{ headers?: Record<string, string>, routes?: Record<string, import('node:http').RequestListener> }} [options]
 *   headers may be changed between requests; routes: what answers at other addresses
 */
export async function serveFolder(folder, { headers = {}, routes = {} } = {}) {
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost');
    if (routes[pathname]) {
      routes[pathname](request, response);
      return;
    }
    const file = normalize(
      join(folder, decodeURIComponent(pathname.endsWith('/') ? `${pathname}index.html` : pathname)),
    );
    try {
      if (!file.startsWith(normalize(folder + sep))) throw new Error('outside the folder');
      const body = await readFile(file);
      const type = contentTypes[/** @type {'.js'} */ (extname(file))] ?? 'application/octet-stream';
      response.writeHead(200, { ...headers, 'Content-Type': type }).end(body);
    } catch {
      response.writeHead(404, headers).end('not found');
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(undefined)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${port}/`,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}
